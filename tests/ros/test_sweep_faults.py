"""The focus sweep node and a camera that is unplugged or hangs, on real DDS."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lifecycle_msgs.srv import GetState
from rclpy.context import Context
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter

from hybriddepth_msgs.msg import FocalSlice
from hybriddepth_msgs.srv import CaptureStack, SetFocus
from hybriddepth_ros.cameras import CameraFrame, FocusCamera
from hybriddepth_ros.errors import CameraError
from hybriddepth_ros.ros import focus_sweep_node
from hybriddepth_ros.ros.focus_sweep_node import FocusSweepNode
from tests.cameras.conftest import commands_of
from tests.ros.helpers import CAMERA, Peer, Running, picture, values_of, wait_for


class Device(FocusCamera):
    """100 frames/s; `broken`: why it is not there; hangs in the call that `hangs_in` names."""

    def __init__(self) -> None:
        self.broken = self.hangs_in = ""
        self.hanging = threading.Event()
        self.let_go = threading.Event()
        self._closed = threading.Event()
        self._sequence = 0
        self._focus = 1.0

    def _call(self, name: str) -> None:
        if name == self.hangs_in:
            self.hanging.set()
            self.let_go.wait(120.0)
        if self.broken and name != "close":
            raise CameraError(self.broken)

    def open(self) -> None:
        self._call("open")
        self._closed.clear()

    def close(self) -> None:
        self._call("close")
        self._closed.set()

    def read(self, timeout_s: float = 1.0) -> CameraFrame:
        self._call("read")
        if self._closed.wait(0.01):
            raise CameraError("camera device: closed")
        self._sequence += 1
        start = time.time_ns() - 5_000_000
        return CameraFrame(picture(), self._sequence, start, start + 2_000_000, self._focus, 7.0, CAMERA)

    def command_focus(self, focus_diopters: float) -> int:
        self._call("command")
        self._focus = focus_diopters
        return time.time_ns()

    @property
    def focus_range_diopters(self) -> tuple[float, float]:
        return (0.0, 4.0)

    @property
    def frame_rate_hz(self) -> float:
        return 100.0


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    made = Device()
    monkeypatch.setattr(focus_sweep_node, "make_camera", lambda name, config: made)
    yield made
    made.let_go.set()


@pytest.fixture
def node(context: Context, device: Device) -> Iterator[Any]:
    with Running(FocusSweepNode, context) as made:
        made.start()
        yield made
        device.let_go.set()


def test_unplugged_and_plugged_in_again(node: Any, peer: Peer, device: Device) -> None:
    """Diagnostics say why, the services refuse with that reason, and all is well again by itself."""
    newest = peer.diagnostics("focus_sweep")
    received = peer.listen(FocalSlice, "slice")
    assert wait_for(lambda: received and newest() and newest().level == b"\x00")
    device.broken = "camera /dev/video7: expected a device, found none"
    assert wait_for(lambda: newest().level == b"\x02")
    assert newest().message == device.broken
    capture = peer.call(CaptureStack, "focus_sweep/capture_stack", CaptureStack.Request())
    assert not capture.success and capture.message == device.broken
    request = SetFocus.Request(focus_diopters=1.0, hold=True)
    focus = peer.call(SetFocus, "focus_sweep/set_focus", request)
    assert not focus.success and focus.message == device.broken and math.isnan(focus.focus_diopters)
    received.clear()
    device.broken = ""
    assert wait_for(lambda: len(received) > 10)
    assert wait_for(lambda: newest().level == b"\x00"), newest()
    values = values_of(newest())
    assert float(values["slice rate [Hz]"]) > 0.0 and float(values["possible slice rate [Hz]"]) > 0.0
    assert float(values["slice rate / possible"]) > 0.0
    assert node._supervisor.error == ""
    assert peer.call(CaptureStack, "focus_sweep/capture_stack", CaptureStack.Request()).success


@pytest.mark.parametrize("call", ["read", "command", "close"])
def test_deactivating_and_cleaning_up_wait_for_no_device(
    node: Any, peer: Peer, device: Device, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    assert wait_for(lambda: node._last is not None)
    device.hangs_in = call
    assert call == "close" or device.hanging.wait(10.0)
    limits: list[float] = []
    join, me = threading.Thread.join, threading.current_thread()

    def spy(thread: threading.Thread, timeout: float | None = None) -> None:
        if threading.current_thread() is me:
            limits.append(math.inf if timeout is None else timeout)
        join(thread, timeout)

    monkeypatch.setattr(threading.Thread, "join", spy)
    assert node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
    assert node.trigger_cleanup() == TransitionCallbackReturn.SUCCESS
    assert limits and sum(limits) < 2.0  # the longest that it can take
    assert node.counters["devices left behind"] >= 1
    device.hangs_in = ""
    device.let_go.set()
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS  # and it can be taken again
    assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    assert wait_for(lambda: node._last is not None)


HANGING_NODE = """
import sys, time
from hybriddepth_ros.ros import focus_sweep_node
from hybriddepth_ros.ros.spin import run_node
from tests.ros.test_sweep_faults import Device

device = Device()
focus_sweep_node.make_camera = lambda name, config: device
read, frames = device.read, []

def read_some(timeout_s=1.0):
    frames.append(1)
    if len(frames) == 20:
        print("hangs", flush=True)
        time.sleep(600)
    return read(timeout_s)

def close():
    time.sleep(600)

device.read, device.close = read_some, close
sys.exit(run_node(focus_sweep_node.FocusSweepNode))
"""


def test_a_process_whose_device_hangs_ends_when_it_is_told_to(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", HANGING_NODE, "--ros-args", "-p", "autostart:=true"],
        env={**os.environ, "PYTHONPATH": f"{root}:{os.environ.get('PYTHONPATH', '')}"},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == "hangs\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(10.0) == 0
    finally:
        process.kill()
        process.wait()


def test_the_mode_and_the_way_of_approach_are_parameters(
    context: Context, device: Device, peer: Peer
) -> None:
    overrides = [
        Parameter("sweep_mode", value="free_running"),
        Parameter("approach", value="rising"),
        Parameter("overshoot", value=0.5),
        Parameter("focus_diopters", value=[0.75, 2.0, 1.0]),
    ]
    told = commands_of(device)
    with Running(FocusSweepNode, context, parameter_overrides=overrides) as node:
        node.start()
        assert wait_for(lambda: len(told) > 10)
        state = peer.call(GetState, "focus_sweep/get_state", GetState.Request())
        assert state.current_state.label == "active"
        assert node._sweep._options.mode == "free_running"
    assert told[:7] == [0.25, 0.75, 2.0, 0.5, 1.0, 0.25, 0.75]


def test_a_focus_too_far_for_the_way_of_approach_fails_configure(context: Context, device: Device) -> None:
    overrides = [
        Parameter("approach", value="rising"),
        Parameter("overshoot", value=0.5),
        Parameter("focus_diopters", value=[0.25, 2.0]),
    ]
    with Running(FocusSweepNode, context, parameter_overrides=overrides) as node:
        assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
        assert node.failure == "focus_diopters: expected 0.5 to 4 1/m as the lens reaches, got 0.25"
