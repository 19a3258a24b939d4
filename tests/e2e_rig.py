"""The emulated bench behind emulated devices: what a V4L2 camera before a board consists of, on one clock."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from hybriddepth_ros.cameras.sweep_queue import SweptFrame
from hybriddepth_ros.emulation.bench import EmulatedBench
from hybriddepth_ros.emulation.truth import EmulatedTruth
from hybriddepth_ros.emulation.v4l2 import EmulatedControl, EmulatedMode, EmulatedV4L2, webcam_controls
from hybriddepth_ros.emulation.v4l2_parts import FOCUS_ABSOLUTE, FOCUS_AUTO, INTEGER
from tests.cameras.conftest import ManualClock
from tests.emulated_v4l2 import BOOT_NS, PATH

EXPOSURE_MS, READOUT_MS = 5.0, 6.0
OPTIONS = {
    "device": PATH,
    "exposure_ms": EXPOSURE_MS,
    "gain": 20,
    "white_balance": 4000,
    "readout_ms": READOUT_MS,
}


@dataclass
class Bench:
    """A bench, the device that its camera is seen through, and the clock of both."""

    bench: EmulatedBench
    device: EmulatedV4L2
    clock: ManualClock

    def true_focus(self, swept: SweptFrame) -> tuple[float, float]:
        """Lowest and highest focus [1/m] during a frame's exposure."""
        start_ns, end_ns = swept.frame.exposure_start_ns, swept.frame.exposure_end_ns
        foci = [
            self.bench.movement.focus_diopters(start_ns + i * (end_ns - start_ns) // 32) for i in range(33)
        ]
        return (min(foci), max(foci))


@contextmanager
def bench_behind_v4l2(seed: int, *, motor_step: int = 1) -> Iterator[Bench]:
    """The emulated camera of a seed as a V4L2 device, with its motor as the control of the focus."""
    bench, clock = EmulatedBench(EmulatedTruth.from_seed(seed), seed=seed), ManualClock()
    low, high = (int(end) for end in bench.truth.actuator_range)

    def on_control(control_id: int, value: int, time_ns: int) -> None:
        if control_id == FOCUS_ABSOLUTE:
            bench.command(value, time_ns)

    focus = EmulatedControl(
        FOCUS_ABSOLUTE,
        "Focus, Absolute",
        *(INTEGER, low, high, motor_step, low),
        automatic=(FOCUS_AUTO, 0),
        found=low,
    )
    with EmulatedV4L2(
        bench.picture,
        path=PATH,
        on_control=on_control,
        clock=clock,
        boot_ns=BOOT_NS,
        modes=(EmulatedMode("YUYV", 640, 480, (30,)),),
        controls=[*webcam_controls(without=(FOCUS_ABSOLUTE,)), focus],
        readout_ms=READOUT_MS,
    ) as device:
        yield Bench(bench, device, clock)
