"""The supervisor in its threads, with devices that hang: nothing may hold it up."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from hybriddepth_ros.cameras import CameraFrame, FocusCamera, FrameTimeout, SweptFrame
from hybriddepth_ros.cameras.supervisor import SweepListener, SweepSupervisor
from hybriddepth_ros.errors import CameraError
from hybriddepth_ros.focal_stack import CameraIntrinsics

INTRINSICS = CameraIntrinsics(8.0, 8.0, 3.5, 2.5, 8, 6)
PATIENCE_S = 20.0  # of a busy machine; nothing depends on it


class HangingCamera(FocusCamera):
    """500 frames/s, until it is told in which calls to hang; `let_go` ends that."""

    def __init__(self) -> None:
        self.hangs_in: set[str] = set()
        self.hanging: set[str] = set()
        self.let_go = threading.Event()
        self.closed = threading.Event()
        self._sequence = 0

    def _call(self, name: str) -> None:
        if name in self.hangs_in:
            self.hanging.add(name)
            self.let_go.wait(60.0)

    def open(self) -> None:
        self._call("open")
        self.closed.clear()

    def close(self) -> None:
        self._call("close")
        self.closed.set()

    def read(self, timeout_s: float = 1.0) -> CameraFrame:
        self._call("read")
        if self.closed.wait(0.002):
            raise CameraError("camera hanging: closed")
        self._sequence += 1
        start = time.time_ns() - 1_000_000
        return CameraFrame(
            np.zeros((6, 8), np.uint8), self._sequence, start, start + 400_000, 1.0, 1.0, INTRINSICS
        )

    def command_focus(self, focus_diopters: float) -> int:
        self._call("command")
        return time.time_ns()

    @property
    def focus_range_diopters(self) -> tuple[float, float]:
        return (0.0, 4.0)

    @property
    def frame_rate_hz(self) -> float:
        return 500.0


class Told:
    """What a listener was told."""

    def __init__(self) -> None:
        self.frames: list[SweptFrame] = []
        self.failures: list[str] = []
        self.warnings: list[str] = []
        self.recovered = 0
        self.listener = SweepListener(
            frame=lambda swept, camera: self.frames.append(swept),
            failed=lambda error, delay_s: self.failures.append(str(error)),
            unexpected=lambda error: self.failures.append(f"unexpected: {error}"),
            recovered=self._recover,
            warned=self.warnings.append,
        )

    def _recover(self) -> None:
        self.recovered += 1


def wait_for(condition: Any) -> Any:
    end = time.monotonic() + PATIENCE_S
    while not (value := condition()) and time.monotonic() < end:
        time.sleep(0.005)
    return value


@pytest.fixture
def cameras() -> Iterator[list[HangingCamera]]:
    made: list[HangingCamera] = []
    yield made
    for camera in made:
        camera.let_go.set()


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def supervisor(cameras: list[HangingCamera], told: Told) -> Iterator[SweepSupervisor]:
    def make() -> HangingCamera:
        cameras.append(HangingCamera())
        return cameras[-1]

    made = SweepSupervisor(make, lambda camera: (0.5, 1.0, 2.0), listener=told.listener)
    made.open()
    made.start()
    assert wait_for(lambda: len(told.frames) > 5)
    yield made
    for camera in cameras:
        camera.let_go.set()
    made.stop()
    made.close()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The limits of all that this thread waits for: their sum is the longest that it can take."""
    limits: list[float] = []
    join, me = threading.Thread.join, threading.current_thread()

    def spy(thread: threading.Thread, timeout: float | None = None) -> None:
        if threading.current_thread() is me:
            limits.append(float("inf") if timeout is None else timeout)
        join(thread, timeout)

    monkeypatch.setattr(threading.Thread, "join", spy)
    return limits


@pytest.mark.parametrize("call", [{"read"}, {"command"}, {"close"}, {"read", "close"}, {"command", "close"}])
def test_stopping_waits_for_no_device(
    supervisor: SweepSupervisor, cameras: list[HangingCamera], told: Told, waits: list[float], call: set[str]
) -> None:
    camera = cameras[0]
    camera.hangs_in = call
    assert wait_for(lambda: camera.hanging >= call - {"close"})
    supervisor.stop()
    supervisor.close()
    assert sum(waits) <= 1.5
    assert told.warnings and all("left behind" in warning for warning in told.warnings)
    assert not any(
        thread.name == "sweep_supervisor" and thread.is_alive() for thread in threading.enumerate()
    )
    camera.let_go.set()
    assert wait_for(camera.closed.is_set)  # what was left behind ends by itself, and gives the device back
    assert wait_for(lambda: not any(thread.name == "focus_sweep" for thread in threading.enumerate()))


def test_a_healthy_camera_stays_open_over_stop_and_start(
    supervisor: SweepSupervisor, cameras: list[HangingCamera], told: Told
) -> None:
    supervisor.stop()
    assert supervisor.sweep is None and not cameras[0].closed.is_set()
    count = len(told.frames)
    supervisor.start()
    assert wait_for(lambda: len(told.frames) > count + 5)
    assert len(cameras) == 1 and not told.warnings and not told.failures
    supervisor.stop()
    supervisor.close()
    assert cameras[0].closed.is_set()


