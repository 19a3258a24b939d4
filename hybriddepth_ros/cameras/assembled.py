"""A camera that is assembled: what delivers images, what moves the focus, and their calibration."""

from __future__ import annotations

import threading
from collections import deque
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hybriddepth_ros.cameras.base import CameraFrame, FocusCamera
from hybriddepth_ros.cameras.calibration import CameraCalibration, FocusTable, read_calibration
from hybriddepth_ros.cameras.lens import FocusLens
from hybriddepth_ros.cameras.source import ImageSource
from hybriddepth_ros.errors import CameraError
from hybriddepth_ros.focal_stack import CameraIntrinsics
from hybriddepth_ros.optics import ThinLens

_REMEMBERED_MOVES = 64
_SAME_POSITION = 1e-6  # in units of an actuator: closer is where it was sent
_MOST_ASSUMED_SETTLE_MS = 100.0  # of a lens that nobody measured: slow UVC motors take that long


@dataclass(frozen=True)
class AssemblyOptions:
    """What an assembled camera needs to know beside its parts.

    calibration: a file of `hybriddepth calibrate`, or "". settle_ms: used instead of the measured one where
    it is above 0. horizontal_fov_deg: assumed where there is no calibration. focus_in_diopters: the lens
    itself counts in diopters of the camera's focus, so that it needs no table.
    """

    calibration: str = ""
    settle_ms: float = 0.0
    horizontal_fov_deg: float = 65.0
    focus_in_diopters: bool = False


@dataclass(frozen=True)
class _Move:
    """Of the lens to `actuator`, for `focus_diopters`; it stands at `reached` from settled_ns on."""

    commanded_ns: int
    settled_ns: int
    actuator: float
    focus_diopters: float
    reached: float  # actuator's units
    reached_diopters: float


