"""The all-in-focus image: every pixel from the slices that were focused nearest to its depth."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from hybriddepth_ros.image_files import ImageRGB
from hybriddepth_ros.models.base import AlignedStack

SOFTNESS_PX = (
    1.5  # slices whose blur differs by less than this share a pixel: no seam where depth crosses two slices
)


def all_in_focus(
    stack: AlignedStack, diopters: npt.NDArray[np.float32], blur_px_per_diopter: float
) -> ImageRGB:
    """[H, W, 3] uint8 RGB from an aligned stack and its inverse depth [H, W] 1/m.

    Where a slice did not look, its neighbour in focus is shown; black where none did.
    """
    height, width = diopters.shape
    half = (max(width // 2, 1), max(height // 2, 1))
    smooth = cv2.GaussianBlur(cv2.resize(diopters, half, interpolation=cv2.INTER_AREA), (0, 0), 1.0)
    slope = np.float32(blur_px_per_diopter / SOFTNESS_PX)
    image, seen = stack.images[0], stack.covered[0]
    for lower, upper, nearer, covered in zip(
        stack.focus_diopters, stack.focus_diopters[1:], stack.images[1:], stack.covered[1:], strict=False
    ):
        # Half way between two focus positions both are equally blurred, on either side one is sharper.
        share = np.clip((smooth - 0.5 * (lower + upper)) * slope + np.float32(0.5), 0.0, 1.0)
        full_share = cv2.resize(share, (width, height), interpolation=cv2.INTER_LINEAR)
        if not seen.all():
            np.copyto(full_share, np.float32(1.0), where=~seen)
            seen = seen | covered
        if not covered.all():
            np.copyto(full_share, np.float32(0.0), where=~covered)
        image = np.asarray(cv2.blendLinear(image, nearer, 1.0 - full_share, full_share), np.uint8)
    return np.where(seen[..., None], image, np.uint8(0)) if not seen.all() else np.ascontiguousarray(image)
