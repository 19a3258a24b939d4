"""Depth for every new slice: the newest slice of each focus is a whole stack, and most of its work is done.

What a slice is by itself (its pyramid, what a model measures of it) is kept as long as the slice; the kept
ones are moved into the frame of the newest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np

from hybriddepth_ros.estimator import (
    DepthEstimate,
    DepthEstimator,
    Stopwatch,
    corners_of,
    inside,
)
from hybriddepth_ros.focal_stack import CameraIntrinsics, FocalSlice
from hybriddepth_ros.image_files import ImageRGB
from hybriddepth_ros.models import AlignedStack, FocusEstimate, SlicePlace
from hybriddepth_ros.optics import ThinLens, blur_px_per_diopter
from hybriddepth_ros.registration import (
    Float64,
    Registration,
)
from hybriddepth_ros.slice_windows import RollingOptions, RollingWindows, SliceWindow

STILL_PX = 0.02  # a slice that lies this near to where it was taken is not moved
ROUGHLY_PX = 0.25  # nor one this near where no fine structure is read: focus is measured on a grid of 4 px


class RollingEstimator:
    """One new slice in, one new DepthEstimate in its frame out. To be called from one thread at a time.

    The two halves may be called from two threads: `windows.add`, for every slice, and `estimate`, for as many
    of the windows as there is time for. `on_drop(cause, slices)` is told of what is not used, or no longer.
    """

    def __init__(
        self,
        estimator: DepthEstimator,
        options: RollingOptions | None = None,
        on_drop: Callable[[str, int], None] = lambda cause, slices: None,
    ) -> None:
        self._estimator, self._model = estimator, estimator.rolling_model()
        self.windows = RollingWindows(lambda: estimator.options, options, on_drop)

    def __call__(
        self,
        new: FocalSlice,
        slice_count: int = 0,
        camera: CameraIntrinsics | None = None,
        lens: ThinLens | None = None,
    ) -> DepthEstimate | None:
        """The estimate in the frame of `new`; None until a whole sweep has come, and where `new` cannot be
        used. Arguments as `RollingWindows.add` takes them.
        """
        window = self.windows.add(new, slice_count, camera, lens)
        return None if window is None else self.estimate(window)

    def estimate(self, window: SliceWindow) -> DepthEstimate:
        """The estimate in the frame of the window's newest slice."""
        clock = Stopwatch(window.timings_ms)
        aligned, places = _aligned(window, rough=not self._model.reads_all_images)
        clock.lap("warp")
        focus: FocusEstimate = self._model(aligned, places)
        clock.lap(self._estimator.model_name)
        newest = window.newest
        return self._estimator.finish(
            focus, aligned, _registration(window), newest.slice, newest.camera, clock
        )


# What the estimator takes.


def _aligned(window: SliceWindow, rough: bool) -> tuple[AlignedStack, list[SlicePlace]]:
    order = sorted(window.slices, key=lambda kept: kept.focus_diopters)
    height, width = window.newest.image.shape[:2]
    images = np.empty((len(order), height, width, 3), np.uint8)
    covered = np.empty((len(order), height, width), np.bool_)
    flags = (cv2.INTER_LINEAR if rough else cv2.INTER_CUBIC) | cv2.WARP_INVERSE_MAP
    within_px = ROUGHLY_PX if rough else STILL_PX
    places = []
    for row, kept in enumerate(order):
        still = _largest_step_px(kept.transform, width, height) < within_px
        places.append(SlicePlace(kept.key, kept.image, kept.transform, still))
        if still:
            images[row], covered[row] = kept.image, kept.covered
            continue
        _warp(kept.image, kept.transform, images[row], flags, within_px)
        covered[row] = inside(kept.transform, width, height)
        if not kept.covered.all():
            seen = cv2.warpPerspective(
                kept.covered.view(np.uint8),
                kept.transform,
                (width, height),
                flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP,
            )
            covered[row] &= seen.view(np.bool_)
    focus = np.array([kept.focus_diopters for kept in order], np.float32)
    blur = blur_px_per_diopter(window.lens) if window.lens else None
    return AlignedStack(images, covered, focus, blur, order.index(window.newest)), places


def _registration(window: SliceWindow) -> Registration:
    kept = window.slices
    shape = max((each.tile_residual_px.shape for each in kept), key=lambda shape: shape[0] * shape[1])
    return replace(
        Registration.identity(len(kept), len(kept) - 1, (shape[0], shape[1])),
        transforms=np.stack([each.transform for each in kept]),
        residual_before_px=np.array([each.residual_before_px for each in kept]),
        residual_px=np.array([each.residual_px for each in kept]),
        textured_tiles=np.array([each.textured_tiles for each in kept]),
        residual_p75_px=np.array([each.residual_p75_px for each in kept]),
        tile_residual_px=np.stack([np.broadcast_to(each.tile_residual_px, shape) for each in kept]),
        breathing_per_diopter=window.breathing_per_diopter,
    )


def _warp(image: ImageRGB, transform: Float64, out: ImageRGB, flags: int, within_px: float) -> None:
    """As warpPerspective; where the perspective moves nothing by within_px, by the faster warpAffine."""
    height, width = image.shape[:2]
    affine = transform.copy()
    affine[2, :2] = 0.0
    border = cv2.BORDER_REFLECT_101
    if _largest_step_px(np.linalg.inv(affine) @ transform, width, height) < within_px:
        cv2.warpAffine(image, affine[:2], (width, height), dst=out, flags=flags, borderMode=border)
    else:
        cv2.warpPerspective(image, transform, (width, height), dst=out, flags=flags, borderMode=border)


def _largest_step_px(transform: Float64, width: int, height: int) -> float:
    corners = corners_of(width, height)
    return float(np.abs(cv2.perspectiveTransform(corners, transform) - corners).max())
