"""What an emulated camera is in truth: drawn from a seed, to be found again by the calibration."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hybriddepth_ros.cameras.calibration import CameraCalibration, FocusTable
from hybriddepth_ros.focal_stack import CameraIntrinsics

_BEYOND = 8.0  # actuator units that the table goes on beyond the ends, for the play of the mechanism


@dataclass(frozen=True)
class EmulatedTruth:
    """A camera with a focus motor, as no instrument could know it.

    camera: intrinsics focused at infinity, px; breathing_percent_per_diopter as in CameraCalibration;
    blur_px_per_diopter: diameter of the blur disc; table: actuator <-> diopters where the mechanism stands in
    the middle of its play; actuator_range: (lowest, highest); play: by how many actuator units rising and
    falling approaches differ; dead_ms: from the command to the first movement; settle_ms: from the command to
    standing still after the longest move, from one end of the range to the other: shorter ones take less;
    latency_ms: from the middle of the exposure to the delivery of the frame;
    full_well_electrons, read_noise_electrons: the sensor's noise.
    """

    camera: CameraIntrinsics
    breathing_percent_per_diopter: float
    blur_px_per_diopter: float
    table: FocusTable
    actuator_range: tuple[float, float] = (0.0, 255.0)
    play: float = 2.0
    dead_ms: float = 6.0
    settle_ms: float = 40.0
    latency_ms: float = 30.0
    exposure_ms: float = 8.0
    frame_rate_hz: float = 30.0
    full_well_electrons: float = 8000.0
    read_noise_electrons: float = 6.0

    @classmethod
    def from_seed(cls, seed: int) -> EmulatedTruth:
        """A plausible web camera of 640x480 px, with a focus of 0..255 that covers about 0 to 3 1/m."""
        rng = np.random.default_rng([seed, 20])
        fx = rng.uniform(520.0, 660.0)
        distortion = (
            rng.uniform(-0.15, 0.1),
            rng.uniform(-0.05, 0.08),
            *rng.uniform(-1e-3, 1e-3, 2),
            rng.uniform(-0.02, 0.02),
        )
        camera = CameraIntrinsics(
            fx=float(fx),
            fy=float(fx * rng.uniform(0.996, 1.004)),
            cx=float(319.5 + rng.uniform(-9.0, 9.0)),
            cy=float(239.5 + rng.uniform(-7.0, 7.0)),
            width=640,
            height=480,
            distortion=tuple(float(value) for value in distortion),
        )
        return cls(
            camera=camera,
            breathing_percent_per_diopter=float(rng.uniform(0.2, 1.6)),
            blur_px_per_diopter=float(rng.uniform(9.0, 15.0)),
            table=_table(rng),
            play=float(rng.uniform(0.8, 4.0)),
            dead_ms=float(rng.uniform(3.0, 12.0)),
            settle_ms=float(rng.uniform(28.0, 65.0)),
            latency_ms=float(rng.uniform(20.0, 45.0)),
        )

    @property
    def speed(self) -> float:
        """Of the mechanism, in actuator units per ms; a move from end to end is shorter by the play."""
        low, high = self.actuator_range
        return (high - low - self.play) / (self.settle_ms - self.dead_ms)

    def as_calibration(self) -> CameraCalibration:
        """What a perfect calibration would find."""
        low, high = self.actuator_range
        positions = np.linspace(low, high, 33)
        shift = 0.5 * self.play

        def approached(offset: float) -> FocusTable:
            return FocusTable(tuple((float(a), self.table.diopters(float(a) + offset)) for a in positions))

        rising, falling = approached(-shift), approached(shift)
        if self.table.pairs[0][1] > self.table.pairs[-1][1]:  # diopters rise where the actuator falls
            rising, falling = falling, rising
        return CameraCalibration(
            self.camera,
            "emulated",
            rising,
            falling,
            breathing_percent_per_diopter=self.breathing_percent_per_diopter,
            settle_ms=self.settle_ms,
            latency_ms=self.latency_ms,
            blur_px_per_diopter=self.blur_px_per_diopter,
            notes={"dead_time_ms": self.dead_ms, "play": self.play},
        )


def _table(rng: np.random.Generator) -> FocusTable:
    """About 0 to 3 1/m: bent like an exponential, with a ripple as of a worn thread."""
    far, near = rng.uniform(-0.08, 0.06), rng.uniform(2.9, 3.2)
    bend = float(rng.choice([-1.0, 1.0]) * rng.uniform(0.3, 1.0))
    ripple, phase = rng.uniform(0.0, 0.015), rng.uniform(0.0, 2.0 * np.pi)
    positions = np.linspace(-_BEYOND, 255.0 + _BEYOND, 137)
    x = positions / 255.0
    diopters = far + (near - far) * np.expm1(bend * x) / np.expm1(bend)
    diopters += ripple * np.sin(2.0 * np.pi * x + phase)
    return FocusTable(tuple((float(a), float(d)) for a, d in zip(positions, diopters, strict=True)))
