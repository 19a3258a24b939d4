"""An emulated V4L2 camera with a clock of its own, and what sees through its lens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

from hybriddepth_ros.cameras import Clock
from hybriddepth_ros.cameras.v4l2 import V4L2Camera, V4L2Options, make_parts
from hybriddepth_ros.cameras.v4l2_source import V4L2Motor, V4L2Source
from hybriddepth_ros.emulation.v4l2 import EmulatedMode, EmulatedV4L2, Faults
from hybriddepth_ros.emulation.v4l2_parts import FOCUS_ABSOLUTE
from tests.cameras.conftest import START_NS, ManualClock

PATH = "/dev/video-emulated0"
BOOT_NS = START_NS - 5_000_000_000_000
SMALL = EmulatedMode("YUYV", 64, 48, (30, 15))
MODES = (SMALL, EmulatedMode("MJPG", 64, 48, (30, 15)), EmulatedMode("MJPG", 160, 120, (60, 30)))


def texture(width: int = 64, height: int = 48) -> npt.NDArray[np.uint8]:
    """[H, W, 3] squares of 8 px in grey levels."""
    squares = np.random.default_rng(1).integers(40, 216, (height // 8, width // 8), np.uint8)
    return np.repeat(np.kron(squares, np.ones((8, 8), np.uint8))[..., None], 3, axis=2)


@dataclass
class Scene:
    """A textured wall, in focus at position `sharp_at` of the motor, seen with the focus that it has."""

    sharp_at: int = 0
    commands: list[tuple[int, int, int]] = field(default_factory=list)  # control, value, time
    image: npt.NDArray[np.uint8] = field(default_factory=texture)

    def on_control(self, control_id: int, value: int, time_ns: int) -> None:
        self.commands.append((control_id, value, time_ns))

    def picture(self, start_ns: int, end_ns: int) -> npt.NDArray[np.uint8]:
        moves = [v for control, v, t in self.commands if control == FOCUS_ABSOLUTE and t <= start_ns]
        blur = 0.02 * abs((moves[-1] if moves else 0) - self.sharp_at)
        return self.image if blur < 0.1 else np.asarray(cv2.GaussianBlur(self.image, (0, 0), blur), np.uint8)

    @property
    def written(self) -> list[tuple[int, int]]:
        """(control, value) in the order of writing."""
        return [command[:2] for command in self.commands]


@contextmanager
def emulated(
    scene: Scene | None = None, clock: Clock | None = None, **options: object
) -> Iterator[EmulatedV4L2]:
    """With a clock that only moves when it is waited for."""
    scene = scene or Scene()
    defaults: dict[str, object] = {
        "path": PATH,
        "on_control": scene.on_control,
        "clock": clock or ManualClock(),
        "boot_ns": BOOT_NS,
        "modes": MODES,
        "faults": Faults(),
    }
    with EmulatedV4L2(scene.picture, **{**defaults, **options}) as device:  # type: ignore[arg-type]
        yield device


def options(**values: object) -> V4L2Options:
    defaults: dict[str, object] = {"device": PATH, "width": 64, "height": 48}
    return V4L2Options(**{**defaults, **values})  # type: ignore[arg-type]


def parts(
    device: EmulatedV4L2, system: Clock | None = None, **values: object
) -> tuple[V4L2Source, V4L2Motor]:
    """Source and motor on the emulated device's clock; `system`: the system clock, if it is another."""
    source, motor = make_parts(options(**values), system or device.clock, device.monotonic_ns)
    assert isinstance(motor, V4L2Motor)
    return source, motor


def camera(device: EmulatedV4L2, **values: object) -> V4L2Camera:
    return V4L2Camera(options(**values), device.clock, device.monotonic_ns)
