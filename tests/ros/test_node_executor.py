"""Messages wait for no service, and the executor does not turn in circles."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import rclpy
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.context import Context
from rclpy.node import Node
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

from hybriddepth_ros.ros.node_executor import NodeExecutor
from tests.ros.helpers import Peer, wait_for

TOPIC, SERVICE = "/executor_test/image", "/executor_test/slow"


class Spun:
    """A node, its executor, and what that was told."""

    def __init__(self, context: Context) -> None:
        self.errors: list[BaseException] = []
        self.node: Node = rclpy.create_node("executor_test", context=context, use_global_arguments=False)
        self.executor = NodeExecutor(context, self.errors.append)
        self.executor.add_node(self.node)
        self.rounds = 0  # of waiting
        self._get_nodes = self.executor.get_nodes
        self.executor.get_nodes = self._count
        self._ended = threading.Event()
        self.thread = threading.Thread(target=self._spin, daemon=True)
        self.thread.start()

    def _spin(self) -> None:
        while not self._ended.is_set():
            self.executor.spin_once(0.1)

    def _count(self) -> list[Node]:
        self.rounds += 1
        return self._get_nodes()

    def close(self) -> None:
        self._ended.set()
        self.thread.join(10.0)
        assert self.executor.shutdown(5.0)
        self.node.destroy_node()


@pytest.fixture
def spun(context: Context) -> Iterator[Spun]:
    made = Spun(context)
    yield made
    made.close()


def large(number: int) -> Image:
    message = Image(height=480, width=640, encoding="rgb8", step=1920)
    message.header.stamp.sec = number
    message.data = bytes(640 * 480 * 3)
    return message


def test_messages_are_taken_in_order_in_one_thread_while_a_service_takes_its_time(
    spun: Spun, peer: Peer
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(_: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        begun.set()
        response.success = go_on.wait(30.0)
        return response

    seen: list[tuple[int, int]] = []
    spun.node.create_service(Trigger, SERVICE, slow, callback_group=MutuallyExclusiveCallbackGroup())
    spun.node.create_subscription(
        Image, TOPIC, lambda image: seen.append((image.header.stamp.sec, threading.get_ident())), 20
    )
    client = peer.node.create_client(Trigger, SERVICE)
    assert client.wait_for_service(10.0)
    answer = client.call_async(Trigger.Request())
    assert begun.wait(10.0)
    publisher = peer.node.create_publisher(Image, TOPIC, 20)
    assert wait_for(lambda: publisher.get_subscription_count() == 1)
    for number in range(10):
        publisher.publish(large(number))
    assert wait_for(lambda: len(seen) == 10)
    assert seen == [(number, spun.thread.ident) for number in range(10)]
    assert not answer.done()
    go_on.set()
    assert wait_for(answer.done) and answer.result().success


def test_a_message_takes_few_rounds_however_slow_its_callback_is(spun: Spun, peer: Peer) -> None:
    """A subscription whose message waits to be taken is ready all the time, whatever else is waited for."""
    seen: list[int] = []

    def slow(image: Image) -> None:
        time.sleep(0.02)
        seen.append(image.header.stamp.sec)

    spun.node.create_subscription(Image, TOPIC, slow, 20)
    publisher = peer.node.create_publisher(Image, TOPIC, 20)
    assert wait_for(lambda: publisher.get_subscription_count() == 1)
    before, since = spun.rounds, time.monotonic()
    for number in range(20):
        publisher.publish(large(number))
    assert wait_for(lambda: len(seen) == 20)
    idle = (time.monotonic() - since) / 0.1  # rounds that end because nothing comes
    assert spun.rounds - before < 2 * 20 + idle


def test_what_callbacks_raise_is_told_and_the_next_is_called(spun: Spun, peer: Peer) -> None:
    def fail(_: Image) -> None:
        raise ZeroDivisionError("in a message")

    def fail_too(_: Trigger.Request, __: Trigger.Response) -> Trigger.Response:
        raise KeyError("in a service")

    spun.node.create_subscription(Image, TOPIC, fail, 20)
    spun.node.create_service(Trigger, SERVICE, fail_too)
    publisher = peer.node.create_publisher(Image, TOPIC, 20)
    client = peer.node.create_client(Trigger, SERVICE)
    assert wait_for(lambda: publisher.get_subscription_count() == 1) and client.wait_for_service(10.0)
    publisher.publish(large(0))
    publisher.publish(large(1))
    client.call_async(Trigger.Request())
    assert wait_for(lambda: len(spun.errors) == 3)
    assert sorted(type(error).__name__ for error in spun.errors) == ["KeyError"] + 2 * ["ZeroDivisionError"]
