"""Everything that `hybriddepth bench` measures, in one run."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

from hybriddepth_ros.bench.estimators import cost_rows, scaling_cases, scaling_row
from hybriddepth_ros.bench.rows import Row

ROS_PACKAGES = ("rclpy", "hybriddepth_msgs", "cv_bridge", "sensor_msgs_py")
_NO_GPU = (
    "hybriddepth_with_transfers (target on a GPU: 10 ms or less) and the target of hybriddepth_rolling there"
    " (5 ms or less), both in bfloat16: no CUDA device is here"
)


@dataclass(frozen=True)
class Effort:
    """How often each thing is measured; network_s: how long the paper's network may take in all [s]."""

    updates: int
    stacks: int
    scaling_updates: int
    scaling_stacks: int
    network_rounds: int
    network_s: float


QUICK = Effort(30, 6, 10, 2, 1, 60.0)
THOROUGH = Effort(100, 20, 30, 6, 5, 900.0)


def measure(quick: bool, tell: Callable[[str], None]) -> tuple[list[Row], list[str]]:
    """The rows, and one line for each group that was left out. `tell` hears what is measured now."""
    effort = QUICK if quick else THOROUGH
    rows: list[Row] = []
    left_out: list[str] = []
    tell("one new slice, classical")
    rows += cost_rows("classical", effort.updates, effort.stacks)
    if _missing("torch"):
        left_out.append("sweepnet and hybriddepth: torch is not installed")
    else:
        tell("one new slice, sweepnet")
        rows += cost_rows("sweepnet", effort.updates, effort.stacks)
    if missing := _missing(*ROS_PACKAGES):
        left_out.append(f"the depth node's rate, latency and overhead: {', '.join(missing)} not installed")
    else:
        from hybriddepth_ros.ros.bench_graph import graph_rows

        tell("the depth node over DDS")
        rows += graph_rows(quick)
    for width, height, count in scaling_cases(quick):
        tell(f"{width}x{height}, {count} slices")
        rows.append(scaling_row(width, height, count, effort.scaling_updates, effort.scaling_stacks))
    if not _missing("torch"):
        tell("hybriddepth")
        found, reason = _networks(effort)
        rows += found
        left_out += reason
    return rows, left_out


def _networks(effort: Effort) -> tuple[list[Row], list[str]]:
    from hybriddepth_ros.bench.networks import NEEDED_GB, available_gb, cuda_is_here, network_rows

    left_out = [] if cuda_is_here() else [_NO_GPU]
    if (available := available_gb()) < NEEDED_GB:
        return [], [
            *left_out,
            f"hybriddepth: {available:.1f} GB of memory are free, {NEEDED_GB:g} GB are needed",
        ]
    rows = network_rows(effort.network_rounds, effort.network_s)
    if not rows:
        left_out.append(f"hybriddepth: would take more than {effort.network_s:.0f} s here")
    return rows, left_out


def _missing(*names: str) -> list[str]:
    return [name for name in names if importlib.util.find_spec(name) is None]
