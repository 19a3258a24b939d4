"""The focus sweep node on real DDS, with the simulated camera and with one that fails on command."""

import gc
import math
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Float32MultiArray, MultiArrayDimension, MultiArrayLayout

from hybriddepth_msgs.msg import FocalSlice, FocusState
from hybriddepth_msgs.srv import CaptureStack, SetFocus
from hybriddepth_ros.adaptive_sweep import FocusDemand
from hybriddepth_ros.cameras import CameraFrame, FocusCamera, FrameTimeout
from hybriddepth_ros.errors import CameraError, HybridDepthError
from hybriddepth_ros.optics import ThinLens
from hybriddepth_ros.ros import focus_sweep_node
from hybriddepth_ros.ros.diagnostics import resident_memory_mb
from hybriddepth_ros.ros.focus_sweep_node import FocusSweepNode
from hybriddepth_ros.ros.interface import INTERFACE
from hybriddepth_ros.ros.messages import demand_message, from_time
from tests.ros.helpers import CAMERA, FRAME, NAMESPACE, Peer, Running, picture, stamps, values_of, wait_for


class FakeCamera(FocusCamera):
    """200 frames/s; fails to open, or to read, while `broken` says why."""

    def __init__(self) -> None:
        self.broken = ""
        self.opened = 0
        self.closed = threading.Event()
        self._sequence = 0
        self._focus = 1.0
        self._next_ns = 0

    def open(self) -> None:
        if self.broken:
            raise CameraError(self.broken)
        self.opened += 1
        self.closed.clear()
        self._next_ns = time.time_ns()

    def close(self) -> None:
        self.closed.set()

    def read(self, timeout_s: float = 1.0) -> CameraFrame:
        if self.broken:
            raise CameraError(self.broken)
        self._next_ns = max(self._next_ns + 5_000_000, time.time_ns() - 50_000_000)
        if self.closed.wait(max(self._next_ns + 5_000_000 - time.time_ns(), 0) * 1e-9):
            raise FrameTimeout("closed")
        self._sequence += 1
        start = self._next_ns
        return CameraFrame(picture(), self._sequence, start, start + 2_000_000, self._focus, 7.0, CAMERA)

    def command_focus(self, focus_diopters: float) -> int:
        self._focus = focus_diopters
        return time.time_ns()

    @property
    def lens(self) -> ThinLens:
        return ThinLens(25.0, 1.4, 40.0)  # 11 px of blur per diopter

    @property
    def focus_range_diopters(self) -> tuple[float, float]:
        return (0.0, 4.0)

    @property
    def frame_rate_hz(self) -> float:
        return 200.0


@pytest.fixture
def camera(monkeypatch: pytest.MonkeyPatch) -> FakeCamera:
    made = FakeCamera()
    monkeypatch.setattr(focus_sweep_node, "make_camera", lambda name, config: made)
    return made


@pytest.fixture
def node(context: Context, camera: FakeCamera) -> Iterator[Any]:
    overrides = [Parameter("focus_diopters", value=[0.5, 1.0, 2.0])]
    with Running(FocusSweepNode, context, parameter_overrides=overrides) as made:
        made.start()
        yield made


SMALL = [
    Parameter(f"simulated.{name}", value=value)
    for name, value in (("width", 64), ("height", 48), ("loop_frames", 5), ("frame_rate", 50.0))
]
TOPICS: dict[str, type] = {
    "image_raw": Image,
    "camera_info": CameraInfo,
    "focus": FocusState,
    "slice": FocalSlice,
    "ground_truth/depth": Image,
    "ground_truth/camera_info": CameraInfo,
}


