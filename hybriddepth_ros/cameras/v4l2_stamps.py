"""When a V4L2 frame was exposed: from the kernel's stamp to both ends of the exposure, in system time.

The kernel stamps buffers by CLOCK_MONOTONIC, frames are told in the clock of `time.time_ns`. The difference
is measured, and measured again now and then, as the system clock may be set while a robot runs.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass

from hybriddepth_ros.cameras.base import Clock

_MEASURE_EVERY_NS = 1_000_000_000
_READINGS = 9  # the one that took shortest is the least disturbed
_KEPT_PIECES = 256  # of the mapping; a frame is read long before so many pieces have passed

# Where in a frame's time its stamp lies.
EXPOSURE_START = "exposure_start"
READOUT_START = "readout_start"
FRAME_END = "frame_end"


@dataclass(frozen=True)
class _Piece:
    """From start_ns (monotonic) on the mapped time is real_ns, and goes at full or at half speed."""

    start_ns: int
    real_ns: int
    half_speed: bool = False

    def at(self, monotonic_ns: int) -> int:
        passed = monotonic_ns - self.start_ns
        return self.real_ns + (passed // 2 if self.half_speed else passed)


class SteadyClock(Clock):
    """The system clock, but never backwards; any monotonic time of the past is told in it as well.

    Where the system clock is set forward, this one jumps along. Where it is set back, this one goes at half
    speed until the other has caught up. Source and lens of a camera share one, so that exposure and focus
    command stay comparable whatever is done to the system clock.
    """

    def __init__(
        self, system: Clock | None = None, monotonic_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._system = system or Clock()
        self.monotonic_ns = monotonic_ns
        self._lock = threading.Lock()
        start_ns, offset_ns = self._measure()
        self._measured_ns = start_ns
        self._pieces = [_Piece(start_ns, start_ns + offset_ns)]

    def now_ns(self) -> int:
        return self.from_monotonic(self.monotonic_ns())

    def wait(self, event: threading.Event, seconds: float) -> bool:
        return self._system.wait(event, seconds)

    def offset_ns(self) -> int:
        """Of the system clock, which it follows: whether that was set is for the sweep to say."""
        return self._system.offset_ns()

    def from_monotonic(self, monotonic_ns: int) -> int:
        """The time [ns] of a monotonic time [ns]; rises with it, whenever it is asked for."""
        with self._lock:
            if self.monotonic_ns() - self._measured_ns >= _MEASURE_EVERY_NS:
                self._correct(*self._measure())
            index = bisect_right(self._pieces, monotonic_ns, key=lambda piece: piece.start_ns) - 1
            return self._pieces[max(index, 0)].at(monotonic_ns)

    def _measure(self) -> tuple[int, int]:
        """(monotonic now, system minus monotonic) [ns]."""
        best: tuple[int, int, int] | None = None  # duration, monotonic, offset
        for _ in range(_READINGS):
            before = self.monotonic_ns()
            system = self._system.now_ns()
            after = self.monotonic_ns()
            if best is None or after - before < best[0]:
                best = (after - before, after, system - (before + after) // 2)
        assert best is not None
        return best[1:]

    def _correct(self, now_ns: int, offset_ns: int) -> None:
        """Follow the system clock from now on; what was told of the past stays."""
        self._measured_ns = now_ns
        pieces = [piece for piece in self._pieces if piece.start_ns <= now_ns]
        here, target = pieces[-1].at(now_ns), now_ns + offset_ns
        if target >= here:
            pieces.append(_Piece(now_ns, target))
        else:
            behind = here - target
            caught_up = now_ns + 2 * behind
            pieces += [_Piece(now_ns, here, half_speed=True), _Piece(caught_up, caught_up + offset_ns)]
        self._pieces = pieces[-_KEPT_PIECES:]


@dataclass(frozen=True)
class RowTiming:
    """What a sensor's frame takes [ns].

    exposure_ns: of one row; readout_ns: from the first row's readout to the last one's, 0 = global shutter;
    period_ns: between frames.
    """

    exposure_ns: int
    readout_ns: int
    period_ns: int

    def exposure(self, stamp_ns: int, stamped_at: str) -> tuple[int, int]:
        """(first row begins, last row ends) for a stamp at that point of the frame."""
        whole = self.exposure_ns + self.readout_ns
        before = {EXPOSURE_START: 0, READOUT_START: self.exposure_ns, FRAME_END: whole}[stamped_at]
        return (stamp_ns - before, stamp_ns - before + whole)


class FrameCounter:
    """Sequence numbers that rise by one per frame of the sensor, also where the driver's do not."""

    def __init__(self, period_ns: int) -> None:
        self._period_ns = period_ns
        self._driver: int | None = None
        self._stamp_ns = 0
        self._sequence = 0
        self.driver_counts = True

    def number(self, driver_sequence: int, stamp_ns: int) -> int:
        """Of the next frame. Once a driver repeated itself, frames and gaps are counted by their stamps."""
        if self._driver is None:
            self._sequence = driver_sequence
        else:
            step = (driver_sequence - self._driver) % 2**32  # the driver's number has 32 bits
            if step == 0 or step >= 2**31:
                self.driver_counts = False
            if not self.driver_counts:
                step = max(1, round((stamp_ns - self._stamp_ns) / self._period_ns))
            self._sequence += step
        self._driver, self._stamp_ns = driver_sequence, stamp_ns
        return self._sequence


class StampReader:
    """Decides which stamp a buffer gets: the kernel's, or where that cannot be, the time of its arrival."""

    def __init__(self, period_ns: int, started_ns: int = 0) -> None:
        """started_ns: monotonic, before which no frame can have been stamped."""
        self._period_ns = period_ns
        self._kernel_ns = started_ns
        self._arrival_ns: int | None = None
        self._sequence = 0
        self.replaced = 0

    def read(self, kernel_ns: int | None, now_ns: int, waited: bool, sequence: int) -> tuple[int, bool]:
        """(monotonic stamp [ns], whether it is the kernel's; if not, it is the end of the frame).

        kernel_ns: None = of an unknown clock. waited: the buffer was not ready when it was asked for, so it
        arrived now. One that was ready arrived earlier: then it is put one period after the one before, not
        at the reader's time, so that a slow reader does not take an old frame for a new one.
        """
        steps = max(1, (sequence - self._sequence) % 2**32)
        if self._arrival_ns is None or waited or steps >= 2**31:
            arrival_ns = now_ns
        else:
            arrival_ns = min(now_ns, self._arrival_ns + steps * self._period_ns)
        self._arrival_ns, self._sequence = arrival_ns, sequence
        if kernel_ns is not None and self._kernel_ns < kernel_ns <= now_ns:
            self._kernel_ns = kernel_ns
            return kernel_ns, True
        self.replaced += 1
        return arrival_ns, False
