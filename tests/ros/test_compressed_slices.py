"""Slices that cross as JPEG or PNG: sent by the sweep node, taken by the depth node, refused when damaged."""

import array
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from rclpy.context import Context
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image

from hybriddepth_msgs.msg import CompressedFocalSlice, FocalSlice
from hybriddepth_ros.errors import MessageError
from hybriddepth_ros.image_compression import compress
from hybriddepth_ros.ros import depth_node, slice_pipeline
from hybriddepth_ros.ros.compressed import compressed_focal_slice
from hybriddepth_ros.ros.depth_node import DepthNode
from hybriddepth_ros.ros.focus_sweep_node import FocusSweepNode
from hybriddepth_ros.ros.messages import compressed_slice_message, from_time
from tests.ros.helpers import (
    CAMERA,
    NAMESPACE,
    FakeEstimator,
    Peer,
    Running,
    make_compressed,
    make_slice,
    picture,
    stamps,
    values_of,
    wait_for,
)

SMALL = [
    Parameter(f"simulated.{name}", value=value)
    for name, value in (("width", 64), ("height", 48), ("loop_frames", 5), ("frame_rate", 50.0))
]


class Feed:
    """A running depth node with `input: compressed_slices`, and a publisher that it is connected to."""

    def __init__(self, node: Any, peer: Peer) -> None:
        self.node, self.peer = node, peer
        self._publisher = peer.publisher(CompressedFocalSlice, "slice/compressed")
        assert wait_for(lambda: self._publisher.get_subscription_count() > 0)
        self.depth = peer.listen(Image, "depth/image_rect")
        assert wait_for(node._outputs.any_wanted)

    def send(self, *slices: CompressedFocalSlice) -> None:
        for message in slices:
            before = self.node.counters["slices received"]
            self._publisher.publish(message)
            assert wait_for(lambda: self.node.counters["slices received"] > before)  # noqa: B023


@pytest.fixture
def estimator(monkeypatch: pytest.MonkeyPatch) -> FakeEstimator:
    fake = FakeEstimator()
    monkeypatch.setattr(depth_node, "load_estimator", lambda *_: fake)
    return fake


@pytest.fixture
def feed(context: Context, peer: Peer, estimator: FakeEstimator) -> Iterator[Feed]:
    overrides = [Parameter("input", value="compressed_slices")]
    with Running(DepthNode, context, parameter_overrides=overrides) as node:
        node.start()
        yield Feed(node, peer)


def test_a_png_sweep_reaches_the_estimator_bit_for_bit(feed: Feed, estimator: FakeEstimator) -> None:
    feed.send(*(make_compressed(0, index, "png") for index in range(3)))
    assert wait_for(lambda: feed.depth)
    (stack,) = estimator.stacks
    for index, received in enumerate(stack.slices):
        assert np.array_equal(received.image, picture(index))
    assert stack.focus_diopters.tolist() == [0.5, 1.5, 2.5]
    assert stack.slices[1].camera == CAMERA
    assert feed.depth[0].header.stamp == make_slice(0, 1).header.stamp


def test_a_jpeg_sweep_reaches_the_estimator_nearly_as_it_was(feed: Feed, estimator: FakeEstimator) -> None:
    feed.send(*(make_compressed(0, index) for index in range(3)))
    assert wait_for(lambda: feed.depth)
    difference = estimator.stacks[0].slices[2].image.astype(int) - picture(2)
    assert 0 < np.abs(difference).mean() < 8.0


