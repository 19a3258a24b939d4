"""What delivers images, and knows nothing of focus: half of a camera, whose other half is a lens."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hybriddepth_ros.cameras.base import Clock
from hybriddepth_ros.focal_stack import CameraIntrinsics


@dataclass(frozen=True)
class RawFrame:
    """One exposure, in the order of capture.

    image [H, W, 3] uint8 RGB or [H, W] uint8 mono; exposure_start_ns: the first row begins to collect light;
    exposure_end_ns: the last row ends; both in the clock of `time.time_ns`. With a rolling shutter they are
    exposure plus readout apart, and the lens must stand still all that time. sequence: the driver's, a gap is
    a loss.
    """

    image: npt.NDArray[np.uint8]
    sequence: int
    exposure_start_ns: int
    exposure_end_ns: int

    @property
    def stamp_ns(self) -> int:
        """Mid-exposure."""
        return (self.exposure_start_ns + self.exposure_end_ns) // 2


class ImageSource(ABC):
    """Opened once, read in order by one thread, closed by any, even while `read` waits.

    Raises CameraError with the device and what was expected; the device that is gone is a CameraError too.
    """

    clock: Clock = Clock()

    @abstractmethod
    def open(self) -> None:
        """Take the device and start streaming."""

    @abstractmethod
    def close(self) -> None:
        """Release the device; safe to call twice, and returns within a second whatever the device does."""

    @abstractmethod
    def read(self, timeout_s: float = 1.0) -> RawFrame:
        """The next frame in order; FrameTimeout after `timeout_s`, CameraError when closed or unplugged."""

    @property
    @abstractmethod
    def frame_rate_hz(self) -> float:
        """Frames per second that it was set to."""

    @property
    @abstractmethod
    def size(self) -> tuple[int, int]:
        """(width, height) px, once opened."""

    @property
    def camera(self) -> CameraIntrinsics | None:
        """What it says of its own intrinsics, once opened, as a camera_info does; None = nothing."""
        return None
