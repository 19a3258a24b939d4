"""The depth node on real DDS: what it publishes, what it refuses, and that it goes on whatever arrives."""

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Float32MultiArray
from std_srvs.srv import SetBool, Trigger

from hybriddepth_msgs.msg import FocalSlice, FocusState
from hybriddepth_ros.errors import ModelError, RegistrationError
from hybriddepth_ros.ros import depth_node
from hybriddepth_ros.ros.depth_node import DepthNode
from hybriddepth_ros.ros.diagnostics import resident_memory_mb
from hybriddepth_ros.ros.interface import INTERFACE
from hybriddepth_ros.ros.messages import demand_from
from tests.ros.helpers import (
    CAMERA,
    FRAME,
    HEIGHT,
    NAMESPACE,
    WIDTH,
    FakeEstimator,
    Peer,
    Running,
    make_slice,
    make_sweep,
    stamps,
    values_of,
    wait_for,
)

OUTPUTS: dict[str, type] = {
    "depth/image_rect": Image,
    "depth/uncertainty": Image,
    "depth/camera_info": CameraInfo,
    "rgb/image_rect": Image,
    "rgb/camera_info": CameraInfo,
    "depth/points": PointCloud2,
}


@pytest.fixture
def estimator(monkeypatch: pytest.MonkeyPatch) -> FakeEstimator:
    fake = FakeEstimator()
    monkeypatch.setattr(depth_node, "load_estimator", lambda *_: fake)
    return fake


class Feed:
    """A running depth node and a publisher of slices that it is connected to."""

    def __init__(self, node: Any, peer: Peer) -> None:
        self.node, self.peer = node, peer
        self._publisher = peer.publisher(FocalSlice, "slice")
        self.sweep = 0
        assert wait_for(lambda: self._publisher.get_subscription_count() > 0)

    def send(self, *slices: FocalSlice) -> None:
        """Deliver slices and wait until the node took them: best effort may lose what comes in a burst."""
        for message in slices:
            before = self.node.counters["slices received"]
            self._publisher.publish(message)
            assert wait_for(lambda: self.node.counters["slices received"] > before)  # noqa: B023

    def send_sweep(self) -> None:
        self.send(*make_sweep(self.sweep))
        self.sweep += 1

    def wait_count(self, name: str, count: int = 1) -> bool:
        return bool(wait_for(lambda: self.node.counters[name] >= count))


@pytest.fixture
def feed(context: Context, peer: Peer, estimator: FakeEstimator) -> Iterator[Feed]:
    with Running(DepthNode, context) as node:
        node.start()
        yield Feed(node, peer)


def listen_to_depth(feed: Feed) -> list[Any]:
    received = feed.peer.listen(Image, "depth/image_rect")
    assert wait_for(lambda: feed.node._outputs.any_wanted())
    return received


# -- interface


def test_the_interface_is_the_one_that_is_documented(
    context: Context, peer: Peer, estimator: FakeEstimator
) -> None:
    with Running(DepthNode, context) as node:
        node.start()
        fqn, namespace = "depth", f"/{NAMESPACE}"
        expected = [e for e in INTERFACE if e.node == "depth" and e.by_default]

        def missing() -> list[str]:
            found = {
                "publishes": dict(peer.node.get_publisher_names_and_types_by_node(fqn, namespace)),
                "subscribes": dict(peer.node.get_subscriber_names_and_types_by_node(fqn, namespace)),
                "serves": dict(peer.node.get_service_names_and_types_by_node(fqn, namespace)),
            }
            return [e.name for e in expected if e.type not in found[e.direction].get(_full(e.name, fqn), [])]

        assert wait_for(lambda: not missing()), missing()


def _full(name: str, node: str) -> str:
    return name if name.startswith("/") else f"/{NAMESPACE}/{name.replace('~', node)}"


