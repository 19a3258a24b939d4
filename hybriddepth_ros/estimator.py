"""From a focal stack to metric depth with a sigma: the pipeline, readable from top to bottom."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
import numpy.typing as npt

from hybriddepth_ros.all_in_focus import all_in_focus
from hybriddepth_ros.errors import ParameterError, RegistrationError
from hybriddepth_ros.focal_stack import CameraIntrinsics, FocalSlice, FocalStack
from hybriddepth_ros.image_files import ImageRGB, to_grey
from hybriddepth_ros.models import (
    AUTO,
    NO_PRIOR,
    PRECISIONS,
    AlignedStack,
    FocusEstimate,
    RollingModel,
    RollingStack,
    SlicePlace,
    load_model,
    load_prior,
    rolling_model,
)
from hybriddepth_ros.models.prior_fusion import with_prior
from hybriddepth_ros.once import Once
from hybriddepth_ros.optics import ThinLens, blur_px_per_diopter
from hybriddepth_ros.parameters import parameter
from hybriddepth_ros.rectification import rectified
from hybriddepth_ros.registration import MIN_TEXTURED_TILES, Registration, register
from hybriddepth_ros.stack_alignment import align

Floats = npt.NDArray[np.float32]

MIN_SLICES = 2
LARGEST_SIGMA_DIOPTERS = 10.0  # no limit lets more through: that is no measurement at all
FARTHEST_DIOPTERS = 1e-3  # an estimate at or beyond infinity is kept finite; max_depth then rejects it


@dataclass(frozen=True)
class EstimatorOptions:
    """How a stack becomes depth; shared by the command line, the Python API and the depth node."""

    reference: str = parameter(
        "middle",
        "slice whose frame and stamp the depth takes: middle of the focus order, first, last (newest)",
        choices=("middle", "first", "last"),
        dynamic=True,
    )
    register: bool = parameter(
        True, "align the slices (camera motion, focus breathing) before estimating", dynamic=True
    )
    max_residual: float = parameter(
        0.002,
        "a slice whose alignment residual exceeds this share of the image width is dropped",
        minimum=1e-4,
        maximum=0.1,
        dynamic=True,
    )
    min_depth: float = parameter(
        0.05, "nearer estimates are no estimate", unit="m", minimum=0.01, maximum=100.0, dynamic=True
    )
    max_depth: float = parameter(
        20.0, "farther estimates are no estimate", unit="m", minimum=0.1, maximum=1000.0, dynamic=True
    )
    max_relative_sigma: float = parameter(
        1.0,
        "an estimate whose 1 sigma exceeds this share of its depth is no estimate",
        minimum=0.001,
        maximum=10.0,
        dynamic=True,
    )
    max_sigma_diopters: float = parameter(
        0.25,
        "an estimate less certain than this (1 sigma) is no estimate",
        unit="1/m",
        minimum=0.001,
        maximum=LARGEST_SIGMA_DIOPTERS,
        dynamic=True,
    )

    def __post_init__(self) -> None:
        if self.min_depth >= self.max_depth:
            raise ParameterError(
                f"min_depth: expected less than max_depth ({self.max_depth:g} m), got {self.min_depth:g} m"
            )


@dataclass(frozen=True)
class DepthEstimate:
    """Depth in the (rectified) frame of the reference slice.

    depth, sigma [H, W] float32 m along Z, NaN = no estimate; make_all_in_focus: see `all_in_focus`; camera:
    rectified intrinsics of that frame, or None; stamp_ns of the reference slice; registration: how each slice
    was aligned; blur_px_per_diopter: the lens's, as known or as found; timings_ms: time per stage; removed:
    pixels that each option's limit made no estimate, where one may be beyond several.
    """

    depth: npt.NDArray[np.float32]
    sigma: npt.NDArray[np.float32]
    make_all_in_focus: Callable[[], ImageRGB]
    registration: Registration
    camera: CameraIntrinsics | None = None
    stamp_ns: int = 0
    blur_px_per_diopter: float = 0.0
    timings_ms: dict[str, float] = field(default_factory=dict)
    removed: dict[str, int] = field(default_factory=dict)

    @property
    def all_in_focus(self) -> ImageRGB:
        """[H, W, 3] uint8 RGB in the frame of the depth. It takes milliseconds when it is first asked for:
        whoever wants depth alone need not wait for it. Until then the estimate holds the stack's images.
        """
        return self.make_all_in_focus()


class DepthEstimator:
    """FocalStack in, DepthEstimate out. Holds the model (and its weights); to be called from one thread at a
    time.

    `options` may be replaced between calls.
    """

    def __init__(
        self,
        model: str,
        device: str = "auto",
        options: EstimatorOptions | None = None,
        weights: str = "",
        precision: str = PRECISIONS[0],
        prior: str = NO_PRIOR,
        prior_weights: str = "",
        engine: str = AUTO,
    ) -> None:
        self.model_name, self.prior_name = model, prior
        self.options = options or EstimatorOptions()
        # The prior first: it is refused for some models, whose weights take seconds to load.
        self._prior = load_prior(prior, model, device, prior_weights)
        self._model = load_model(model, device, weights, precision, engine)

    @property
    def device(self) -> str:
        """Where the model runs: cpu or cuda."""
        return self._model.device

    @property
    def weights(self) -> str:
        """Name and content of the model's weights, "" for a model without."""
        return getattr(self._model, "weights", "")

    @property
    def prior_weights(self) -> str:
        """Name and content of the prior's weights, "" without a prior."""
        return self._prior.weights if self._prior else ""

    def __call__(self, stack: FocalStack, reference: int | None = None) -> DepthEstimate:
        """Depth in the frame of the slice `reference`, None = as the options say; RegistrationError if fewer
        than two slices can be aligned.
        """
        options, clock = self.options, Stopwatch()
        if reference is None:
            reference = reference_index(stack, options.reference)

        registration = register_stack(stack, reference, options)
        clock.lap("register")
        aligned = align(stack, registration)
        clock.lap("warp")
        focus = self._model(aligned)
        clock.lap(self.model_name)
        return self.finish(
            focus, aligned, lambda: aligned, registration, stack.slices[reference], stack.camera, clock
        )

    def warm_up(self, width: int = 640, height: int = 480, slices: int = 5, *, rolling: bool = False) -> None:
        """Estimate a made-up stack, so that engine, libraries, threads and memory are ready for the first
        real one, which takes several times as long as later ones otherwise.

        rolling: also one new slice of it.
        """
        rng = np.random.default_rng(0)
        sharp = cv2.GaussianBlur(rng.integers(0, 256, (height, width, 3)).astype(np.uint8), (0, 0), 1.0)
        blurred = [cv2.GaussianBlur(sharp, (0, 0), 0.5 + 0.5 * index) for index in range(slices)]
        foci = np.linspace(0.5, 2.5, slices)
        stack = tuple(
            FocalSlice(np.asarray(image, np.uint8), float(focus), index + 1)
            for index, (image, focus) in enumerate(zip(blurred, foci, strict=True))
        )
        lens = ThinLens(focal_length_mm=4.0, f_number=2.0, pixel_pitch_um=4.0)
        with suppress(RegistrationError):
            _ = self(FocalStack(stack, lens=lens, name="warm-up")).all_in_focus
        if rolling:
            images = np.stack([one.image for one in stack])
            covered, focus = np.ones(images.shape[:3], np.bool_), foci.astype(np.float32)
            blur = blur_px_per_diopter(lens)
            aligned = AlignedStack(images, covered, focus, blur)
            model = self.rolling_model()
            for first in (0, 1):  # all are new, then one
                keys = range(first, first + slices)
                places = [
                    SlicePlace(key, image, np.eye(3), 0.0) for key, image in zip(keys, images, strict=True)
                ]
                model(RollingStack(places, covered, focus, blur, 0, lambda: aligned))

    def rolling_model(self) -> RollingModel:
        """The model as it takes one new slice at a time; knows nothing of any slice yet."""
        return rolling_model(self._model)

    def finish(
        self,
        focus: FocusEstimate,
        stack: AlignedStack | RollingStack,
        aligned: Callable[[], AlignedStack],
        registration: Registration,
        reference: FocalSlice,
        camera: CameraIntrinsics | None,
        clock: Stopwatch,
        relative: Callable[[Callable[[], Floats]], Floats] = lambda ask: ask(),
    ) -> DepthEstimate:
        """From what the model found to metres; aligned: the stack's images, for the all-in-focus image;
        camera: intrinsics of slices without their own; relative: what the prior says of this frame [H, W],
        where it need not be asked.
        """
        options = self.options
        focus = doubted(focus, stack, registration, options.max_residual * stack.covered.shape[2])
        clock.lap("doubt")
        if self._prior is not None:
            ask, before = self._prior, focus
            inverse_depth = relative(
                lambda: ask(all_in_focus(aligned(), before.diopters, before.blur_px_per_diopter))
            )
            clock.lap("prior")
            focus = with_prior(focus, inverse_depth)
            clock.lap("fusion")
        depth, sigma, removed = to_metres(focus, options)
        clock.lap("to_metres")

        camera = reference.camera or camera
        return DepthEstimate(
            depth,
            sigma,
            Once(lambda: all_in_focus(aligned(), focus.diopters, focus.blur_px_per_diopter)),
            registration,
            camera=replace(camera, distortion=()) if camera else None,
            stamp_ns=reference.stamp_ns,
            blur_px_per_diopter=focus.blur_px_per_diopter,
            timings_ms=clock.laps_ms,
            removed=removed,
        )


