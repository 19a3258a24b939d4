"""Carries topics from one ROS domain to another over an emulated link: two machines on one."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any

from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy

from hybriddepth_ros.emulation.link import Link


class Relay:
    """Subscribes best-effort in one context's domain and publishes the same bytes in the other's, in order.

    topics: absolute name -> type. counts: received, delivered, lost (by the link or because it was cut).
    Works while the context is entered.
    """

    def __init__(self, link: Link, source: Context, target: Context, topics: Mapping[str, type]) -> None:
        self._link = link
        self._pending: deque[tuple[float, Publisher, bytes]] = deque()  # arrival by time.monotonic()
        self._changed = threading.Condition()
        self._closing = False
        self.counts: Counter[str] = Counter()
        quiet: dict[str, Any] = {"use_global_arguments": False, "start_parameter_services": False}
        self._here = Node("link_in", context=source, **quiet)
        self._there = Node("link_out", context=target, **quiet)
        for topic, kind in topics.items():
            publisher = self._there.create_publisher(kind, topic, _qos(ReliabilityPolicy.RELIABLE))
            qos = _qos(ReliabilityPolicy.BEST_EFFORT)
            self._here.create_subscription(kind, topic, partial(self._take, publisher), qos, raw=True)
        self._executor = SingleThreadedExecutor(context=source)
        self._executor.add_node(self._here)
        self._threads = [
            threading.Thread(target=work, name=f"relay_{work.__name__}", daemon=True)
            for work in (self._spin, self._deliver)
        ]

    def __enter__(self) -> Relay:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._executor.shutdown(timeout_sec=1.0)
        for thread in self._threads:
            thread.join(2.0)
        self._here.destroy_node()
        self._there.destroy_node()

    def cut(self) -> None:
        """Break the link; what is under way on it is lost."""
        with self._changed:
            self._link.cut()
            self.counts["lost"] += len(self._pending)
            self._pending.clear()

    def mend(self) -> None:
        with self._changed:
            self._link.mend()

    def _take(self, publisher: Publisher, data: bytes) -> None:
        with self._changed:
            self.counts["received"] += 1
            arrival = self._link.send(time.monotonic(), len(data))
            if arrival is None:
                self.counts["lost"] += 1
                return
            self._pending.append((arrival, publisher, data))
            self._changed.notify()

    def _spin(self) -> None:
        with suppress(ExternalShutdownException):
            self._executor.spin()

    def _deliver(self) -> None:
        while True:
            with self._changed:
                while not self._closing:
                    left_s = self._pending[0][0] - time.monotonic() if self._pending else None
                    if left_s is not None and left_s <= 0.0:
                        break
                    self._changed.wait(left_s)
                if self._closing:
                    return
                _, publisher, data = self._pending.popleft()
                self.counts["delivered"] += 1
            publisher.publish(data)


def _qos(reliability: ReliabilityPolicy) -> QoSProfile:
    return QoSProfile(depth=100, history=HistoryPolicy.KEEP_LAST, reliability=reliability)