def test_all_outputs_carry_the_header_of_the_reference_slice(feed: Feed) -> None:
    received = {topic: feed.peer.listen(kind, topic) for topic, kind in OUTPUTS.items()}
    assert wait_for(lambda: all(feed.node._outputs.wanted(topic) for topic in OUTPUTS))
    feed.send_sweep()
    assert wait_for(lambda: all(received.values())), {t: len(m) for t, m in received.items()}
    reference = make_sweep(0)[1].header
    for topic, messages in received.items():
        assert messages[0].header.stamp == reference.stamp, topic
        assert messages[0].header.frame_id == FRAME, topic
    depth = np.frombuffer(received["depth/image_rect"][0].data, np.float32).reshape(HEIGHT, WIDTH)
    sigma = np.frombuffer(received["depth/uncertainty"][0].data, np.float32).reshape(HEIGHT, WIDTH)
    assert np.isnan(depth[0, 0]) and np.isnan(sigma[0, 0]) and depth[1, 1] == 2.5
    assert received["rgb/image_rect"][0].encoding == "rgb8"
    info = received["depth/camera_info"][0]
    assert list(info.k) == CAMERA.matrix.ravel().tolist() and not any(info.d)
    cloud = received["depth/points"][0]
    assert (cloud.height, cloud.width, cloud.is_dense) == (HEIGHT, WIDTH, False)
    points = np.frombuffer(cloud.data, np.float32).reshape(HEIGHT, WIDTH, -1)
    assert points[1, 1, 2] == 2.5  # cloud and depth agree when projected with K
    assert points[1, 1, 0] * info.k[0] / 2.5 + info.k[2] == pytest.approx(1.0, abs=1e-4)


def test_a_focus_demand_alone_is_reason_enough_to_estimate(feed: Feed) -> None:
    """As when the sweep is adaptive and nobody looks at the depth."""
    received = feed.peer.listen(Float32MultiArray, "focus_demand")
    assert wait_for(lambda: feed.node._outputs.any_wanted())
    feed.send_sweep()
    assert wait_for(lambda: received)
    demand = demand_from(received[0])  # all but one pixel are at 1 m, known to 0.1 m
    at = np.average(demand.diopters, weights=demand.weight)
    assert at == pytest.approx(1.0, abs=0.03)
    spread = np.sqrt(np.average((demand.diopters - at) ** 2, weights=demand.weight))
    assert spread == pytest.approx(0.1, abs=0.03)
    assert [(d.label, d.size) for d in received[0].layout.dim] == [("diopters,weight", 2), ("bins", 64)]


def test_depth_in_millimetres_is_a_parameter_that_changes_while_running(feed: Feed) -> None:
    received = listen_to_depth(feed)
    (result,) = feed.node.set_parameters([Parameter("depth_encoding", value="16UC1")])
    assert result.successful
    feed.send_sweep()
    assert wait_for(lambda: received)
    depth = np.frombuffer(received[0].data, np.uint16).reshape(HEIGHT, WIDTH)
    assert received[0].encoding == "16UC1" and depth[0, 0] == 0 and depth[1, 1] == 2500


def test_options_reach_the_estimator_while_it_runs(feed: Feed, estimator: FakeEstimator) -> None:
    (result,) = feed.node.set_parameters([Parameter("max_depth", value=3.0)])
    assert result.successful and estimator.options.max_depth == 3.0


def test_static_parameters_are_refused_while_active(feed: Feed) -> None:
    (result,) = feed.node.set_parameters([Parameter("model", value="other")])
    assert result.reason == "model: applied at the next configure: deactivate and cleanup first"


# -- work that nobody wants is not done


def test_without_a_subscriber_nothing_is_estimated(feed: Feed, estimator: FakeEstimator) -> None:
    feed.send_sweep()
    assert feed.wait_count("stacks not needed")
    assert not estimator.stacks


