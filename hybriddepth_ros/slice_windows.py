"""Which slices are a stack when a new one has come, and how each lies over the newest.

Each new slice is registered to one other, the one nearest in focus, and through it to all. Errors cannot add
up for longer than slices are kept.
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
    EstimatorOptions,
    Stopwatch,
)
from hybriddepth_ros.focal_stack import CameraIntrinsics, FocalSlice
from hybriddepth_ros.image_files import ImageRGB, to_grey
from hybriddepth_ros.optics import ThinLens
from hybriddepth_ros.parameters import parameter
from hybriddepth_ros.rectification import is_distorted, warp_rectifying
from hybriddepth_ros.registration import (
    Float64,
    Pyramid,
    SliceFit,
    breathing_slope,
    pyramid_of,
    register_pair,
    scale_of,
)

MOST_SLICES = 16
SAME_FOCUS = 1e-4  # [1/m]: a lens is not sent anywhere else by less
LEAST_OVERLAP = 0.5  # of the newest image, that a kept slice must have seen
LATE_NS = 1_000_000_000  # stamps that go back by less are late, by more are of another time
_DROPPED_LATE, _DROPPED_TWICE, _NOT_REGISTERED = (
    "stamps out of order",
    "duplicate slice",
    "slice not registered",
)
NOT_TAKEN = (_DROPPED_LATE, _DROPPED_TWICE, _NOT_REGISTERED)  # causes that are about the new slice itself


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


@dataclass(frozen=True, eq=False)
class KeptSlice:
    """A slice, and what was made of it by itself.

    key: its own; image, covered: without the distortion of its lens; transform: pixel of the newest slice ->
    its own; residual_px and so on: of the registrations between the two, squares added.
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

    def moved(self, motion: Float64, fit: SliceFit) -> KeptSlice:
        """In the frame of a newer slice; motion [3, 3]: pixel of it -> pixel of the newest until now."""
        transform = self.transform @ motion
        return replace(
            self,
            transform=transform / transform[2, 2],
            residual_before_px=float(np.hypot(self.residual_before_px, fit.residual_before_px)),
            residual_px=float(np.hypot(self.residual_px, fit.residual_px)),
            residual_p75_px=float(np.hypot(self.residual_p75_px, fit.residual_p75_px)),
            textured_tiles=fit.textured_tiles,
            tile_residual_px=np.hypot(self.tile_residual_px, fit.tile_residual_px),
        )


@dataclass(frozen=True, eq=False)
class SliceWindow:
    """The newest slice of each focus, in the order of exposure; the frame is that of the last.

    lens: thin-lens equivalent, or None; breathing_per_diopter as in Registration; timings_ms: of the slice.
    """

    slices: tuple[KeptSlice, ...]
    lens: ThinLens | None = None
    breathing_per_diopter: float = 0.0
    timings_ms: dict[str, float] = field(default_factory=dict)

    @property
    def newest(self) -> KeptSlice:
        return self.slices[-1]


