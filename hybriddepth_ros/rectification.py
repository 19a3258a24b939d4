"""Lens distortion undone: alone for registration, and in one interpolation with the motion for the result."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from hybriddepth_ros.focal_stack import CameraIntrinsics
from hybriddepth_ros.image_files import ImageRGB


def is_distorted(camera: CameraIntrinsics | None) -> bool:
    """Whether straight lines are bent in this camera's images."""
    return camera is not None and any(camera.distortion)


def rectified(grey: npt.NDArray[np.uint8], camera: CameraIntrinsics | None) -> npt.NDArray[np.uint8]:
    """A grey image [H, W] without the distortion of its lens; the camera matrix stays."""
    if camera is None or not is_distorted(camera):
        return grey
    map_x, map_y = _rectifying_maps(camera, grey.shape[1], grey.shape[0])
    flat = cv2.remap(grey, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(flat, np.uint8)


@lru_cache(maxsize=16)  # one per focus position, where the intrinsics follow the breathing
def _rectifying_maps(
    camera: CameraIntrinsics, width: int, height: int
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    return cv2.initUndistortRectifyMap(
        camera.matrix, np.array(camera.distortion), np.eye(3), camera.matrix, (width, height), cv2.CV_16SC2
    )


def warp_rectifying(
    image: ImageRGB, transform: npt.NDArray[np.float64], camera: CameraIntrinsics, out: ImageRGB
) -> npt.NDArray[np.bool_]:
    """Distortion and motion in one interpolation; returns which pixels [H, W] fall into the slice.

    transform [3, 3]: pixel of `out` -> pixel of the rectified slice.
    """
    height, width = image.shape[:2]
    # OpenCV inverts the new camera matrix to get rays: K^-1 transform turns pixels of `out` into the slice's.
    new_matrix = np.linalg.inv(transform) @ camera.matrix
    map_x, map_y = cv2.initUndistortRectifyMap(
        camera.matrix, np.array(camera.distortion), np.eye(3), new_matrix, (width, height), cv2.CV_32FC1
    )
    cv2.remap(image, map_x, map_y, cv2.INTER_CUBIC, dst=out, borderMode=cv2.BORDER_REFLECT_101)
    inside = (map_x >= 0.0) & (map_x <= width - 1) & (map_y >= 0.0) & (map_y <= height - 1)
    return np.asarray(inside, np.bool_)
