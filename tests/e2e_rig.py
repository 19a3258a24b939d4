"""The emulated bench behind emulated devices: a camera before a board, as far as linuxpy and a port see."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hybriddepth_ros.cameras.sweep_queue import SweptFrame
from hybriddepth_ros.emulation.bench import EmulatedBench
from hybriddepth_ros.emulation.truth import EmulatedTruth
from hybriddepth_ros.emulation.v4l2 import EmulatedControl, EmulatedMode, EmulatedV4L2, webcam_controls
from hybriddepth_ros.emulation.v4l2_parts import EXPOSURE_ABSOLUTE, FOCUS_ABSOLUTE, FOCUS_AUTO, INTEGER
from hybriddepth_ros.focal_stack import CameraIntrinsics, FocalSlice, FocalStack
from hybriddepth_ros.optics import ThinLens
from tests.cameras.conftest import ManualClock
from tests.emulated_v4l2 import BOOT_NS, PATH

EXPOSURE_MS, READOUT_MS, TRANSFER_MS = 5.0, 6.0, 2.0
_MODE = EmulatedMode("YUYV", 640, 480, (30,))


@dataclass
class Rig:
    """A bench, the device that it is seen through, and the clock of both."""

    bench: EmulatedBench
    device: EmulatedV4L2
    clock: ManualClock

    def true_focus(self, swept: SweptFrame) -> npt.NDArray[np.float64]:
        """Focus [1/m] at times from the first to the last light of a frame, as the sensor had it [N]."""
        middle_ns = swept.frame.stamp_ns
        (taken,) = (f for f in self.device.frames if f.exposure_start_ns < middle_ns < f.exposure_end_ns)
        times = np.linspace(0, taken.exposure_end_ns - taken.exposure_start_ns, 33).round().astype(int)
        return np.array([self.bench.movement.focus_diopters(taken.exposure_start_ns + int(t)) for t in times])

    def true_depth(self, camera: CameraIntrinsics) -> npt.NDArray[np.float64]:
        """[H, W] m along Z of the board as a camera without distortion sees it, NaN beside it."""
        v, u = np.mgrid[: camera.height, : camera.width]
        rays = np.stack([(u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, np.ones(u.shape)], axis=-1)
        forms = rays @ np.linalg.inv(self.bench.pose.matrix).T
        depth = 1.0 / forms[..., 2]
        half_width, half_height = (0.5 * side for side in self.bench.board.size_m)
        on = (abs(forms[..., 0] * depth) < half_width) & (abs(forms[..., 1] * depth) < half_height)
        return np.where(on & (depth > 0), depth, np.nan)


@contextmanager
def rig(seed: int, *, motor_step: int | None = 1) -> Iterator[Rig]:
    """The emulated camera of a seed as a V4L2 device whose automatic exposure arrives at EXPOSURE_MS.

    Its motor is the control of the focus, in such steps; None = the device has no motor.
    """
    # Coarser than the bench's own step, which is what rendering takes its time for.
    bench = EmulatedBench(EmulatedTruth.from_seed(seed), seed=seed, focus_step_diopters=1 / 64)
    clock = ManualClock()
    low, high = (int(end) for end in bench.truth.actuator_range)
    controls = webcam_controls(without=(FOCUS_ABSOLUTE, FOCUS_AUTO))
    for control in controls:
        if control.id == EXPOSURE_ABSOLUTE:
            control.found = round(10 * EXPOSURE_MS)
    if motor_step is not None:
        controls += [control for control in webcam_controls() if control.id == FOCUS_AUTO]
        controls.append(
            EmulatedControl(
                FOCUS_ABSOLUTE,
                "Focus, Absolute",
                *(INTEGER, low, high, motor_step, low),
                automatic=(FOCUS_AUTO, 0),
                found=low,
            )
        )

    def write(control_id: int, value: int, time_ns: int) -> None:
        if control_id == FOCUS_ABSOLUTE:
            bench.command(value, time_ns)

    with EmulatedV4L2(
        bench.picture,
        path=PATH,
        on_control=write,
        clock=clock,
        boot_ns=BOOT_NS,
        modes=(_MODE,),
        controls=controls,
        readout_ms=READOUT_MS,
        transfer_ms=TRANSFER_MS,
    ) as device:
        yield Rig(bench, device, clock)


def stack_of(swept: Sequence[SweptFrame], lens: ThinLens | None) -> FocalStack:
    """One sweep, as the depth node puts it together."""
    frames = [one.frame for one in swept]
    slices = [FocalSlice(f.image, f.focus_diopters, f.stamp_ns, f.camera) for f in frames]
    return FocalStack(tuple(slices), lens=lens)
