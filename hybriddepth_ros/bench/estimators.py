"""Time of one new slice (`RollingEstimator`) beside that of the whole stack, in turns in one process."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hybriddepth_ros.bench.rows import Row, against
from hybriddepth_ros.bench.scenes import endless, lens_of, made_slices
from hybriddepth_ros.estimator import DepthEstimate, DepthEstimator, EstimatorOptions, load_estimator
from hybriddepth_ros.focal_stack import FocalSlice, FocalStack
from hybriddepth_ros.rolling import RollingEstimator

STAGES = ("prepare", "register", "overlap", "classical", "doubt", "to_metres")
TARGETS = {"classical": "<= 0.35", "sweepnet": "<= 0.4"}
DIFFERENCE_TARGET = "<= 2"  # percent
RESOLUTIONS = ((320, 240), (640, 480), (960, 720), (1280, 960))
SLICE_COUNTS = (2, 5, 9, 16)
_WARM_UP_STACKS = 1


@dataclass(frozen=True)
class SliceCost:
    """Medians [ms]: of one new slice, of the stack of the last ones, and of the new slice's stages; sharp_ms,
    whole_sharp_ms: of the all-in-focus image that may be made of either.
    """

    rolling_ms: float
    whole_ms: float
    stages_ms: dict[str, float]
    sharp_ms: float
    whole_sharp_ms: float


def load(model: str) -> DepthEstimator:
    """In the frame of the newest slice, as the rolling estimate is."""
    return load_estimator(model, "cpu", EstimatorOptions(reference="last"))


def slice_cost(model: str, slices: list[FocalSlice], count: int, updates: int, stacks: int) -> SliceCost:
    """Of sweeps of `count` slices; every stack is timed between two of the updates."""
    lens = lens_of(slices[0].image.shape[1])
    whole, rolling = load(model), RollingEstimator(load(model))
    coming: Iterator[FocalSlice] = endless(slices)
    recent: list[FocalSlice] = []
    times: dict[str, list[float]] = defaultdict(list)
    laps: dict[str, list[float]] = defaultdict(list)
    every = max(updates // stacks, 1)
    warm_up = 2 * count
    for n in range(warm_up + updates):
        new = next(coming)
        recent = [*recent, new][-count:]
        start = time.perf_counter()
        estimate = rolling(new, count, lens=lens)
        spent_ms = _ms_since(start)
        if n < warm_up:
            continue
        assert estimate is not None, "a made slice was dropped"
        times["rolling"].append(spent_ms)
        for stage, ms in estimate.timings_ms.items():
            laps[stage].append(ms)
        if (n - warm_up) % every == 0:
            times["sharp"].append(_sharp_ms(estimate))
            stack = FocalStack(tuple(recent), lens=lens)
            for _ in range(1 if times["whole"] else 1 + _WARM_UP_STACKS):
                start = time.perf_counter()
                estimate = whole(stack)
                spent_ms = _ms_since(start)
            times["whole"].append(spent_ms)
            times["whole_sharp"].append(_sharp_ms(estimate))
    return SliceCost(
        stages_ms={stage: statistics.median(values) for stage, values in laps.items()},
        **{f"{name}_ms": statistics.median(values) for name, values in times.items()},
    )


def _sharp_ms(estimate: DepthEstimate) -> float:
    start = time.perf_counter()
    _ = estimate.all_in_focus
    return _ms_since(start)


def _ms_since(start: float) -> float:
    return (time.perf_counter() - start) * 1e3


def cost_rows(
    model: str, updates: int, stacks: int, size: tuple[int, int] = (640, 480), count: int = 5
) -> list[Row]:
    """rolling_<model>_slice_cost; of classical also its stages, of sweepnet the difference of the outputs."""
    cost = slice_cost(model, made_slices(*size, count), count, updates, stacks)
    rows = [
        against(f"rolling_{model}_slice_cost", cost.rolling_ms, "ms", cost.whole_ms, TARGETS.get(model, ""))
    ]
    if model == "classical":
        rows += [Row(f"stage_{stage}", cost.stages_ms[stage], "ms") for stage in STAGES]
        rows.append(against("all_in_focus", cost.sharp_ms, "ms", cost.whole_sharp_ms))
    else:
        percent = difference_percent(model, made_slices(*size, count, still=True), count)
        rows.append(Row(f"rolling_{model}_difference", percent, "%", target=DIFFERENCE_TARGET))
    return rows


def difference_percent(model: str, slices: list[FocalSlice], count: int) -> float:
    """Mean of |rolling / whole - 1| over the pixels that both estimate, after two sweeps."""
    lens = lens_of(slices[0].image.shape[1])
    coming, rolling = endless(slices), RollingEstimator(load(model))
    given = [next(coming) for _ in range(2 * count)]
    estimates = [rolling(new, count, lens=lens) for new in given]
    expected = load(model)(FocalStack(tuple(given[-count:]), lens=lens))
    found = estimates[-1]
    assert found is not None, "a made slice was dropped"
    both = np.isfinite(found.depth) & np.isfinite(expected.depth)
    return 100.0 * float(np.abs(found.depth[both] / expected.depth[both] - 1.0).mean())


def scaling_cases(quick: bool) -> list[tuple[int, int, int]]:
    """(width, height, slices): resolutions at five slices, and slices at 640x480."""
    resolutions = (RESOLUTIONS[0], RESOLUTIONS[1], RESOLUTIONS[3]) if quick else RESOLUTIONS
    cases = [(width, height, 5) for width, height in resolutions]
    return cases + [(640, 480, count) for count in SLICE_COUNTS if count != 5]


def scaling_row(width: int, height: int, count: int, updates: int, stacks: int) -> Row:
    """scaling_<width>x<height>_<slices> of `classical`: one new slice; baseline: the whole stack."""
    cost = slice_cost("classical", made_slices(width, height, count), count, updates, stacks)
    return against(f"scaling_{width}x{height}_{count}", cost.rolling_ms, "ms", cost.whole_ms)
