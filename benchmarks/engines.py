"""Time of the learned models by engine, in the same run: a Markdown table and JSON.

    .venv/bin/python benchmarks/engines.py                          # sweepnet, CPU, 480x640, five slices
    .venv/bin/python benchmarks/engines.py --model hybriddepth --rounds 5
    .venv/bin/python benchmarks/engines.py --device cuda --threads 2

Rounds go from engine to engine, so that a slow minute of the machine hits all of them; figures are medians.
With one thread on a CPU they are processor time, which others on the machine disturb less than wall time.
Engines whose package is missing are left out. HybridDepth's weights are drawn: times do not depend on them.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import report

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hybriddepth_ros.bench.networks import made_inputs
from hybriddepth_ros.bench.rows import processor
from hybriddepth_ros.bench.scenes import endless, lens_of, made_slices
from hybriddepth_ros.errors import ModelError
from hybriddepth_ros.models import AlignedStack, HybridDepth, RollingStack, SlicePlace, for_inference
from hybriddepth_ros.models.engine_choice import engines_on
from hybriddepth_ros.models.engines import require_engine
from hybriddepth_ros.models.sweepnet_estimator import SweepNetEstimator
from hybriddepth_ros.optics import blur_px_per_diopter

HEIGHT, WIDTH, SLICES = 480, 640, 5
Calls = dict[str, Callable[[], object]]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=("sweepnet", "hybriddepth"), default="sweepnet")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--engines", nargs="+", help="[default: all that the device knows]")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    make = sweepnet_calls if options.model == "sweepnet" else hybriddepth_calls
    calls: dict[str, Calls] = {}
    starts: dict[str, float] = {}
    for engine in options.engines or engines_on(options.device):
        try:
            require_engine(engine, options.device)
        except ModelError as error:
            print(error, file=sys.stderr)
            continue
        began = time.perf_counter()
        calls[engine] = make(options.device, engine)
        with torch.inference_mode():
            for call in calls[engine].values():
                call()
        starts[engine] = time.perf_counter() - began
    on_gpu = options.device.startswith("cuda")
    clock = time.process_time if options.threads == 1 and not on_gpu else time.perf_counter
    times = medians_ms(calls, options.rounds, clock, on_gpu)
    parts = list(next(iter(times.values())))
    print(f"| {options.model} | {' | '.join(parts)} | until ready |\n|{'---|' * (len(parts) + 2)}")
    for engine, row in times.items():
        cells = " | ".join(f"{row[part]:.0f} ms" for part in parts)
        print(f"| `{engine}` | {cells} | {starts[engine]:.0f} s |")
    device = torch.cuda.get_device_name(options.device) if on_gpu else processor()
    print()
    report([{"device": device, "threads": options.threads, "model": options.model, **times}])


def medians_ms(
    calls: dict[str, Calls], rounds: int, clock: Callable[[], float], on_gpu: bool
) -> dict[str, dict[str, float]]:
    """Engine -> part -> median time [ms]."""
    times: dict[str, dict[str, list[float]]] = {
        engine: {part: [] for part in parts} for engine, parts in calls.items()
    }
    with torch.inference_mode():
        for _ in range(rounds):
            for engine, parts in calls.items():
                for part, call in parts.items():
                    began = clock()
                    call()
                    if on_gpu:
                        torch.cuda.synchronize()
                    times[engine][part].append(1e3 * (clock() - began))
    return {
        engine: {part: round(statistics.median(values), 1) for part, values in parts.items()}
        for engine, parts in times.items()
    }


def sweepnet_calls(device: str, engine: str) -> Calls:
    """The model of a whole stack, and of one new slice of a camera that stands still, or moves."""
    model = SweepNetEstimator(device, engine=engine)
    slices, lens = made_slices(WIDTH, HEIGHT, SLICES), lens_of(WIDTH)
    coming = endless(slices)
    kept = sorted((next(coming) for _ in range(SLICES)), key=lambda one: one.focus_diopters)
    images = np.stack([one.image for one in kept])
    foci = np.array([one.focus_diopters for one in kept], np.float32)
    stack = AlignedStack(images, np.ones(images.shape[:3], np.bool_), foci, blur_px_per_diopter(lens))
    return {
        "whole stack": lambda: model(stack),
        "one new slice": Updates(model, stack, step_px=0.0),
        "one new slice, moving": Updates(model, stack, step_px=1.5),
    }


class Updates:
    """One new slice per call, in turns; the view moves by step_px [px] from each to the next."""

    def __init__(self, model: SweepNetEstimator, stack: AlignedStack, step_px: float) -> None:
        self._rolling, self._stack, self._step_px = model.rolling(), stack, step_px
        self._keys = list(range(len(stack.images)))
        self._newest = len(self._keys) - 1
        self()

    def __call__(self) -> object:
        self._newest += 1
        self._keys[self._newest % len(self._keys)] = self._newest
        places = []
        for key, image in zip(self._keys, self._stack.images, strict=True):
            moved = np.eye(3)
            moved[:2, 2] = self._step_px * (key - self._newest)
            places.append(SlicePlace(key, image, moved, abs(moved[:2, 2]).max()))
        stack = self._stack
        return self._rolling(
            RollingStack(
                places,
                stack.covered,
                stack.focus_diopters,
                stack.blur_px_per_diopter,
                stack.reference,
                lambda: stack,
            )
        )


def hybriddepth_calls(device: str, engine: str) -> Calls:
    """The network with all its parts, and its two largest."""
    torch.manual_seed(0)
    network: Any = for_inference(HybridDepth(invert_depth=True).eval(), device, engine=engine)
    rgb, stack, focus = made_inputs(device, HEIGHT, WIDTH)
    return {
        "whole": lambda: network(rgb, stack, focus),
        "prior": lambda: network.relative_depth(rgb),
        "focus volume": lambda: network.focal_volume(stack, focus),
    }


if __name__ == "__main__":
    main()