class AssembledCamera(FocusCamera):
    """An image source and a lens, as one camera whose focus is told in diopters."""

    def __init__(
        self,
        name: str,
        source: ImageSource,
        lens: FocusLens,
        options: AssemblyOptions,
        calibration: CameraCalibration | None = None,
    ) -> None:
        """calibration: known without a file; where `options` name one, that holds."""
        self._name = name
        self._source, self._focus_lens, self._options = source, lens, options
        self.clock = source.clock
        path = options.calibration
        self._calibration = read_calibration(path) if path else calibration
        self._opened = ExitStack()
        self._lock = threading.Lock()  # guards the moves
        self._moves: deque[_Move] = deque(maxlen=_REMEMBERED_MOVES)

    @property
    def parts(self) -> tuple[ImageSource, FocusLens]:
        """What it is assembled of, as calibration uses them: without focus table, intrinsics and diopters."""
        return self._source, self._focus_lens

    def open(self) -> None:
        with ExitStack() as opened:
            opened.callback(self._focus_lens.close)
            self._focus_lens.open()
            opened.callback(self._source.close)
            self._source.open()
            self._check_tables()
            self._camera_at(0.0)
            with self._lock:
                self._moves.clear()
            self._opened = opened.pop_all()

    def close(self) -> None:
        self._opened.close()

    def command_focus(self, focus_diopters: float) -> int:
        low, high = self.focus_range_diopters
        if not low <= focus_diopters <= high:
            raise CameraError(
                f"camera {self._name}: expected a focus of {low:g} to {high:g} diopters,"
                f" got {focus_diopters:g}"
            )
        with self._lock:
            last = self._moves[-1] if self._moves else None
            actuator, table = self._actuator(focus_diopters, last)
            began_ns = self._focus_lens.command(actuator)
            if last is not None and actuator == last.actuator:
                move = replace(last, commanded_ns=began_ns, focus_diopters=focus_diopters)
            else:
                reached, reached_diopters = self._focus_lens.state().position, focus_diopters
                if abs(reached - actuator) > _SAME_POSITION:  # a motor of whole steps, which may be coarse
                    reached_diopters += table.diopters(reached) - table.diopters(actuator)
                settled_ns = began_ns + round(self._settle_ms * 1e6)
                move = _Move(began_ns, settled_ns, actuator, focus_diopters, reached, reached_diopters)
            self._moves.append(move)
        return move.settled_ns

    def _actuator(self, focus_diopters: float, last: _Move | None) -> tuple[float, FocusTable]:
        """Where to send the lens, by the branch of its hysteresis that the move is on, and that branch."""
        rising = self._table(rising=True)
        if last is not None and focus_diopters == last.focus_diopters:
            return last.actuator, rising  # the branch that it is on; the other one would move it
        here = last.focus_diopters if last else rising.diopters(self._focus_lens.state().position)
        table = rising if focus_diopters >= here else self._table(rising=False)
        return table.actuator(focus_diopters), table

    def nearest_focus(self, focus_diopters: float) -> float:
        """By the branch of the hysteresis on which the focus rises."""
        table = self._table(rising=True)
        actuator = table.actuator(focus_diopters)
        reached = self._focus_lens.nearest(actuator)
        if abs(reached - actuator) <= _SAME_POSITION:
            return focus_diopters
        return focus_diopters + table.diopters(reached) - table.diopters(actuator)

    def read(self, timeout_s: float = 1.0) -> CameraFrame:
        raw = self._source.read(timeout_s)
        temperature_c = self._focus_lens.state().temperature_c  # a lens that is gone or too hot says so here
        with self._lock:
            before = [move for move in self._moves if move.commanded_ns < raw.exposure_end_ns]
        focus = before[-1].reached_diopters if before else float("nan")
        return CameraFrame(
            image=raw.image,
            sequence=raw.sequence,
            exposure_start_ns=raw.exposure_start_ns,
            stamp_ns=raw.stamp_ns,
            focus_diopters=focus,
            actuator_position=before[-1].reached if before else float("nan"),
            camera=self._camera_at(0.0 if np.isnan(focus) else focus),
            exposure_end_ns=raw.exposure_end_ns,
            temperature_c=temperature_c,
        )

    @property
    def focus_range_diopters(self) -> tuple[float, float]:
        return self._table(rising=True).diopter_range

    @property
    def frame_rate_hz(self) -> float:
        return self._source.frame_rate_hz

    @property
    def lens(self) -> ThinLens | None:
        """Of the measured blur per diopter, which settles aperture and fx; the focal length is assumed."""
        if self._calibration is None or not self._calibration.blur_px_per_diopter:
            return None
        focal_length_mm = 4.0
        pitch_um = focal_length_mm * 1e3 / self._calibration.camera.fx
        aperture_mm = self._calibration.blur_px_per_diopter * 1e3 / self._calibration.camera.fx
        return ThinLens(focal_length_mm, focal_length_mm / aperture_mm, pitch_um)

    @property
    def _settle_ms(self) -> float:
        measured = self._calibration.settle_ms if self._calibration else None
        for known in (self._options.settle_ms or None, measured, self._focus_lens.settle_ms):
            if known is not None:
                return known
        return _MOST_ASSUMED_SETTLE_MS

    def _table(self, rising: bool) -> FocusTable:
        calibration = self._calibration
        if calibration and calibration.focus_table:
            falling = calibration.focus_table_falling
            return calibration.focus_table if rising or falling is None else falling
        if self._options.focus_in_diopters:
            low, high = self._focus_lens.position_range
            return FocusTable(((low, low), (high, high)))
        path = Path(self._options.calibration).name or "none given"
        raise CameraError(
            f"camera {self._name}: expected a calibration with a focus_table ({path}):"
            " run `hybriddepth calibrate`"
        )

    def _check_tables(self) -> None:
        """CameraError where there is none, or one of another lens or of other limits."""
        low, high = self._focus_lens.position_range
        tolerance = _SAME_POSITION * max(1.0, high - low)
        for rising in (True, False):
            first, last = (pair[0] for pair in (self._table(rising).pairs[0], self._table(rising).pairs[-1]))
            if first < low - tolerance or last > high + tolerance:
                path = self._options.calibration or "its calibration"
                raise CameraError(
                    f"camera {self._name}: expected a focus_table within the {low:g} to {high:g} that the"
                    f" lens reaches, got {first:g} to {last:g} ({path})"
                )

    def _camera_at(self, focus_diopters: float) -> CameraIntrinsics:
        width, height = self._source.size
        if self._calibration is None and self._source.camera is not None:
            return self._source.camera
        if self._calibration is None:
            f = 0.5 * width / float(np.tan(np.radians(0.5 * self._options.horizontal_fov_deg)))
            return CameraIntrinsics(f, f, 0.5 * (width - 1), 0.5 * (height - 1), width, height)
        camera = self._calibration.at_focus(focus_diopters)
        if (camera.width, camera.height) != (width, height):
            raise CameraError(
                f"camera {self._name}: expected images of {camera.width}x{camera.height} px, as calibrated"
                f" ({self._options.calibration}), got {width}x{height}"
            )
        return camera