def _cut(message: CompressedFocalSlice) -> None:
    message.image.data = message.image.data[: len(message.image.data) // 2]
    message.image_crc32 = 0


def _flip(message: CompressedFocalSlice) -> None:
    message.image.data[len(message.image.data) * 3 // 4] ^= 0x10


def _empty(message: CompressedFocalSlice) -> None:
    message.image.data = array.array("B")


def _format(message: CompressedFocalSlice) -> None:
    message.image.format = "h264"


def _bayer(message: CompressedFocalSlice) -> None:
    message.image.format = "bayer_rggb8; jpeg compressed bayer_rggb8"


def _size(message: CompressedFocalSlice) -> None:
    message.camera_info.width += 1


def _focus(message: CompressedFocalSlice) -> None:
    message.focus.focus_diopters = float("nan")


@pytest.mark.parametrize("damage", [_cut, _flip, _empty, _format, _bayer, _size, _focus])
def test_a_damaged_slice_is_one_refusal_and_the_node_goes_on(
    feed: Feed,
    estimator: FakeEstimator,
    capfd: pytest.CaptureFixture[str],
    damage: Callable[[CompressedFocalSlice], None],
) -> None:
    newest = feed.peer.diagnostics("depth")
    broken = [make_compressed(0, index) for index in range(3)]
    for message in broken:
        damage(message)
    feed.send(*broken, *(make_compressed(1, index) for index in range(3)))
    assert wait_for(lambda: feed.depth)
    assert stamps(feed.depth) == stamps([make_slice(1, 1)])
    assert feed.node.counters["slices refused"] == 3 and feed.node.counters["exceptions"] == 0
    assert wait_for(lambda: values_of(newest()).get("slices refused") == "3")
    log = capfd.readouterr()
    assert (log.err + log.out).count("slices refused") == 1  # throttled


def _undecodable() -> CompressedFocalSlice:
    """Whole to the eye, a grey picture in truth: only decoding shows it."""
    message = make_compressed(0, 1)
    data = compress(picture()[..., 0].copy(), "mono8", "jpeg")
    message.image.data, message.image_crc32 = array.array("B", data), zlib.crc32(data)
    return message


@pytest.mark.parametrize("min_slices", [0, 2])
def test_what_only_decoding_finds_costs_its_slice_and_the_sweep_as_min_slices_says(
    feed: Feed, estimator: FakeEstimator, min_slices: int
) -> None:
    feed.node.set_parameters([Parameter("min_slices", value=min_slices)])
    feed.send(make_compressed(0, 0), _undecodable(), make_compressed(0, 2))
    if min_slices:
        assert wait_for(lambda: feed.depth)
        assert estimator.stacks[0].focus_diopters.tolist() == [0.5, 2.5]
    else:
        assert wait_for(lambda: feed.node.counters["dropped: incomplete sweep"])
        assert not estimator.stacks
    assert feed.node.counters["slices refused"] == 1 and feed.node.counters["exceptions"] == 0


def test_pictures_are_decoded_in_the_worker_and_not_in_the_callback(
    feed: Feed, estimator: FakeEstimator, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    threads: set[str] = set()

    def spy(message: CompressedFocalSlice) -> Any:
        threads.add(threading.current_thread().name)
        return compressed_focal_slice(message)

    monkeypatch.setattr(slice_pipeline, "compressed_focal_slice", spy)
    feed.send(*(make_compressed(0, index) for index in range(3)))
    assert wait_for(lambda: feed.depth)
    assert threads == {"depth_worker"}


@pytest.mark.parametrize("shape", [(24, 32), (24, 32, 3)])
@pytest.mark.parametrize("codec", ["jpeg", "png"])
def test_grey_and_colour_become_rgb(shape: tuple[int, ...], codec: str) -> None:
    image = np.full(shape, 77, np.uint8)
    message = compressed_slice_message(image, CAMERA, make_slice(0, 0).focus, codec)
    read = compressed_focal_slice(message)
    assert read.image.shape == (24, 32, 3) and np.abs(read.image.astype(int) - 77).max() <= 2


def test_a_bayer_picture_of_another_driver_is_taken_as_png() -> None:
    pytest.importorskip("cv_bridge")
    message = make_compressed(0, 0)
    data = compress(np.full((24, 32), 90, np.uint8), "bayer_rggb8", "png")
    message.image.data, message.image_crc32 = array.array("B", data), zlib.crc32(data)
    message.image.format = "bayer_rggb8; png compressed bayer_rggb8"
    assert (compressed_focal_slice(message).image == 90).all()
    message.image.format = "bayer_rggb8; jpeg compressed bayer_rggb8"
    with pytest.raises(MessageError, match="send it as png"):
        compressed_focal_slice(message)


# -- the sender


@pytest.mark.parametrize("codec", ["jpeg", "png"])
def test_the_sweep_node_sends_compressed_slices_instead_of_raw_ones(
    context: Context, peer: Peer, codec: str
) -> None:
    overrides = [*SMALL, Parameter("transport", value=codec)]
    with Running(FocusSweepNode, context, parameter_overrides=overrides) as node:
        compressed = peer.listen(CompressedFocalSlice, "slice/compressed", 1000)
        images = peer.listen(Image, "image_raw", 1000)
        node.start()
        assert wait_for(lambda: set(stamps(compressed)) & set(stamps(images)), 30.0)
        names = [
            t for t, _ in peer.node.get_publisher_names_and_types_by_node("focus_sweep", f"/{NAMESPACE}")
        ]
        assert f"/{NAMESPACE}/slice" not in names
        sent = {from_time(m.header.stamp): np.frombuffer(m.data, np.uint8).reshape(48, 64, 3) for m in images}
        message = next(m for m in compressed if from_time(m.header.stamp) in sent)
        assert message.header == message.image.header == message.camera_info.header == message.focus.header
        assert message.image.format == f"rgb8; {codec} compressed bgr8"
        read = compressed_focal_slice(message)
        difference = np.abs(read.image.astype(int) - sent[read.stamp_ns])
        assert difference.max() == 0 if codec == "png" else 0 < difference.mean() < 4.0


def test_the_quality_of_jpeg_changes_while_running(context: Context, peer: Peer) -> None:
    overrides = [*SMALL, Parameter("transport", value="jpeg"), Parameter("jpeg_quality", value=95)]
    with Running(FocusSweepNode, context, parameter_overrides=overrides) as node:
        received = peer.listen(CompressedFocalSlice, "slice/compressed", 1000)
        node.start()
        assert wait_for(lambda: len(received) > 5, 30.0)
        fine = max(len(message.image.data) for message in received)
        (result,) = node.set_parameters([Parameter("jpeg_quality", value=5)])
        assert result.successful
        assert wait_for(lambda: len(received[-1].image.data) < fine / 3)
        (result,) = node.set_parameters([Parameter("transport", value="raw")])
        assert "applied at the next configure" in result.reason


def test_without_a_subscriber_nothing_is_compressed(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[int] = []
    monkeypatch.setattr(
        "hybriddepth_ros.ros.sweep_outputs.compressed_slice_message", lambda *_: called.append(1)
    )
    with Running(
        FocusSweepNode, context, parameter_overrides=[*SMALL, Parameter("transport", value="jpeg")]
    ) as node:
        node.start()
        assert wait_for(lambda: node._sweep is not None and node._sweep.statistics.sweeps > 3, 30.0)
        assert not called


def test_raw_slices_stay_what_they_were(context: Context, peer: Peer) -> None:
    with Running(FocusSweepNode, context, parameter_overrides=SMALL) as node:
        received = peer.listen(FocalSlice, "slice")
        node.start()
        assert wait_for(lambda: received, 30.0)
        names = [
            t for t, _ in peer.node.get_publisher_names_and_types_by_node("focus_sweep", f"/{NAMESPACE}")
        ]
        assert f"/{NAMESPACE}/slice/compressed" not in names


def test_slices_of_the_other_kind_are_named_in_the_diagnostics(feed: Feed) -> None:
    newest = feed.peer.diagnostics("depth")
    feed.peer.publisher(FocalSlice, "slice")
    assert wait_for(lambda: newest() and "slice is published: `input: slices`" in newest().message)


# -- clocks


def _clock_message(feed: Feed, offset_s: float, count: int = 40) -> Callable[[], Any]:
    """Slices whose stamps are this far ahead of the node's clock; the newest status."""
    newest = feed.peer.diagnostics("depth")
    for index in range(count):
        stamp_ns = feed.node.get_clock().now().nanoseconds + int(offset_s * 1e9)
        feed.send(make_compressed(index // 3, index % 3, stamp_ns=stamp_ns))
    return newest


def test_slices_from_the_future_are_a_warning_in_the_diagnostics(
    feed: Feed, capfd: pytest.CaptureFixture[str]
) -> None:
    newest = _clock_message(feed, 3600.0)
    assert wait_for(lambda: newest() and newest().level == b"\x01" and "clocks disagree" in newest().message)
    assert "ms in the future: chrony/ntp or use_sim_time" in newest().message
    assert float(values_of(newest())["least latency of a slice [ms]"]) < -3_500_000.0
    log = capfd.readouterr()
    assert (log.err + log.out).count("clocks disagree") == 1


def test_slices_that_are_all_an_hour_old_are_one_too(feed: Feed) -> None:
    newest = _clock_message(feed, -3600.0)
    assert wait_for(lambda: newest() and "s old, all alike" in newest().message)


def test_slices_of_now_are_none(feed: Feed) -> None:
    newest = _clock_message(feed, -0.02)
    assert wait_for(lambda: float(values_of(newest()).get("slice rate [Hz]", 0.0)) > 0.0)
    assert "clocks disagree" not in newest().message