def load_estimator(
    model: str = "sweepnet",
    device: str = "auto",
    options: EstimatorOptions | None = None,
    weights: str = "",
    precision: str = PRECISIONS[0],
    prior: str = NO_PRIOR,
    prior_weights: str = "",
    engine: str = AUTO,
) -> DepthEstimator:
    """The estimator for a model by name; ModelError for an unknown one. device: auto (cuda if there is one),
    cpu, cuda. weights: an installed name or a file, "" = the first installed for this model. precision:
    float32, int8 (cpu), bfloat16 or float16 (cuda), for models that take weights. prior: none, or
    depth_anything, which is joined with the model's estimate; prior_weights: as weights, of the prior.
    engine: what computes models with weights: auto, torch, compile, onnx, openvino (cpu) or tensorrt (cuda).
    """
    return DepthEstimator(model, device, options, weights, precision, prior, prior_weights, engine)


def reference_index(stack: FocalStack, rule: str) -> int:
    """Index of the slice whose frame the depth takes."""
    return reference_index_of(stack.focus_diopters, rule)


def reference_index_of(focus_diopters: npt.ArrayLike, rule: str) -> int:
    """The same of focus positions [S] 1/m in the order of capture."""
    focus = np.asarray(focus_diopters, np.float32)
    if rule == "first":
        return 0
    if rule == "last":
        return len(focus) - 1
    return int(np.argsort(focus, kind="stable")[len(focus) // 2])


def max_residual_px(stack: FocalStack, options: EstimatorOptions) -> float:
    """The alignment residual above which nothing is trusted."""
    return options.max_residual * stack.slices[0].image.shape[1]


def register_stack(stack: FocalStack, reference: int, options: EstimatorOptions) -> Registration:
    """Register all slices to the reference slice, with the breathing that the camera knows of."""
    if not options.register:
        return Registration.identity(len(stack.slices), reference)
    greys = [rectified(to_grey(s.image), s.camera or stack.camera) for s in stack.slices]
    focal = [s.camera.fx if s.camera else 0.0 for s in stack.slices]
    # One focal length for all is a camera that was calibrated (or guessed) at one focus, not one that does
    # not breathe.
    known = all(f > 0.0 for f in focal) and len(set(focal)) > 1
    magnifications = [f / focal[reference] for f in focal] if known else None
    limit_px = max_residual_px(stack, options)
    registration = register(greys, stack.focus_diopters, reference, limit_px, magnifications)
    if int(registration.used.sum()) < MIN_SLICES:
        found = (
            f"{px:.1f} px"
            if np.isfinite(px)
            else f"unknown ({tiles} textured tiles, expected {MIN_TEXTURED_TILES})"
            for px, tiles in zip(registration.residual_px, registration.textured_tiles, strict=True)
        )
        raise RegistrationError(
            f"{stack.name}: expected {MIN_SLICES} or more slices to register within {limit_px:.1f} px,"
            f" residuals are {', '.join(found)}"
        )
    return registration


def doubted(
    focus: FocusEstimate,
    stack: AlignedStack | RollingStack,
    registration: Registration,
    max_residual_px: float,
) -> FocusEstimate:
    """The model's estimate, with a larger sigma where the slices do not lie over each other.

    What is displaced by more than the residual that a slice is allowed may look blurred by as much; half of
    the slices must say so, for displacements are often mistaken where a slice is far out of focus. No
    estimate (an infinite sigma) where the reference or all but one of the slices did not look.
    """
    height, width = focus.diopters.shape
    others = registration.used.copy()
    others[registration.reference] = False
    excess = np.maximum(np.square(registration.tile_residual_px[others]) - max_residual_px**2, 0.0)
    tiles = np.median(excess, axis=0) / focus.blur_px_per_diopter**2
    variance = cv2.resize(tiles.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    sigma = np.sqrt(cv2.accumulateSquare(focus.sigma_diopters, variance))
    if not stack.covered.all():
        seen = np.add.reduce(stack.covered, axis=0, dtype=np.uint8) >= MIN_SLICES
        seen &= stack.covered[stack.reference]
        np.copyto(sigma, np.float32(np.inf), where=~seen)
    return replace(focus, sigma_diopters=sigma)


def to_metres(
    focus: FocusEstimate, options: EstimatorOptions
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], dict[str, int]]:
    """Depth and sigma [H, W] float32 m, NaN where there is no estimate. sigma_z = z^2 sigma_D.

    And how many pixels each limit removed, of those that were measured at all.
    """
    depth = np.float32(1.0) / np.maximum(focus.diopters, np.float32(FARTHEST_DIOPTERS))
    relative_sigma = depth * focus.sigma_diopters  # sigma_z / z = z sigma_D
    sigma = depth * relative_sigma
    within = {
        "max_sigma_diopters": focus.sigma_diopters <= options.max_sigma_diopters,
        "max_relative_sigma": relative_sigma <= options.max_relative_sigma,
        "min_depth": depth >= options.min_depth,
        "max_depth": depth <= options.max_depth,
    }
    known = np.logical_and.reduce(list(within.values()))
    measured = focus.sigma_diopters <= LARGEST_SIGMA_DIOPTERS
    removed = {name: int(np.count_nonzero(measured > kept)) for name, kept in within.items()}
    nan = np.float32(np.nan)
    return (
        np.where(known, depth, nan).astype(np.float32, copy=False),
        np.where(known, sigma, nan).astype(np.float32, copy=False),
        removed,
    )


class Stopwatch:
    """Wall time per stage."""

    def __init__(self, before_ms: dict[str, float] | None = None) -> None:
        self.laps_ms = dict(before_ms or {})
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps_ms[name] = (now - self._last) * 1e3
        self._last = now
