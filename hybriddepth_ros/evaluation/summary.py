"""All frames of a model together: means of their measures, and what is pooled over their pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from hybriddepth_ros.evaluation.frames import Floats
from hybriddepth_ros.evaluation.metrics import DistanceBin, comparable, distance_bins
from hybriddepth_ros.evaluation.runner import ModelResult
from hybriddepth_ros.evaluation.scoring import CURVES, MEASURES
from hybriddepth_ros.evaluation.uncertainty import FRACTIONS, Sparsification

TEXTURE_BINS = 8


@dataclass(frozen=True)
class TextureBin:
    """Pixels whose texture (grey levels) lies in [low, high): as many in each bin, over all models.

    median_relative: |error| / truth of what was estimated, valid_share: how much that was; NaN without any.
    """

    low: float
    high: float
    median_relative: float
    valid_share: float


@dataclass(frozen=True, eq=False)
class ModelSummary:
    """What a model scored.

    means: measure -> mean over the frames that have it (published figures are such means); distances,
    textures: bins of pooled pixels, the same for every model; reliability [P] and sparsification: means over
    frames.
    """

    label: str
    settings: dict[str, Any]
    frames: int
    means: dict[str, float]
    distances: tuple[DistanceBin, ...]
    textures: tuple[TextureBin, ...]
    reliability: npt.NDArray[np.float64] = field(repr=False)
    sparsification: dict[str, Sparsification] = field(repr=False)


def summarise(results: Sequence[ModelResult]) -> list[ModelSummary]:
    """One summary per model; bins follow from the truths of all frames that any of them scored."""
    pooled = [_pooled(result) for result in results]
    targets = np.concatenate([sample[2] for sample in pooled])
    textures = np.concatenate([sample[3] for sample in pooled])
    edges = np.unique(np.quantile(textures, np.linspace(0.0, 1.0, TEXTURE_BINS + 1)))
    if len(edges) == 1:  # no texture at all, or the same everywhere
        edges = np.repeat(edges, 2)
    limits = (float(np.percentile(targets, 0.5)), float(np.percentile(targets, 99.5)))
    return [
        ModelSummary(
            label=result.label,
            settings=result.settings,
            frames=len(result.frames),
            means=mean_measures(result),
            distances=tuple(distance_bins(sample[0], sample[1], sample[2], limits=limits)),
            textures=tuple(_texture_bins(sample, edges)),
            reliability=_mean_over_frames([f.score.reliability for f in result.frames.values()]),
            sparsification=_mean_curves(result),
        )
        for result, sample in zip(results, pooled, strict=True)
    ]


def mean_measures(result: ModelResult) -> dict[str, float]:
    """Measure -> mean over the frames in which it is finite; without those that no frame has."""
    rows = [frame.score.measures for frame in result.frames.values()]
    means = {}
    for name in MEASURES:
        if any(name in row for row in rows):
            finite = [row[name] for row in rows if math.isfinite(row.get(name, math.nan))]
            means[name] = float(np.mean(finite)) if finite else math.nan
    return means


def _pooled(result: ModelResult) -> Floats:
    return np.concatenate([frame.score.sample for frame in result.frames.values()], axis=1)


def _texture_bins(sample: Floats, edges: npt.NDArray[np.floating]) -> list[TextureBin]:
    prediction, _, target, texture = sample
    usable = comparable(prediction, target)
    place = np.clip(np.searchsorted(edges, texture, side="right") - 1, 0, len(edges) - 2)
    bins = []
    for index in range(len(edges) - 1):
        inside = place == index
        good = inside & usable
        error = np.abs(prediction[good] - target[good]) / target[good]
        bins.append(
            TextureBin(
                float(edges[index]),
                float(edges[index + 1]),
                float(np.median(error)) if error.size else math.nan,
                float(good.sum() / inside.sum()) if inside.any() else math.nan,
            )
        )
    return bins


def _mean_curves(result: ModelResult) -> dict[str, Sparsification]:
    curves = _mean_over_frames([frame.score.curves for frame in result.frames.values()])  # [M, 2, F]
    return {name: Sparsification(FRACTIONS, *curves[i]) for i, name in enumerate(CURVES)}


def _mean_over_frames(arrays: Sequence[npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
    """Mean over the frames that have a number; NaN where none has."""
    stacked = np.stack(arrays)
    there = np.isfinite(stacked)
    count = there.sum(axis=0)
    total = np.where(there, stacked, 0.0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
