"""Depth for every new slice: the newest slice of each focus is a whole stack, and most of its work is done.

What a slice is by itself (its pyramid, what a model measures of it) is kept as long as the slice. Each new
slice is registered to one other, the one nearest in focus, and through it to all; the kept ones are moved
into its frame. Errors cannot add up for longer than slices are kept.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
import numpy.typing as npt

from hybriddepth_ros.estimator import (
    MIN_SLICES,
    DepthEstimate,
    DepthEstimator,
    EstimatorOptions,
    Stopwatch,
    inside,
)
from hybriddepth_ros.focal_stack import CameraIntrinsics, FocalSlice
from hybriddepth_ros.image_files import ImageRGB, to_grey
from hybriddepth_ros.models import AlignedStack, FocusEstimate, SlicePlace
from hybriddepth_ros.optics import ThinLens, blur_px_per_diopter
from hybriddepth_ros.parameters import parameter
from hybriddepth_ros.rectification import is_distorted, warp_rectifying
from hybriddepth_ros.registration import (
    Float64,
    Pyramid,
    Registration,
    SliceFit,
    breathing_slope,
    pyramid_of,
    register_pair,
    scale_of,
)

MOST_SLICES = 16
SAME_FOCUS = 1e-4  # [1/m]: a lens is not sent anywhere else by less
LEAST_OVERLAP = 0.5  # of the newest image, that a kept slice must have seen
STILL_PX = 0.02  # a slice that lies this near to where it was taken is not moved
LATE_NS = 1_000_000_000  # stamps that go back by less are late, by more are of another time
_DROPPED_LATE, _DROPPED_TWICE = "stamps out of order", "duplicate slice"


@dataclass(frozen=True)
class RollingOptions:
    """How long slices serve."""

    max_slice_age: float = parameter(
        2.0,
        "with `update: slice`, a slice older than this is left out; 0 = none is too old",
        unit="s",
        minimum=0.0,
        maximum=3600.0,
        dynamic=True,
    )


@dataclass
class _Kept:
    """A slice, and what was made of it by itself.

    image, covered: without the distortion of its lens; transform: pixel of the newest slice -> its own;
    residual_px and so on: of the registrations between the two, squares added.
    """

    key: int
    slice: FocalSlice
    camera: CameraIntrinsics | None
    image: ImageRGB
    covered: npt.NDArray[np.bool_]
    pyramid: Pyramid
    transform: Float64 = field(default_factory=lambda: np.eye(3))
    residual_before_px: float = 0.0
    residual_px: float = 0.0
    residual_p75_px: float = 0.0
    textured_tiles: int = 0
    tile_residual_px: Float64 = field(default_factory=lambda: np.zeros((1, 1)))

    @property
    def focus_diopters(self) -> float:
        return self.slice.focus_diopters


class RollingEstimator:
    """One new slice in, one new DepthEstimate in its frame out. To be called from one thread at a time.

    `on_drop(cause, slices)` is told of every slice that is not used, or not any more.
    """

    def __init__(
        self,
        estimator: DepthEstimator,
        options: RollingOptions | None = None,
        on_drop: Callable[[str, int], None] = lambda cause, slices: None,
    ) -> None:
        self.options = options or RollingOptions()
        self._estimator, self._on_drop = estimator, on_drop
        self._keys = itertools.count()
        self.reset()

    def reset(self) -> None:
        """Forget every slice."""
        self._model = self._estimator.rolling_model()
        self._kept: list[_Kept] = []  # in the order of exposure; all but the last are what the newest meets
        self._whole = False  # whether a whole sweep has come since
        self._failures = 0
        self._steps: deque[tuple[float, float]] = deque(maxlen=MOST_SLICES)  # of focus [1/m], of scale
        self._shift_px = np.zeros(2)  # of the image's middle, from slice to slice

    def __call__(
        self,
        new: FocalSlice,
        slice_count: int = 0,
        camera: CameraIntrinsics | None = None,
        lens: ThinLens | None = None,
    ) -> DepthEstimate | None:
        """The estimate in the frame of `new`; None until a whole sweep has come, and where `new` cannot be
        used.

        slice_count: of a sweep, 0 = unknown: then as many as come before a focus comes again. camera:
        intrinsics of slices without their own; lens: thin-lens equivalent, or None.
        """
        clock = Stopwatch()
        if not self._admit(new):
            return None
        options = self._estimator.options
        added = self._prepared(new, camera)
        clock.lap("prepare")
        again = any(self._is_twin(kept, added) for kept in self._kept)
        if not self._place(added, options):
            return None
        self._forget_old(added, slice_count or MOST_SLICES, options)
        self._kept.append(added)
        self._whole = self._whole or (len(self._kept) >= slice_count if slice_count else again)
        clock.lap("register")
        if len(self._kept) < MIN_SLICES or not self._whole:
            return None
        order = sorted(self._kept, key=lambda kept: kept.focus_diopters)
        aligned, places = self._aligned(order, added, lens)
        clock.lap("warp")
        focus: FocusEstimate = self._model(aligned, places)
        clock.lap(self._estimator.model_name)
        registration = self._registration(added)
        return self._estimator.finish(focus, aligned, registration, added.slice, camera, clock)

    # Which slices are a stack.

    def _admit(self, new: FocalSlice) -> bool:
        """Whether a slice can follow those that are kept; what is of another time or size is forgotten."""
        if not self._kept:
            return True
        newest = self._kept[-1]
        behind_ns = newest.slice.stamp_ns - new.stamp_ns
        if behind_ns == 0:
            self._on_drop(_DROPPED_TWICE, 1)
            return False
        if 0 < behind_ns <= LATE_NS:
            self._on_drop(_DROPPED_LATE, 1)
            return False
        cause = ""
        if behind_ns > LATE_NS:
            cause = "stamps jumped back"
        elif new.image.shape != newest.slice.image.shape:
            cause = "image size changed"
        if cause:
            self._on_drop(cause, len(self._kept))
            self.reset()
        return True

    def _prepared(self, new: FocalSlice, camera: CameraIntrinsics | None) -> _Kept:
        camera = new.camera or camera
        image, covered = new.image, np.ones(new.image.shape[:2], np.bool_)
        if camera is not None and is_distorted(camera):
            image = np.empty_like(new.image)
            covered = warp_rectifying(new.image, np.eye(3), camera, image)
        pyramid = pyramid_of(to_grey(image)) if self._estimator.options.register else []
        return _Kept(next(self._keys), new, camera, image, covered, pyramid)

    def _forget_old(self, added: _Kept, slice_count: int, options: EstimatorOptions) -> None:
        """What the new slice replaces, and what is too old or too far for it."""
        self._kept = [kept for kept in self._kept if not self._is_twin(kept, added)]
        longest_ns = self.options.max_slice_age * 1e9
        if longest_ns:
            self._drop("slice too old", lambda kept: added.slice.stamp_ns - kept.slice.stamp_ns > longest_ns)
        height, width = added.image.shape[:2]
        self._drop("slice out of view", lambda kept: _overlap(kept.transform, width, height) < LEAST_OVERLAP)
        self._drop(
            "slice no longer registered",
            lambda kept: options.register and kept.residual_px > options.max_residual * width,
        )
        surplus = len(self._kept) - (min(slice_count, MOST_SLICES) - 1)
        if surplus > 0:  # foci that are no longer swept
            self._kept = self._kept[surplus:]

    def _drop(self, cause: str, is_dropped: Callable[[_Kept], bool]) -> None:
        left = [kept for kept in self._kept if not is_dropped(kept)]
        if len(left) < len(self._kept):
            self._on_drop(cause, len(self._kept) - len(left))
        self._kept = left

    @staticmethod
    def _is_twin(kept: _Kept, added: _Kept) -> bool:
        return abs(kept.focus_diopters - added.focus_diopters) < SAME_FOCUS

    # Where they lie.

    def _place(self, added: _Kept, options: EstimatorOptions) -> bool:
        """Move all that is kept into the frame of the new slice; whether its place could be found."""
        if not self._kept or not options.register:
            return True
        limit_px = options.max_residual * added.image.shape[1]
        found = self._found(added, limit_px)
        if found is None:
            self._failures += 1
            self._on_drop("slice not registered", 1)
            if self._failures > max(len(self._kept), MIN_SLICES):
                self._on_drop("view lost", len(self._kept))
                self.reset()
            return False
        self._failures = 0
        partner, fit = found
        height, width = added.image.shape[:2]
        moved = np.linalg.inv(partner.transform) @ fit.transform  # pixel of the new -> of the one before
        step = added.focus_diopters - partner.focus_diopters
        if abs(step) > SAME_FOCUS:
            self._steps.append((-step, scale_of(fit.transform, (width, height)) - 1.0))
        middle = np.array([0.5 * (width - 1), 0.5 * (height - 1), 1.0])
        there = moved @ middle
        self._shift_px = there[:2] / there[2] - middle[:2]
        for kept in self._kept:
            transform = kept.transform @ moved
            kept.transform = transform / transform[2, 2]
            kept.residual_before_px = float(np.hypot(kept.residual_before_px, fit.residual_before_px))
            kept.residual_px = float(np.hypot(kept.residual_px, fit.residual_px))
            kept.residual_p75_px = float(np.hypot(kept.residual_p75_px, fit.residual_p75_px))
            kept.textured_tiles = fit.textured_tiles
            kept.tile_residual_px = np.hypot(kept.tile_residual_px, fit.tile_residual_px)
        return True

    def _found(self, added: _Kept, limit_px: float) -> tuple[_Kept, SliceFit] | None:
        """A kept slice to which the new one can be registered, nearest in focus first, and how.

        Its twin comes last: twins alone would never say again how two foci lie over each other.
        """
        height, width = added.image.shape[:2]

        def far(kept: _Kept) -> tuple[bool, float, int]:
            return (
                self._is_twin(kept, added),
                round(abs(kept.focus_diopters - added.focus_diopters), 3),
                -kept.slice.stamp_ns,
            )

        newest = self._kept[-1]
        for partner in sorted(self._kept, key=far)[:MIN_SLICES]:
            scale = self._expected_scale(added, partner)
            start = partner.transform @ self._expected_motion(added, newest)
            fit = register_pair(added.pyramid, partner.pyramid, (width, height), limit_px, scale, start)
            if fit.used:
                return partner, fit
        return None

    def _expected_scale(self, added: _Kept, other: _Kept) -> float | None:
        """Of the other slice relative to the new one, None = nobody knows yet."""
        if added.camera and other.camera and added.camera.fx != other.camera.fx:
            return other.camera.fx / added.camera.fx
        if len(self._steps) < MIN_SLICES:
            return None
        step, scale = np.array(self._steps).T
        return 1.0 + breathing_slope(step, scale) * (other.focus_diopters - added.focus_diopters)

    def _expected_motion(self, added: _Kept, newest: _Kept) -> Float64:
        """Pixel of the new slice -> of the one before: it breathes, and goes on as it went."""
        height, width = added.image.shape[:2]
        scale = self._expected_scale(added, newest) or 1.0
        camera = added.camera
        centre = (camera.cx, camera.cy) if camera else (0.5 * (width - 1), 0.5 * (height - 1))
        x, y = (1.0 - scale) * np.array(centre) + self._shift_px
        return np.array([[scale, 0.0, x], [0.0, scale, y], [0.0, 0.0, 1.0]])

    # What the estimator takes.

    def _aligned(
        self, order: list[_Kept], added: _Kept, lens: ThinLens | None
    ) -> tuple[AlignedStack, list[SlicePlace]]:
        height, width = added.image.shape[:2]
        images = np.empty((len(order), height, width, 3), np.uint8)
        covered = np.empty((len(order), height, width), np.bool_)
        rough = not self._model.reads_all_images
        flags = (cv2.INTER_LINEAR if rough else cv2.INTER_CUBIC) | cv2.WARP_INVERSE_MAP
        places = []
        for row, kept in enumerate(order):
            still = _largest_step_px(kept.transform, width, height) < STILL_PX
            places.append(SlicePlace(kept.key, kept.transform, still))
            if still:
                images[row], covered[row] = kept.image, kept.covered
                continue
            cv2.warpPerspective(
                kept.image,
                kept.transform,
                (width, height),
                dst=images[row],
                flags=flags,
                borderMode=cv2.BORDER_REFLECT_101,
            )
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
        blur = blur_px_per_diopter(lens) if lens else None
        return AlignedStack(images, covered, focus, blur, order.index(added)), places

    def _registration(self, added: _Kept) -> Registration:
        """Of the kept slices in the order of exposure."""
        kept = self._kept
        shape = max((each.tile_residual_px.shape for each in kept), key=lambda shape: shape[0] * shape[1])
        return replace(
            Registration.identity(len(kept), kept.index(added), (shape[0], shape[1])),
            transforms=np.stack([each.transform for each in kept]),
            residual_before_px=np.array([each.residual_before_px for each in kept]),
            residual_px=np.array([each.residual_px for each in kept]),
            textured_tiles=np.array([each.textured_tiles for each in kept]),
            residual_p75_px=np.array([each.residual_p75_px for each in kept]),
            tile_residual_px=np.stack([np.broadcast_to(each.tile_residual_px, shape) for each in kept]),
            breathing_per_diopter=breathing_slope(*np.array(self._steps).T) if self._steps else 0.0,
        )


def _corners(width: int, height: int) -> npt.NDArray[np.float64]:
    return np.array([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]], np.float64)


def _largest_step_px(transform: Float64, width: int, height: int) -> float:
    corners = _corners(width, height)
    moved = cv2.perspectiveTransform(corners[None], transform)[0]
    return float(np.abs(moved - corners).max())


def _overlap(transform: Float64, width: int, height: int) -> float:
    """Share of an image that falls into a slice; coarse: at a hundred points."""
    x, y = np.meshgrid(np.linspace(0, width - 1, 10), np.linspace(0, height - 1, 10))
    points = cv2.perspectiveTransform(np.stack([x.ravel(), y.ravel()], axis=1)[None], transform)[0]
    within = (points >= -0.5).all(axis=1) & (points[:, 0] < width) & (points[:, 1] < height)
    return float(within.mean())
