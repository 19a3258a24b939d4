"""The depth node on real DDS and what a camera, a link or a subscriber may do to it, with either `update`: it
is counted in the diagnostics, and the next good slices give depth.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import cv2
import numpy as np
import pytest
from rclpy.context import Context
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image

from hybriddepth_msgs.msg import FocalSlice, FocusState
from hybriddepth_ros.cameras import CameraFrame, FocusCamera, FrameTimeout
from hybriddepth_ros.focal_stack import CameraIntrinsics
from hybriddepth_ros.ros import depth_node, focus_sweep_node, slice_pipeline
from hybriddepth_ros.ros.decoding import depth_array
from hybriddepth_ros.ros.depth_node import DepthNode
from hybriddepth_ros.ros.focus_sweep_node import FocusSweepNode
from hybriddepth_ros.ros.messages import from_time, make_header, slice_message
from hybriddepth_ros.ros.slice_pipeline import unaccounted
from tests.ros.helpers import NAMESPACE, Peer, Running, values_of, wait_for
from tests.stacks import defocused_stack

FOCI = np.linspace(0.4, 2.8, 4).astype(np.float32)
WIDTH, HEIGHT, BLUR, DIOPTERS = 160, 120, 6.0, 1.3
PERIOD_NS = 33_000_000
COUNT = len(FOCI)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return defocused_stack(DIOPTERS, FOCI, BLUR, (HEIGHT, WIDTH))


def intrinsics(image: np.ndarray) -> CameraIntrinsics:
    height, width = image.shape[:2]
    return CameraIntrinsics(150.0, 150.0, 0.5 * (width - 1), 0.5 * (height - 1), width, height)


class Feed:
    """A depth node, slices for it in the order of a sweep, and one subscriber of its depth."""

    def __init__(self, update: str, node: DepthNode, peer: Peer, images: np.ndarray) -> None:
        self.update, self.node, self.peer, self.images = update, node, peer, images
        self._publisher = peer.publisher(FocalSlice, "slice")
        self.depth = peer.listen(Image, "depth/image_rect")
        self._diagnostics = peer.diagnostics("depth")
        self.next_place = 0  # counted through all sweeps
        assert wait_for(lambda: self._publisher.get_subscription_count() > 0)
        assert wait_for(lambda: node.is_wanted("depth/image_rect"))

    def make(self, place: int | None = None, stamp_ns: int | None = None) -> FocalSlice:
        """The next slice, or that of another place."""
        if place is None:
            place, self.next_place = self.next_place, self.next_place + 1
        index = place % COUNT
        focus = FocusState(
            header=make_header(
                10_000_000_000 + place * PERIOD_NS if stamp_ns is None else stamp_ns, "optical"
            ),
            sweep_id=place // COUNT,
            slice_index=index,
            slice_count=COUNT,
            focus_diopters=float(FOCI[index]),
            blur_px_per_diopter=BLUR,
            settled=True,
        )
        image = self.images[index]
        return slice_message(image, intrinsics(image), focus)

    def send(self, *messages: FocalSlice) -> None:
        """Have the node take them, one after the other, each with all that follows from it."""
        for message in messages:
            before = self.node.counters["slices received"]
            self._publisher.publish(message)
            assert wait_for(lambda: self.node.counters["slices received"] > before)  # noqa: B023
            self.settle()

    def settle(self) -> None:
        """Until the node has nothing in hand."""
        counters = self.node.counters

        def idle() -> bool:
            counts = counters.snapshot()
            if self.update == "slice":
                return unaccounted(counts) == 0
            ends = ("stacks estimated", "stacks refused", "exceptions", "stacks not needed")
            ends += ("stacks dropped: a newer one came first",)
            return counts.get("stacks received", 0) <= sum(counts.get(end, 0) for end in ends)

        assert wait_for(idle), counters.snapshot()

    def send_sweeps(self, sweeps: int = 1) -> None:
        self.send(*(self.make() for _ in range(sweeps * COUNT)))

    def assert_goes_on(self) -> None:
        """Two good sweeps give depth of now, as it is."""
        self.next_place += -self.next_place % COUNT
        self.send_sweeps(2)
        newest_ns = from_time(self.make(self.next_place - 1).header.stamp)
        oldest_ns = newest_ns - (COUNT - 1) * PERIOD_NS
        assert wait_for(lambda: self.depth and from_time(self.depth[-1].header.stamp) >= oldest_ns)
        depth = depth_array(self.depth[-1])
        assert depth.shape == self.images.shape[1:3]
        assert np.nanmedian(depth) == pytest.approx(1.0 / DIOPTERS, rel=0.03)

    def assert_told(self, **counts: int) -> None:
        """In the diagnostics, under names with `_` for a blank and `__` for a colon."""
        expected = {k.replace("__", ": ").replace("_", " "): str(n) for k, n in counts.items()}

        def told() -> bool:
            values = values_of(self._diagnostics())
            return all(values.get(name) == count for name, count in expected.items())

        assert wait_for(told), (expected, values_of(self._diagnostics()))


@pytest.fixture(params=["slice", "sweep"])
def feed(request: pytest.FixtureRequest, context: Context, peer: Peer, images: np.ndarray) -> Iterator[Feed]:
    overrides = [Parameter("model", value="classical"), Parameter("update", value=request.param)]
    with Running(DepthNode, context, parameter_overrides=overrides) as node:
        node.start()
        yield Feed(request.param, node, peer, images)


# -- what a camera or a link does


def test_a_slice_that_never_comes_is_counted_and_the_others_give_depth(feed: Feed) -> None:
    feed.node.set_parameters([Parameter("min_slices", value=2)])  # of `update: sweep`
    gone, sweeps = 2, 5
    feed.send(*(feed.make(place) for place in range(sweeps * COUNT) if place % COUNT != gone))
    feed.next_place = sweeps * COUNT
    # With `slice` two sweeps' slices are waited for; with `sweep` the last one may still become whole.
    depths = sweeps * (COUNT - 1) - 2 * COUNT + 1 if feed.update == "slice" else sweeps - 1
    assert wait_for(lambda: len(feed.depth) == depths), len(feed.depth)
    feed.assert_told(slices_missing=sweeps)
    feed.assert_goes_on()
    feed.assert_told(slices_missing=sweeps, slices_received=sweeps * (COUNT - 1) + 2 * COUNT)


def test_slices_missing_here_and_there_are_counted_each(feed: Feed) -> None:
    gone = {1, 6, 7, 8}  # of three sweeps
    feed.send(*(feed.make(place) for place in range(12) if place not in gone))
    feed.next_place = 12
    feed.assert_goes_on()
    feed.assert_told(slices_missing=len(gone))
    if feed.update == "sweep":
        feed.assert_told(dropped__incomplete_sweep=3)


def test_the_same_slice_twice_counts_once(feed: Feed) -> None:
    feed.send_sweeps()
    for _ in range(COUNT):
        message = feed.make()
        feed.send(message, message)
    feed.assert_told(dropped__duplicate_slice=COUNT)
    feed.assert_goes_on()
    feed.assert_told(dropped__duplicate_slice=COUNT)


def test_slices_of_one_sweep_in_another_order_are_a_sweep_or_told(feed: Feed) -> None:
    feed.send_sweeps()
    before = feed.node.counters["stacks estimated"]
    feed.send(*(feed.make(COUNT + index) for index in (0, 2, 1, 3)))
    feed.next_place = 2 * COUNT
    if feed.update == "slice":
        feed.assert_told(dropped__stamps_out_of_order=1, slices_missing=1)
    else:  # the sweep waits for it
        assert wait_for(lambda: len(feed.depth) == before + 1)
        feed.assert_told(slices_missing=1)
    feed.assert_goes_on()


def test_a_slice_of_the_sweep_before_is_counted_and_the_next_sweep_gives_depth(feed: Feed) -> None:
    feed.send_sweeps()
    feed.send(feed.make(), feed.make(2))
    if feed.update == "slice":
        feed.assert_told(dropped__stamps_out_of_order=1)
    else:
        feed.assert_told(dropped__stamps_jumped_back=1)
    feed.assert_goes_on()


def test_time_that_jumps_back_is_counted_and_gives_depth_again(feed: Feed) -> None:
    """A bag that is wound back, or a clock that was set."""
    for loop in range(3):
        feed.depth.clear()
        feed.next_place = 400 - 80 * loop
        feed.send_sweeps(3)
        assert wait_for(lambda: feed.depth)
    # each loop ends with a whole sweep, so that with `update: sweep` nothing is thrown away
    if feed.update == "slice":
        feed.assert_told(dropped__stamps_jumped_back=2)
    feed.assert_goes_on()


@pytest.mark.parametrize("within", [False, True])
def test_images_of_another_size_are_estimated_as_they_are(
    feed: Feed, images: np.ndarray, within: bool
) -> None:
    """From one sweep to the next, or in the middle of one: a driver that was set to another format."""
    feed.send_sweeps(2)
    for size in ((80, 60), (WIDTH, HEIGHT)):
        small = [
            np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8) for image in images
        ]
        if within:
            feed.send(feed.make(), feed.make())
        feed.images = np.stack(small)
        if within:
            feed.send(feed.make(), feed.make())
        feed.depth.clear()
        feed.send_sweeps(2)
        assert wait_for(lambda: feed.depth and depth_array(feed.depth[-1]).shape == (size[1], size[0]))  # noqa: B023
    feed.assert_goes_on()
    if feed.update == "slice":
        feed.assert_told(dropped__image_size_changed=2)
    elif within:
        feed.assert_told(stacks_refused=2)
    assert feed.node.counters["exceptions"] == 0


# -- a stage that raises


class FailsOnce:
    """What it stands for, but for the first call."""

    def __init__(self, real: Any) -> None:
        self._real, self._failed = real, False

    def __call__(self, *arguments: Any, **keys: Any) -> Any:
        if not self._failed:
            self._failed = True
            raise ZeroDivisionError("made to fail")
        return self._real(*arguments, **keys)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def _stages(feed: Feed) -> dict[str, tuple[Any, str]]:
    node: Any = feed.node
    shared = {"publishing": (node._outputs, "publish")}
    if feed.update == "sweep":
        return shared | {"reading": (depth_node, "read_slice"), "estimating": (node, "_estimator")}
    rolling = node._pipeline._rolling
    return shared | {
        "reading": (slice_pipeline, "read_slice"),
        "gathering": (rolling.windows, "add"),
        "registering": (rolling.windows, "_place"),
        "estimating": (rolling, "_model"),
    }


@pytest.mark.parametrize("stage", ["reading", "gathering", "registering", "estimating", "publishing"])
def test_a_stage_that_raises_is_counted_and_the_next_slices_give_depth(
    feed: Feed, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    stages = _stages(feed)
    if stage not in stages:
        pytest.skip("no stage of `update: sweep`")
    feed.send_sweeps(2)
    where, name = stages[stage]
    monkeypatch.setattr(where, name, FailsOnce(getattr(where, name)))
    feed.send_sweeps()
    feed.assert_told(exceptions=1)
    feed.assert_goes_on()
    assert feed.node.counters["exceptions"] == 1


# -- a subscriber that blocks


class Blocked:
    """A subscriber whose callback does not come back until it is let go."""

    def __init__(self, peer: Peer, topic: str) -> None:
        self.entered, self.let_go = threading.Event(), threading.Event()
        self.stamps: list[int] = []
        peer.node.create_subscription(Image, f"/{NAMESPACE}/{topic}", self._take, 1)

    def _take(self, message: Image) -> None:
        self.stamps.append(from_time(message.header.stamp))
        self.entered.set()
        self.let_go.wait(60.0)


@pytest.fixture
def blocked(context: Context, feed: Feed) -> Iterator[Blocked]:
    other = Peer(context)
    made = Blocked(other, "rgb/image_rect")
    assert wait_for(lambda: feed.node.is_wanted("rgb/image_rect"))
    yield made
    made.let_go.set()
    other.close()


def test_a_subscriber_that_blocks_costs_the_others_nothing(feed: Feed, blocked: Blocked) -> None:
    for _ in range(10):
        if blocked.entered.is_set():
            break
        feed.send_sweeps()
    assert blocked.entered.wait(10.0)
    before, sweeps = feed.node.counters["stacks estimated"], 8
    feed.send_sweeps(sweeps)
    depths = before + sweeps * (COUNT if feed.update == "slice" else 1)
    assert wait_for(lambda: len(feed.depth) == depths), (before, depths, len(feed.depth))
    assert len(blocked.stamps) == 1
    feed.assert_told(stacks_estimated=depths)  # no depth that was made was not published
    assert feed.node.counters["exceptions"] == 0
    blocked.let_go.set()
    newest_ns = from_time(feed.depth[-1].header.stamp)
    assert wait_for(lambda: blocked.stamps[-1] == newest_ns)  # the present, not what it slept through


def test_a_node_with_a_subscriber_that_blocks_can_be_shut_down(
    context: Context, peer: Peer, images: np.ndarray
) -> None:
    for update in ("slice", "sweep"):
        with ExitStack() as cleanup:
            overrides = [Parameter("model", value="classical"), Parameter("update", value=update)]
            other = Peer(context)
            cleanup.callback(other.close)
            with Running(DepthNode, context, parameter_overrides=overrides) as node:
                node.start()
                made = Feed(update, node, peer, images)
                hangs = Blocked(other, "rgb/image_rect")
                cleanup.callback(hangs.let_go.set)
                assert wait_for(lambda: node.is_wanted("rgb/image_rect"))
                made.send_sweeps(2)
                assert hangs.entered.wait(10.0)
                assert node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
                assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
            assert node._destroyed  # which a spinner gives up if it takes long
            assert not hangs.let_go.is_set()


LISTENER = f"""
import rclpy
from sensor_msgs.msg import Image
rclpy.init()
node = rclpy.create_node("listener")
node.create_subscription(Image, "/{NAMESPACE}/rgb/image_rect", lambda message: None, 1)
rclpy.spin(node)
"""


def test_a_subscriber_whose_process_stalls_is_told_of_and_every_slice_is_accounted_for(
    context: Context, peer: Peer, images: np.ndarray
) -> None:
    """As test_depth_node has it of `update: sweep`."""
    overrides = [Parameter("model", value="classical"), Parameter("update", value="slice")]
    process = subprocess.Popen([sys.executable, "-c", LISTENER], env=os.environ.copy())
    try:
        with Running(DepthNode, context, parameter_overrides=overrides) as node:
            node.start()
            feed = Feed("slice", node, peer, images)
            assert wait_for(lambda: node.is_wanted("rgb/image_rect"), 30.0)
            feed.send_sweeps(2)
            process.send_signal(signal.SIGSTOP)
            cause = "messages to a subscriber that stalls"
            end = time.monotonic() + 60.0
            while node.counters[cause] < 3 and time.monotonic() < end:
                before = len(feed.depth)
                feed.send_sweeps()
                assert wait_for(lambda: len(feed.depth) > before), node.counters.snapshot()  # noqa: B023
            assert node.counters[cause] >= 3
            feed.settle()
            assert wait_for(lambda: node.counters["stacks estimated"] == len(feed.depth))
    finally:
        process.kill()
        process.wait()


# -- a camera that is not what it promised


class PacedCamera(FocusCamera):
    """Promises 30 frames/s and delivers others."""

    def __init__(self, rate_hz: float, images: np.ndarray) -> None:
        self._period_ns, self._images = round(1e9 / rate_hz), images
        self._closed = threading.Event()
        self._sequence = self._next_ns = 0
        self._focus = float(FOCI[0])

    def open(self) -> None:
        self._closed.clear()
        self._next_ns = time.time_ns()

    def close(self) -> None:
        self._closed.set()

    def read(self, timeout_s: float = 1.0) -> CameraFrame:
        end = time.monotonic() + timeout_s
        while (left_s := (self._next_ns + 3_000_000 - time.time_ns()) * 1e-9) > 0.0:
            if self._closed.wait(min(left_s, 0.01)) or time.monotonic() > end:
                raise FrameTimeout("no frame")
        start_ns = self._next_ns
        self._next_ns = max(start_ns + self._period_ns, time.time_ns() - 50_000_000)
        self._sequence += 1
        image = self._images[int(np.argmin(abs(FOCI - self._focus)))]
        return CameraFrame(
            image, self._sequence, start_ns, start_ns + 1_000_000, self._focus, 7.0, intrinsics(image)
        )

    def command_focus(self, focus_diopters: float) -> int:
        self._focus = focus_diopters
        return time.time_ns()

    @property
    def focus_range_diopters(self) -> tuple[float, float]:
        return (0.0, 4.0)

    @property
    def frame_rate_hz(self) -> float:
        return 30.0


@pytest.mark.parametrize("update", ["slice", "sweep"])
@pytest.mark.parametrize(("rate_hz", "depths"), [(2.0, 2), (100.0, 30)])
def test_a_camera_of_another_rate_than_it_promised_gives_depth_and_every_slice_is_accounted_for(
    context: Context,
    peer: Peer,
    images: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    update: str,
    rate_hz: float,
    depths: int,
) -> None:
    monkeypatch.setattr(focus_sweep_node, "make_camera", lambda name, config: PacedCamera(rate_hz, images))
    overrides = [Parameter("model", value="classical"), Parameter("update", value=update)]
    overrides.append(Parameter("max_slice_age", value=0.0))  # on a busy machine 2 Hz may become less
    sweeping = [Parameter("focus_diopters", value=[float(focus) for focus in FOCI])]
    with (
        Running(DepthNode, context, parameter_overrides=overrides) as depth,
        Running(FocusSweepNode, context, parameter_overrides=sweeping) as sweep,
    ):
        depth.start()
        received = peer.listen(Image, "depth/image_rect")
        of_camera, of_depth = peer.diagnostics("focus_sweep"), peer.diagnostics("depth")
        assert wait_for(lambda: depth.is_wanted("depth/image_rect"))
        sweep.start()
        assert wait_for(lambda: len(received) >= depths, 60.0), depth.counters.snapshot()
        if rate_hz < 30.0:
            assert wait_for(lambda: values_of(of_camera()).get("slice rate / possible", "0.00") != "0.00")
            assert of_camera().level == b"\x01"  # a warning: less than the camera promised
            assert float(values_of(of_camera())["slice rate / possible"]) < 0.5
        assert sweep.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
        counters = depth.counters
        if update == "slice":
            assert wait_for(lambda: unaccounted(counters.snapshot()) == 0), counters.snapshot()
        assert counters["exceptions"] == 0 and counters["slices refused"] == 0
        assert wait_for(
            lambda: values_of(of_depth()).get("slices received") == str(counters["slices received"])
        )
        assert "slice rate [Hz]" in values_of(of_depth())
        assert np.nanmedian(depth_array(received[-1])) == pytest.approx(1.0 / DIOPTERS, rel=0.03)
