"""Depth for every new slice: the newest slice of each focus is a whole stack, and most of its work is done.

What a slice is by itself (its pyramid, what a model measures of it) is kept as long as the slice; the kept
ones are moved into the frame of the newest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt

from hybriddepth_ros.estimator import (
    DepthEstimate,
    DepthEstimator,
    Floats,
    Stopwatch,
)
from hybriddepth_ros.focal_stack import CameraIntrinsics, FocalSlice
from hybriddepth_ros.models import AlignedStack, FocusEstimate, RollingStack, SlicePlace
from hybriddepth_ros.once import Once
from hybriddepth_ros.optics import ThinLens, blur_px_per_diopter
from hybriddepth_ros.registration import Registration
from hybriddepth_ros.slice_windows import KeptSlice, RollingOptions, RollingWindows, SliceWindow
from hybriddepth_ros.stack_alignment import inside
from hybriddepth_ros.warping import largest_step_px, move_image

STILL_PX = 0.02  # a slice that lies this near to where it was taken is not moved
ROUGHLY_PX = 0.25  # nor one this near where nothing fine is read


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
        self._prior_of = -1  # key of the slice in whose frame the prior was asked last, and what it said
        self._prior_said = np.empty((0, 0), np.float32)
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
        stack = _stack(window, rough=not self._model.reads_aligned)
        clock.lap("overlap")
        focus: FocusEstimate = self._model(stack)
        clock.lap(self._estimator.model_name)
        newest = window.newest
        return self._estimator.finish(
            focus,
            stack,
            stack.make_aligned,
            _registration(window),
            newest.slice,
            newest.camera,
            clock,
            lambda ask: self._relative(window, ask),
        )

    def _relative(self, window: SliceWindow, ask: Callable[[], Floats]) -> Floats:
        """What the prior says: asked once a sweep, as it takes its time, and moved with its slice since; NaN
        where that slice did not look.
        """
        asked = next((kept for kept in window.slices if kept.key == self._prior_of), None)
        if asked is None:
            self._prior_of, self._prior_said = window.newest.key, ask()
            return self._prior_said
        said = move_image(self._prior_said, asked.transform, cv2.INTER_LINEAR, ROUGHLY_PX)
        said[~_covered(asked)] = np.nan
        return said


# What the estimator takes.


def _stack(window: SliceWindow, rough: bool) -> RollingStack:
    order = sorted(window.slices, key=lambda kept: kept.focus_diopters)
    height, width = window.newest.image.shape[:2]
    covered = np.empty((len(order), height, width), np.bool_)
    places = []
    for row, kept in enumerate(order):
        step_px = largest_step_px(kept.transform, width, height)
        places.append(SlicePlace(kept.key, kept.image, kept.transform, step_px))
        covered[row] = kept.covered if step_px < STILL_PX else _covered(kept)
    focus = np.array([kept.focus_diopters for kept in order], np.float32)
    blur = blur_px_per_diopter(window.lens) if window.lens else None
    reference = order.index(window.newest)

    aligned = Once(lambda: AlignedStack(_moved(places, rough), covered, focus, blur, reference))
    return RollingStack(places, covered, focus, blur, reference, aligned)


def _covered(kept: KeptSlice) -> npt.NDArray[np.bool_]:
    """What a slice saw [H, W] of the newest one's image."""
    height, width = kept.covered.shape
    covered = inside(kept.transform, width, height)
    if not kept.covered.all():
        flags = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
        own = kept.covered.view(np.uint8)
        covered &= cv2.warpPerspective(own, kept.transform, (width, height), flags=flags).view(np.bool_)
    return covered


def _moved(places: list[SlicePlace], rough: bool) -> npt.NDArray[np.uint8]:
    images = np.empty((len(places), *places[0].image.shape), np.uint8)
    within_px = ROUGHLY_PX if rough else STILL_PX
    for place, image in zip(places, images, strict=True):
        if place.largest_step_px < within_px:
            image[:] = place.image
        else:
            interpolation = cv2.INTER_LINEAR if rough else cv2.INTER_CUBIC
            move_image(place.image, place.transform, interpolation, within_px, image)
    return images


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
