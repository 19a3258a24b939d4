"""When a free-running camera exposes: learned from its frames, told for those to come."""

from __future__ import annotations

import math
from collections import deque

import numpy as np

from hybriddepth_ros.cameras.base import CameraFrame

_WINDOW = 32  # frames that the line is fitted to
_FEWEST = 3  # of which two settle the line, and one says how well it holds
_LEAST_GUARD_NS = 100_000.0


class FrameTiming:
    """A straight line through the exposures' starts over the sequence numbers, and how far they stray.

    Nothing is told from fewer than three frames, nor across a jump of half a period: then nobody knows.
    """

    def __init__(self) -> None:
        self._frames: deque[tuple[int, int, int]] = deque(maxlen=_WINDOW)  # sequence, start, end
        self._strays_ns: deque[float] = deque(maxlen=_WINDOW)
        self._period_ns = 0.0
        self._next_start_ns = 0  # of the frame after the newest

    def add(self, frame: CameraFrame) -> None:
        new = (frame.sequence, frame.exposure_start_ns, frame.exposure_end_ns)
        if self._frames:
            sequence, start_ns, _ = self._frames[-1]
            stray_ns = 0.0
            if self._period_ns:
                expected_ns = self._next_start_ns + (frame.sequence - sequence - 1) * self._period_ns
                stray_ns = frame.exposure_start_ns - expected_ns
            if (
                frame.sequence <= sequence
                or frame.exposure_start_ns <= start_ns
                or abs(stray_ns) > 0.5 * self._period_ns > 0.0
            ):
                self._frames.clear()
                self._strays_ns.clear()
                self._period_ns = 0.0
            elif self._period_ns:
                self._strays_ns.append(abs(stray_ns))
        self._frames.append(new)
        if len(self._frames) > 1:
            self._fit()

    def _fit(self) -> None:
        sequence, start_ns, _ = self._frames[-1]
        numbers = np.array([frame[0] - sequence for frame in self._frames], np.float64)
        starts = np.array([frame[1] - start_ns for frame in self._frames], np.float64)
        numbers_mean, starts_mean = numbers.mean(), starts.mean()
        centred = numbers - numbers_mean
        self._period_ns = float(centred @ starts / (centred @ centred))
        self._next_start_ns = start_ns + round(starts_mean + self._period_ns * (1.0 - numbers_mean))

    @property
    def span_ns(self) -> int:
        """From the first row's start to the last row's end, the longest seen; 0 = not known yet."""
        return max((end - start for _, start, end in self._frames), default=0)

    def end_of_first_from(self, time_ns: int) -> int | None:
        """When the first frame to come that begins after this time surely has ended; None = not known."""
        if len(self._frames) < _FEWEST or not self._strays_ns:
            return None
        guard_ns = _LEAST_GUARD_NS + 1.5 * max(self._strays_ns)
        ahead = max(0, math.ceil((time_ns - self._next_start_ns + guard_ns) / self._period_ns))
        return self._next_start_ns + self.span_ns + round(ahead * self._period_ns + guard_ns)
