"""message_filters on real nodes: messages go through DDS, callbacks through an executor."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="needs a ROS 2 installation")
pytest.importorskip("message_filters", reason="message_filters is not installed")

import message_filters
import rclpy
from builtin_interfaces.msg import Time as TimeMessage
from message_filters import ApproximateTimeSynchronizer, Subscriber, TimeSynchronizer
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

overlay_only = pytest.mark.skipif(
    not getattr(message_filters, "PIP_OVERLAY", False),
    reason="the real message_filters is installed; this is what the stand-in does better",
)

PATIENCE = 30.0  # seconds before a test gives up; none waits that long unless it fails


class Graph:
    """A camera's two publishers and a node that listens, in a domain of their own on this machine."""

    def __init__(self, context: rclpy.Context) -> None:
        self.node = Node("message_filters_test", context=context)
        self.images = self.node.create_publisher(Image, "image", 10)
        self.infos = self.node.create_publisher(CameraInfo, "camera_info", 10)
        self.executor = SingleThreadedExecutor(context=context)
        self.executor.add_node(self.node)

    def spin_until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, "waited in vain"
            self.executor.spin_once(timeout_sec=0.05)

    def wait_for_discovery(self) -> None:
        self.spin_until(
            lambda: self.images.get_subscription_count() > 0 and self.infos.get_subscription_count() > 0
        )

    def publish(self, milliseconds: int, lag: int = 0) -> None:
        """An image stamped `milliseconds`, and its camera_info stamped `lag` later."""
        self.images.publish(Image(header=header_at(milliseconds)))
        self.infos.publish(CameraInfo(header=header_at(milliseconds + lag)))


def header_at(milliseconds: int) -> Header:
    return Header(stamp=TimeMessage(sec=milliseconds // 1000, nanosec=milliseconds % 1000 * 10**6))


def milliseconds_of(message: Any) -> int:
    return message.header.stamp.sec * 1000 + message.header.stamp.nanosec // 10**6


@pytest.fixture
def graph(monkeypatch: pytest.MonkeyPatch) -> Iterator[Graph]:
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=random.SystemRandom().randint(1, 100))
    graph = Graph(context)
    yield graph
    graph.executor.shutdown()
    graph.node.destroy_node()
    rclpy.shutdown(context=context)


def collect(filter_: message_filters.SimpleFilter) -> list[list[int]]:
    sets: list[list[int]] = []
    filter_.registerCallback(
        lambda *messages: sets.append([milliseconds_of(message) for message in messages])
    )
    return sets


def test_images_and_their_camera_infos_come_together(graph: Graph) -> None:
    qos = QoSProfile(depth=10)
    inputs = [
        Subscriber(graph.node, Image, "image", qos_profile=qos),
        Subscriber(graph.node, CameraInfo, "camera_info"),
    ]
    synchronizer = TimeSynchronizer(inputs, 10)
    sets = collect(synchronizer)
    graph.wait_for_discovery()
    for step in range(5):
        graph.publish(1000 + 100 * step)
        graph.spin_until(lambda expected=step + 1: len(sets) == expected)  # type: ignore[misc]
    assert sets == [[1000 + 100 * step] * 2 for step in range(5)]


def test_close_stamps_come_together(graph: Graph) -> None:
    inputs = [Subscriber(graph.node, Image, "image"), Subscriber(graph.node, CameraInfo, "camera_info")]
    synchronizer = ApproximateTimeSynchronizer(inputs, 10, 0.02)
    sets = collect(synchronizer)
    graph.wait_for_discovery()
    graph.publish(1000, lag=500)
    graph.publish(2000, lag=3)
    graph.spin_until(lambda: bool(sets))
    assert sets == [[2000, 2003]]


@overlay_only
def test_the_executor_goes_on_after_a_callback_that_raised(graph: Graph) -> None:
    inputs = [Subscriber(graph.node, Image, "image"), Subscriber(graph.node, CameraInfo, "camera_info")]
    synchronizer = TimeSynchronizer(inputs, 10)
    seen: list[int] = []

    def fail_first(image: Image, _: CameraInfo) -> None:
        seen.append(milliseconds_of(image))
        if len(seen) == 1:
            raise RuntimeError("no depth today")

    synchronizer.registerCallback(fail_first)
    graph.wait_for_discovery()
    graph.publish(1000)
    with pytest.raises(RuntimeError, match="no depth today"):
        graph.spin_until(lambda: False)
    graph.publish(2000)
    graph.spin_until(lambda: len(seen) == 2)
    assert seen == [1000, 2000]


@overlay_only
def test_a_bag_that_loops_is_matched_in_every_loop(graph: Graph) -> None:
    inputs = [Subscriber(graph.node, Image, "image"), Subscriber(graph.node, CameraInfo, "camera_info")]
    synchronizer = TimeSynchronizer(inputs, 3)
    sets = collect(synchronizer)
    graph.wait_for_discovery()
    for loop in range(2):
        for step in range(4):
            graph.publish(5_000_000 + 100 * step)
            graph.spin_until(lambda expected=4 * loop + step + 1: len(sets) == expected)  # type: ignore[misc]
        for step in range(4, 8):  # the end of the bag has images only
            graph.images.publish(Image(header=header_at(5_000_000 + 100 * step)))


@overlay_only
@pytest.mark.parametrize(
    ("positional", "keywords"),
    [
        ((), {}),
        ((5,), {}),
        ((QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT),), {}),
        ((), {"qos_profile": QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)}),
        ((), {"callback_group": None, "event_callbacks": None, "content_filter_options": None, "raw": False}),
    ],
    ids=["default", "depth", "Kilted", "Jazzy", "options"],
)
def test_a_subscriber_is_made_with_the_arguments_of_jazzy_and_of_kilted(
    graph: Graph, positional: tuple[Any, ...], keywords: dict[str, Any]
) -> None:
    subscriber = Subscriber(graph.node, Image, "image", *positional, **keywords)
    received: list[Image] = []
    subscriber.registerCallback(received.append)
    graph.spin_until(lambda: graph.images.get_subscription_count() > 0)
    deadline = time.monotonic() + PATIENCE
    while not received and time.monotonic() < deadline:  # best effort may lose one
        graph.images.publish(Image(header=header_at(1000)))
        graph.executor.spin_once(timeout_sec=0.05)
    assert milliseconds_of(received[0]) == 1000
    assert subscriber.getTopic() == "image"
    assert subscriber.topic_name == "/image"  # asked of the subscription
