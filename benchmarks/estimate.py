"""Time of `classical` and `sweepnet` with registration on five 480x640 slices, as a whole and per stage.

.venv/bin/python benchmarks/estimate.py
"""

from __future__ import annotations

import statistics
import sys
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from measure import copy_ms, median_ms, report, result

from hybriddepth_ros import FocalSlice, FocalStack, load_estimator
from hybriddepth_ros.cameras import make_camera
from hybriddepth_ros.cameras.sweep import FocusSweep


def simulated_stack() -> FocalStack:
    """One sweep of the default simulated camera: 640x480, five slices, hand-held motion, breathing."""
    camera = make_camera("simulated", {})
    slices: list[FocalSlice] = []
    with camera, FocusSweep(camera, camera.default_focus_diopters) as sweep:
        while not slices or len(slices) < len(camera.default_focus_diopters):
            swept = sweep.read(10.0)
            if swept.slice_index == 0:
                slices.clear()
            frame = swept.frame
            slices.append(FocalSlice(frame.image, frame.focus_diopters, frame.stamp_ns, frame.camera))
    return FocalStack(tuple(slices), lens=camera.lens, name="simulated")


def rows_of(model: str, stack: FocalStack, copy: float) -> list[dict[str, object]]:
    """The whole call, and its stages."""
    estimator = load_estimator(model, device="cpu")
    laps: dict[str, list[float]] = defaultdict(list)

    def run() -> None:
        for stage, ms in estimator(stack).timings_ms.items():
            laps[stage].append(ms)

    whole = result(f"{model}_stack", median_ms(run), copy)
    stages = [result(f"{model}_stack/{stage}", statistics.median(ms), copy) for stage, ms in laps.items()]
    return [whole, *stages]


def main() -> None:
    stack = simulated_stack()
    copy = copy_ms(sum(s.image.nbytes for s in stack.slices))
    report([row for model in ("classical", "sweepnet") for row in rows_of(model, stack, copy)])


if __name__ == "__main__":
    main()
