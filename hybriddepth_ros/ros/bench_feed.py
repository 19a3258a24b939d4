"""The depth node as others see it: a process of its own, fed and listened to from outside the graph."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.subscription import Subscription
from sensor_msgs.msg import Image, PointCloud2

from hybriddepth_msgs.msg import FocalSlice, FocusState
from hybriddepth_ros.bench.scenes import blur_of, made_slices
from hybriddepth_ros.errors import HybridDepthError
from hybriddepth_ros.ros.messages import from_time, make_header, slice_message, to_time
from hybriddepth_ros.ros.spin import spinning_node

NAMESPACE = "/hybriddepth_bench"
START_TIMEOUT_S = 60.0
QUIET_S = 1.0  # nothing comes any more
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class NodeProcess:
    """`depth` in a process; ended with the `with` block."""

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        assigned = [f"{name}:={value}" for name, value in {**parameters, "autostart": "true"}.items()]
        command = [sys.executable, "-m", "hybriddepth_ros.ros.depth_node", "--ros-args"]
        command += ["-r", f"__ns:={NAMESPACE}", "--log-level", "error"]
        for text in assigned:
            command += ["-p", text]
        self._process = subprocess.Popen(command)

    def __enter__(self) -> NodeProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(10.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    @property
    def cpu_s(self) -> float:
        """Time that its threads have computed [s]."""
        with open(f"/proc/{self._process.pid}/stat", encoding="ascii") as stat:
            fields = stat.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S

    @property
    def memory_mb(self) -> float:
        """Its memory that is in RAM [MB]."""
        with open(f"/proc/{self._process.pid}/statm", encoding="ascii") as statm:
            return int(statm.read().split()[1]) * _PAGE_BYTES / 1e6


@dataclass(frozen=True)
class Run:
    """Slices sent at one rate. latencies_ms: from each stamp, the time of sending, to the depth's arrival;
    depth_hz: depth images per second while they came.
    """

    sent: int
    latencies_ms: list[float]
    depth_hz: float

    def dropped_share(self, slices_per_depth: int) -> float:
        """Of the depth images that were to come, those that did not."""
        return 1.0 - len(self.latencies_ms) / (self.sent // slices_per_depth)


class Feed:
    """Sends slices of whole sweeps and takes the depth images; a node of its own, made by `feeding`."""

    def __init__(self, node: Any, width: int, height: int, count: int) -> None:
        self._node, self._count = node, count
        self._publisher = node.create_publisher(FocalSlice, f"{NAMESPACE}/slice", 16)
        self._subscription: Subscription | None = None
        self._lock = threading.Lock()
        self._arrivals: dict[int, int] = {}  # stamp -> time of arrival, both in ns
        self._counts: dict[str, int] = {}
        self._place = 0
        self.sent = 0
        self._messages = []
        for made in made_slices(width, height, count):
            assert made.camera is not None
            focus = FocusState(
                header=make_header(1, "bench_optical_frame"),
                slice_count=count,
                focus_diopters=made.focus_diopters,
                blur_px_per_diopter=blur_of(width),
                settled=True,
            )
            self._messages.append(slice_message(made.image, made.camera, focus))
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)

    def listen(self, to_everything: bool = False) -> None:
        """Subscribe to the depth images; to_everything: also to sigma, rgb and the cloud, unread."""
        if to_everything:
            for topic, kind in (
                ("depth/uncertainty", Image),
                ("rgb/image_rect", Image),
                ("depth/points", PointCloud2),
            ):
                self._node.create_subscription(kind, f"{NAMESPACE}/{topic}", _ignore, 1, raw=True)
        self._subscription = self._node.create_subscription(
            Image, f"{NAMESPACE}/depth/image_rect", self._on_depth, 16
        )

    def listen_no_more(self) -> None:
        """Leave."""
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
            self._subscription = None

    def wait_for_node(self, process: NodeProcess) -> None:
        """HybridDepthError if the node is not there, and connected both ways, in time."""
        end = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < end and process.running:
            if self._publisher.get_subscription_count() and (
                self._subscription is None or self._node.count_publishers(self._subscription.topic_name)
            ):
                time.sleep(0.5)  # what one side has found, the other finds a little later
                return
            time.sleep(0.05)
        raise HybridDepthError(f"bench: expected the node `depth` within {START_TIMEOUT_S:g} s")

    def send(self) -> int:
        """The next slice, its stamp the present [ns], which is returned."""
        message = self._messages[self._place % len(self._messages)]
        stamp_ns = time.time_ns()
        stamp = to_time(stamp_ns)
        for header in (
            message.header,
            message.image.header,
            message.camera_info.header,
            message.focus.header,
        ):
            header.stamp = stamp
        message.focus.sweep_id, message.focus.slice_index = divmod(self._place, self._count)
        self._publisher.publish(message)
        self._place += 1
        self.sent += 1
        return stamp_ns

    def run(self, rate_hz: float, slices: int) -> Run:
        """So many slices, a whole number of sweeps, at this rate; then what comes of them."""
        stamps = []
        begin = time.monotonic()
        for n in range(slices):
            time.sleep(max(begin + n / rate_hz - time.monotonic(), 0.0))
            stamps.append(self.send())
        self._wait_until_quiet()
        with self._lock:
            arrivals = {stamp: self._arrivals[stamp] for stamp in stamps if stamp in self._arrivals}
            self._arrivals.clear()
        times = sorted(arrivals.values())
        span_s = (times[-1] - times[0]) * 1e-9 if len(times) > 1 else 0.0
        latencies = [(arrival - stamp) * 1e-6 for stamp, arrival in arrivals.items()]
        return Run(slices, latencies, (len(times) - 1) / span_s if span_s else 0.0)

    @property
    def arrived(self) -> int:
        """Depth images since the last run."""
        with self._lock:
            return len(self._arrivals)

    def forget(self) -> None:
        """Arrivals until now."""
        with self._lock:
            self._arrivals.clear()

    @property
    def counts(self) -> dict[str, int]:
        """The node's counters, as its last diagnostics had them."""
        return dict(self._counts)

    def _wait_until_quiet(self) -> None:
        arrived, quiet_since = -1, time.monotonic()
        while time.monotonic() < quiet_since + QUIET_S:
            if self.arrived != arrived:
                arrived, quiet_since = self.arrived, time.monotonic()
            time.sleep(0.02)

    def _on_depth(self, message: Image) -> None:
        with self._lock:
            self._arrivals[from_time(message.header.stamp)] = time.time_ns()

    def _on_diagnostics(self, array: DiagnosticArray) -> None:
        for status in array.status:
            if status.name == f"{NAMESPACE[1:]}/depth":
                self._counts = {
                    entry.key: int(entry.value) for entry in status.values if entry.value.isdecimal()
                }


def _ignore(_: object) -> None:
    pass


@contextlib.contextmanager
def feeding(
    parameters: Mapping[str, Any],
    width: int = 640,
    height: int = 480,
    count: int = 5,
    listen: bool = True,
    to_everything: bool = False,
) -> Iterator[tuple[Feed, NodeProcess]]:
    """A depth node with these parameters, connected to a feed of sweeps of `count` slices."""
    with spinning_node("hybriddepth_bench") as node, NodeProcess(parameters) as process:
        feed = Feed(node, width, height, count)
        if listen:
            feed.listen(to_everything)
        feed.wait_for_node(process)
        yield feed, process
