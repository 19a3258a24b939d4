"""Does depth stay what it is when the picture is magnified? A scene does not come nearer by being enlarged.

A model that reads distance from the size of things fails it; one that reads blur, and is told the lens, does
not need the size.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from hybriddepth_ros.evaluation.frames import Floats
from hybriddepth_ros.evaluation.metrics import comparable
from hybriddepth_ros.focal_stack import CameraIntrinsics, FocalStack

Pixels = TypeVar("Pixels", bound=np.generic)


def magnified(stack: FocalStack, factor: float) -> FocalStack:
    """The middle of every slice, as large as the whole was; lens and intrinsics follow."""
    lens = stack.lens and replace(stack.lens, pixel_pitch_um=stack.lens.pixel_pitch_um / factor)
    slices = tuple(
        replace(
            item,
            image=magnified_image(item.image, factor, cv2.INTER_CUBIC),
            camera=item.camera and _magnified_camera(item.camera, factor),
        )
        for item in stack.slices
    )
    camera = stack.camera and _magnified_camera(stack.camera, factor)
    return replace(stack, slices=slices, lens=lens, camera=camera)


def magnified_image(
    image: npt.NDArray[Pixels], factor: float, interpolation: int = cv2.INTER_NEAREST
) -> npt.NDArray[Pixels]:
    """[H, W, ...] of the same size, enlarged about its middle; nearest pixels for depths."""
    height, width = image.shape[:2]
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    offset = centre * (1.0 - 1.0 / factor)
    to_source = np.array([[1.0 / factor, 0.0, offset[0]], [0.0, 1.0 / factor, offset[1]]])
    flags = interpolation | cv2.WARP_INVERSE_MAP
    source: Any = image  # of a kind that OpenCV takes
    made = cv2.warpAffine(source, to_source, (width, height), flags=flags)
    return np.ascontiguousarray(made, dtype=image.dtype)


def zoom_difference(depth: Floats, depth_magnified: Floats, factor: float) -> float:
    """Mean |difference| / depth between the magnified estimate [H, W] m and the one it should equal.

    NaN where nothing was estimated in both.
    """
    expected = magnified_image(depth, factor)
    good = comparable(depth_magnified, expected)
    if not good.any():
        return math.nan
    return float(np.mean(np.abs(depth_magnified[good] - expected[good]) / expected[good]))


def _magnified_camera(camera: CameraIntrinsics, factor: float) -> CameraIntrinsics:
    middle_x, middle_y = (camera.width - 1) / 2, (camera.height - 1) / 2
    return replace(
        camera,
        fx=camera.fx * factor,
        fy=camera.fy * factor,
        cx=middle_x + (camera.cx - middle_x) * factor,
        cy=middle_y + (camera.cy - middle_y) * factor,
    )
