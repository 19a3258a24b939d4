"""The executor outlives what callbacks raise, and closes once."""

import threading

import pytest
from rclpy.context import Context

from hybriddepth_ros.ros import depth_node
from hybriddepth_ros.ros.depth_node import DepthNode
from hybriddepth_ros.ros.spin import Spinner
from tests.ros.helpers import NAMESPACE, FakeEstimator, wait_for


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
