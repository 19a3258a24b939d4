"""The recorder, over real DDS: what goes in comes out, byte for byte, and what is lost is counted."""

from __future__ import annotations

import array
import os
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("hybriddepth_msgs")

from hybriddepth_ros.errors import HybridDepthError, OutputError
from hybriddepth_ros.ros.bag import (
    BagRecorder,
    bag_counts,
    header_stamp_ns,
    message_class,
    message_definition,
    read_bag,
)

pytestmark = pytest.mark.ros

TOPICS = {
    "/bagtest/slice": "hybriddepth_msgs/msg/FocalSlice",
    "/bagtest/image": "sensor_msgs/msg/Image",
    "/diagnostics": "diagnostic_msgs/msg/DiagnosticArray",
}


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    import rclpy
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.signals import SignalHandlerOptions

    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    context = rclpy.Context()
    rclpy.init(
        context=context, domain_id=random.randint(20, 100), signal_handler_options=SignalHandlerOptions.NO
    )
    node = rclpy.create_node("bagtest", context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    thread = threading.Thread(target=executor.spin, daemon=True)
    thread.start()
    yield node
    executor.shutdown()
    thread.join(5)
    node.destroy_node()
    rclpy.shutdown(context=context)


def make_slice(index: int, stamp_ns: int) -> Any:
    message = message_class("hybriddepth_msgs/msg/FocalSlice")()
    message.header.frame_id = "camera"
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, 10**9)
    message.focus.focus_diopters = 0.5 * index
    message.focus.slice_index = index
    message.image.height, message.image.width, message.image.step = 4, 6, 18
    message.image.encoding = "rgb8"
    message.image.data = array.array("B", range(index, index + 72))
    return message


def wait_until(condition: Any, timeout_s: float = 8.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.02)


def test_messages_come_back_with_their_stamps_types_and_bytes(node: Any, tmp_path: Path) -> None:
    arrivals = []
    recorder = BagRecorder(node, tmp_path / "bag", TOPICS, on_arrival=arrivals.append)
    publisher = node.create_publisher(message_class(TOPICS["/bagtest/slice"]), "/bagtest/slice", 10)
    wait_until(lambda: publisher.get_subscription_count() == 1)
    stamps = [1_700_000_000_123_456_789 + i * 40_000_000 for i in range(5)]
    for index, stamp in enumerate(stamps):
        publisher.publish(make_slice(index, stamp))
    wait_until(lambda: recorder.counts["/bagtest/slice"].received == 5)
    recorder.close()
    recorder.close()
    count = recorder.counts["/bagtest/slice"]
    assert (count.received, count.written, count.dropped, count.lost) == (5, 5, 0, 0)
    assert bag_counts(tmp_path / "bag") == {"/bagtest/slice": 5, "/bagtest/image": 0, "/diagnostics": 0}
    messages = list(read_bag(tmp_path / "bag"))
    assert [m.stamp_ns for m in messages] == stamps == [a.stamp_ns for a in arrivals]
    assert [m.message.focus.slice_index for m in messages] == [0, 1, 2, 3, 4]
    assert np.array_equal(messages[3].message.image.data, np.arange(3, 75, dtype=np.uint8))
    chosen = list(read_bag(tmp_path / "bag", ["/bagtest/slice"], stamps_ns=stamps[1:3]))
    assert [m.stamp_ns for m in chosen] == stamps[1:3]


def test_a_full_queue_drops_and_counts(node: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = BagRecorder(node, tmp_path / "bag", TOPICS, queue_bytes=1000)
    held = threading.Event()
    write = recorder._writer.write

    def slow_write(*arguments: Any) -> None:
        held.wait(5)
        write(*arguments)

    monkeypatch.setattr(recorder._writer, "write", slow_write)
    publisher = node.create_publisher(message_class(TOPICS["/bagtest/slice"]), "/bagtest/slice", 20)
    wait_until(lambda: publisher.get_subscription_count() == 1)
    for index in range(12):
        publisher.publish(make_slice(index, 10**9))
    wait_until(lambda: recorder.counts["/bagtest/slice"].received == 12)
    held.set()
    recorder.close()
    count = recorder.counts["/bagtest/slice"]
    assert count.dropped > 0 and count.written > 0
    assert count.written + count.dropped == count.received
    assert bag_counts(tmp_path / "bag")["/bagtest/slice"] == count.written


def test_closing_gives_up_on_a_slow_disk_and_still_leaves_a_readable_bag(
    node: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = BagRecorder(node, tmp_path / "bag", TOPICS)
    write = recorder._writer.write

    def write_past_the_deadline(*arguments: Any) -> None:
        recorder._closing.wait(10)
        time.sleep(0.6)
        write(*arguments)

    monkeypatch.setattr(recorder._writer, "write", write_past_the_deadline)
    publisher = node.create_publisher(message_class(TOPICS["/bagtest/slice"]), "/bagtest/slice", 40)
    wait_until(lambda: publisher.get_subscription_count() == 1)
    for index in range(20):
        publisher.publish(make_slice(index, 10**9))
    wait_until(lambda: recorder.counts["/bagtest/slice"].received == 20)
    recorder.close(timeout_s=0.5)
    count = recorder.counts["/bagtest/slice"]
    assert (count.written, count.dropped) == (1, 19)
    assert bag_counts(tmp_path / "bag")["/bagtest/slice"] == count.written


def test_a_bag_without_a_message_can_be_read(node: Any, tmp_path: Path) -> None:
    BagRecorder(node, tmp_path / "bag", TOPICS).close()
    assert set(bag_counts(tmp_path / "bag").values()) == {0}
    assert list(read_bag(tmp_path / "bag")) == []


def test_definition_and_hash_are_those_that_the_messages_have() -> None:
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore

    for type_name in TOPICS.values():
        text, type_hash = message_definition(type_name)
        store = get_typestore(Stores.EMPTY)
        store.register(get_types_from_msg(text, type_name))
        assert store.hash_rihs01(type_name) == type_hash


def test_the_stamp_is_read_from_the_serialised_header() -> None:
    from rclpy.serialization import serialize_message

    assert (
        header_stamp_ns(serialize_message(make_slice(0, 1_700_000_000_000_000_001)))
        == 1_700_000_000_000_000_001
    )


def test_what_is_no_bag_is_named(tmp_path: Path) -> None:
    with pytest.raises(HybridDepthError, match="nothing: expected a bag"):
        list(read_bag(tmp_path / "nothing"))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "broken.mcap").write_bytes(b"no mcap")
    (tmp_path / "broken" / "metadata.yaml").write_text("a: [")
    with pytest.raises(HybridDepthError, match="broken: expected a bag"):
        list(read_bag(tmp_path / "broken"))


def test_a_place_that_cannot_be_written_is_refused(node: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file/bag"):
        BagRecorder(node, tmp_path / "file" / "bag", TOPICS)
    assert os.listdir(tmp_path) == ["file"]