class RollingWindows:
    """Gathers slices, and finds how each lies over the others. `options`: asked for every slice."""

    def __init__(
        self,
        options: Callable[[], EstimatorOptions],
        rolling: RollingOptions | None = None,
        on_drop: Callable[[str, int], None] = lambda cause, slices: None,
    ) -> None:
        self.rolling = rolling or RollingOptions()
        self._options, self._on_drop = options, on_drop
        self._keys = itertools.count()
        self.reset()

    def reset(self) -> None:
        """Forget every slice."""
        self._kept: list[KeptSlice] = []  # in the order of exposure
        self._whole = False  # whether a sweep is over since
        self._foci: list[float] = []  # [1/m], each once, of the slices until then
        self._taken = 0  # of these slices
        self._failures = 0
        self._steps: deque[tuple[float, float]] = deque(maxlen=MOST_SLICES)  # of focus [1/m], of scale
        self._shift_px = np.zeros(2)  # of the image's middle, from slice to slice

    @property
    def newest(self) -> FocalSlice | None:
        """The slice that was taken last."""
        return self._kept[-1].slice if self._kept else None

    def add(
        self,
        new: FocalSlice,
        slice_count: int = 0,
        camera: CameraIntrinsics | None = None,
        lens: ThinLens | None = None,
    ) -> SliceWindow | None:
        """The window that ends with `new`; None until a sweep is over, and where `new` cannot be used.

        slice_count: of a sweep, 0 = unknown: then as many as come before a focus comes again. A sweep is over
        when so many foci came, be the first of them too old by then; or, if some never come, after the slices
        of two. camera: intrinsics of slices without their own; lens: thin-lens equivalent, or None.
        """
        clock, options = Stopwatch(), self._options()
        if not self._admit(new):
            return None
        added = self._prepared(new, new.camera or camera, options)
        clock.lap("prepare")
        if not self._place(added, options):
            return None
        self._forget_old(added, slice_count or MOST_SLICES, options)
        self._kept.append(added)
        clock.lap("register")
        if not self._is_whole(added.focus_diopters, slice_count) or len(self._kept) < MIN_SLICES:
            return None
        return SliceWindow(tuple(self._kept), lens, self._breathing, clock.laps_ms)

    # Which slices are a stack.

    def _is_whole(self, focus_diopters: float, slice_count: int) -> bool:
        """Whether a sweep is over with a slice of this focus."""
        if not self._whole:
            again = any(abs(focus - focus_diopters) < SAME_FOCUS for focus in self._foci)
            self._foci += [] if again else [focus_diopters]
            self._taken += 1
            expected = slice_count or (len(self._foci) if again else MOST_SLICES)
            # Twice: a triangle that was joined near its end comes back there first.
            self._whole = len(self._foci) >= expected or self._taken >= 2 * expected
        return self._whole

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

    def _prepared(
        self, new: FocalSlice, camera: CameraIntrinsics | None, options: EstimatorOptions
    ) -> KeptSlice:
        image, covered = new.image, np.ones(new.image.shape[:2], np.bool_)
        if camera is not None and is_distorted(camera):
            image = np.empty_like(new.image)
            covered = warp_rectifying(new.image, np.eye(3), camera, image)
        pyramid = pyramid_of(to_grey(image)) if options.register else []
        return KeptSlice(next(self._keys), new, camera, image, covered, pyramid)

    def _forget_old(self, added: KeptSlice, slice_count: int, options: EstimatorOptions) -> None:
        """What the new slice replaces, and what is too old or too far for it."""
        self._kept = [kept for kept in self._kept if not _same_focus(kept, added)]
        longest_ns = self.rolling.max_slice_age * 1e9
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

    def _drop(self, cause: str, is_dropped: Callable[[KeptSlice], bool]) -> None:
        left = [kept for kept in self._kept if not is_dropped(kept)]
        if len(left) < len(self._kept):
            self._on_drop(cause, len(self._kept) - len(left))
        self._kept = left

    # Where they lie.

    def _place(self, added: KeptSlice, options: EstimatorOptions) -> bool:
        """Move all that is kept into the frame of the new slice; whether its place could be found."""
        if not self._kept or not options.register:
            return True
        limit_px = options.max_residual * added.image.shape[1]
        found = self._found(added, limit_px)
        if found is None:
            self._failures += 1
            self._on_drop(_NOT_REGISTERED, 1)
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
        self._kept = [kept.moved(moved, fit) for kept in self._kept]
        return True

    def _found(self, added: KeptSlice, limit_px: float) -> tuple[KeptSlice, SliceFit] | None:
        """A kept slice to which the new one can be registered, nearest in focus first, and how.

        Its twin comes last: twins alone would never say again how two foci lie over each other.
        """
        height, width = added.image.shape[:2]

        def far(kept: KeptSlice) -> tuple[bool, float, int]:
            return (
                _same_focus(kept, added),
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

    def _expected_scale(self, added: KeptSlice, other: KeptSlice) -> float | None:
        """Of the other slice relative to the new one, None = nobody knows yet."""
        if added.camera and other.camera and added.camera.fx != other.camera.fx:
            return other.camera.fx / added.camera.fx
        if len(self._steps) < MIN_SLICES:
            return None
        return 1.0 + self._breathing * (other.focus_diopters - added.focus_diopters)

    @property
    def _breathing(self) -> float:
        """Relative magnification per diopter, as the last registrations found it."""
        return breathing_slope(*np.array(self._steps).T) if self._steps else 0.0

    def _expected_motion(self, added: KeptSlice, newest: KeptSlice) -> Float64:
        """Pixel of the new slice -> of the one before: it breathes, and goes on as it went."""
        height, width = added.image.shape[:2]
        scale = self._expected_scale(added, newest) or 1.0
        camera = added.camera
        centre = (camera.cx, camera.cy) if camera else (0.5 * (width - 1), 0.5 * (height - 1))
        x, y = (1.0 - scale) * np.array(centre) + self._shift_px
        return np.array([[scale, 0.0, x], [0.0, scale, y], [0.0, 0.0, 1.0]])


def _same_focus(kept: KeptSlice, added: KeptSlice) -> bool:
    return abs(kept.focus_diopters - added.focus_diopters) < SAME_FOCUS


def _overlap(transform: Float64, width: int, height: int) -> float:
    """Share of an image that falls into a slice; coarse: at a hundred points."""
    x, y = np.meshgrid(np.linspace(0, width - 1, 10), np.linspace(0, height - 1, 10))
    points = cv2.perspectiveTransform(np.stack([x.ravel(), y.ravel()], axis=1)[None], transform)[0]
    within = (points >= -0.5).all(axis=1) & (points[:, 0] < width) & (points[:, 1] < height)
    return float(within.mean())