def test_the_simulated_camera_fills_every_documented_topic_with_equal_stamps(
    context: Context, peer: Peer
) -> None:
    timing = [Parameter("simulated.exposure_ms", value=4.0), Parameter("simulated.readout_ms", value=4.0)]
    with Running(FocusSweepNode, context, parameter_overrides=SMALL + timing) as node:
        received = {topic: peer.listen(kind, topic) for topic, kind in TOPICS.items()}
        node.start()
        assert wait_for(lambda: all(len(messages) > 20 for messages in received.values()), 30.0)
        common = set.intersection(*(set(stamps(messages)) for messages in received.values()))
        assert len(common) > 10
        whole = received["slice"][10]
        assert whole.header == whole.image.header == whole.camera_info.header == whole.focus.header
        assert whole.header.frame_id == FRAME
        assert abs(from_time(whole.header.stamp) - time.time_ns()) < 60e9
        truth = received["ground_truth/depth"][0]
        depth = np.frombuffer(truth.data, np.float32)
        assert truth.encoding == "32FC1" and 0.1 < np.nanmedian(depth) < 10.0
        assert {s.focus.slice_count for s in received["slice"]} == {5}
        foci = {round(s.focus.focus_diopters, 3): s.camera_info.k[0] for s in received["slice"]}
        assert len(foci) == 5 and foci[max(foci)] > foci[min(foci)]  # K follows the breathing
        assert whole.focus.settled and whole.focus.blur_px_per_diopter > 0.0

        def found() -> dict[str, dict[str, list[str]]]:
            where = ("focus_sweep", f"/{NAMESPACE}")
            return {
                "publishes": dict(peer.node.get_publisher_names_and_types_by_node(*where)),
                "serves": dict(peer.node.get_service_names_and_types_by_node(*where)),
            }

        for endpoint in INTERFACE:
            by_default = endpoint.by_default and endpoint.direction != "subscribes"
            if endpoint.node == "focus_sweep" and by_default:
                name = endpoint.name.replace("~", "focus_sweep")
                full = name if name.startswith("/") else f"/{NAMESPACE}/{name}"
                assert wait_for(lambda: endpoint.type in found()[endpoint.direction].get(full, [])), full  # noqa: B023


def test_a_real_camera_has_no_ground_truth_topics(context: Context, peer: Peer, tmp_path: Any) -> None:
    import cv2

    for name, shift in (("a_0.5.png", 0), ("b_1.0.png", 1), ("c_2.0.png", 2)):
        cv2.imwrite(str(tmp_path / name), picture(shift))
    overrides = [Parameter("camera", value="replay"), Parameter("replay.stack", value=str(tmp_path))]
    with Running(FocusSweepNode, context, parameter_overrides=overrides) as node:
        received = peer.listen(FocalSlice, "slice")
        node.start()
        assert wait_for(lambda: len(received) > 6)
        assert sorted({s.focus.focus_diopters for s in received}) == [0.5, 1.0, 2.0]
        topics = dict(peer.node.get_publisher_names_and_types_by_node("focus_sweep", f"/{NAMESPACE}"))
        assert not any("ground_truth" in topic for topic in topics)


def test_slices_of_a_sweep_arrive_in_order_and_none_is_missing(node: Any, peer: Peer) -> None:
    received = peer.listen(FocalSlice, "slice", 1000)
    assert wait_for(lambda: len(received) > 60)
    places = [(s.focus.sweep_id, s.focus.slice_index) for s in received]
    first = places[0][0] * 3 + places[0][1]
    assert places == [divmod(first + step, 3) for step in range(len(places))]
    assert [s.focus.focus_diopters for s in received if s.focus.slice_index == 2][:3] == [2.0] * 3
    assert received[0].focus.actuator_position == 7.0


