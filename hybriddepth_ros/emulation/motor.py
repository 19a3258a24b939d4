"""How an emulated focus motor moves: dead time, an even speed, play in its thread."""

from __future__ import annotations

import threading

import numpy as np

from hybriddepth_ros.emulation.truth import EmulatedTruth

_REMEMBERED = 256  # turning points of the movement


class EmulatedMovement:
    """Focus over time. Commands come in order; times are in ns of any clock. Any thread may use it."""

    def __init__(self, truth: EmulatedTruth, actuator: float = 0.0) -> None:
        self._truth = truth
        self._times: list[int] = [0]  # between them the mechanism moves evenly
        self._places: list[float] = [actuator]  # of the mechanism within its play, in actuator units
        self._lock = threading.Lock()

    def command(self, actuator: float, time_ns: int) -> None:
        """Send it to an actuator position; a command during a move turns that move."""
        with self._lock:
            half = 0.5 * self._truth.play
            target = min(max(self._places[-1], actuator - half), actuator + half)
            if target == self._places[-1]:
                return
            begin_ns = time_ns + round(self._truth.dead_ms * 1e6)
            here = self._at(begin_ns)
            end_ns = begin_ns + round(abs(target - here) / self._truth.speed * 1e6)
            kept = [(t, f) for t, f in zip(self._times, self._places, strict=True) if t < begin_ns]
            kept += [(begin_ns, here), (end_ns, target)]
            self._times, self._places = (list(column) for column in zip(*kept[-_REMEMBERED:], strict=True))

    def focus_diopters(self, time_ns: int) -> float:
        """Focus at a time [1/m]."""
        with self._lock:
            return self._truth.table.diopters(self._at(time_ns))

    def _at(self, time_ns: int) -> float:
        times = [t - time_ns for t in self._times]  # as floats, ns since 1970 would lose digits
        return float(np.interp(0, times, self._places))
