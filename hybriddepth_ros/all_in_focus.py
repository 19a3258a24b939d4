"""The all-in-focus image: every pixel from the slices that were focused nearest to its depth."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from hybriddepth_ros.focal_stack import ImageRGB
from hybriddepth_ros.models.base import AlignedStack

SOFTNESS_PX = 1.5  # slices whose blur differs by less than this share a pixel: no seam where depth crosses two slices


def all_in_focus(stack: AlignedStack, diopters: npt.NDArray[np.float32], blur_px_per_diopter: float) -> ImageRGB:
    """[H, W, 3] uint8 RGB from an aligned stack and its inverse depth [H, W] 1/m."""
    smooth = cv2.GaussianBlur(diopters, (0, 0), 2.0)
    blur_px = np.abs(smooth[None] - stack.focus_diopters[:, None, None]) * np.float32(blur_px_per_diopter)
    blur_px -= blur_px.min(axis=0)
    weights = np.exp(-((blur_px / SOFTNESS_PX) ** 2))
    weights /= weights.sum(axis=0)
    image = np.zeros(stack.images.shape[1:], np.float32)
    for weight, slice_image in zip(weights, stack.images, strict=True):
        image += weight[..., None] * slice_image
    return cv2.convertScaleAbs(image)