def test_only_what_is_subscribed_is_converted(feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    received = feed.peer.listen(CameraInfo, "depth/camera_info")
    assert wait_for(lambda: feed.node._outputs.any_wanted())
    monkeypatch.setattr("hybriddepth_ros.ros.depth_outputs.depth_message", None)
    monkeypatch.setattr("hybriddepth_ros.ros.depth_outputs.cloud_message", None)
    feed.send_sweep()
    assert wait_for(lambda: received)
    assert feed.node.counters["exceptions"] == 0


def test_disabled_it_estimates_nothing_and_enabled_it_goes_on(feed: Feed, estimator: FakeEstimator) -> None:
    received = listen_to_depth(feed)
    assert feed.peer.call(SetBool, "depth/enable", SetBool.Request(data=False)).success
    feed.send_sweep()
    assert feed.wait_count("stacks not needed") and not estimator.stacks
    assert feed.peer.call(SetBool, "depth/enable", SetBool.Request(data=True)).success
    feed.send_sweep()
    assert wait_for(lambda: received)


# -- bad input: one throttled warning, a count in the diagnostics, and the node goes on


def _break_encoding(message: FocalSlice) -> None:
    message.image.encoding = "64FC4"


def _break_step(message: FocalSlice) -> None:
    message.image.step = 7


def _break_size(message: FocalSlice) -> None:
    message.image.height += 3


def _break_focus(message: FocalSlice) -> None:
    message.focus.focus_diopters = float("nan")


def _break_place(message: FocalSlice) -> None:
    message.focus.slice_index = 7


def _break_camera(message: FocalSlice) -> None:
    message.camera_info.binning_x = 4


DAMAGES = [_break_encoding, _break_step, _break_size, _break_focus, _break_place, _break_camera]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_bad_slice_is_counted_and_the_next_sweep_is_estimated(
    feed: Feed, damage: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    received = listen_to_depth(feed)
    newest = feed.peer.diagnostics("depth")
    for sweep in range(3):
        slices = make_sweep(sweep)
        damage(slices[1])
        feed.send(*slices)
    feed.send(*make_sweep(3))
    assert wait_for(lambda: received)
    assert feed.node.counters["slices refused"] == 3
    assert wait_for(lambda: values_of(newest()).get("slices refused") == "3")
    log = capfd.readouterr()
    assert (log.err + log.out).count("slices refused") == 1  # throttled


def test_a_slice_taken_while_the_lens_moved_is_not_used(feed: Feed, estimator: FakeEstimator) -> None:
    received = listen_to_depth(feed)
    slices = make_sweep(0)
    slices[1].focus.settled = False
    feed.send(*slices, *make_sweep(1))
    assert wait_for(lambda: received)
    assert feed.node.counters["slices dropped: lens moving"] == 1
    assert [stack.slices[0].stamp_ns for stack in estimator.stacks] == [1_100_000_000]  # the second sweep's


def test_a_camera_without_intrinsics_gives_no_cloud_and_says_so(feed: Feed) -> None:
    received = listen_to_depth(feed)
    newest = feed.peer.diagnostics("depth")
    slices = make_sweep(0)
    for message in slices:
        message.camera_info.k = np.zeros(9)
    feed.send(*slices)
    assert wait_for(lambda: received)
    assert feed.node.counters["no intrinsics"] == 1
    assert wait_for(lambda: newest() and newest().level == b"\x01" and "no intrinsics" in newest().message)


def test_slices_of_two_sizes_are_a_refused_stack(feed: Feed) -> None:
    received = listen_to_depth(feed)
    slices = make_sweep(0)
    slices[2].image.height -= 1
    slices[2].image.data = slices[2].image.data[: -slices[2].image.step]
    slices[2].camera_info.height = slices[2].image.height
    feed.send(*slices, *make_sweep(1))
    assert wait_for(lambda: received)
    assert feed.node.counters["stacks refused"] == 1


def test_an_exception_in_the_estimator_is_counted_and_the_next_stack_is_estimated(
    feed: Feed, estimator: FakeEstimator, capfd: pytest.CaptureFixture[str]
) -> None:
    received = listen_to_depth(feed)
    newest = feed.peer.diagnostics("depth")

    def fail() -> None:
        raise ZeroDivisionError("inside the model")

    estimator.before = fail
    for count in (1, 2):
        feed.send_sweep()
        assert feed.wait_count("exceptions", count)
    estimator.before = lambda: None
    feed.send_sweep()
    assert wait_for(lambda: received)
    assert wait_for(lambda: values_of(newest()).get("exceptions") == "2")
    log = capfd.readouterr()
    assert (log.err + log.out).count("ZeroDivisionError: inside the model") == 1


def test_a_stack_that_cannot_be_registered_is_refused_and_counted(
    feed: Feed, estimator: FakeEstimator
) -> None:
    listen_to_depth(feed)

    def fail() -> None:
        raise RegistrationError("residuals are 9 px")

    estimator.before = fail
    feed.send_sweep()
    assert feed.wait_count("stacks refused")
    assert feed.node.counters["exceptions"] == 0


def test_an_exception_in_a_callback_does_not_end_the_node(
    feed: Feed, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    received = listen_to_depth(feed)
    newest = feed.peer.diagnostics("depth")
    monkeypatch.setattr(feed.node._assembler, "add", None)
    for index in range(3):
        feed.send(make_slice(0, index))
    assert feed.wait_count("exceptions", 3)
    monkeypatch.undo()
    feed.send_sweep()
    assert wait_for(lambda: received)
    assert wait_for(lambda: values_of(newest()).get("exceptions") == "3")
    log = capfd.readouterr()
    assert (log.err + log.out).count("exceptions") == 1  # throttled


def test_stamps_that_jump_back_start_afresh(feed: Feed, capfd: pytest.CaptureFixture[str]) -> None:
    """A bag that loops."""
    received = listen_to_depth(feed)
    newest = feed.peer.diagnostics("depth")
    for count in (1, 2, 3):
        feed.send(*make_sweep(7))
        assert wait_for(lambda: len(received) == count)  # noqa: B023
        feed.send(make_slice(8, 0))
    assert len(set(stamps(received))) == 1
    assert wait_for(lambda: values_of(newest()).get("dropped: stamps jumped back") == "2")
    log = capfd.readouterr()
    assert (log.err + log.out).count("stamps jumped back") == 1  # throttled


def test_an_incomplete_sweep_is_dropped_unless_min_slices_allows_it(
    feed: Feed, estimator: FakeEstimator
) -> None:
    listen_to_depth(feed)
    feed.send(make_slice(0, 0), make_slice(0, 2), make_slice(1, 0))
    assert feed.wait_count("dropped: incomplete sweep")
    feed.node.set_parameters([Parameter("min_slices", value=2)])
    feed.send(make_slice(1, 1), make_slice(2, 0))
    assert wait_for(lambda: estimator.stacks)
    assert estimator.stacks[0].focus_diopters.tolist() == [0.5, 1.5]


LISTENER = """
import rclpy
from sensor_msgs.msg import PointCloud2
rclpy.init()
node = rclpy.create_node("listener")
node.create_subscription(PointCloud2, "/focus_camera/depth/points", lambda message: None, 1)
rclpy.spin(node)
"""


def test_a_subscriber_that_stalls_is_told_of_and_holds_nobody_up(
    feed: Feed, capfd: pytest.CaptureFixture[str]
) -> None:
    received = listen_to_depth(feed)
    newest = feed.peer.diagnostics("depth")
    cause = "messages to a subscriber that stalls"
    process = subprocess.Popen([sys.executable, "-c", LISTENER])
    try:
        assert wait_for(lambda: feed.node._outputs.wanted("depth/points"), 30.0)
        for _ in range(5):
            feed.send_sweep()
        assert feed.node.counters[cause] == 0
        process.send_signal(signal.SIGSTOP)  # it stays subscribed and takes nothing any more
        for _ in range(500):
            before = len(received)
            feed.send_sweep()
            assert wait_for(lambda: len(received) > before)  # noqa: B023
            if feed.node.counters[cause] >= 5:
                break
            time.sleep(0.05)
        assert wait_for(lambda: int(values_of(newest()).get(cause, 0)) >= 5)
        log = capfd.readouterr()
        assert (log.err + log.out).count(cause) == 1  # throttled
    finally:
        process.kill()
        process.wait()


def test_while_an_estimate_runs_the_newest_stack_waits_and_the_others_are_counted(
    feed: Feed, estimator: FakeEstimator
) -> None:
    received = listen_to_depth(feed)
    go_on = threading.Event()
    estimator.before = lambda: go_on.wait(20.0) and None
    feed.send_sweep()
    assert wait_for(lambda: estimator.stacks)
    for _ in range(3):
        feed.send_sweep()
    assert feed.wait_count("stacks dropped: a newer one came first", 2)
    go_on.set()
    assert wait_for(lambda: len(received) == 2)
    newest = make_sweep(3)[1].header.stamp
    assert received[1].header.stamp == newest


# -- input: topics


@pytest.mark.parametrize("slop", [0.0, 0.005])
def test_topics_of_any_camera_are_joined_by_stamp(
    context: Context, peer: Peer, estimator: FakeEstimator, slop: float
) -> None:
    pytest.importorskip("message_filters")
    overrides = [Parameter("input", value="topics"), Parameter("sync_slop", value=slop)]
    with Running(DepthNode, context, parameter_overrides=overrides) as node:
        node.start()
        kinds = {"image_raw": Image, "camera_info": CameraInfo, "focus": FocusState}
        publishers = {topic: peer.publisher(kind, topic) for topic, kind in kinds.items()}
        received = peer.listen(Image, "depth/image_rect")
        assert wait_for(lambda: all(p.get_subscription_count() for p in publishers.values()))
        assert wait_for(lambda: node._outputs.any_wanted())

        def send(message: FocalSlice) -> None:
            before = node.counters["slices received"]
            publishers["camera_info"].publish(message.camera_info)
            publishers["focus"].publish(message.focus)
            publishers["image_raw"].publish(message.image)
            assert wait_for(lambda: node.counters["slices received"] > before)

        for sweep in (5, 6):
            for message in make_sweep(sweep):
                send(message)
        assert wait_for(lambda: len(received) == 2)
        # an exception in the callback must not leave the synchroniser's lock held
        node._assembler.add, original = None, node._assembler.add
        send(make_slice(7, 0))
        node._assembler.add = original
        # an image out of order takes nothing from what waits for its partners
        first, second, third = make_sweep(20)
        send(first)
        send(second)
        publishers["camera_info"].publish(third.camera_info)
        publishers["focus"].publish(third.focus)
        publishers["image_raw"].publish(first.image)
        publishers["image_raw"].publish(third.image)
        assert wait_for(lambda: len(received) == 3)
        assert node.counters["stamps jumped back"] == node.counters["dropped: stamps jumped back"] == 0
        # and after time jumped back, matching goes on
        for message in make_sweep(5):
            send(message)
        assert wait_for(lambda: len(received) == 4)
        assert node.counters["stamps jumped back"] >= 1 and node.counters["exceptions"] == 1
        assert stamps(received)[0] == stamps(received)[3]


# -- saving


def test_save_writes_the_next_estimate_even_if_nobody_subscribes(feed: Feed, tmp_path: Path) -> None:
    feed.node.set_parameters([Parameter("save_directory", value=str(tmp_path / "out"))])
    future = feed.peer.call_async(Trigger, "depth/save", Trigger.Request())
    assert wait_for(lambda: feed.node._saves_waiting)
    feed.send_sweep()
    assert wait_for(future.done)
    assert future.result().success, future.result().message
    assert str(tmp_path / "out") in future.result().message
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["aif.png", "depth.npy", "depth_mm.png", "points.ply", "sigma.npy"]
    assert np.load(tmp_path / "out" / "depth.npy")[1, 1] == 2.5


def test_save_into_a_folder_that_cannot_be_is_refused_with_the_reason(feed: Feed, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    feed.node.set_parameters([Parameter("save_directory", value=str(tmp_path / "file" / "out"))])
    future = feed.peer.call_async(Trigger, "depth/save", Trigger.Request())
    assert wait_for(lambda: feed.node._saves_waiting)
    feed.send_sweep()
    assert wait_for(future.done)
    assert not future.result().success and "expected a folder that can be written" in future.result().message


@pytest.mark.parametrize("cleanup", [False, True])
def test_a_save_under_way_is_answered_when_the_node_is_deactivated(feed: Feed, cleanup: bool) -> None:
    future = feed.peer.call_async(Trigger, "depth/save", Trigger.Request())
    assert wait_for(lambda: feed.node._saves_waiting)
    assert feed.node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
    if cleanup:
        assert feed.node.trigger_cleanup() == TransitionCallbackReturn.SUCCESS
    assert wait_for(future.done)
    assert not future.result().success and "the node is not active" in future.result().message


def test_save_without_an_estimate_says_so(feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(depth_node, "SAVE_TIMEOUT_S", 0.2)
    response = feed.peer.call(Trigger, "depth/save", Trigger.Request())
    assert not response.success and "no estimate" in response.message


# -- lifecycle


def test_a_model_that_does_not_load_fails_the_transition_with_the_reason(
    context: Context, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(model: str, *_: object) -> None:
        raise ModelError(f"model: unknown model {model!r}")

    monkeypatch.setattr(depth_node, "load_estimator", refuse)
    with Running(DepthNode, context) as node:
        newest = peer.diagnostics("depth")
        request = ChangeState.Request(transition=Transition(id=Transition.TRANSITION_CONFIGURE))
        assert not peer.call(ChangeState, "depth/change_state", request).success
        assert (
            peer.call(GetState, "depth/get_state", GetState.Request()).current_state.label == "unconfigured"
        )
        assert wait_for(lambda: newest() and "unknown model 'sweepnet'" in newest().message)
        assert newest().level == b"\x02" and node.failure


def test_a_failure_is_told_until_the_next_attempt(
    context: Context, peer: Peer, estimator: FakeEstimator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any) -> None:
        raise ModelError("no memory left")

    with Running(DepthNode, context) as node:
        newest = peer.diagnostics("depth")
        assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
        with monkeypatch.context() as patch:
            patch.setattr(depth_node, "subscribe", refuse)
            assert node.trigger_activate() != TransitionCallbackReturn.SUCCESS
            assert wait_for(lambda: newest() and newest().message == "no memory left")
        assert newest().level == b"\x02" and values_of(newest())["state"] == "inactive"
        assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS and not node.failure


def test_without_a_clock_and_after_an_exception_diagnostics_go_on(
    context: Context, peer: Peer, estimator: FakeEstimator
) -> None:
    with Running(DepthNode, context, parameter_overrides=[Parameter("use_sim_time", value=True)]) as node:
        newest = peer.diagnostics("depth")
        status = node.diagnostics._status
        node.diagnostics._status = None
        assert wait_for(lambda: node.counters["exceptions"])
        node.diagnostics._status = status
        assert wait_for(newest)


def test_static_parameters_are_refused_while_the_model_loads(
    context: Context, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    loading, loaded = threading.Event(), threading.Event()

    def load(*_: object) -> FakeEstimator:
        loading.set()
        assert loaded.wait(20.0)
        return FakeEstimator()

    monkeypatch.setattr(depth_node, "load_estimator", load)
    with Running(DepthNode, context) as node:
        request = ChangeState.Request(transition=Transition(id=Transition.TRANSITION_CONFIGURE))
        future = peer.call_async(ChangeState, "depth/change_state", request)
        assert loading.wait(10.0)
        (result,) = node.set_parameters([Parameter("model", value="other")])
        loaded.set()
        assert "applied at the next configure" in result.reason
        assert wait_for(future.done) and node.get_parameter("model").value == "sweepnet"


def test_while_a_model_loads_even_a_single_threaded_executor_answers(
    context: Context, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = threading.Event()

    def load(*_: object) -> FakeEstimator:
        assert loaded.wait(20.0)
        return FakeEstimator()

    monkeypatch.setattr(depth_node, "load_estimator", load)
    node = DepthNode(context=context, namespace=NAMESPACE, use_global_arguments=False)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    thread = threading.Thread(target=executor.spin, daemon=True)
    thread.start()
    request = ChangeState.Request(transition=Transition(id=Transition.TRANSITION_CONFIGURE))
    future = peer.call_async(ChangeState, "depth/change_state", request)
    label = ""

    def state() -> str:
        return str(peer.call(GetState, "depth/get_state", GetState.Request()).current_state.label)

    assert wait_for(lambda: state() == "configuring"), label
    assert not future.done()
    loaded.set()
    assert wait_for(future.done) and future.result().success
    assert state() == "inactive"
    executor.shutdown()
    thread.join(5.0)
    node.destroy_node()


def test_a_transition_that_the_state_does_not_allow_is_refused_and_the_node_lives(
    context: Context, peer: Peer, estimator: FakeEstimator
) -> None:
    with Running(DepthNode, context):
        request = ChangeState.Request(transition=Transition(id=Transition.TRANSITION_ACTIVATE))
        assert not peer.call(ChangeState, "depth/change_state", request).success
        request.transition.id = Transition.TRANSITION_CONFIGURE
        assert peer.call(ChangeState, "depth/change_state", request).success


def test_twenty_lifecycle_rounds_leave_no_thread_and_no_memory_behind(
    context: Context, peer: Peer, estimator: FakeEstimator
) -> None:
    with Running(DepthNode, context) as node:
        publisher = peer.publisher(FocalSlice, "slice")
        received = peer.listen(Image, "depth/image_rect")

        def round_trip(number: int) -> None:
            for transition in (node.trigger_configure, node.trigger_activate):
                assert transition() == TransitionCallbackReturn.SUCCESS
            if number % 5 == 0:
                assert wait_for(lambda: publisher.get_subscription_count() and node._outputs.any_wanted())
                for message in make_sweep(number):
                    publisher.publish(message)
                    time.sleep(0.005)
            for transition in (node.trigger_deactivate, node.trigger_cleanup):
                assert transition() == TransitionCallbackReturn.SUCCESS
            estimator.stacks.clear()

        for number in range(5):  # what is allocated once is allocated by now
            round_trip(number)
        gc.collect()
        threads, memory, files = (
            threading.active_count(),
            resident_memory_mb(),
            len(os.listdir("/proc/self/fd")),
        )
        for number in range(20):
            round_trip(number)
        gc.collect()
        assert wait_for(lambda: threading.active_count() < threads + 5)  # the executor's pool may still grow
        assert resident_memory_mb() - memory < 8.0
        assert len(os.listdir("/proc/self/fd")) <= files
        assert received is not None


# -- the real estimator


def test_the_real_estimator_sees_a_wall_where_it_stands(context: Context, peer: Peer) -> None:
    """A textured wall, blurred by its distance to each focus, at 1 m."""
    import cv2

    from hybriddepth_ros.focal_stack import CameraIntrinsics
    from hybriddepth_ros.ros.messages import make_header, slice_message

    camera = CameraIntrinsics(200.0, 200.0, 79.5, 59.5, 160, 120)
    wall = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    wall = cv2.resize(wall, (160, 120), interpolation=cv2.INTER_CUBIC)
    with Running(DepthNode, context, parameter_overrides=[Parameter("register", value=False)]) as node:
        node.start()
        feed = Feed(node, peer)
        received = listen_to_depth(feed)
        for index, focus in enumerate((0.2, 0.6, 1.0, 1.4, 1.8)):
            state = FocusState(header=make_header(10**9 + index, FRAME), slice_index=index, slice_count=5)
            state.settled = True
            state.focus_diopters, state.blur_px_per_diopter = focus, 8.0
            radius = max(abs(focus - 1.0) * 8.0 / 2.0 / 2.0, 0.05)
            feed.send(slice_message(cv2.GaussianBlur(wall, (0, 0), radius), camera, state))
        assert wait_for(lambda: received, 30.0), node.counters.snapshot()
        depth = np.frombuffer(received[0].data, np.float32)
        assert np.nanmedian(depth) == pytest.approx(1.0, rel=0.1)


def test_qos_is_a_parameter_of_every_topic(context: Context, peer: Peer, estimator: FakeEstimator) -> None:
    overrides = [
        Parameter(f"qos_overrides./{NAMESPACE}/slice.subscription.reliability", value="reliable"),
        Parameter(f"qos_overrides./{NAMESPACE}/depth/points.publisher.reliability", value="best_effort"),
        Parameter(f"qos_overrides./{NAMESPACE}/depth/points.publisher.depth", value=1),
    ]
    with Running(DepthNode, context, parameter_overrides=overrides) as node:
        node.start()

        def offered(topic: str, find: Any) -> list[Any]:
            return [info.qos_profile.reliability for info in find(f"/{NAMESPACE}/{topic}")]

        assert wait_for(lambda: offered("slice", peer.node.get_subscriptions_info_by_topic))
        assert offered("slice", peer.node.get_subscriptions_info_by_topic) == [ReliabilityPolicy.RELIABLE]
        points = offered("depth/points", peer.node.get_publishers_info_by_topic)
        depth = offered("depth/image_rect", peer.node.get_publishers_info_by_topic)
        assert points == [ReliabilityPolicy.BEST_EFFORT] and depth == [ReliabilityPolicy.RELIABLE]


def test_the_model_is_warm_once_the_node_is_configured(
    context: Context, estimator: FakeEstimator, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(*, rolling: bool = False) -> None:
        raise ModelError("out of memory")

    with Running(DepthNode, context) as node:
        node.start()
        assert estimator.warmed_up == 1
    with Running(DepthNode, context, parameter_overrides=[Parameter("warm_up", value=False)]) as node:
        node.start()
        assert estimator.warmed_up == 1
    estimator.warm_up = fail  # type: ignore[method-assign]
    with Running(DepthNode, context) as node:
        node.start()
        assert node.is_active and node.counters["warm-up failed"] == 1
