"""When a message was stamped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.time import Time

TimeGetter = Callable[[Any], Time | None]

# A stamp this far behind the newest of its input is a restart, not a message that was overtaken on the way.
JUMP_BACK_NS = 10 * 10**9


def get_time_from_message_header(msg: Any) -> Time | None:
    """`msg.header.stamp` (a message's, an rclpy Time, or nanoseconds) as rclpy Time; None if there is
    none."""
    stamp = getattr(getattr(msg, "header", None), "stamp", None)
    if stamp is None or hasattr(stamp, "nanoseconds"):
        return stamp
    return Time(nanoseconds=stamp) if isinstance(stamp, int) else Time.from_msg(stamp)
