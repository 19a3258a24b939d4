"""A clock that only moves when somebody waits, and small cameras."""

import threading

import pytest

from hybriddepth_ros.cameras import Clock, FocusCamera
from hybriddepth_ros.cameras.simulated import SimulatedCamera, SimulatedCameraOptions

START_NS = 1_700_000_000_000_000_000
FOCI = (0.5, 1.2, 2.2)


class ManualClock(Clock):
    """Waiting takes no time at all, but the clock says that it did."""

    def __init__(self) -> None:
        self.ns = START_NS

    def now_ns(self) -> int:
        return self.ns

    def wait(self, event: threading.Event, seconds: float) -> bool:
        if not event.is_set():
            self.ns += round(seconds * 1e9)
        return event.is_set()

    def pass_ms(self, milliseconds: float) -> None:
        self.ns += round(milliseconds * 1e6)


def small_camera(clock: Clock | None = None, **options: object) -> SimulatedCamera:
    defaults = {"width": 80, "height": 60, "loop_frames": 6, "motion": "none", "noise": False}
    return SimulatedCamera(SimulatedCameraOptions(**{**defaults, **options}), clock)  # type: ignore[arg-type]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def commands_of(camera: FocusCamera) -> list[float]:
    """Every focus that the camera is sent to from now on [1/m], as it is sent."""
    commands: list[float] = []
    command = camera.command_focus

    def spy(focus: float) -> int:
        commands.append(focus)
        return command(focus)

    camera.command_focus = spy  # type: ignore[method-assign]
    return commands
