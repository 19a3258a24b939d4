"""What every camera with a movable focus can do, and the registry that finds one by name.

A backend is one file: a frozen parameter dataclass and a :class:`FocusCamera`, joined by
:func:`register_camera`. Importing this package imports no vendor's SDK: a backend's module is imported when
its name is asked for.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from hybriddepth_ros.cameras.registry import Registry
from hybriddepth_ros.errors import CameraError
from hybriddepth_ros.focal_stack import CameraIntrinsics
from hybriddepth_ros.optics import ThinLens
from hybriddepth_ros.parameters import parameter_fields


@dataclass(frozen=True)
class CameraFrame:
    """One exposure, in the order of capture.

    image [H, W, 3] uint8 RGB or [H, W] uint8 mono; exposure_start_ns and stamp_ns (mid-exposure) in the clock
    of `time.time_ns`; focus_diopters [1/m] and actuator_position (device units) that held during the
    exposure; camera: intrinsics at that focus; ground_truth_depth [H, W] float32 m along Z, from simulated
    cameras only. exposure_end_ns: the last row ends, until when the lens must stand still; 0 becomes as long
    after the stamp as the exposure began before it. temperature_c: of the lens [deg C], None = unknown.
    """

    image: npt.NDArray[np.uint8]
    sequence: int
    exposure_start_ns: int
    stamp_ns: int
    focus_diopters: float
    actuator_position: float
    camera: CameraIntrinsics
    ground_truth_depth: npt.NDArray[np.float32] | None = None
    exposure_end_ns: int = 0
    temperature_c: float | None = None

    def __post_init__(self) -> None:
        if self.exposure_end_ns == 0:
            object.__setattr__(self, "exposure_end_ns", 2 * self.stamp_ns - self.exposure_start_ns)


class FrameTimeout(CameraError):  # noqa: N818 - it says what happened, and waiting on is no error
    """No frame came within the time that `read` was given; the camera may still deliver."""


class Clock:
    """The clock that stamps frames, in nanoseconds of `time.time_ns`; a test may put its own in its place."""

    def now_ns(self) -> int:
        return time.time_ns()

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Wait until the event is set, at most `seconds`; whether it is set."""
        return event.wait(seconds)

    def offset_ns(self) -> int:
        """How far the system's clock is ahead of one that nobody sets; a change means that it was set."""
        return min(_doubt_and_offset() for _ in range(_OFFSET_TRIES))[1]


_OFFSET_TRIES = 3  # the scheduler may strike between two readings, hardly each time


def _doubt_and_offset() -> tuple[int, int]:
    before, now, after = time.monotonic_ns(), time.time_ns(), time.monotonic_ns()
    return after - before, now - (before + after) // 2


Progress = Callable[[int, int], None]  # (done, of how many)


class FocusCamera(ABC):
    """A camera whose focus can be moved. Opened once, read in order by one thread, closed by any.

    Backends raise CameraError with the device and what was expected; `read` never returns a frame twice and
    never skips one silently: a frame that the consumer was too slow for shows as a gap in `sequence`.
    """

    clock: Clock = Clock()  # what its stamps are counted in

    @abstractmethod
    def open(self) -> None:
        """Take the device and start streaming."""

    @abstractmethod
    def close(self) -> None:
        """Release the device; safe to call twice, and from another thread while `read` waits."""

    @abstractmethod
    def read(self, timeout_s: float = 1.0) -> CameraFrame:
        """The next frame in order of capture; FrameTimeout after `timeout_s`, CameraError when closed.

        CameraEnded after the last frame of a recording.
        """

    @abstractmethod
    def command_focus(self, focus_diopters: float) -> int:
        """Send the lens to a focus; returns at once with the time [ns] from which it stands still there.

        The time is in the clock of `time.time_ns`. A frame shows that focus if its exposure began then or
        later.
        """

    @property
    @abstractmethod
    def focus_range_diopters(self) -> tuple[float, float]:
        """(far, near) focus limits [1/m]."""

    def nearest_focus(self, focus_diopters: float) -> float:
        """The focus [1/m] that it takes when it is sent to this one: a motor of whole steps rounds."""
        return focus_diopters

    @property
    @abstractmethod
    def frame_rate_hz(self) -> float:
        """Frames per second that the camera was set to."""

    @property
    def lens(self) -> ThinLens | None:
        """The thin-lens equivalent, if known."""
        return None

    @property
    def default_focus_diopters(self) -> tuple[float, ...]:
        """The focus positions that this camera suggests to sweep, as a replayed stack does; empty = none."""
        return ()

    def prepare(self, focus_diopters: Sequence[float], progress: Progress | None = None) -> None:  # noqa: B027
        """Do ahead what sweeping these positions needs (the simulated camera renders its pictures).

        Called before sweeping, from any thread; may take seconds, and does nothing when already done.
        Positions that were not prepared work too, only slower.
        """

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


CAMERAS = Registry[FocusCamera](
    "camera",
    {
        "simulated": "hybriddepth_ros.cameras.simulated",
        "emulated": "hybriddepth_ros.cameras.emulated",
        "replay": "hybriddepth_ros.cameras.replay",
        "v4l2": "hybriddepth_ros.cameras.v4l2",
    },
)


def register_camera(name: str, config: type) -> Callable[[type[FocusCamera]], type[FocusCamera]]:
    """Class decorator: makes a backend known as `name`; it is built from one instance of `config`."""
    return CAMERAS.register(name, config)


def camera_names() -> tuple[str, ...]:
    """Every camera that `make_camera` knows."""
    return CAMERAS.names()


def camera_config_type(name: str) -> type:
    """The parameter dataclass of a backend; CameraError for an unknown name."""
    return CAMERAS.config_type(name)


def make_camera(
    name: str, config: Mapping[str, Any] | object, lens: Mapping[str, Any] | object | None = None
) -> FocusCamera:
    """An unopened camera from its name and its config: its dataclass, or a mapping to be checked.

    lens: config of the lens driver that `config` names, for a camera that takes one; None = its defaults.
    """
    if lens is None:
        return CAMERAS.make(name, config)
    if "lens" not in parameter_fields(CAMERAS.config_type(name)):
        raise CameraError(f"camera {name}: expected no parameters of a lens, as it takes none")
    return CAMERAS.make(name, config, lens=lens)
