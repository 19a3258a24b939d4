"""The graph's figures, seen from outside: peak rate at less than 5 % drops, latency at a fixed rate."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from typing import Any

import numpy as np

from hybriddepth_ros.bench.rows import Row, against
from hybriddepth_ros.errors import HybridDepthError
from hybriddepth_ros.ros.bench_feed import Feed, Run, feeding
from hybriddepth_ros.ros.dds import set_dds_profile

SLICES = 5
FIXED_HZ = 30.0
MOST_DROPPED = 0.05
FIRST_HZ, FACTOR, MOST_HZ, LEAST_HZ = 16.0, 1.25, 200.0, 1.0
_OVERHEAD = "hybriddepth_ros.ros.bench_overhead"


def graph_rows(quick: bool) -> list[Row]:
    """Rate, latency, processor time, memory, and what one update costs beside the model."""
    set_dds_profile()
    step_s = 3.0 if quick else 8.0
    latency_s = 12.0 if quick else 60.0
    with feeding({"model": "classical", "update": "slice"}) as (feed, process):
        feed.run(FIRST_HZ, 4 * SLICES)
        cpu_s = process.cpu_s
        sweeps = int(latency_s * FIXED_HZ) // SLICES
        fixed = feed.run(FIXED_HZ, sweeps * SLICES)
        cores = (process.cpu_s - cpu_s) / (sweeps * SLICES / FIXED_HZ)
        memory_mb = process.memory_mb
        by_slice = peak(feed, 1, step_s)
    by_sweep = _peak_hz("sweep", False, step_s)
    of_all = [] if quick else [_peak_hz(update, True, step_s) for update in ("slice", "sweep")]
    if not fixed.latencies_ms:
        raise HybridDepthError("bench: expected depth images at 30 slices/s, none came")
    p50, p95, most = np.percentile(fixed.latencies_ms, (50, 95, 100))
    return [
        against("rolling_classical_rate", by_slice.depth_hz, "Hz", by_sweep, ">= 25", "value"),
        *([against("rolling_classical_rate_of_all", of_all[0], "Hz", of_all[1])] if of_all else []),
        Row("latency_p50", float(p50), "ms"),
        Row("latency_p95", float(p95), "ms", target="<= 60"),
        Row("latency_max", float(most), "ms"),
        Row("dropped_at_30_slices", 100.0 * fixed.dropped_share(1), "%"),
        Row("cpu_share", cores, "cores"),
        Row("memory", memory_mb, "MB"),
        *overhead_rows(40 if quick else 60),
    ]


def _peak_hz(update: str, everything: bool, step_s: float) -> float:
    parameters = {"model": "classical", "update": update}
    with feeding(parameters, to_everything=everything) as (feed, _):
        feed.run(FIRST_HZ, 4 * SLICES)
        return peak(feed, 1 if update == "slice" else SLICES, step_s).depth_hz


def peak(feed: Feed, slices_per_depth: int, step_s: float) -> Run:
    """The run at the highest rate of which less than 5 % was lost: up in steps, or down if the first fails.

    HybridDepthError where even the lowest rate is too much.
    """

    def sustained(run: Run) -> bool:
        return run.dropped_share(slices_per_depth) <= MOST_DROPPED

    def at(rate_hz: float) -> Run:
        slices = SLICES * max(int(step_s * rate_hz) // SLICES, 3)
        found = feed.run(rate_hz, slices)
        return found if sustained(found) else feed.run(rate_hz, slices)  # something else had the cores

    rate_hz = FIRST_HZ
    best = at(rate_hz)
    while not sustained(best):
        rate_hz /= FACTOR
        if rate_hz < LEAST_HZ:
            raise HybridDepthError(
                f"bench: expected {LEAST_HZ:g} slices/s, the node lost more than 5 % of them"
            )
        best = at(rate_hz)
    while (rate_hz := rate_hz * FACTOR) <= MOST_HZ and sustained(found := at(rate_hz)):
        best = found
    if sustained(found := at(rate_hz / FACTOR**0.5)):  # between the last that went and the first that did not
        best = found
    return best


def overhead_rows(runs: int) -> list[Row]:
    """overhead_per_update [ms] beside a plain node's, each in a process that sends to another process."""
    ours, plain = (_overhead(kind, runs) for kind in ("ours", "plain"))
    total, plain_total = (sum(parts.values()) for parts in (ours, plain))
    return [
        Row("overhead_per_update", total, "ms", plain_total, plain_total / total, "<= 25"),
        Row("overhead_times_less", plain_total / total, "x", target=">= 5"),
        *(
            Row(f"overhead_{part}", ours[part], "ms", plain[part], plain[part] / ours[part])
            for part in ("receive", "register", "publish")
        ),
    ]


def _overhead(kind: str, runs: int) -> dict[str, float]:
    command = [sys.executable, "-m", _OVERHEAD, kind, str(runs)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise HybridDepthError(f"bench: {_OVERHEAD} {kind} ended with {ran.stderr.strip()[-300:]}")
    parts: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return {name: statistics.median(values) for name, values in parts.items()}
