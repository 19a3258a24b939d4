"""`update: slice` on real DDS: depth for every slice, whatever a slice, a stage or a subscriber does."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from rclpy.context import Context
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image

from hybriddepth_msgs.msg import FocalSlice, FocusState
from hybriddepth_ros.focal_stack import CameraIntrinsics
from hybriddepth_ros.ros.decoding import depth_array
from hybriddepth_ros.ros.depth_node import DepthNode
from hybriddepth_ros.ros.messages import from_time, make_header, slice_message
from hybriddepth_ros.ros.slice_pipeline import unaccounted
from tests.ros.helpers import Peer, Running, wait_for
from tests.stacks import defocused_stack

FOCI = np.linspace(0.4, 2.8, 4).astype(np.float32)
WIDTH, HEIGHT, BLUR = 160, 120, 6.0
CAMERA = CameraIntrinsics(150.0, 150.0, 79.5, 59.5, WIDTH, HEIGHT)
DIOPTERS = 1.3
PERIOD_NS = 33_000_000


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return defocused_stack(DIOPTERS, FOCI, BLUR, (HEIGHT, WIDTH))


class Feed:
    """A depth node with `update: slice`, slices for it, and one subscriber of its depth."""

    def __init__(self, node: DepthNode, peer: Peer, images: np.ndarray) -> None:
        self.node, self._images = node, images
        self._publisher = peer.publisher(FocalSlice, "slice")
        self.depth = peer.listen(Image, "depth/image_rect")
        self._count = 0
        assert wait_for(lambda: self._publisher.get_subscription_count() > 0)
        assert wait_for(lambda: node.is_wanted("depth/image_rect"))

    def next(self, stamp_ns: int | None = None) -> FocalSlice:
        index = self._count % len(FOCI)
        stamp_ns = 1_000_000_000 + self._count * PERIOD_NS if stamp_ns is None else stamp_ns
        focus = FocusState(
            header=make_header(stamp_ns, "optical"),
            sweep_id=self._count // len(FOCI),
            slice_index=index,
            slice_count=len(FOCI),
            focus_diopters=float(FOCI[index]),
            blur_px_per_diopter=BLUR,
            settled=True,
        )
        self._count += 1
        return slice_message(self._images[index], CAMERA, focus)

    def send(self, message: FocalSlice | None = None) -> int:
        """One slice, taken by the node; its stamp."""
        message = message or self.next()
        before = self.node.counters["slices received"]
        self._publisher.publish(message)
        assert wait_for(lambda: self.node.counters["slices received"] > before)
        return from_time(message.header.stamp)

    def estimate(self, count: int = 1) -> None:
        """Slices, each of which has been estimated and arrived before the next is sent."""
        for _ in range(count):
            stamp_ns = self.send()
            assert wait_for(lambda: self.depth and from_time(self.depth[-1].header.stamp) == stamp_ns)  # noqa: B023


@pytest.fixture
def feed(context: Context, peer: Peer, images: np.ndarray) -> Iterator[Feed]:
    overrides = [
        Parameter("model", value="classical"),
        Parameter("update", value="slice"),
    ]
    with Running(DepthNode, context, parameter_overrides=overrides) as node:
        node.start()
        made = Feed(node, peer, images)
        for _ in range(len(FOCI) - 1):
            made.send()
        yield made


def test_depth_comes_for_every_slice_with_its_stamp(feed: Feed) -> None:
    assert not feed.depth
    feed.estimate(6)
    assert len(feed.depth) == 6
    depth = depth_array(feed.depth[-1])
    assert np.nanmedian(depth) == pytest.approx(1.0 / DIOPTERS, rel=0.02)
    assert feed.node.counters["stacks estimated"] == 6
    _, text, values = feed.node.status()
    assert values["model"] == "classical" and "depth images/s" in text
    assert {"time prepare [ms]", "time register [ms]"} <= set(values)


def test_bad_slices_are_counted_and_the_next_is_estimated(feed: Feed) -> None:
    feed.estimate()
    last_ns = from_time(feed.depth[-1].header.stamp)
    feed.send(feed.next(last_ns))
    feed.send(feed.next(last_ns - PERIOD_NS))
    broken = feed.next()
    broken.image.data = broken.image.data[:100]
    feed.send(broken)
    assert wait_for(
        lambda: (
            feed.node.counters["dropped: duplicate slice"] == 1
            and feed.node.counters["dropped: stamps out of order"] == 1
            and feed.node.counters["slices refused"] == 1
        )
    )
    feed.estimate(2)


def test_a_stage_that_raises_is_told_and_the_pipeline_goes_on(
    feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed.estimate()
    pipeline = feed.node._pipeline
    assert pipeline is not None
    real, calls = pipeline._rolling.estimate, []

    def fail_once(window: object) -> object:
        calls.append(window)
        if len(calls) == 1:
            raise ZeroDivisionError("made to fail")
        return real(window)  # type: ignore[arg-type]

    monkeypatch.setattr(pipeline._rolling, "estimate", fail_once)
    feed.send()
    assert wait_for(lambda: len(calls) == 1)
    feed.estimate(2)
    assert feed.node.counters["exceptions"] == 1
    assert pipeline.alive


def test_what_is_too_old_is_left_out_after_the_limit_was_changed(feed: Feed) -> None:
    feed.estimate()
    feed.node.set_parameters([Parameter("max_slice_age", value=0.05)])
    feed.estimate()
    assert feed.node.counters["dropped: slice too old"] == 1  # one warning, of two slices
    depth = depth_array(feed.depth[-1])
    assert depth.shape == (HEIGHT, WIDTH)


def test_every_slice_ends_under_one_count(feed: Feed) -> None:
    counters = feed.node.counters
    assert wait_for(lambda: counters["slices waiting for a whole sweep"] == len(FOCI) - 1)
    feed.estimate(2)
    last_ns = from_time(feed.depth[-1].header.stamp)
    feed.send(feed.next(last_ns))
    feed.send(feed.next(last_ns - PERIOD_NS))
    broken, moving = feed.next(), feed.next()
    broken.image.data = broken.image.data[:100]
    moving.focus.settled = False
    feed.send(broken)
    feed.send(moving)
    for _ in range(12):  # faster than it may be estimated
        feed.send()
    assert wait_for(lambda: unaccounted(counters.snapshot()) == 0), counters.snapshot()
    assert counters["slices received"] == len(FOCI) - 1 + 2 + 4 + 12
    feed.node.trigger_deactivate()
    assert unaccounted(counters.snapshot()) == 0
