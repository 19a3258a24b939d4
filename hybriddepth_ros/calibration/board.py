"""The ChArUco board: drawn, printed at true scale, and found in images. Works with OpenCV 4.6 to 4.x."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from hybriddepth_ros.errors import CameraError, ParameterError
from hybriddepth_ros.parameters import nearest_name

Grey = npt.NDArray[np.uint8]  # [H, W]
Points = npt.NDArray[np.float64]

MARKER_SHARE = 0.7  # of a square's side
_WINDOW_SHARE = 0.1  # of a square's side: a wider window meets the markers, which pull by 0.2 px


@dataclass(frozen=True)
class BoardSpec:
    """A chequered board with markers in its white squares.

    columns, rows: of squares; square_m: side of a square as measured on the print [m]; dictionary: which of
    OpenCV's predefined sets of markers.
    """

    columns: int = 9
    rows: int = 7
    square_m: float = 0.036
    dictionary: str = "DICT_4X4_50"

    def __post_init__(self) -> None:
        if self.columns < 4 or self.rows < 4:
            raise ParameterError(f"board: expected 4x4 squares or more, got {self.columns}x{self.rows}")
        if self.rows % 2 == 0:  # OpenCV 4.6 and later versions begin an even board with different colours
            raise ParameterError(f"board: expected an odd number of rows, got {self.rows}")
        if not 0.001 <= self.square_m <= 1.0:
            raise ParameterError(f"board: expected squares of 1 to 1000 mm, got {1e3 * self.square_m:g}")

    @property
    def size_m(self) -> tuple[float, float]:
        """(width, height) of all squares [m]."""
        return (self.columns * self.square_m, self.rows * self.square_m)

    @property
    def corners(self) -> Points:
        """Inner corners [N, 3] m in the order of their ids: x right, y down, from the board's centre."""
        x, y = np.meshgrid(np.arange(1, self.columns), np.arange(1, self.rows))
        flat = np.stack([x.ravel() - self.columns / 2, y.ravel() - self.rows / 2, 0.0 * x.ravel()], axis=1)
        return np.asarray(flat * self.square_m, np.float64)


@dataclass(frozen=True)
class FoundCorners:
    """ids [N] of inner corners, and where they are in the image [N, 2] px."""

    ids: npt.NDArray[np.int64]
    points: Points

    def __len__(self) -> int:
        return len(self.ids)

    def of_board(self, spec: BoardSpec) -> Points:
        """The same corners on the board [N, 3] m."""
        return spec.corners[self.ids]


def draw_board(spec: BoardSpec, px_per_square: int) -> Grey:
    """The squares without a margin [rows * px, columns * px]; black is 0, white 255."""
    board = _opencv_board(spec)
    size = (spec.columns * px_per_square, spec.rows * px_per_square)
    drawn = board.generateImage(size) if hasattr(board, "generateImage") else board.draw(size)
    return np.asarray(drawn, np.uint8)


def find_corners(grey: Grey, spec: BoardSpec, fewest: int = 6) -> FoundCorners | None:
    """Inner corners to a fraction of a pixel in an image [H, W]; None where fewer than `fewest` are seen."""
    found = _detect(grey, spec)
    if found is None or len(found) < fewest:
        return None
    side = _square_px(found, spec)
    window = int(np.clip(round(_WINDOW_SHARE * side), 2, 7))
    stop = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 40, 1e-3)
    start = found.points.astype(np.float32)[:, None, :]
    refined = cv2.cornerSubPix(grey, start.copy(), (window, window), (-1, -1), stop)[:, 0, :]
    moved = np.linalg.norm(refined - start[:, 0, :], axis=1)
    kept = moved < 0.25 * side  # else it ran to a corner of a marker
    if int(kept.sum()) < fewest:
        return None
    return FoundCorners(found.ids[kept], refined[kept].astype(np.float64))


def _detect(grey: Grey, spec: BoardSpec) -> FoundCorners | None:
    if hasattr(_aruco(), "CharucoDetector"):
        points, ids, _, _ = _detector(spec).detectBoard(grey)
    else:
        aruco, board = _aruco(), _opencv_board(spec)
        markers, marker_ids, _ = aruco.detectMarkers(grey, _dictionary(spec.dictionary))
        if marker_ids is None or len(marker_ids) == 0:
            return None
        _, points, ids = aruco.interpolateCornersCharuco(markers, marker_ids, grey, board)
    if ids is None or points is None or len(ids) == 0:
        return None
    return FoundCorners(np.asarray(ids, np.int64).ravel(), np.asarray(points, np.float64).reshape(-1, 2))


def _square_px(found: FoundCorners, spec: BoardSpec) -> float:
    """Side of a square in the image, px, from the area that the corners take up."""
    flat = found.of_board(spec)[:, :2]
    matrix = np.column_stack([flat, np.ones(len(flat))])
    affine = np.linalg.lstsq(matrix, found.points, rcond=None)[0][:2]  # px per m
    return spec.square_m * float(np.sqrt(abs(np.linalg.det(affine))))


def _aruco() -> Any:
    aruco = getattr(cv2, "aruco", None)
    if aruco is None:
        raise CameraError("board: OpenCV has no aruco module: pip install 'opencv-python-headless>=4.7,<5'")
    return aruco


def _dictionary(name: str) -> Any:
    aruco = _aruco()
    known = [entry for entry in dir(aruco) if entry.startswith("DICT_")]
    if name not in known:
        expected = f"expected a set of OpenCV such as DICT_4X4_50{nearest_name(name, known)}"
        raise ParameterError(f"board: unknown dictionary {name!r}, {expected}")
    return aruco.getPredefinedDictionary(getattr(aruco, name))


@functools.lru_cache(maxsize=4)
def _opencv_board(spec: BoardSpec) -> Any:
    aruco, dictionary = _aruco(), _dictionary(spec.dictionary)
    needed, held = spec.columns * spec.rows // 2, dictionary.bytesList.shape[0]
    if needed > held:
        raise ParameterError(
            f"board: {spec.columns}x{spec.rows} squares need {needed} markers, {spec.dictionary} has {held}"
        )
    square, marker = spec.square_m, MARKER_SHARE * spec.square_m
    if hasattr(aruco, "CharucoBoard_create"):
        return aruco.CharucoBoard_create(spec.columns, spec.rows, square, marker, dictionary)
    return aruco.CharucoBoard((spec.columns, spec.rows), square, marker, dictionary)


@functools.lru_cache(maxsize=4)
def _detector(spec: BoardSpec) -> Any:
    return _aruco().CharucoDetector(_opencv_board(spec))
