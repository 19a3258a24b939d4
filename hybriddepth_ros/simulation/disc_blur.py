"""Convolution with an anti-aliased disc, the out-of-focus image of a point behind a round aperture."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

_SUBSAMPLES = 16  # per pixel and axis, for the coverage of the rim
_DIAMETER_STEP_PX = 1 / 64  # kernels are cached at this resolution
# OpenCV takes the direct path, which skips zero weights, up to 11 x 11; its DFT beyond that measured 20 times
# slower.
_DIRECT_SIZE = 11
_GOLDEN_ANGLE = 0.5 * np.arctan(
    2.0
)  # two crossed rectangles cover most of a disc when their corner lies here


def disc_kernel(diameter_px: float) -> Floats:
    """Weights [k, k], k odd, of a disc whose rim pixels count by their covered area; their sum is 1."""
    radius = 0.5 * diameter_px
    reach = disc_reach(diameter_px)
    if reach == 0:
        return np.ones((1, 1), np.float32)
    size = 2 * reach + 1
    offsets = (np.arange(size * _SUBSAMPLES) + 0.5) / _SUBSAMPLES - 0.5 * size
    inside = offsets[:, None] ** 2 + offsets[None, :] ** 2 <= radius**2
    weights = inside.reshape(size, _SUBSAMPLES, size, _SUBSAMPLES).sum(axis=(1, 3), dtype=np.float64)
    return (weights / weights.sum()).astype(np.float32)


def disc_reach(diameter_px: float) -> int:
    """How many pixels beside its own a point's disc touches, along an axis."""
    return max(0, int(np.ceil(0.5 * diameter_px - 0.5)))


def blur_disc(image: Floats, diameter_px: float) -> Floats:
    """`image` [h, w, c] convolved with the disc where that lies inside: [h - 2r, w - 2r, c], r = reach."""
    reach = disc_reach(diameter_px)
    if reach == 0:
        return image
    plan = _plan(round(diameter_px / _DIAMETER_STEP_PX), reach)
    rows, columns = image.shape[0] - 2 * reach, image.shape[1] - 2 * reach
    total = np.zeros((rows, columns, image.shape[2]), np.float32)
    for half_width, half_height, weight in plan.boxes:
        window = image[
            reach - half_height : reach + half_height + rows,
            reach - half_width : reach + half_width + columns,
        ]
        size = (2 * half_width + 1, 2 * half_height + 1)
        summed = cv2.boxFilter(window, -1, size, normalize=False, borderType=cv2.BORDER_REPLICATE)
        inner = summed[half_height : half_height + rows, half_width : half_width + columns]
        cv2.scaleAdd(inner, weight, total, dst=total)
    for row, column, weights in plan.tiles:
        high, wide = weights.shape
        window = image[row : row + high - 1 + rows, column : column + wide - 1 + columns]
        summed = cv2.filter2D(window, -1, weights, anchor=(0, 0), borderType=cv2.BORDER_REPLICATE)
        cv2.add(total, summed[:rows, :columns], dst=total)
    return total


@dataclass(frozen=True)
class _Plan:
    """A disc as a sum of boxes and tiles.

    boxes (half width, half height, weight) cost the same at any size; tiles (row, column of the kernel,
    weights) are what the boxes leave over, cut small enough for the direct path.
    """

    boxes: tuple[tuple[int, int, float], ...]
    tiles: tuple[tuple[int, int, Floats], ...]


@functools.lru_cache(maxsize=4096)
def _plan(diameter_steps: int, reach: int) -> _Plan:
    diameter = diameter_steps * _DIAMETER_STEP_PX
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
    exact = disc_kernel(diameter)  # rounding to the step may have lost the outermost ring
    pad = reach - exact.shape[0] // 2
    kernel[pad : pad + exact.shape[0], pad : pad + exact.shape[0]] = exact[
        : kernel.shape[0], : kernel.shape[0]
    ]

    boxes: list[tuple[int, int, float]] = []
    if kernel.shape[0] > _DIRECT_SIZE - 2:
        full = float(kernel[reach, reach])
        long = int(0.5 * diameter * np.cos(_GOLDEN_ANGLE) - 0.5)
        short = int(0.5 * diameter * np.sin(_GOLDEN_ANGLE) - 0.5)
        boxes = [(long, short, full), (short, long, full), (short, short, -full)]
        for half_width, half_height, weight in boxes:
            kernel[
                reach - half_height : reach + half_height + 1, reach - half_width : reach + half_width + 1
            ] -= weight
        kernel[np.abs(kernel) < 1e-9] = 0.0

    tiles = []
    pieces = int(np.ceil(kernel.shape[0] / _DIRECT_SIZE))
    step = int(np.ceil(kernel.shape[0] / pieces))
    for row in range(0, kernel.shape[0], step):
        for column in range(0, kernel.shape[0], step):
            tile = np.ascontiguousarray(kernel[row : row + step, column : column + step])
            if tile.any():
                tiles.append((row, column, tile))
    return _Plan(tuple(boxes), tuple(tiles))
