"""Cache: the last messages, found again by time."""

from __future__ import annotations

import threading
from typing import Any

from rclpy.clock import ROSClock
from rclpy.logging import get_logger
from rclpy.time import Time

from message_filters.message_traits import JUMP_BACK_NS, TimeGetter, get_time_from_message_header
from message_filters.simple_filter import SimpleFilter


class Cache(SimpleFilter):
    """Keeps the last `cache_size` messages in order of arrival and passes each on.

    allow_headerless: messages without a stamp are kept under the time they arrived at; otherwise they are
    dropped with a warning. A jump back in time empties the cache: what comes after a restart is not to be
    found by the old times.
    """

    def __init__(
        self,
        f: SimpleFilter,
        cache_size: int = 1,
        allow_headerless: bool = False,
        time_getter: TimeGetter = get_time_from_message_header,
    ) -> None:
        super().__init__()
        self.cache_size = cache_size
        self.cache_msgs: list[Any] = []
        self.cache_times: list[Time] = []
        self.allow_headerless = allow_headerless
        self.time_getter = time_getter
        self._lock = threading.RLock()
        self.connectInput(f)

    def connectInput(self, f: SimpleFilter) -> None:  # noqa: N802
        self.incoming_connection = f.registerCallback(self.add)

    def add(self, msg: Any) -> None:
        """Keep `msg`, then pass it on."""
        stamp = self.time_getter(msg)
        if stamp is None and not self.allow_headerless:
            get_logger("message_filters_cache").warning(
                "dropped a message without a stamp; allow_headerless=True stamps it on arrival",
                throttle_duration_sec=5.0,
            )
            return
        stamp = ROSClock().now() if stamp is None else stamp
        with self._lock:
            newest = max((time.nanoseconds for time in self.cache_times), default=stamp.nanoseconds)
            if newest - stamp.nanoseconds > JUMP_BACK_NS:
                self.cache_msgs.clear()
                self.cache_times.clear()
            self.cache_msgs.append(msg)
            self.cache_times.append(stamp)
            surplus = max(len(self.cache_msgs) - self.cache_size, 0)
            del self.cache_msgs[:surplus], self.cache_times[:surplus]
        self.signalMessage(msg)

    def getInterval(self, from_stamp: Time, to_stamp: Time) -> list[Any]:  # noqa: N802
        """The messages stamped from `from_stamp` to `to_stamp`, both included."""
        start, end = from_stamp.nanoseconds, to_stamp.nanoseconds
        assert start <= end, f"the interval ends ({end} ns) before it begins ({start} ns)"
        return [msg for time, msg in self._entries() if start <= time <= end]

    def getElemAfterTime(self, stamp: Time) -> Any | None:  # noqa: N802
        """The first message stamped at `stamp` or later, or None."""
        return next((msg for time, msg in self._entries() if time >= stamp.nanoseconds), None)

    def getElemBeforeTime(self, stamp: Time) -> Any | None:  # noqa: N802
        """The last message stamped at `stamp` or earlier, or None."""
        return next((msg for time, msg in reversed(self._entries()) if time <= stamp.nanoseconds), None)

    def getLatestTime(self) -> Time | None:  # noqa: N802
        """The stamp of the last message, or None."""
        return self.cache_times[-1] if self.cache_times else None

    getLastestTime = getLatestTime  # noqa: N815  upstream's spelling up to Jazzy

    def getOldestTime(self) -> Time | None:  # noqa: N802
        """The stamp of the first message still kept, or None."""
        return self.cache_times[0] if self.cache_times else None

    def getLast(self) -> Any | None:  # noqa: N802
        """The last message, or None."""
        return self.cache_msgs[-1] if self.cache_msgs else None

    def _entries(self) -> list[tuple[int, Any]]:
        """(nanoseconds, message) in order of arrival."""
        with self._lock:
            return [
                (time.nanoseconds, msg) for time, msg in zip(self.cache_times, self.cache_msgs, strict=True)
            ]
