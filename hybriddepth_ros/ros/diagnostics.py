"""Counts, rates and latencies of a node, and their publication on /diagnostics once per second."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.publisher import Publisher


class Counters:
    """Named counts that any thread may add to."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def add(self, name: str, amount: int = 1) -> None:
        with self._lock:
            self._counts[name] += amount

    def __getitem__(self, name: str) -> int:
        return self._counts[name]

    def snapshot(self) -> dict[str, int]:
        with self._lock:
            return dict(self._counts)


class RateMeter:
    """Events per second over the last few seconds."""

    def __init__(self, window_s: float = 5.0) -> None:
        self._window_s = window_s
        self._times: deque[float] = deque()
        self._lock = threading.Lock()

    def tick(self) -> None:
        with self._lock:
            self._times.append(time.monotonic())
            self._forget()

    @property
    def hz(self) -> float:
        with self._lock:
            self._forget()
            if len(self._times) < 2:
                return 0.0
            return (len(self._times) - 1) / (self._times[-1] - self._times[0] or 1e-9)

    def _forget(self) -> None:
        oldest = time.monotonic() - self._window_s
        while self._times and self._times[0] < oldest:
            self._times.popleft()


class LatencyMeter:
    """The last few hundred latencies [ms]."""

    def __init__(self, size: int = 300) -> None:
        self._values: deque[float] = deque(maxlen=size)

    def add(self, milliseconds: float) -> None:
        self._values.append(milliseconds)

    def summary(self) -> dict[str, float]:
        """last, p50, p95 and max [ms]; empty before the first."""
        values = list(self._values)
        if not values:
            return {}
        p50, p95 = np.percentile(values, (50, 95))
        return {"last": values[-1], "p50": float(p50), "p95": float(p95), "max": max(values)}


class LogThrottle:
    """Lets one line per key and period through; says how many were held back since."""

    def __init__(self, period_s: float = 5.0) -> None:
        self._period_s = period_s
        self._last: dict[str, float] = {}
        self._held: Counter[str] = Counter()
        self._lock = threading.Lock()

    def pass_through(self, key: str, text: str) -> str | None:
        """The line to log now, or None."""
        now = time.monotonic()
        with self._lock:
            if now - self._last.get(key, -self._period_s) < self._period_s:
                self._held[key] += 1
                return None
            self._last[key] = now
            held = self._held.pop(key, 0)
        return f"{text} ({held} more like it were not logged)" if held else text


class StallWatch:
    """Tells that a reliable subscriber acknowledges nothing any more: its process hangs, or its network does.

    How long `publish` takes does not tell: Fast DDS sends from a thread of its own. A subscriber that is
    merely slow acknowledges what it then loses; only it can know.
    """

    def __init__(self, patience_s: float = 1.0) -> None:
        self._patience_s = patience_s
        self._unacknowledged_since: dict[str, float] = {}

    def seen(self, publisher: Publisher) -> bool:
        """Whether messages have waited for too long; to be asked before each one that is published."""
        try:
            waiting = not publisher.wait_for_all_acked(Duration())
        except RuntimeError:  # not every middleware can tell
            return False
        topic, now = publisher.topic_name, time.monotonic()
        if not waiting:
            self._unacknowledged_since.pop(topic, None)
            return False
        return now - self._unacknowledged_since.setdefault(topic, now) >= self._patience_s


class DiagnosticsPublisher:
    """Publishes what `status` returns, (level, message, values), every second and in every state.

    A second of the machine, not of ROS: with `use_sim_time` a /clock that stands still is worth knowing of.
    `guarded` wraps the callback so that it cannot raise.
    """

    def __init__(
        self,
        node: Node,
        status: Callable[[], tuple[bytes, str, Mapping[str, Any]]],
        guarded: Callable[[Callable[[], None]], Callable[[], None]],
        hardware_id: str = "",
    ) -> None:
        self.hardware_id = hardware_id
        self._node = node
        self._status = status
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        group = MutuallyExclusiveCallbackGroup()
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = node.create_timer(1.0, guarded(self._publish), callback_group=group, clock=steady)

    def _publish(self) -> None:
        level, message, values = self._status()
        status = DiagnosticStatus(
            level=level,
            name=self._node.get_fully_qualified_name().lstrip("/"),
            message=message,
            hardware_id=self.hardware_id,
            values=[KeyValue(key=key, value=_text(value)) for key, value in values.items()],
        )
        array = DiagnosticArray(status=[status])
        array.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(array)


def resident_memory_mb() -> float:
    """Memory of this process that is in RAM [MB]; 0 where /proc is missing."""
    try:
        with open("/proc/self/statm", encoding="ascii") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    except OSError:
        return 0.0


def _text(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)
