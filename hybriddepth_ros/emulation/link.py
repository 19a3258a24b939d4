"""A network link as one who sends feels it: so many bits per second, a delay, and what gets lost.

Arithmetic only; whoever uses it keeps the time. `ros/relay.py` carries ROS messages over it.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from hybriddepth_ros.parameters import check_value, parameter, parameter_fields

PACKET_BYTES = 1472  # of a UDP datagram that fits an Ethernet frame


@dataclass(frozen=True)
class LinkOptions:
    """What a link is like. packet_loss is of single packets: a message of many is lost if one of them is, as
    nothing is sent again; that is how a best-effort subscription sees it.
    """

    rate_mbit: float = parameter(0.0, "0 = as fast as one likes", unit="Mbit/s", minimum=0.0)
    delay_ms: float = parameter(0.0, "from the last bit sent to its arrival", unit="ms", minimum=0.0)
    jitter_ms: float = parameter(0.0, "delay that comes on top, 0 to this, evenly", unit="ms", minimum=0.0)
    packet_loss: float = parameter(
        0.0, "share of packets of 1472 bytes that is lost", minimum=0.0, maximum=1.0
    )
    queue_bytes: int = parameter(
        4_000_000, "what waits for the link; a message that no longer fits is lost", unit="B", minimum=1
    )

    def __post_init__(self) -> None:
        for name, (default, info) in parameter_fields(type(self)).items():
            check_value(f"link: {name}", default, info, getattr(self, name))


class Link:
    """Messages leave one after the other at the link's rate and arrive in order, or never.

    Times are seconds of any clock that does not run backwards.
    """

    def __init__(self, options: LinkOptions, seed: int = 0) -> None:
        self.options = options
        self.is_up = True
        self._random = random.Random(seed)
        self._free_at = -math.inf  # when the last bit of what was taken has left
        self._last_arrival = -math.inf

    def send(self, now_s: float, size_bytes: int) -> float | None:
        """When a message that is handed over now arrives; None = it is lost."""
        if not self.is_up:
            return None
        options = self.options
        bytes_per_s = options.rate_mbit * 1e6 / 8 or math.inf
        starts = max(now_s, self._free_at)
        waiting = (starts - now_s) * bytes_per_s if starts > now_s else 0.0
        if waiting > 0.0 and waiting + size_bytes > options.queue_bytes:
            return None
        self._free_at = starts + size_bytes / bytes_per_s
        packets = max(1, -(-size_bytes // PACKET_BYTES))
        arrives = self._random.random() < (1.0 - options.packet_loss) ** packets
        delay_s = 1e-3 * (options.delay_ms + self._random.uniform(0.0, options.jitter_ms))
        if not arrives:  # it has taken its time on the link all the same
            return None
        self._last_arrival = max(self._last_arrival, self._free_at + delay_s)
        return self._last_arrival

    def cut(self) -> None:
        """The link breaks: what is under way is the caller's to forget, what comes is lost until `mend`."""
        self.is_up = False
        self._free_at = self._last_arrival = -math.inf

    def mend(self) -> None:
        self.is_up = True
