"""An emulated UVC camera that linuxpy opens as if it were a device: for tests and trials without hardware."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from hybriddepth_ros.cameras.base import Clock
from hybriddepth_ros.emulation.v4l2_boundary import Boundary
from hybriddepth_ros.emulation.v4l2_driver import EmulatedDriver
from hybriddepth_ros.emulation.v4l2_parts import (
    WEBCAM_MODES,
    EmittedFrame,
    EmulatedControl,
    EmulatedMode,
    Faults,
    Image,
    webcam_controls,
)
from hybriddepth_ros.emulation.v4l2_sensor import EmulatedSensor, OnControl

__all__ = ["EmulatedControl", "EmulatedMode", "EmulatedV4L2", "Faults", "webcam_controls"]


class EmulatedV4L2:
    """Within its `with`, `path` can be opened through linuxpy, in this process only.

    picture(exposure_start_ns, exposure_end_ns) -> [H, W, 3] uint8 RGB: what the sensor sees from the first
    row's beginning to the last row's end; is to be quick, as the device answers nothing meanwhile.
    on_control(control id, value, time ns): each control that was written. Both in the time of `clock`.
    boot_ns: where in it the kernel's monotonic clock is 0; None = that of this machine. stamped_at:
    "first_packet", as uvcvideo does, "exposure_start" or "frame_end". padding: bytes after each row.
    """

    def __init__(
        self,
        picture: Callable[[int, int], Image],
        *,
        path: str = "/dev/video-emulated0",
        on_control: OnControl | None = None,
        clock: Clock | None = None,
        boot_ns: int | None = None,
        modes: Sequence[EmulatedMode] = WEBCAM_MODES,
        controls: Iterable[EmulatedControl] | None = None,
        faults: Faults | None = None,
        driver: str = "uvcvideo",
        card: str = "Emulated camera",
        stamped_at: str = "first_packet",
        readout_ms: float = 20.0,
        transfer_ms: float = 2.0,
        padding: int = 0,
    ) -> None:
        self.clock = clock or Clock()
        self._boot_ns = time.time_ns() - time.monotonic_ns() if boot_ns is None else boot_ns
        self.faults = faults or Faults()
        self._sensor = EmulatedSensor(
            webcam_controls() if controls is None else controls,
            self.faults,
            on_control,
            readout_ms,
            transfer_ms,
        )
        self._driver = EmulatedDriver(
            self._sensor,
            modes,
            picture,
            self.clock.now_ns,
            self._boot_ns,
            (driver, card),
            stamped_at,
            padding,
        )
        self.path = path
        self._boundary = Boundary(path, self._driver, self.clock)
        self._installed = ExitStack()

    def __enter__(self) -> Self:
        self._installed.enter_context(self._boundary.installed())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._installed.close()

    def monotonic_ns(self) -> int:
        """The kernel's monotonic clock, as its stamps are counted."""
        return self.clock.now_ns() - self._boot_ns

    @property
    def frames(self) -> tuple[EmittedFrame, ...]:
        """The frames that were put into buffers so far, as they truly were."""
        return tuple(self._driver.frames)

    @property
    def opens(self) -> int:
        """How often the device is open now."""
        return len(self._boundary.files)

    def value(self, control_id: int) -> int:
        """What a control was last set to."""
        return self._sensor.controls[control_id].value

    def unplug(self) -> None:
        """The device is gone: what is open answers ENODEV from now on."""
        self._driver.unplug()

    def plug_in(self) -> None:
        """It can be opened again."""
        self._driver.plug_in()
