"""Local displacements between two images: one per tile, by gradients (Lucas-Kanade).

Tiles [T] are counted row by row. Points are in normalised coordinates: the image's centre is 0, half its
width is 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]  # float32 in images
Float64 = npt.NDArray[np.float64]

TILE_PX = 20  # at every level: small enough to follow parallax, large enough to hold texture
MIN_TILES_ACROSS = 6  # the short side of a small image: the tiles at its border drop out when it moves
MAX_STEP_PX = 1.5  # Lucas-Kanade is linear in the displacement only about this far
TEXTURE_FLOOR = 0.02  # of the typical gradient energy


@dataclass(frozen=True)
class TileGrid:
    """How an image is divided into tiles of (nearly) tile_px."""

    width: int
    height: int

    @property
    def tile_px(self) -> float:
        return min(float(TILE_PX), min(self.width, self.height) / MIN_TILES_ACROSS)

    @property
    def tiles(self) -> tuple[int, int]:
        """Columns, rows."""
        return int(self.width / self.tile_px + 1e-6), int(self.height / self.tile_px + 1e-6)

    def centres(self) -> Float64:
        """[T, 2] normalised."""
        columns, rows = self.tiles
        x = (np.arange(columns) + 0.5) * self.width / columns - 0.5
        y = (np.arange(rows) + 0.5) * self.height / rows - 0.5
        grid = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
        return (grid - [0.5 * (self.width - 1), 0.5 * (self.height - 1)]) / (0.5 * self.width)

    def inside(self, points: Float64) -> npt.NDArray[np.bool_]:
        """Which normalised points [T, 2] lie at least half a tile inside the image."""
        limit = np.array([self.width - self.tile_px, self.height - self.tile_px]) / self.width
        return np.asarray((np.abs(points) <= limit + 1e-9).all(axis=1), np.bool_)

    def mean(self, image: Floats) -> Float64:
        """[T] of an image [H, W]."""
        return np.asarray(cv2.resize(image, self.tiles, interpolation=cv2.INTER_AREA).ravel(), np.float64)


class TileGradients:
    """The reference's side of Lucas-Kanade, per tile [T]: what stays the same while the other image is moved
    about.
    """

    def __init__(self, image: Floats, grid: TileGrid) -> None:
        self._image, self._grid = image, grid
        self._x = cv2.Sobel(image, cv2.CV_32F, 1, 0, ksize=3, scale=0.125)
        self._y = cv2.Sobel(image, cv2.CV_32F, 0, 1, ksize=3, scale=0.125)
        xx, xy, yy = (
            grid.mean(a * b) for a, b in ((self._x, self._x), (self._x, self._y), (self._y, self._y))
        )
        self._power = grid.mean(image * image)
        trace, determinant = xx + yy, xx * yy - xy * xy
        smaller = 0.5 * (trace - np.sqrt(np.maximum(trace * trace - 4.0 * determinant, 0.0)))
        # Regularised by a fraction of the typical texture: a tile without any moves nowhere and counts for
        # nothing.
        floor = TEXTURE_FLOOR * float(np.median(trace)) + 1e-9
        self.texture = np.where(smaller > floor, smaller, 0.0)
        self._xx, self._xy, self._yy = xx + floor, xy, yy + floor
        self._inverse = 1.0 / (self._xx * self._yy - xy * xy)

    def displacements(self, warped: Floats) -> tuple[Float64, Float64]:
        """Displacement [T, 2] (normalised) that is left to the warped image, and their correlation [T]."""
        difference = self._image - warped
        xt, yt = self._grid.mean(self._x * difference), self._grid.mean(self._y * difference)
        step = np.stack([self._yy * xt - self._xy * yt, self._xx * yt - self._xy * xt], axis=1)
        step_px = np.clip(step * self._inverse[:, None], -MAX_STEP_PX, MAX_STEP_PX)
        power = self._grid.mean(warped * warped)
        correlation = self._grid.mean(self._image * warped) / np.sqrt(self._power * power + 1e-12)
        return step_px / (0.5 * warped.shape[1]), correlation
