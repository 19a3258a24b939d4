"""Images moved by a homography, by the cheapest way that is near enough."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[Any]
Float64 = npt.NDArray[np.float64]


def move_image(
    image: Image, transform: Float64, interpolation: int, within_px: float, out: Image | None = None
) -> Image:
    """The image [H, W(, C)] as another frame sees it, mirrored at its edges; transform [3, 3]: pixel of that
    frame -> pixel of the image. Where the perspective moves nothing by within_px it is left out, which takes
    half the time.
    """
    height, width = image.shape[:2]
    flags, border = interpolation | cv2.WARP_INVERSE_MAP, cv2.BORDER_REFLECT_101
    affine = transform / transform[2, 2]
    affine[2, :2] = 0.0
    if largest_step_px(np.linalg.inv(affine) @ transform, width, height) < within_px:
        return cv2.warpAffine(image, affine[:2], (width, height), dst=out, flags=flags, borderMode=border)
    return cv2.warpPerspective(image, transform, (width, height), dst=out, flags=flags, borderMode=border)


def corners_of(width: int, height: int) -> Float64:
    """[1, 4, 2] px of an image, round it."""
    return np.array([[[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]]], np.float64)


def largest_step_px(transform: Float64, width: int, height: int) -> float:
    """By how much a transform [3, 3] moves a pixel of an image, at most."""
    corners = corners_of(width, height)
    return float(np.abs(cv2.perspectiveTransform(corners, transform) - corners).max())


def at_resolution(transform: Float64, size: tuple[int, int], shape: tuple[int, int]) -> Float64:
    """The transform [3, 3] between images of (W, H) px as one between grids [h, w] of cells over them."""
    step_x, step_y = size[0] / shape[1], size[1] / shape[0]
    to_px = np.array([[step_x, 0.0, 0.5 * step_x - 0.5], [0.0, step_y, 0.5 * step_y - 0.5], [0.0, 0.0, 1.0]])
    return np.asarray(np.linalg.inv(to_px) @ transform @ to_px)
