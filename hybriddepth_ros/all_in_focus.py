"""The all-in-focus image: every pixel from the slices that were focused nearest to its depth."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from hybriddepth_ros.focal_stack import ImageRGB
from hybriddepth_ros.models.base import AlignedStack

SOFTNESS_PX = (
    1.5  # slices whose blur differs by less than this share a pixel: no seam where depth crosses two slices
)


def all_in_focus(
    stack: AlignedStack, diopters: npt.NDArray[np.float32], blur_px_per_diopter: float
) -> ImageRGB:
    """[H, W, 3] uint8 RGB from an aligned stack and its inverse depth [H, W] 1/m."""
    smooth = cv2.GaussianBlur(diopters, (0, 0), 2.0)
    image = stack.images[0]
    for lower, upper, nearer in zip(
        stack.focus_diopters, stack.focus_diopters[1:], stack.images[1:], strict=False
    ):
        # Half way between two focus positions both are equally blurred; the difference there goes as twice
        # the distance.
        middle, per_px = 0.5 * (lower + upper), blur_px_per_diopter / SOFTNESS_PX
        share = np.clip((smooth - middle) * per_px + 0.5, 0.0, 1.0).astype(np.float32)
        image = cv2.blendLinear(image, nearer, 1.0 - share, share)
    return np.ascontiguousarray(image)
