"""Two machines on one: slices cross an emulated link between two domains, and it breaks."""

import os
from collections.abc import Iterator
from typing import Any

import pytest
from rclpy.context import Context
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image

from hybriddepth_msgs.msg import CompressedFocalSlice
from hybriddepth_ros.emulation.link import Link, LinkOptions
from hybriddepth_ros.ros import depth_node
from hybriddepth_ros.ros.depth_node import DepthNode
from hybriddepth_ros.ros.focus_sweep_node import FocusSweepNode
from hybriddepth_ros.ros.relay import Relay
from tests.ros.helpers import (
    NAMESPACE,
    FakeEstimator,
    Peer,
    Running,
    make_compressed,
    make_slice,
    stamps,
    wait_for,
)

TOPIC = "slice/compressed"


@pytest.fixture
def rack() -> Iterator[Context]:
    """A context in the domain of the machine with the GPU; `context` is in the robot's."""
    made = Context()
    made.init(args=[], domain_id=int(os.environ["ROS_DOMAIN_ID"]) % 100 + 1)
    yield made
    made.try_shutdown()


@pytest.fixture
def rack_peer(rack: Context) -> Iterator[Peer]:
    made = Peer(rack)
    yield made
    made.close()


def relay(context: Context, rack: Context, options: LinkOptions) -> Relay:
    return Relay(Link(options), context, rack, {f"/{NAMESPACE}/{TOPIC}": CompressedFocalSlice})


def test_the_two_domains_do_not_hear_each_other_but_over_the_link(
    context: Context, peer: Peer, rack: Context, rack_peer: Peer
) -> None:
    publisher = peer.publisher(CompressedFocalSlice, TOPIC)
    received = rack_peer.listen(CompressedFocalSlice, TOPIC)
    with relay(context, rack, LinkOptions(rate_mbit=1000.0, delay_ms=2.0, jitter_ms=5.0)) as link:
        assert wait_for(lambda: publisher.get_subscription_count() == 1)  # the relay, and nobody else
        assert wait_for(lambda: rack_peer.node.count_publishers(f"/{NAMESPACE}/{TOPIC}") == 1)
        sent = [make_compressed(0, index) for index in range(16)]
        for count, message in enumerate(sent, 1):
            publisher.publish(message)
            assert wait_for(lambda: len(received) == count)  # noqa: B023
        assert received == sent
        assert link.counts == {"received": 16, "delivered": 16}


def test_a_link_that_breaks_loses_slices_but_neither_stamps_nor_the_node(
    context: Context, peer: Peer, rack: Context, rack_peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(depth_node, "load_estimator", lambda *_: FakeEstimator())
    publisher = peer.publisher(CompressedFocalSlice, TOPIC)
    depth = rack_peer.listen(Image, "depth/image_rect")
    overrides = [Parameter("input", value="compressed_slices")]
    with (
        Running(DepthNode, rack, parameter_overrides=overrides) as node,
        relay(context, rack, LinkOptions(rate_mbit=100.0, delay_ms=2.0)) as link,
    ):
        node.start()
        assert wait_for(lambda: publisher.get_subscription_count() == 1)
        assert wait_for(node._outputs.any_wanted)
        assert wait_for(lambda: rack.ok() and link._there.count_subscribers(f"/{NAMESPACE}/{TOPIC}") == 1)

        def send(sweep: int, index: int, arrives: bool) -> None:
            before, lost = node.counters["slices received"], link.counts["lost"]
            publisher.publish(make_compressed(sweep, index))
            if arrives:
                assert wait_for(lambda: node.counters["slices received"] == before + 1)
            else:
                assert wait_for(lambda: link.counts["lost"] == lost + 1)

        for index in range(3):
            send(0, index, True)
        assert wait_for(lambda: len(depth) == 1)
        for sweep in (1, 4):  # it breaks in the middle of a sweep, is away for two, and returns; twice
            send(sweep, 0, True)
            link.cut()
            send(sweep, 1, False)
            send(sweep, 2, False)
            for index in range(3):
                send(sweep + 1, index, False)
            link.mend()
            for index in range(3):
                send(sweep + 2, index, True)
            assert wait_for(lambda: stamps(depth)[-1:] == stamps([make_slice(sweep + 2, 1)]))  # noqa: B023
        assert stamps(depth) == stamps([make_slice(sweep, 1) for sweep in (0, 3, 6)])
        counts = node.counters.snapshot()
        assert counts["slices received"] == 11 == link.counts["delivered"]
        assert link.counts["lost"] == 10 and link.counts["received"] == 21
        assert counts["dropped: incomplete sweep"] == 2
        assert not {"exceptions", "slices refused", "dropped: stamps jumped back"} & counts.keys()


def test_a_camera_here_makes_depth_there(
    context: Context, rack: Context, rack_peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The two nodes as they are started on two machines; the link loses a slice in twenty."""
    monkeypatch.setattr(depth_node, "load_estimator", lambda *_: FakeEstimator())
    small = {"width": 64, "height": 48, "loop_frames": 5, "frame_rate": 50.0}
    robot: list[Any] = [Parameter(f"simulated.{name}", value=value) for name, value in small.items()]
    robot.append(Parameter("transport", value="jpeg"))
    depth = rack_peer.listen(Image, "depth/image_rect")
    server = [Parameter("input", value="compressed_slices")]
    options = LinkOptions(rate_mbit=10.0, delay_ms=20.0, jitter_ms=5.0, packet_loss=0.02)
    with (
        Running(DepthNode, rack, parameter_overrides=server) as node,
        relay(context, rack, options) as link,
        Running(FocusSweepNode, context, parameter_overrides=robot) as camera,
    ):
        node.start()
        camera.start()
        assert wait_for(lambda: len(depth) >= 3 and link.counts["lost"] >= 1, 60.0)
        assert node.counters["exceptions"] == camera.counters["exceptions"] == 0
        assert node.counters["slices refused"] == 0
        assert len(set(stamps(depth))) == len(depth)
