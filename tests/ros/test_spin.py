"""The executor outlives what callbacks raise, and closes once."""

import re
import threading
import time
from pathlib import Path

import pytest
from rclpy.context import Context
from sensor_msgs.msg import Image

from hybriddepth_ros.ros import depth_node
from hybriddepth_ros.ros.depth_node import DepthNode
from hybriddepth_ros.ros.spin import Spinner
from tests.ros.helpers import NAMESPACE, FakeEstimator, Peer, make_sweep, wait_for


@pytest.fixture
def node(context: Context, monkeypatch: pytest.MonkeyPatch) -> DepthNode:
    monkeypatch.setattr(depth_node, "load_estimator", lambda *_: FakeEstimator())
    return DepthNode(context=context, namespace=NAMESPACE, use_global_arguments=False)


def test_a_callback_that_raises_does_not_end_the_executor(
    node: DepthNode, context: Context, capfd: pytest.CaptureFixture[str]
) -> None:
    calls = []

    def fail() -> None:
        calls.append(1)
        raise ZeroDivisionError("in a timer")

    node.create_timer(0.01, fail)
    spinner = Spinner([node], context)
    assert wait_for(lambda: len(calls) > 10)
    spinner.close()
    log = capfd.readouterr()
    assert (log.err + log.out).count("ZeroDivisionError: in a timer") == 1  # throttled


def test_messages_are_taken_by_the_thread_that_spins(node: DepthNode, context: Context, peer: Peer) -> None:
    """Handed to another thread, a message that waits for it keeps the one that spins busy."""
    seen: list[tuple[int, str]] = []
    node.create_subscription(
        Image, "spun", lambda image: seen.append((image.width, threading.current_thread().name)), 20
    )
    spinner = Spinner([node], context)
    publisher = peer.publisher(Image, "spun")
    assert wait_for(lambda: publisher.get_subscription_count() == 1)
    for number in range(10):
        publisher.publish(Image(width=number))
    assert wait_for(lambda: len(seen) == 10)
    spinner.close()
    assert seen == [(number, "executor") for number in range(10)]


def test_close_leaves_no_thread_and_may_come_from_several_threads(node: DepthNode, context: Context) -> None:
    before = threading.active_count()
    spinner = Spinner([node], context)
    node.start()
    closers = [threading.Thread(target=spinner.close) for _ in range(3)]
    for closer in closers:
        closer.start()
    for closer in closers:
        closer.join(10.0)
    spinner.close()
    assert wait_for(lambda: threading.active_count() <= before)
    assert not node.is_active


def shared_memory() -> set[str]:
    """The segments of Fast DDS that this process holds."""
    return set(re.findall(r"/dev/shm/fastrtps_[0-9a-f]{16}\b(?!_)", Path("/proc/self/maps").read_text()))


def test_close_destroys_a_node_whose_estimate_does_not_end(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not destroyed leaves its shared memory behind, 70 MB of it."""
    before = shared_memory()
    own = Context()
    own.init(args=[])
    fake, begun, go_on = FakeEstimator(), threading.Event(), threading.Event()
    fake.before = lambda: (begun.set(), go_on.wait(60.0))  # type: ignore[assignment,func-returns-value]
    monkeypatch.setattr(depth_node, "load_estimator", lambda *_: fake)
    node = DepthNode(context=own, namespace=NAMESPACE, use_global_arguments=False)
    spinner = Spinner([node], own)
    node.start()
    peer.listen(Image, "depth/image_rect")
    assert wait_for(lambda: node._outputs is not None and node._outputs.any_wanted())
    assert node._worker is not None
    node._worker.offer(make_sweep(0))
    assert begun.wait(10.0)
    began = time.monotonic()
    spinner.close()
    assert time.monotonic() - began < 2.0
    spinner.close_context()
    left = shared_memory() - before
    go_on.set()
    assert left == set()