def test_without_a_subscriber_no_image_is_converted(node: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    called = threading.Event()
    monkeypatch.setattr("hybriddepth_ros.ros.sweep_outputs.swept_message", lambda *a: called.set())
    monkeypatch.setattr("hybriddepth_ros.ros.sweep_outputs.picture_message", lambda *a: called.set())
    assert wait_for(lambda: node._sweep is not None)
    sweeps = node._sweep.statistics.sweeps
    assert wait_for(lambda: node._sweep.statistics.sweeps > sweeps + 3)
    assert not called.is_set()


# -- patterns


def test_a_triangle_is_published_as_whole_sweeps_in_order_of_capture(
    context: Context, peer: Peer, camera: FakeCamera
) -> None:
    overrides = [
        Parameter("focus_diopters", value=[0.5, 1.0, 2.0]),
        Parameter("sweep", value="triangle"),
    ]
    with Running(FocusSweepNode, context, parameter_overrides=overrides) as node:
        received = peer.listen(FocalSlice, "slice", 1000)
        node.start()
        assert wait_for(lambda: len(received) > 30)
    places = [(s.focus.sweep_id, s.focus.slice_index) for s in received]
    first = places[0][0] * 3 + places[0][1]
    assert places == [divmod(first + step, 3) for step in range(len(places))]
    for state in (s.focus for s in received):
        rising = (0.5, 1.0, 2.0)
        assert (
            state.focus_diopters == (rising if state.sweep_id % 2 == 0 else rising[::-1])[state.slice_index]
        )


ADAPTIVE = [
    Parameter("focus_diopters", value=[0.0, 1.0, 2.0, 4.0]),
    Parameter("sweep", value="adaptive"),
    Parameter("adaptive_slice_count", value=3),
]
FULL = (0.0, 1.0, 2.0, 4.0)


def whole_sweeps(states: list[Any]) -> list[tuple[float, ...]]:
    """The foci of each sweep of which all slices came."""
    sweeps: dict[int, list[Any]] = {}
    for state in list(states):
        sweeps.setdefault(state.sweep_id, []).append(state)
    return [tuple(s.focus_diopters for s in own) for own in sweeps.values() if len(own) == own[0].slice_count]


def test_the_sweep_follows_a_demand_and_is_full_without_one(
    context: Context, peer: Peer, camera: FakeCamera
) -> None:
    period = Parameter("full_sweep_period", value=0.5)
    with Running(FocusSweepNode, context, parameter_overrides=[*ADAPTIVE, period]) as node:
        states = peer.listen(FocusState, "focus", 10_000)
        newest = peer.diagnostics("focus_sweep")
        publisher = peer.publisher(Float32MultiArray, "focus_demand", 1)
        node.start()
        assert wait_for(lambda: publisher.get_subscription_count() > 0)
        assert wait_for(lambda: len(states) > 40)
        assert set(whole_sweeps(states)) == {FULL}
        for at in (1.5, 3.0):  # the sweep goes with the scene
            message = demand_message(FocusDemand(np.array([at - 0.05, at, at + 0.05]), np.ones(3)))
            states.clear()

            def full_and_adaptive(message: Any = message, at: float = at) -> bool:
                publisher.publish(message)
                sweeps = set(whole_sweeps(states))
                return FULL in sweeps and any(about(foci, at) for foci in sweeps - {FULL})

            assert wait_for(full_and_adaptive), whole_sweeps(states)
        assert wait_for(lambda: int(values_of(newest()).get("sweeps: adaptive", 0)) > 0)

        def full_again() -> bool:
            states.clear()
            time.sleep(0.3)
            return len(whole_sweeps(states)) > 5 and set(whole_sweeps(states)) == {FULL}

        assert wait_for(full_again)


def about(foci: tuple[float, ...], at: float) -> bool:
    return len(foci) == 3 and at - 1.0 < foci[0] < at < foci[-1] < at + 1.0


def test_demands_of_a_bad_shape_are_one_counted_line_each_and_change_nothing(
    context: Context, peer: Peer, camera: FakeCamera, capfd: pytest.CaptureFixture[str]
) -> None:
    layout = MultiArrayLayout(dim=[MultiArrayDimension(label="bins", size=2, stride=2)])
    good = demand_message(FocusDemand(np.array([1.0, 2.0]), np.ones(2)))
    bad = [
        Float32MultiArray(),
        Float32MultiArray(layout=layout, data=[1.0, 2.0]),
        Float32MultiArray(layout=good.layout, data=[1.0, 2.0, 3.0]),
        Float32MultiArray(layout=good.layout, data=[math.nan] * 4),
        Float32MultiArray(layout=good.layout, data=[1.0, 2.0, 1.0, -1.0]),
        Float32MultiArray(layout=good.layout, data=[2.0, 1.0, 1.0, 1.0]),
    ]
    with Running(FocusSweepNode, context, parameter_overrides=ADAPTIVE) as node:
        states = peer.listen(FocusState, "focus", 10_000)
        publisher = peer.publisher(Float32MultiArray, "focus_demand", 10)
        node.start()
        assert wait_for(lambda: publisher.get_subscription_count() > 0)
        for count, message in enumerate(bad, 1):
            publisher.publish(message)
            assert wait_for(lambda: node.counters["focus demands refused"] >= count), message  # noqa: B023
        assert node.counters["focus demands refused"] == len(bad)
        assert node.counters["exceptions"] == 0
        states.clear()
        assert wait_for(lambda: len(states) > 20)
        assert set(whole_sweeps(states)) == {FULL}
    log = capfd.readouterr()
    lines = [line for line in (log.err + log.out).splitlines() if "focus demand" in line]
    assert 1 <= len(lines) <= len(bad) and "Traceback" not in log.err + log.out


@pytest.mark.parametrize("sweep", ["sawtooth", "triangle"])
def test_only_an_adaptive_sweep_asks_for_demands(
    context: Context, peer: Peer, camera: FakeCamera, sweep: str
) -> None:
    with Running(FocusSweepNode, context, parameter_overrides=[Parameter("sweep", value=sweep)]) as node:
        node.start()
        topics = dict(node.get_subscriber_names_and_types_by_node("focus_sweep", f"/{NAMESPACE}"))
        assert not any("focus_demand" in topic for topic in topics)


def test_an_adaptive_sweep_without_a_known_lens_is_refused_with_the_reason(
    context: Context, camera: FakeCamera, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeCamera, "lens", None)
    running = Running(FocusSweepNode, context, parameter_overrides=ADAPTIVE)
    with running as node, pytest.raises(HybridDepthError, match="sweep: adaptive plans by the lens's blur"):
        node.start()


# -- services


def test_set_focus_holds_and_lets_go(node: Any, peer: Peer) -> None:
    received = peer.listen(FocusState, "focus", 1000)
    response = peer.call(SetFocus, "focus_sweep/set_focus", SetFocus.Request(focus_diopters=3.0, hold=True))
    assert response.success and response.focus_diopters == 3.0, response.message
    received.clear()
    assert wait_for(lambda: len(received) > 5)
    assert {state.focus_diopters for state in received} == {3.0}
    response = peer.call(SetFocus, "focus_sweep/set_focus", SetFocus.Request(focus_diopters=1.5, hold=False))
    assert response.success and response.focus_diopters == 1.5
    received.clear()
    assert wait_for(lambda: {state.focus_diopters for state in received} >= {0.5, 1.0, 2.0})


def test_a_held_focus_is_let_go_without_naming_another(node: Any, peer: Peer) -> None:
    assert peer.call(
        SetFocus, "focus_sweep/set_focus", SetFocus.Request(focus_diopters=3.0, hold=True)
    ).success
    response = peer.call(
        SetFocus, "focus_sweep/set_focus", SetFocus.Request(focus_diopters=math.nan, hold=False)
    )
    assert response.success, response.message
    assert node._sweep.held_diopters is None


@pytest.mark.parametrize("focus", [9.0, math.nan])
def test_a_focus_that_the_lens_cannot_reach_is_refused_with_the_range(
    node: Any, peer: Peer, focus: float
) -> None:
    response = peer.call(SetFocus, "focus_sweep/set_focus", SetFocus.Request(focus_diopters=focus, hold=True))
    assert not response.success and "0 to 4 diopters" in response.message
    assert math.isnan(response.focus_diopters)


def test_capture_answers_with_the_stack_asked_for(node: Any, peer: Peer) -> None:
    request = CaptureStack.Request(focus_diopters=[0.25, 0.75, 1.25, 3.0])
    response = peer.call(CaptureStack, "focus_sweep/capture_stack", request)
    assert response.success, response.message
    assert [s.focus.focus_diopters for s in response.stack.slices] == [0.25, 0.75, 1.25, 3.0]
    assert (
        response.stack.header.stamp == response.stack.slices[2].header.stamp
    )  # the middle of the focus order
    sweep = peer.call(CaptureStack, "focus_sweep/capture_stack", CaptureStack.Request())
    assert [s.focus.focus_diopters for s in sweep.stack.slices] == [0.5, 1.0, 2.0]


def test_a_second_capture_while_one_runs_is_refused(node: Any, peer: Peer) -> None:
    foci = [float(value) for value in np.linspace(0.0, 4.0, 200)]
    first = peer.call_async(
        CaptureStack, "focus_sweep/capture_stack", CaptureStack.Request(focus_diopters=foci)
    )
    assert wait_for(lambda: node._sweep._capture is not None)
    second = peer.call(CaptureStack, "focus_sweep/capture_stack", CaptureStack.Request())
    assert not second.success and "another capture is running" in second.message
    assert wait_for(first.done, 30.0) and first.result().success
    assert len(first.result().stack.slices) == 200


def test_capture_does_not_deadlock_a_single_threaded_executor(
    context: Context, peer: Peer, camera: FakeCamera
) -> None:
    node = FocusSweepNode(context=context, namespace=NAMESPACE, use_global_arguments=False)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    thread = threading.Thread(target=executor.spin, daemon=True)
    thread.start()
    node.start()
    assert wait_for(lambda: node._sweep is not None)
    response = peer.call(CaptureStack, "focus_sweep/capture_stack", CaptureStack.Request())
    assert response.success and len(response.stack.slices) == 5
    executor.shutdown()
    thread.join(5.0)
    node.destroy_node()


def test_services_of_an_inactive_node_say_so(context: Context, peer: Peer, camera: FakeCamera) -> None:
    with Running(FocusSweepNode, context) as node:
        assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
        response = peer.call(CaptureStack, "focus_sweep/capture_stack", CaptureStack.Request())
        assert not response.success and "not active" in response.message
        response = peer.call(SetFocus, "focus_sweep/set_focus", SetFocus.Request(focus_diopters=1.0))
        assert not response.success and "not active" in response.message


def call_focus(peer: Peer, focus: float, hold: bool) -> Any:
    request = SetFocus.Request(focus_diopters=focus, hold=hold)
    return peer.call_async(SetFocus, "focus_sweep/set_focus", request)


@pytest.mark.parametrize("held", [None, 1.0])
@pytest.mark.parametrize("hold", [False, True])
def test_a_focus_that_is_not_reached_leaves_the_sweep_as_it_was(
    node: Any, peer: Peer, monkeypatch: pytest.MonkeyPatch, hold: bool, held: float | None
) -> None:
    if held is not None:
        assert peer.call(SetFocus, "focus_sweep/set_focus", SetFocus.Request(focus_diopters=held, hold=True))
    monkeypatch.setattr(node._sweep, "time_for_s", lambda slices: 0.0)
    future = call_focus(peer, 3.0, hold)
    assert wait_for(future.done)
    assert not future.result().success and "no frame at the new focus" in future.result().message
    assert node._sweep.held_diopters == held


def test_of_two_calls_at_once_each_gets_its_focus(node: Any, peer: Peer) -> None:
    for _ in range(5):
        futures = [call_focus(peer, focus, focus > 2.0) for focus in (1.5, 2.5, 1.25, 3.5)]
        assert wait_for(lambda: all(future.done() for future in futures))  # noqa: B023
        assert [future.result().focus_diopters for future in futures] == [1.5, 2.5, 1.25, 3.5]


def test_calls_under_way_are_answered_when_the_node_is_cleaned_up(
    node: Any, peer: Peer, camera: FakeCamera, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(timeout_s: float = 1.0) -> CameraFrame:
        camera.closed.wait(min(timeout_s, 0.01))
        raise FrameTimeout("none yet")

    monkeypatch.setattr(camera, "read", silent)
    capture = peer.call_async(CaptureStack, "focus_sweep/capture_stack", CaptureStack.Request())
    focus = call_focus(peer, 1.0, True)
    assert wait_for(lambda: node._sweep._capture is not None and node._sweep.held_diopters == 1.0)
    assert node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
    assert node.trigger_cleanup() == TransitionCallbackReturn.SUCCESS
    assert wait_for(lambda: capture.done() and focus.done())
    assert not capture.result().success and "ended" in capture.result().message
    assert not focus.result().success and "not active" in focus.result().message
    again = call_focus(peer, 1.0, True)  # and whoever calls now is answered too
    assert wait_for(again.done) and "not active" in again.result().message


# -- failures


def test_system_time_cannot_be_exchanged_for_a_simulated_one(context: Context, camera: FakeCamera) -> None:
    with (
        Running(FocusSweepNode, context, parameter_overrides=[Parameter("use_sim_time", value=True)]) as node,
        pytest.raises(HybridDepthError, match="use_sim_time: expected false"),
    ):
        node.start()


def test_a_recording_shown_once_is_shown_whole_and_its_end_is_no_failure(
    context: Context, peer: Peer, tmp_path: Any
) -> None:
    import cv2

    for name, shift in (("a_0.5.png", 0), ("b_1.0.png", 1), ("c_2.0.png", 2)):
        cv2.imwrite(str(tmp_path / name), picture(shift))
    overrides = [
        Parameter("camera", value="replay"),
        Parameter("replay.stack", value=str(tmp_path)),
        Parameter("replay.loop", value=False),
    ]
    with Running(FocusSweepNode, context, parameter_overrides=overrides) as node:
        received = peer.listen(FocalSlice, "slice")
        newest = peer.diagnostics("focus_sweep")
        assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
        assert wait_for(lambda: node._outputs._wanted("slice"))
        for count in (3, 6):  # activated again it begins anew
            assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
            assert wait_for(lambda: len(received) == count), len(received)  # noqa: B023
            assert wait_for(lambda: newest() and "finished: " in newest().message)
            assert newest().level == b"\x00" and node.counters["camera failures"] == 0
            assert node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
            assert wait_for(lambda: newest().message == "inactive")
        assert [s.focus.slice_index for s in received] == [0, 1, 2] * 2


def test_one_good_frame_is_no_recovery(
    context: Context, peer: Peer, camera: FakeCamera, capfd: pytest.CaptureFixture[str]
) -> None:
    """A loose plug: each time it is opened the camera gives one frame and fails."""
    read, left = camera.read, [0]

    def one_frame(timeout_s: float = 1.0) -> CameraFrame:
        if left[0] == 0:
            raise CameraError("camera fake: loose plug")
        left[0] -= 1
        return read(timeout_s)

    def open_camera() -> None:
        FakeCamera.open(camera)
        left[0] = 1

    camera.read, camera.open = one_frame, open_camera  # type: ignore[method-assign]
    delays: list[float] = []
    with Running(FocusSweepNode, context) as node:
        node.problem = lambda cause, text: delays.append(float(text.split()[-2]))
        node.start()
        assert wait_for(lambda: len(delays) >= 3, 20.0)
    assert delays[:3] == [0.25, 0.5, 1.0]
    log = capfd.readouterr()
    assert "delivers again" not in log.err + log.out


def test_deactivating_ends_the_preparation_of_a_camera_that_is_opened_again(
    node: Any, peer: Peer, camera: FakeCamera, monkeypatch: pytest.MonkeyPatch
) -> None:
    preparing = threading.Event()

    def prepare(foci: Any, progress: Any = None) -> None:
        for step in range(10_000):
            preparing.set()
            progress(step, 10_000)
            time.sleep(0.01)

    monkeypatch.setattr(camera, "prepare", prepare)
    camera.broken = "camera fake: unplugged"
    assert wait_for(lambda: node.counters["camera failures"] >= 1)
    camera.broken = ""  # it is opened first: what a lens can reach is known only then
    assert preparing.wait(10.0)
    done = threading.Thread(target=node.trigger_deactivate, daemon=True)
    done.start()
    done.join(20.0)
    assert not done.is_alive()


def test_a_status_that_changes_while_it_is_read_is_no_exception(node: Any) -> None:
    class Sweep:
        statistics = node._sweep.statistics
        _held = iter([1.0, None, None])

        @property
        def held_diopters(self) -> float | None:
            return next(self._held)

    supervisor = node._supervisor
    sweep, supervisor._sweep = supervisor._sweep, Sweep()
    assert node.status()[2]["focus"] == "held at 1 1/m"
    supervisor._sweep = sweep


def test_a_camera_that_does_not_open_fails_configure_with_one_line(
    context: Context, camera: FakeCamera, capfd: pytest.CaptureFixture[str]
) -> None:
    camera.broken = "camera /dev/video7: expected a device, found none"
    with Running(FocusSweepNode, context) as node:
        with pytest.raises(HybridDepthError, match="focus_sweep: camera /dev/video7: expected a device"):
            node.start()
        camera.broken = ""
        node.start()  # and once it is there, it can be configured
    log = capfd.readouterr()
    assert (log.err + log.out).count("/dev/video7") == 1


def test_a_camera_that_fails_is_reopened_and_diagnostics_say_why(
    node: Any, peer: Peer, camera: FakeCamera
) -> None:
    newest = peer.diagnostics("focus_sweep")
    received = peer.listen(FocalSlice, "slice")
    assert wait_for(lambda: received)
    camera.broken = "camera fake: unplugged"
    assert wait_for(lambda: newest() and newest().level == b"\x02" and "unplugged" in newest().message)
    assert wait_for(lambda: node.counters["camera failures"] >= 2)  # it tried again, and failed again
    received.clear()
    camera.broken = ""
    assert wait_for(lambda: received)
    assert wait_for(lambda: newest().level == b"\x00"), newest()
    assert camera.opened == 2
    assert float(values_of(newest())["slice rate [Hz]"]) > 0.0
    assert values_of(newest())["camera"] == "simulated"


def test_focus_positions_that_the_lens_cannot_reach_fail_configure(
    context: Context, peer: Peer, camera: FakeCamera
) -> None:
    overrides = [Parameter("focus_diopters", value=[0.5, 9.0])]
    running = Running(FocusSweepNode, context, parameter_overrides=overrides)
    with (
        running as node,
        pytest.raises(HybridDepthError, match=r"focus_diopters: expected 0 to 4 1/m.* got 9"),
    ):
        node.start()


def test_twenty_lifecycle_rounds_leave_no_thread_and_no_memory_behind(
    context: Context, peer: Peer, camera: FakeCamera
) -> None:
    with Running(FocusSweepNode, context) as node:
        received = peer.listen(FocalSlice, "slice")

        def round_trip() -> None:
            for transition in (node.trigger_configure, node.trigger_activate):
                assert transition() == TransitionCallbackReturn.SUCCESS
            assert wait_for(lambda: node._last is not None)
            for transition in (node.trigger_deactivate, node.trigger_cleanup):
                assert transition() == TransitionCallbackReturn.SUCCESS
            assert camera.closed.is_set()
            received.clear()

        for _ in range(5):  # what is allocated once is allocated by now
            round_trip()
        gc.collect()
        threads, memory, files = (
            threading.active_count(),
            resident_memory_mb(),
            len(os.listdir("/proc/self/fd")),
        )
        for _ in range(20):
            round_trip()
        gc.collect()
        assert wait_for(lambda: threading.active_count() < threads + 5)  # the executor's pool may still grow
        assert resident_memory_mb() - memory < 8.0
        assert len(os.listdir("/proc/self/fd")) <= files
