"""Whether the clock that stamps slices and the one of whoever receives them agree, judged by their latencies.

A slice takes time from its exposure to its receipt, so a latency below 0 proves that the clocks differ. That
the stamping clock is behind cannot be proven: slices that are all old by nearly the same are also those of a
recording, or of a link with a long queue that is always full. So all three are named.
"""

from __future__ import annotations

from collections import deque

import numpy as np

WINDOW = 100  # latencies that count: the last 3 s of a camera of 30 Hz
FUTURE_NS = 5_000_000  # clocks kept by NTP on one network agree within this
FUTURE_SLICES = 5  # of the window; one alone may be of the moment in which a clock was set
OLD_NS = 1_000_000_000
ENOUGH_SLICES = 30  # before latencies are called alike


class ClockCheck:
    """Fed with stamps and times of receipt [ns]; `verdict` says in one line what is wrong, or nothing.

    One thread may feed it and another ask.
    """

    def __init__(self) -> None:
        self._latencies_ns: deque[int] = deque(maxlen=WINDOW)
        self._last_received_ns = 0

    def add(self, stamp_ns: int, received_ns: int) -> None:
        """A slice of this stamp was received then, by the receiver's own clock.

        A receipt at 0 or below is of a simulated clock that has not begun, and says nothing; one before the
        last is of a clock that was set, or of a recording that starts again, and all begins anew.
        """
        if received_ns <= 0:
            return
        if received_ns < self._last_received_ns:
            self._latencies_ns.clear()
        self._last_received_ns = received_ns
        self._latencies_ns.append(received_ns - stamp_ns)

    @property
    def least_ms(self) -> float | None:
        """The least latency of the last 100 slices [ms]; None before the first."""
        latencies = list(self._latencies_ns)
        return min(latencies) * 1e-6 if latencies else None

    def verdict(self) -> str:
        """`clocks disagree ...`, or an empty text while they agree as far as can be told."""
        latencies = np.array(self._latencies_ns, np.int64)
        if len(latencies) == 0:
            return ""
        least, most = int(latencies.min()), int(latencies.max())
        several_ahead = int((latencies < -FUTURE_NS).sum()) >= FUTURE_SLICES
        most_ahead = len(latencies) >= ENOUGH_SLICES and float(np.median(latencies)) < 0.0
        if several_ahead or most_ahead:
            return (
                f"clocks disagree: slices come from {-least * 1e-6:.1f} ms in the future:"
                " chrony/ntp or use_sim_time"
            )
        alike = len(latencies) >= ENOUGH_SLICES and most - least <= least // 2
        if alike and least > OLD_NS:
            return (
                f"clocks disagree, or the link holds slices back: they come {least * 1e-9:.1f} s old, all"
                " alike: chrony/ntp, use_sim_time for a recording, or `transport: jpeg`"
            )
        return ""
