"""The camera `emulated`: the one that calibration is proven on, before a still board, in real time.

Its focus motor has dead time, play and a crooked scale, its image breathes and is distorted. What it is told
of itself is its own truth, or what `hybriddepth calibrate --camera emulated` found of the same seed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from hybriddepth_ros.cameras.assembled import AssembledCamera, AssemblyOptions
from hybriddepth_ros.cameras.base import Clock, Progress, register_camera
from hybriddepth_ros.emulation.bench import BoardPose, EmulatedBench
from hybriddepth_ros.emulation.parts import EmulatedMotor, EmulatedSource
from hybriddepth_ros.emulation.truth import EmulatedTruth
from hybriddepth_ros.errors import CameraError
from hybriddepth_ros.parameters import parameter

# A picture takes 30 ms to render, as long as a frame lasts. So few foci on the way of the lens are told apart
# that they can be rendered ahead; frames of the moving lens are thrown away by a sweep anyhow.
_FOCUS_STEP_DIOPTERS = 1 / 16


@dataclass(frozen=True)
class EmulatedCameraOptions:
    """Parameters of the camera `emulated`; its images are of 640x480 px."""

    seed: int = parameter(0, "Which camera: lens, sensor and noise", minimum=0, maximum=2**31 - 1)
    distance_m: float = parameter(
        0.6, "Distance of the board's middle along the optical axis", unit="m", minimum=0.1, maximum=20.0
    )
    tilt_x_deg: float = parameter(
        0.0, "Tilt of the board about its horizontal axis", unit="deg", minimum=-60.0, maximum=60.0
    )
    tilt_y_deg: float = parameter(
        20.0, "Tilt of the board about its vertical axis", unit="deg", minimum=-60.0, maximum=60.0
    )
    turn_deg: float = parameter(
        0.0, "Turn of the board within its plane", unit="deg", minimum=-180.0, maximum=180.0
    )
    frame_rate: float = parameter(30.0, "Frames per second", unit="Hz", minimum=1.0, maximum=120.0)
    exposure_ms: float = parameter(8.0, "Exposure time", unit="ms", minimum=0.1, maximum=30.0)
    calibration: str = parameter("", "File of `hybriddepth calibrate`; empty = the truth of this camera")


def make_truth(options: EmulatedCameraOptions) -> EmulatedTruth:
    """What the camera is; CameraError for an exposure that is longer than a frame."""
    if options.exposure_ms * options.frame_rate > 1e3:
        raise CameraError(
            f"camera emulated: expected exposure_ms within the frame period, {1e3 / options.frame_rate:.1f}"
            f" ms, got {options.exposure_ms:g}"
        )
    truth = EmulatedTruth.from_seed(options.seed)
    return replace(truth, frame_rate_hz=options.frame_rate, exposure_ms=options.exposure_ms)


@register_camera("emulated", EmulatedCameraOptions)
class EmulatedCamera(AssembledCamera):
    """Source and motor of an emulated bench; `bench` may be moved and asked for the truth."""

    def __init__(self, options: EmulatedCameraOptions, clock: Clock | None = None) -> None:
        truth = make_truth(options)
        clock = clock or Clock()
        self.bench = EmulatedBench(truth, seed=options.seed, focus_step_diopters=_FOCUS_STEP_DIOPTERS)
        self.bench.place(
            BoardPose(
                options.distance_m,
                tilt_x_deg=options.tilt_x_deg,
                tilt_y_deg=options.tilt_y_deg,
                turn_deg=options.turn_deg,
            )
        )
        super().__init__(
            "emulated",
            EmulatedSource(self.bench, clock),
            EmulatedMotor(self.bench, clock),
            AssemblyOptions(options.calibration),
            truth.as_calibration(),
        )

    def prepare(self, focus_diopters: Sequence[float], progress: Progress | None = None) -> None:
        """Render what a sweep over these will show, at rest and on the way."""
        foci = list(dict.fromkeys((*self._resting(focus_diopters), *self._passing(focus_diopters))))
        for done, focus in enumerate(foci, 1):
            self.bench.render(focus)
            if progress is not None:
                progress(done, len(foci))

    def _resting(self, focus_diopters: Sequence[float]) -> Iterator[float]:
        """Where the lens truly comes to rest [1/m], from either side."""
        truth = self.bench.truth
        pairs = truth.table.pairs
        grows = pairs[-1][1] > pairs[0][1]
        for focus in focus_diopters:
            for rising in (True, False):
                actuator = float(round(self._table(rising).actuator(focus)))
                behind = -0.5 * truth.play if rising == grows else 0.5 * truth.play
                yield truth.table.diopters(actuator + behind)

    def _passing(self, focus_diopters: Sequence[float]) -> Iterator[float]:
        """What the bench tells apart between them [1/m]."""
        step = self.bench.focus_step_diopters
        first, last = math.floor(min(focus_diopters) / step), math.ceil(max(focus_diopters) / step)
        for index in range(first, last + 1):
            yield step * index