def test_a_device_that_hangs_is_told_of_and_another_attempt_is_made(
    supervisor: SweepSupervisor, cameras: list[HangingCamera], told: Told
) -> None:
    cameras[0].hangs_in = {"read"}
    assert wait_for(lambda: told.failures)
    assert "hangs, expected an answer within 2 s" in told.failures[0]
    assert wait_for(lambda: told.recovered == 1)
    assert len(cameras) == 2 and supervisor.error == ""


def test_one_that_hangs_while_it_is_opened_again_spoils_nothing_later(
    supervisor: SweepSupervisor, cameras: list[HangingCamera], told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = supervisor._make

    def make_hanging() -> FocusCamera:
        camera = make()
        camera.hangs_in = {"open"}  # type: ignore[attr-defined]
        return camera

    monkeypatch.setattr(supervisor, "_make", make_hanging)
    cameras[0].close()
    assert wait_for(lambda: len(cameras) == 2 and cameras[1].hanging)
    supervisor.stop()
    assert any("left behind" in warning for warning in told.warnings)
    monkeypatch.setattr(supervisor, "_make", make)
    count = len(told.frames)
    supervisor.start()
    assert wait_for(lambda: len(told.frames) > count + 5)
    cameras[1].let_go.set()
    assert wait_for(cameras[1].closed.is_set)  # it came too late
    count = len(told.frames)
    assert wait_for(lambda: len(told.frames) > count + 50)
    assert supervisor.sweep is not None and supervisor.camera is cameras[2] and supervisor.error == ""


def test_a_capture_under_way_ends_with_a_device_that_hangs(
    supervisor: SweepSupervisor, cameras: list[HangingCamera]
) -> None:
    sweep, result = supervisor.sweep, []
    assert sweep is not None
    cameras[0].hangs_in = {"read"}
    assert wait_for(lambda: cameras[0].hanging)

    def capture() -> None:
        try:
            result.append(sweep.capture(timeout_s=60.0))
        except CameraError as error:
            result.append(str(error))

    thread = threading.Thread(target=capture)
    thread.start()
    assert wait_for(lambda: sweep._capture is not None)
    supervisor.stop()
    thread.join(PATIENCE_S)
    assert result == ["capture: the focus sweep ended: the camera hangs"]


def test_a_listener_that_raises_is_told_of_and_the_sweep_goes_on(cameras: list[HangingCamera]) -> None:
    errors: list[Exception] = []
    frames: list[SweptFrame] = []

    def take(swept: SweptFrame, camera: FocusCamera) -> None:
        if not errors:
            raise ValueError("no disk")
        frames.append(swept)

    def make() -> HangingCamera:
        cameras.append(HangingCamera())
        return cameras[-1]

    listener = SweepListener(frame=take, unexpected=errors.append)
    made = SweepSupervisor(make, lambda camera: (0.5, 1.0), listener=listener)
    made.open()
    made.start()
    assert wait_for(lambda: len(frames) > 5)
    made.stop()
    made.close()
    assert [str(error) for error in errors] == ["no disk"]


def test_a_listener_that_raises_in_every_call_ends_no_supervisor(
    cameras: list[HangingCamera], caplog: pytest.LogCaptureFixture
) -> None:
    """Not where it is told of failures either, of which its own are some."""
    frames: list[SweptFrame] = []

    def make() -> HangingCamera:
        if len(cameras) == 1:
            cameras.append(HangingCamera())
            raise CameraError("camera: unplugged")
        cameras.append(HangingCamera())
        return cameras[-1]

    def take(swept: SweptFrame, camera: FocusCamera) -> None:
        if camera is cameras[0]:
            raise ValueError("no disk")
        frames.append(swept)

    def raises(*what: object) -> None:
        raise RuntimeError("no ears")

    listener = SweepListener(frame=take, unexpected=raises, failed=raises, warned=raises)
    made = SweepSupervisor(make, lambda camera: (0.5, 1.0), listener=listener)
    made.open()
    made.start()
    assert wait_for(lambda: len(frames) > 5)
    made.stop()
    made.close()
    assert caplog.messages[:2] == 2 * ["listener of the sweep: RuntimeError: no ears"]


def test_a_camera_that_cannot_be_opened_is_closed_and_the_reason_raised(cameras: list[HangingCamera]) -> None:
    class Broken(HangingCamera):
        def open(self) -> None:
            raise CameraError("camera broken: expected a device, found none")

    def make() -> HangingCamera:
        cameras.append(Broken())
        return cameras[-1]

    made = SweepSupervisor(make, lambda camera: (0.5, 1.0))
    with pytest.raises(CameraError, match="expected a device, found none"):
        made.open()
    assert cameras[0].closed.is_set() and made.camera is None


def test_a_silent_camera_does_not_count_as_one_that_hangs(
    supervisor: SweepSupervisor, cameras: list[HangingCamera], told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(timeout_s: float = 1.0) -> CameraFrame:
        time.sleep(0.02)
        raise FrameTimeout("camera hanging: no frame within 0.02 s")

    monkeypatch.setattr(cameras[0], "read", silent)
    assert wait_for(lambda: told.failures)
    assert "nor any within 2 s" in told.failures[0] and not told.warnings
