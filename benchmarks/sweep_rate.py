"""Slices per second that `focus_sweep` sends of a 640x480 camera at 30 frames/s, and what gets lost.

.venv/bin/python benchmarks/sweep_rate.py [--seconds 20] [--stack STACK] [--emulated]

`--emulated` measures the sweep alone instead, in both modes, on an emulated camera and lens whose clock needs
no time: what it achieves of what frame period, exposure and settle time allow, and how many slices truly
show another focus than they say.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
os.environ.setdefault("ROS_DOMAIN_ID", str(random.SystemRandom().randint(1, 100)))

from measure import copy_ms, report
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy

from hybriddepth_msgs.msg import FocalSlice
from hybriddepth_ros.cameras import FocusSweep, SweepOptions
from hybriddepth_ros.cameras.assembled import AssembledCamera, AssemblyOptions
from hybriddepth_ros.cameras.sweep_engine import SWEEP_MODES
from hybriddepth_ros.emulation.timed_parts import (
    TimedLens,
    TimedOptions,
    TimedSource,
    VirtualTime,
    true_positions,
)
from hybriddepth_ros.ros.dds import set_dds_profile
from hybriddepth_ros.ros.focus_sweep_node import FocusSweepNode
from hybriddepth_ros.ros.messages import from_time
from hybriddepth_ros.ros.spin import Spinner


def count_slices(seconds: float) -> None:
    """The other process: best effort, as the depth node; prints what it got as JSON."""
    context = Context()
    context.init(args=[])
    node = Node("benchmark_subscriber", context=context)
    seen: list[tuple[int, int, int, int, int]] = []

    def take(message: FocalSlice) -> None:
        focus, stamp_ns = message.focus, from_time(message.header.stamp)
        now_ns = time.time_ns()
        seen.append((focus.sweep_id, focus.slice_index, focus.slice_count, stamp_ns, now_ns))

    node.create_subscription(
        FocalSlice, "slice", take, QoSProfile(depth=16, reliability=ReliabilityPolicy.BEST_EFFORT)
    )
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    while not seen:
        executor.spin_once(0.5)
    end = time.monotonic() + 2.0  # past discovery
    while time.monotonic() < end:
        executor.spin_once(0.1)
    seen.clear()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        executor.spin_once(0.1)
    numbers = [sweep * count + index for sweep, index, count, _, _ in seen]
    expected = numbers[-1] - numbers[0] + 1
    span_s = (seen[-1][3] - seen[0][3]) * 1e-9
    latencies = [(arrived - stamp) * 1e-6 for *_, stamp, arrived in seen]
    print(
        json.dumps(
            {
                "slices_sent": expected,
                "slices_received": len(seen),
                "missed": expected - len(seen),
                "slices_per_s": round((len(seen) - 1) / span_s, 2),
                "exposure_to_other_process_ms": round(statistics.median(latencies), 2),
            }
        )
    )


EMULATED_SLICES = 10_000
EMULATED_FOCI = (0.5, 1.2, 2.2, 3.1, 4.0)
EMULATED = {
    "usual": {},
    "1 of 200 frames lost": {"dropped": 0.005},
    "slow delivery, 1 of 200 frames lost": {"dropped": 0.005, "delivery_ms": 35.0, "jitter_ms": 12.0},
    "slow lens": {"move_ms": 9.0},
}


def emulated_row(name: str, mode: str, changes: dict[str, Any]) -> dict[str, Any]:
    """One mode of the sweep on the emulated pair; limit: of the sensor's rhythm, whatever the mode."""
    options = TimedOptions(**changes)
    clock = VirtualTime()
    lens = TimedLens(options, clock)
    source = TimedSource(options, clock, lens)
    with AssembledCamera("timed", source, lens, AssemblyOptions(focus_in_diopters=True)) as camera:
        sweep = FocusSweep(camera, EMULATED_FOCI, SweepOptions(mode=mode))
        began = time.perf_counter()
        frames = list(itertools.islice(sweep.frames(), EMULATED_SLICES))
        took_s = time.perf_counter() - began
    wrong = sum(
        any(abs(position - EMULATED_FOCI[f.slice_index]) > 1e-9 for position in true_positions(f.frame.image))
        for f in frames
    )
    rate_hz = 1e9 * (len(frames) - 1) / (frames[-1].frame.stamp_ns - frames[0].frame.stamp_ns)
    seen = sweep.statistics
    return {
        "name": f"sweep/{mode}, {name}",
        "value": round(rate_hz, 2),
        "unit": "slices/s",
        "slices": len(frames),
        "wrong_focus": wrong,
        "possible_slices_per_s": round(seen.possible_rate_hz, 2),
        "limit_slices_per_s": round(options.slice_rate_limit_hz, 2),
        "ratio": round(rate_hz / options.slice_rate_limit_hz, 4),
        "slices_retaken": seen.slices_retaken,
        "frames_discarded": seen.frames_discarded,
        "frames_lost_by_camera": seen.frames_lost,
        "processor_ms_per_slice": round(1e3 * took_s / len(frames), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--stack", help="replay this STACK, 640 pixels wide, instead of the simulated camera")
    parser.add_argument("--subscriber", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--emulated", action="store_true", help="the sweep alone, on an emulated pair")
    options = parser.parse_args()
    if options.emulated:
        report(
            [emulated_row(name, mode, changes) for name, changes in EMULATED.items() for mode in SWEEP_MODES]
        )
        return
    set_dds_profile()
    if options.subscriber:
        count_slices(options.seconds)
        return
    overrides: dict[str, Any] = {}
    if options.stack:
        overrides = {"camera": "replay", "replay.stack": options.stack, "replay.width": 640}
    context = Context()
    context.init(args=[])
    node = FocusSweepNode(
        context=context,
        parameter_overrides=[Parameter(name, value=value) for name, value in overrides.items()],
    )
    spinner = Spinner([node], context)
    node.start()
    command = [sys.executable, __file__, "--subscriber", "--seconds", str(options.seconds)]
    seen = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout)
    sweep = node._sweep
    assert sweep is not None
    statistics_now = sweep.statistics
    spinner.close()
    context.try_shutdown()
    baseline = copy_ms(640 * 480 * 3)
    row = {
        "name": f"focus_sweep/{overrides.get('camera', 'simulated')}",
        "value": seen["slices_per_s"],
        "unit": "slices/s",
        **seen,
        "possible_slices_per_s": round(statistics_now.possible_rate_hz, 2),
        "frames_discarded": statistics_now.frames_discarded,
        "frames_lost_by_camera": statistics_now.frames_lost,
        "copy_of_one_slice_ms": round(baseline, 4),
        "ratio_of_latency": round(seen["exposure_to_other_process_ms"] / baseline, 1),
    }
    report([row])


if __name__ == "__main__":
    main()
