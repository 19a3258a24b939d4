"""What one estimate of one frame scored: a row of numbers, curves, and a sample of its pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from hybriddepth_ros.errors import DatasetError
from hybriddepth_ros.evaluation.frames import (
    DisparityTruth,
    EvaluationFrame,
    Floats,
    GroundTruth,
    Mask,
)
from hybriddepth_ros.evaluation.metrics import (
    METRIC_NAMES,
    comparable,
    depth_metrics,
    is_depth,
    sigma_coverage,
)
from hybriddepth_ros.evaluation.uncertainty import (
    boundary_errors,
    diopter_error,
    negative_log_likelihood,
    reliability,
    sparsification,
)
from hybriddepth_ros.image_files import ImageRGB, to_grey

SAMPLE_PIXELS = 20_000  # per frame, for what is pooled over frames
TEXTURE_WINDOW_PX = 9
CURVES: tuple[Literal["abs_rel", "rmse"], ...] = ("abs_rel", "rmse")

# In the order of tables. Lengths in metres; nll in ln 1/m; shares and ratios without a unit.
SIGMA_MEASURES = (
    "coverage_1_sigma",
    "coverage_2_sigma",
    "nll_gaussian",
    "nll_laplace",
    "ause_abs_rel",
    "ause_rmse",
)
OTHER_MEASURES = (
    "median_abs_rel",
    "diopter_mae",
    "boundary_abs_rel",
    "interior_abs_rel",
    "zoom_abs_rel",
    "valid_share",
    "runtime_ms",
)
DISPARITY_MEASURES = tuple(f"disparity_{name}" for name in METRIC_NAMES)
MEASURES = (*METRIC_NAMES, *OTHER_MEASURES, *SIGMA_MEASURES, *DISPARITY_MEASURES)


@dataclass(frozen=True, eq=False)
class Subject:
    """What an estimate is compared with.

    truth, valid, confidence: see EvaluationFrame; scene [H, W, 3] uint8 RGB: a picture in the truth's frame;
    texture [H, W] float32: grey levels, see `texture`.
    """

    name: str
    truth: GroundTruth
    valid: Mask
    scene: ImageRGB
    texture: Floats
    confidence: Floats | None = None

    @classmethod
    def of(cls, frame: EvaluationFrame) -> Subject:
        """What a frame says of itself."""
        images = [item.image for item in frame.stack.slices]
        scene = images[frame.reference]
        return cls(frame.name, frame.truth, frame.valid, scene, texture(images), frame.confidence)

    def depth_m(self) -> Floats:
        """The truth that counts [H, W] m, NaN elsewhere."""
        return np.where(self.valid, self.truth.depth_m(), np.float32(np.nan))


@dataclass(frozen=True, eq=False)
class Reading:
    """What was estimated of a frame: depth, sigma [H, W] float32 m, NaN = no estimate.

    scene: a better picture than the subject's, or None; runtime_ms: how long it took, NaN = unknown;
    zoom_abs_rel: see `zoom_difference`, None = not asked for.
    """

    depth: Floats
    sigma: Floats
    scene: ImageRGB | None = None
    runtime_ms: float = math.nan
    zoom_abs_rel: float | None = None


@dataclass(frozen=True, eq=False)
class FrameScore:
    """measures: name -> value, NaN where it does not exist; reliability [P]: see uncertainty.

    curves [M, 2, F]: of CURVES, error of what is left, by sigma and by error; sample [4, N] float32: depth,
    sigma, truth [m] and texture of pixels that have a truth.
    """

    measures: dict[str, float]
    reliability: npt.NDArray[np.float64]
    curves: npt.NDArray[np.float64] = field(repr=False)
    sample: Floats = field(repr=False)


def score(subject: Subject, reading: Reading) -> FrameScore:
    """All measures of one estimate; DatasetError if its size is not that of the truth."""
    target = subject.depth_m()
    if reading.depth.shape != target.shape:
        raise DatasetError(
            f"{subject.name}: expected a depth of {list(target.shape)} pixels, as the truth has, "
            f"got {list(reading.depth.shape)}"
        )
    estimate = (reading.depth, reading.sigma, target)
    curves = {name: sparsification(*estimate, name) for name in CURVES}
    coverage = sigma_coverage(*estimate)
    boundary, interior = boundary_errors(reading.depth, target)
    good = comparable(reading.depth, target)
    relative = np.abs(reading.depth[good] - target[good]) / target[good]
    measures = {
        **depth_metrics(reading.depth, target, confidence=subject.confidence),
        "median_abs_rel": float(np.median(relative)) if relative.size else math.nan,
        "diopter_mae": diopter_error(reading.depth, target),
        "boundary_abs_rel": boundary,
        "interior_abs_rel": interior,
        "valid_share": float(good.sum() / max(int(np.isfinite(target).sum()), 1)),
        "runtime_ms": reading.runtime_ms,
        **({} if reading.zoom_abs_rel is None else {"zoom_abs_rel": reading.zoom_abs_rel}),
        "coverage_1_sigma": coverage[1.0],
        "coverage_2_sigma": coverage[2.0],
        "nll_gaussian": negative_log_likelihood(*estimate),
        "nll_laplace": negative_log_likelihood(*estimate, "laplace"),
        "ause_abs_rel": curves["abs_rel"].ause,
        "ause_rmse": curves["rmse"].ause,
        **_disparity_measures(subject, reading),
    }
    return FrameScore(
        measures={name: measures[name] for name in MEASURES if name in measures},
        reliability=reliability(*estimate),
        curves=np.array([[curves[name].by_sigma, curves[name].by_error] for name in CURVES]),
        sample=_sample(reading, target, subject.texture),
    )


def _disparity_measures(subject: Subject, reading: Reading) -> dict[str, float]:
    """The published measures where the truth is a disparity: in its unit."""
    if not isinstance(subject.truth, DisparityTruth):
        return {}
    found = depth_metrics(
        subject.truth.disparity(reading.depth), subject.truth.values, subject.valid, subject.confidence
    )
    return {f"disparity_{name}": value for name, value in found.items()}


def _sample(reading: Reading, target: Floats, contrast: Floats) -> Floats:
    """SAMPLE_PIXELS of the known ones, evenly, or all of them where there are fewer."""
    known = np.flatnonzero(is_depth(target))
    if known.size > SAMPLE_PIXELS:
        known = known[np.linspace(0, known.size - 1, SAMPLE_PIXELS).astype(np.intp)]
    maps = (reading.depth, reading.sigma, target, contrast)
    return np.stack([values.ravel()[known] for values in maps]).astype(np.float32)


def texture(images: Sequence[ImageRGB]) -> Floats:
    """[H, W] standard deviation of the grey levels about each pixel, in the slice where it is largest.

    It says how much there is to focus on, whichever slice is sharp there; a window forgives that slices are
    not aligned.
    """
    size = (TEXTURE_WINDOW_PX, TEXTURE_WINDOW_PX)
    largest: Floats | None = None
    for image in images:
        grey = to_grey(image).astype(np.float32)
        mean = cv2.blur(grey, size)
        variance = np.maximum(cv2.blur(grey * grey, size) - mean * mean, 0.0)
        largest = variance if largest is None else np.maximum(largest, variance)
    if largest is None:
        raise ValueError("expected at least one image")
    return np.sqrt(largest)
