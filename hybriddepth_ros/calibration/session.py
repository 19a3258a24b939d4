"""A calibration from the first step to the last; each writes what it found at once into the one YAML file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hybriddepth_ros.calibration.aperture import ApertureResult, solve_aperture
from hybriddepth_ros.calibration.board import BoardSpec
from hybriddepth_ros.calibration.breathing import BreathingResult, at_other_focus, solve_breathing
from hybriddepth_ros.calibration.captures import BoardViews, Captures, write_captures
from hybriddepth_ros.calibration.focus_table import FocusTableResult, solve_focus_table
from hybriddepth_ros.calibration.intrinsics import IntrinsicsResult, capture_intrinsics, solve_intrinsics
from hybriddepth_ros.calibration.latency import LatencyResult, capture_step_response, solve_latency
from hybriddepth_ros.calibration.rig import Operator, Rig
from hybriddepth_ros.calibration.sweeps import MeasuredSweep, Values, capture_sweeps, measure_sweep
from hybriddepth_ros.cameras.calibration import CameraCalibration, read_calibration, write_calibration
from hybriddepth_ros.errors import CalibrationError, ParameterError

FILE = "calibration.yaml"
_FOCUS_NOTE = "intrinsics_focus_diopters"  # the focus [1/m] that the intrinsics were measured at


@dataclass
class Results:
    """What the steps of this session found, for the report; None = not run."""

    intrinsics: IntrinsicsResult | None = None
    latency: LatencyResult | None = None
    breathing: BreathingResult | None = None
    focus_table: FocusTableResult | None = None
    aperture: ApertureResult | None = None


class Session:
    """Steps on a live camera (rig and operator) or on captured images.

    `folder` holds calibration.yaml; what was in it stays, but for what a step finds anew. With `keep_images`,
    and where a step fails, the pictures are written to images/ there, for a session from that folder.
    """

    def __init__(
        self,
        folder: Path,
        board: BoardSpec,
        rig: Rig | None = None,
        operator: Operator | None = None,
        captures: Captures | None = None,
        name: str = "focus_camera",
        keep_images: bool = False,
    ) -> None:
        if (rig is None or operator is None) == (captures is None):
            raise ParameterError("calibrate: expected a camera or a folder of images, one of both")
        self._path = folder / FILE
        self.board, self._rig, self._operator, self._name = board, rig, operator, name
        self._keep_images = keep_images
        self._image_folder = folder / "images" if captures is None else None
        self._given = captures is not None
        self._captures = captures or Captures(board)
        self._measured: tuple[MeasuredSweep, ...] | None = None
        self.results = Results()
        self.calibration: CameraCalibration | None = (
            read_calibration(self._path) if self._path.exists() else None
        )
        if rig is not None and self.calibration is not None and self.calibration.settle_ms is not None:
            rig.know_settle(self.calibration.settle_ms)

    @property
    def measured(self) -> tuple[MeasuredSweep, ...]:
        """The sweeps that this session took or was given."""
        return self._measured or ()

    @property
    def found_something(self) -> bool:
        """Whether a step of this session has a result."""
        return any(result is not None for result in vars(self.results).values())

    def run(self, steps: Sequence[str], began: Callable[[str], None]) -> None:
        """The steps named, in their order; `began` is told each as it begins."""
        for step in (step for step in STEPS if step in steps):
            if self._given and step == "latency" and len(steps) > 1:
                continue  # images do not tell when they were taken
            began(step)
            try:
                STEPS[step](self)
            except CalibrationError as error:
                kept = self._save_after_failure()
                if kept is None:
                    raise
                again = f"the images are kept, --from-folder {kept} tries them again"
                raise CalibrationError(f"{error} ({again})") from None
            assert self.calibration is not None
            write_calibration(self._path, self.calibration)

    def find_intrinsics(self) -> None:
        """fx, fy, cx, cy and distortion, brought to a focus at infinity."""
        if not self._given:
            rig, operator = self._live("intrinsics")
            self._keep(views=capture_intrinsics(rig, operator))
        views: BoardViews | None = self._captures.views
        if views is None:
            raise ParameterError("intrinsics: expected images of the board (intrinsics: in captures.yaml)")
        found = solve_intrinsics(views, self.board)
        former = self.calibration
        percent = former.breathing_percent_per_diopter if former else 0.0
        camera = at_other_focus(found.camera, found.focus_diopters, 0.0, percent)
        base = former or CameraCalibration(camera, self._name)
        notes = {_FOCUS_NOTE: found.focus_diopters, "intrinsics_rms_px": found.rms_px}
        self.results.intrinsics = found
        self._update(base, camera=camera, notes=base.notes | notes)

    def find_latency(self) -> None:
        """Settle time of the lens and delay of the frames."""
        rig, operator = self._live("latency")
        known = self._known("latency")
        found = solve_latency(*capture_step_response(rig, operator))
        rig.know_settle(found.settle_ms)
        self.results.latency = found
        self._update(
            known,
            settle_ms=found.settle_ms,
            latency_ms=found.latency_ms,
            notes=known.notes | {"dead_time_ms": found.dead_ms},
        )

    def find_breathing(self) -> None:
        """Growth of the image with focus, and with it the focal length at infinity."""
        known = self._known("breathing")
        at = known.notes.get(_FOCUS_NOTE, 0.0)
        if isinstance(at, bool) or not isinstance(at, (int, float)) or not np.isfinite(at):
            raise ParameterError(f"{self._path}: {_FOCUS_NOTE}: expected a finite number, got {at!r}")
        at = float(at)
        found = solve_breathing(
            self._sweeps(known, board_only=False), self.board, known.at_focus(at), at, self._position_range
        )
        self.results.breathing = found
        self._update(
            known,
            camera=found.camera,
            breathing_percent_per_diopter=found.percent_per_diopter,
            notes=known.notes | {"breathing_sigma": found.sigma},
        )

    def find_focus_table(self) -> None:
        """Actuator position <-> diopters, for both directions of approach."""
        known = self._known("focus_table")
        measured = self._sweeps(known, board_only=False)
        found = solve_focus_table(measured, self.board, known.at_focus, self._position_range)
        self.results.focus_table = found
        self._update(
            known,
            focus_table=found.table(rising_diopters=True),
            focus_table_falling=found.table(rising_diopters=False) if found.has_play else None,
            residual_diopters=found.rms_diopters,
            notes=known.notes | {"play": found.play},
        )

    def find_aperture(self) -> None:
        """Blur diameter per diopter out of focus."""
        known = self._known("aperture")
        if known.focus_table is None:
            raise ParameterError(f"{self._path}: expected focus_table: run that step first")
        measured = self._sweeps(known, board_only=True)
        focus = [_focus_of(known, sweep) for sweep in measured]
        found = solve_aperture(self._captures.sweeps, measured, focus, self.board, known.at_focus)
        self.results.aperture = found
        self._update(
            known,
            blur_px_per_diopter=found.px_per_diopter,
            notes=known.notes | {"blur_px_per_diopter_sigma": found.sigma},
        )

    def _known(self, step: str) -> CameraCalibration:
        if self.calibration is None:
            raise ParameterError(f"{self._path}: expected intrinsics before {step}: run that step first")
        camera, size = self.calibration.camera, self._image_size
        if size is not None and size != (camera.width, camera.height):
            raise ParameterError(
                f"{step}: expected images of {camera.width}x{camera.height} px, as calibrated ({self._path}),"
                f" got {size[0]}x{size[1]}"
            )
        return self.calibration

    @property
    def _image_size(self) -> tuple[int, int] | None:
        """(width, height) of the images, None without any."""
        if self._rig is not None:
            return self._rig.source.size
        shots = [shot for sweep in self._captures.sweeps for shot in sweep.shots]
        return (shots[0].image.shape[1], shots[0].image.shape[0]) if shots else None

    def _live(self, step: str) -> tuple[Rig, Operator]:
        if self._rig is None or self._operator is None:
            raise ParameterError(f"{step}: expected a camera, images cannot tell it")
        return self._rig, self._operator

    def _sweeps(self, known: CameraCalibration, board_only: bool) -> tuple[MeasuredSweep, ...]:
        """Sweeps serve three steps: they are taken once."""
        if not self._captures.sweeps:
            if self._given:
                raise ParameterError("sweeps: expected focus sweeps (sweeps: in captures.yaml), got none")
            rig, operator = self._live("sweeps")
            self._keep(sweeps=capture_sweeps(rig, operator, board_only))
        if self._measured is None:
            centre = (known.camera.cx, known.camera.cy)
            self._measured = tuple(measure_sweep(s, self.board, centre) for s in self._captures.sweeps)
        return self._measured

    def _keep(self, **taken: Any) -> None:
        self._captures = replace(self._captures, **taken)
        if self._keep_images and self._image_folder is not None:
            write_captures(self._image_folder, self._captures)

    def _save_after_failure(self) -> Path | None:
        """Where the images of a failed step lie: whoever held the board should not have to do it again."""
        taken = self._captures.views is not None or bool(self._captures.sweeps)
        if self._image_folder is None or not taken:
            return None
        write_captures(self._image_folder, self._captures)
        return self._image_folder

    def _update(self, known: CameraCalibration, **found: Any) -> None:
        temperature = self._rig.lens.state().temperature_c if self._rig else None
        if temperature is not None:
            found["temperature_c"] = temperature
        self.calibration = replace(known, **found)

    @property
    def _position_range(self) -> tuple[float, float]:
        if self._rig is not None:
            return self._rig.position_range
        positions = [shot.actuator for sweep in self._captures.sweeps for shot in sweep.shots]
        return (min(positions), max(positions))


STEPS: dict[str, Callable[[Session], None]] = {
    "intrinsics": Session.find_intrinsics,
    "latency": Session.find_latency,
    "breathing": Session.find_breathing,
    "focus_table": Session.find_focus_table,
    "aperture": Session.find_aperture,
}


def _focus_of(known: CameraCalibration, sweep: MeasuredSweep) -> Values:
    """Focus of a sweep's shots [1/m], by the table of their direction of approach."""
    table = known.focus_table
    assert table is not None
    falling = known.focus_table_falling or table
    grows = table.pairs[-1][1] > table.pairs[0][1]
    return np.array(
        [
            (table if (approach > 0) == grows else falling).diopters(float(actuator))
            for actuator, approach in zip(sweep.actuator, sweep.approach, strict=True)
        ]
    )
