"""Measures of depth and of its sigma against a ground truth, in numpy.

Depths and sigmas are metres; NaN, infinity and values at or below zero count as "no estimate" and "no truth".
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Depth = npt.NDArray[np.floating]
Mask = npt.NDArray[np.bool_]

METRIC_NAMES = ("mse", "rmse", "log_rmse", "abs_rel", "sq_rel", "delta1", "delta2", "delta3")


def is_depth(values: Depth) -> Mask:
    """Where there is a depth, or a sigma, at all: finite and above 0."""
    return np.isfinite(values) & (values > 0)


def comparable(prediction: Depth, target: Depth, mask: Mask | None = None) -> Mask:
    """[H, W] True where both depths [m] are usable, and `mask` allows it."""
    usable = is_depth(prediction) & is_depth(target)
    return usable if mask is None else usable & mask


def with_sigma(prediction: Depth, sigma: Depth, target: Depth) -> Mask:
    """The comparable pixels that have a sigma."""
    return comparable(prediction, target) & is_depth(sigma)


def depth_metrics(
    pred: npt.ArrayLike,
    target: npt.ArrayLike,
    mask: npt.ArrayLike | None = None,
    confidence: npt.ArrayLike | None = None,
) -> dict[str, float]:
    """The measures of one image over its comparable pixels; every value is NaN when there is no such pixel.

    pred, target [..., H, W] m and mask are arrays or CPU tensors of one shape. mse [m^2], rmse [m], log_rmse
    [ln m], abs_rel, sq_rel [m], delta1..3 = share of pixels off by a factor below 1.25, 1.25^2, 1.25^3.
    Source: HybridDepth, table 1; published figures are means of per-image values, so that a published rmse
    is not the root of its mse. confidence: weights of the pixels in mse, rmse and abs_rel, as for phone data.
    """
    prediction, truth = np.asarray(pred), np.asarray(target)
    usable = comparable(prediction, truth, None if mask is None else np.asarray(mask, np.bool_))
    weight = None if confidence is None else np.asarray(confidence, np.float64)[usable]
    if not usable.any() or (weight is not None and not weight.sum() > 0):
        return dict.fromkeys(METRIC_NAMES, float("nan"))
    p = prediction[usable].astype(np.float64)
    t = truth[usable].astype(np.float64)
    error = t - p
    factor = np.maximum(t / p, p / t)
    mse = float(np.average(error**2, weights=weight))
    return {
        "mse": mse,
        "rmse": mse**0.5,
        "log_rmse": float(np.sqrt(np.mean((np.log(t) - np.log(p)) ** 2))),
        "abs_rel": float(np.average(np.abs(error) / t, weights=weight)),
        "sq_rel": float(np.mean(error**2 / t)),
        "delta1": float(np.mean(factor < 1.25)),
        "delta2": float(np.mean(factor < 1.25**2)),
        "delta3": float(np.mean(factor < 1.25**3)),
    }


def relative_error(prediction: Depth, target: Depth) -> npt.NDArray[np.float32]:
    """(prediction - target) / target per pixel [H, W], signed, NaN where either is missing."""
    error = np.full(prediction.shape, np.nan, np.float32)
    usable = comparable(prediction, target)
    error[usable] = (prediction[usable] - target[usable]) / target[usable]
    return error


def sigma_coverage(
    prediction: Depth, sigma: Depth, target: Depth, factors: Sequence[float] = (1.0, 2.0)
) -> dict[float, float]:
    """Share of comparable pixels whose error is within `factor` sigma; a Gaussian gives 0.683, 0.954."""
    usable = with_sigma(prediction, sigma, target)
    if not usable.any():
        return dict.fromkeys(factors, float("nan"))
    in_sigmas = np.abs(prediction[usable] - target[usable]) / sigma[usable]
    return {factor: float(np.mean(in_sigmas <= factor)) for factor in factors}


@dataclass(frozen=True)
class DistanceBin:
    """The pixels whose true depth lies in [near, far) m; that of the last bin may be `far`.

    pixels: how many were estimated, valid_share: of all, NaN where there is none; median |error| relative and
    in metres, 16..84 % band of the error [m]: NaN where nothing was estimated; median sigma [m], share within
    one sigma and within two, of the pixels that have a sigma: NaN where none has.
    """

    near: float
    far: float
    pixels: int
    valid_share: float
    median_relative: float
    median_error: float
    band_low: float
    band_high: float
    median_sigma: float
    coverage: float
    coverage_2_sigma: float


@dataclass(frozen=True)
class Score:
    """What a sequence of estimates scored.

    metrics, coverage, valid_share: means over the images; median_relative_error and bins: pooled over pixels.
    """

    images: int
    metrics: dict[str, float]
    median_relative_error: float
    coverage: dict[float, float]
    valid_share: float
    bins: tuple[DistanceBin, ...]


class ScoreKeeper:
    """Takes estimates with their truths one by one and gives one :class:`Score` over all of them.

    Per-image measures use every pixel; what is pooled (medians, bins) keeps every `stride`-th row and column,
    so that hundreds of images fit in memory.
    """

    def __init__(self, stride: int = 2) -> None:
        self._stride = stride
        self._rows: list[dict[str, float]] = []
        self._samples: list[npt.NDArray[np.float32]] = []  # each [3, pixels]: prediction, sigma, target
        self._valid: list[float] = []
        self._coverage: list[dict[float, float]] = []

    def add(self, prediction: Depth, sigma: Depth, target: Depth) -> dict[str, float]:
        """Takes one estimate [H, W] m; returns its own `depth_metrics`."""
        row = depth_metrics(prediction, target)
        self._rows.append(row)
        self._coverage.append(sigma_coverage(prediction, sigma, target))
        true = is_depth(target)
        self._valid.append(float(comparable(prediction, target).sum() / max(int(true.sum()), 1)))
        step = self._stride
        kept = true[::step, ::step]
        sample = [a[::step, ::step][kept] for a in (prediction, sigma, target)]
        self._samples.append(np.stack(sample).astype(np.float32))
        return row

    def score(self, bin_count: int = 8) -> Score:
        """The score over everything added; NaN where nothing was comparable."""
        if not self._rows:
            nothing = dict.fromkeys(METRIC_NAMES, float("nan"))
            return Score(0, nothing, float("nan"), {1.0: float("nan"), 2.0: float("nan")}, float("nan"), ())
        prediction, sigma, target = np.concatenate(self._samples, axis=1)
        usable = comparable(prediction, target)
        relative = np.abs(prediction[usable] - target[usable]) / target[usable]
        return Score(
            images=len(self._rows),
            metrics={name: _mean([row[name] for row in self._rows]) for name in METRIC_NAMES},
            median_relative_error=_median(relative),
            coverage={k: _mean([row[k] for row in self._coverage]) for k in self._coverage[0]},
            valid_share=_mean(self._valid),
            bins=tuple(distance_bins(prediction, sigma, target, bin_count)),
        )


def distance_bins(
    prediction: Depth,
    sigma: Depth,
    target: Depth,
    count: int = 8,
    limits: tuple[float, float] | None = None,
) -> list[DistanceBin]:
    """Bins of pixels [N] even in diopters over the true depths: there a focus cue's error is nearly constant.

    limits: nearest and farthest distance [m], None = of 99 % of the true depths. Bins without a pixel are
    among them; one bin where all depths are equal, none without any depth.
    """
    if not target.size:
        return []
    low, high = limits or np.percentile(target, (0.5, 99.5))
    edges = 1.0 / np.linspace(1.0 / low, 1.0 / high, count + 1 if high > low else 2)
    edges[[0, -1]] = low, high
    usable, sure = comparable(prediction, target), with_sigma(prediction, sigma, target)
    bins = []
    for near, far in itertools.pairwise(edges):
        inside = (target >= near) & (target <= far if far == high else target < far)
        good = inside & usable
        coverage = sigma_coverage(prediction[inside], sigma[inside], target[inside])
        error = prediction[good] - target[good]
        band = np.percentile(error, (16, 84)) if error.size else (np.nan, np.nan)
        bins.append(
            DistanceBin(
                near=float(near),
                far=float(far),
                pixels=int(good.sum()),
                valid_share=float(good.sum() / inside.sum()) if inside.any() else float("nan"),
                median_relative=_median(np.abs(error) / target[good]),
                median_error=_median(np.abs(error)),
                band_low=float(band[0]),
                band_high=float(band[1]),
                median_sigma=_median(sigma[inside & sure]),
                coverage=coverage[1.0],
                coverage_2_sigma=coverage[2.0],
            )
        )
    return bins


def _median(values: Depth) -> float:
    return float(np.median(values)) if values.size else float("nan")


def _mean(values: Sequence[float]) -> float:
    finite = [v for v in values if np.isfinite(v)]
    return float(np.mean(finite)) if finite else float("nan")
