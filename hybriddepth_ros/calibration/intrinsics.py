"""Focal lengths, principal point and distortion from many views of the board at one focus position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from hybriddepth_ros.calibration.board import BoardSpec, FoundCorners, Points, find_corners
from hybriddepth_ros.calibration.captures import BoardViews
from hybriddepth_ros.calibration.curves import fit_peak
from hybriddepth_ros.calibration.rig import Operator, Placement, Rig, curve_of
from hybriddepth_ros.errors import CalibrationError
from hybriddepth_ros.focal_stack import CameraIntrinsics

FEWEST_VIEWS = 8
_FEWEST_CORNERS = 10
_LARGEST_ERROR_PX = 1.0  # rms over a view's corners
_OUTLIER = 2.5  # times the median of the views
_AT_M = 0.5


@dataclass(frozen=True)
class Pose:
    """Of the board: rotation and translation vectors [3] as OpenCV has them, m; rms_px: of its corners."""

    rotation: npt.NDArray[np.float64]
    translation: npt.NDArray[np.float64]
    rms_px: float

    def depths(self, points: Points) -> npt.NDArray[np.float64]:
        """Z [N] m of points on the board [N, 3] m."""
        return np.asarray((points @ cv2.Rodrigues(self.rotation)[0].T + self.translation)[:, 2])


@dataclass(frozen=True)
class IntrinsicsResult:
    """camera: at `focus_diopters` [1/m], where the actuator stands at `actuator`.

    sigma: 1 sigma of (fx, fy, cx, cy) [px]; corners: per view used, found corners; view_rms_px: theirs;
    rejected: views that were not used.
    """

    camera: CameraIntrinsics
    actuator: float
    focus_diopters: float
    sigma: tuple[float, ...]
    corners: tuple[FoundCorners, ...]
    residuals: tuple[Points, ...]  # [N, 2] px per view used
    rejected: int

    @property
    def view_rms_px(self) -> tuple[float, ...]:
        """Root of the mean squared distance per view [px]."""
        return tuple(float(np.sqrt((r**2).sum(axis=1).mean())) for r in self.residuals)

    @property
    def rms_px(self) -> float:
        """Over all corners [px]."""
        return float(np.sqrt((np.concatenate(self.residuals) ** 2).sum(axis=1).mean()))


def capture_intrinsics(rig: Rig, operator: Operator) -> BoardViews:
    """The board facing the camera, to focus on it; then its poses, with the focus left there."""
    operator.place(
        Placement(f"Hold the board still, facing the camera, about {_AT_M:g} m away.", _AT_M),
        rig.live_sharpness,
    )
    sweep = rig.sweep()
    x = np.array([shot.actuator for shot in sweep.shots if shot.approach > 0])
    y = curve_of([shot for shot in sweep.shots if shot.approach > 0], rig.board)
    peak = fit_peak(x, y, float(y.min()))
    rig.command(rig.position_range[0])
    rig.wait(1e-3 * rig.settle_ms)
    focused = rig.shot(peak.position if peak else float(x[int(y.argmax())]))
    images = [focused.image]
    for i, wanted in enumerate(view_placements(), start=1):
        operator.place(wanted, rig.live_sharpness)
        image = rig.shot(focused.actuator).image
        found = find_corners(image, rig.board, _FEWEST_CORNERS)
        operator.say(f"view {i}: {len(found) if found else 'no'} corners")
        images.append(image)
    return BoardViews(focused.actuator, tuple(images), sweep)


def view_placements() -> list[Placement]:
    """Poses that tell the intrinsics apart: tilts for the focal length, the rim for the distortion."""
    rows = [
        # tilt_x, tilt_y, x_share, y_share, distance_m, turn
        *((tilt, 0, 0, 0, _AT_M, 0) for tilt in (-32, 32)),
        *((0, tilt, 0, 0, _AT_M, 0) for tilt in (-32, 32)),
        *((a, b, 0, 0, 0.52, 0) for a in (-24, 24) for b in (-24, 24)),
        *((18 * y, -18 * x, 0.5 * x, 0.5 * y, 0.5, 0) for x in (-1, 1) for y in (-1, 1)),
        *((-18 * y, 18 * x, 0.5 * x, 0.45 * y, 0.54, 0) for x in (-1, 1) for y in (-1, 1)),
        *((0, 25 * x, 0.5 * x, 0, 0.5, 0) for x in (-1, 1)),
        *((25 * y, 0, 0, 0.5 * y, 0.5, 0) for y in (-1, 1)),
        (20, 20, 0, 0, 0.52, 90),
        (-20, 20, 0, 0, 0.52, 60),
        (0, 0, 0, 0, 0.44, 0),
        (0, 0, 0.2, 0.1, 0.56, 10),
    ]
    return [Placement(_words(a, b, x, y, z, turn), z, x, y, a, b, turn) for a, b, x, y, z, turn in rows]


def _words(tilt_x: float, tilt_y: float, x: float, y: float, distance: float, turn: float) -> str:
    parts = [f"Board {100 * distance:.0f} cm away"]
    if x or y:
        sides = [word for word in (_side(y, "top", "bottom"), _side(x, "left", "right")) if word]
        parts.append(f"towards the {' '.join(sides)} of the image")
    if tilt_x:
        parts.append(f"its {'top' if tilt_x < 0 else 'bottom'} tilted away by {abs(tilt_x):.0f} degrees")
    if tilt_y:
        parts.append(f"its {'right' if tilt_y < 0 else 'left'} edge turned away by {abs(tilt_y):.0f} degrees")
    if turn:
        parts.append(f"turned by {turn:.0f} degrees like a steering wheel")
    return ", ".join(parts) + "."


def _side(value: float, low: str, high: str) -> str:
    return "" if value == 0 else low if value < 0 else high


def solve_intrinsics(views: BoardViews, board: BoardSpec) -> IntrinsicsResult:
    """The camera at the focus of the views; CalibrationError where too few of them show the board."""
    found = [corners for image in views.images if (corners := find_corners(image, board, _FEWEST_CORNERS))]
    size = (views.images[0].shape[1], views.images[0].shape[0]) if views.images else (0, 0)
    kept = found
    while True:
        if len(kept) < FEWEST_VIEWS:
            raise CalibrationError(
                f"intrinsics: expected the board in at least {FEWEST_VIEWS} images, found it in {len(kept)}"
                f" of {len(views.images)}: take them sharper, with the board larger"
            )
        camera, sigma, residuals = _calibrate(kept, board, size)
        errors = [float(np.sqrt((r**2).sum(axis=1).mean())) for r in residuals]
        limit = min(_LARGEST_ERROR_PX, _OUTLIER * float(np.median(errors)) + 0.02)
        better = [corners for corners, error in zip(kept, errors, strict=True) if error <= limit]
        if len(better) == len(kept):
            break
        kept = better
    focus = _focus_of_sweep(views, board, camera)
    rejected = len(views.images) - len(kept)
    return IntrinsicsResult(camera, views.actuator, focus, sigma, tuple(kept), tuple(residuals), rejected)


def _calibrate(
    views: Sequence[FoundCorners], board: BoardSpec, size: tuple[int, int]
) -> tuple[CameraIntrinsics, tuple[float, ...], list[Points]]:
    objects = [corners.of_board(board).astype(np.float32) for corners in views]
    points = [corners.points.astype(np.float32) for corners in views]
    _, K, distortion, rotations, translations, sigma, _, _ = cv2.calibrateCameraExtended(  # type: ignore[call-overload, unused-ignore]
        objects, points, size, None, None
    )
    residuals = [
        corners.points - cv2.projectPoints(o, r, t, K, distortion)[0][:, 0, :]
        for corners, o, r, t in zip(views, objects, rotations, translations, strict=True)
    ]
    coefficients = tuple(float(value) for value in distortion.ravel()[:5])
    camera = CameraIntrinsics(
        float(K[0, 0]), float(K[1, 1]), float(K[0, 2]), float(K[1, 2]), *size, coefficients
    )
    return camera, tuple(float(value) for value in sigma.ravel()[:4]), residuals


def _focus_of_sweep(views: BoardViews, board: BoardSpec, camera: CameraIntrinsics) -> float:
    """Inverse distance [1/m] of the board that faced the camera while the focus was set to it."""
    for shot in sorted(views.sweep.shots, key=lambda shot: abs(shot.actuator - views.actuator)):
        corners = find_corners(shot.image, board, _FEWEST_CORNERS)
        if corners is not None:
            return board_diopters(corners, board, camera)
    raise CalibrationError("intrinsics: expected the board in the images it was focused by, found it in none")


def board_pose(corners: FoundCorners, board: BoardSpec, camera: CameraIntrinsics) -> Pose:
    """Where the board stands, by its corners in one image."""
    objects = corners.of_board(board)
    distortion = np.array(camera.distortion or (0.0,) * 5)
    _, rotation, translation = cv2.solvePnP(
        objects, corners.points, camera.matrix, distortion, flags=cv2.SOLVEPNP_IPPE
    )
    rotation, translation = cv2.solvePnPRefineLM(
        objects, corners.points, camera.matrix, distortion, rotation, translation
    )
    seen = cv2.projectPoints(objects, rotation, translation, camera.matrix, distortion)[0][:, 0, :]
    rms = float(np.sqrt(((seen - corners.points) ** 2).sum(axis=1).mean()))
    return Pose(np.asarray(rotation, np.float64).ravel(), np.asarray(translation, np.float64).ravel(), rms)


def board_diopters(corners: FoundCorners, board: BoardSpec, camera: CameraIntrinsics) -> float:
    """Mean of 1 / Z [1/m] over the corners seen: what the sharpness of their region peaks at."""
    pose = board_pose(corners, board, camera)
    return float((1.0 / pose.depths(corners.of_board(board))).mean())
