"""V4L2 controls by their number, as names changed between kernels (focus_auto, focus_automatic_continuous).

Numbers and units: linux/v4l2-controls.h.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Any

from hybriddepth_ros.cameras.v4l2_discovery import linuxpy_video
from hybriddepth_ros.errors import CameraError

AUTO_WHITE_BALANCE = 0x0098090C
AUTOGAIN = 0x00980912
GAIN = 0x00980913
POWER_LINE_FREQUENCY = 0x00980918
WHITE_BALANCE_TEMPERATURE = 0x0098091A  # K
EXPOSURE_AUTO = 0x009A0901
EXPOSURE_ABSOLUTE = 0x009A0902  # 100 us
EXPOSURE_AUTO_PRIORITY = 0x009A0903  # later exposure_dynamic_framerate: longer frames in the dark
FOCUS_ABSOLUTE = 0x009A090A
FOCUS_AUTO = 0x009A090C

# Items of EXPOSURE_AUTO.
EXPOSURE_FULLY_AUTO = 0
EXPOSURE_MANUAL = 1
EXPOSURE_APERTURE_PRIORITY = 3  # what UVC cameras call automatic

EXPOSURE_UNIT_MS = 0.1

_DISABLED = 0x0001
_MENUS = (3, 9)  # V4L2_CTRL_TYPE_MENU, V4L2_CTRL_TYPE_INTEGER_MENU


@dataclass(frozen=True)
class Control:
    """What a device says of a control; items: of a menu, those that this device has."""

    id: int
    name: str
    minimum: int
    maximum: int
    step: int
    default: int
    items: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"{self.name} (0x{self.id:08x})"

    @property
    def allowed(self) -> str:
        if self.items:
            return f"one of {', '.join(map(str, self.items))}"
        steps = f" in steps of {self.step}" if self.step > 1 else ""
        return f"{self.minimum} to {self.maximum}{steps}"

    def nearest(self, value: float) -> int:
        """The allowed value next to one of a range."""
        steps = round((min(max(value, self.minimum), self.maximum) - self.minimum) / self.step)
        return min(self.minimum + steps * self.step, self.maximum)

    def allows(self, value: int) -> bool:
        return value in self.items if self.items else self.nearest(value) == value


def query_control(device: Any, control_id: int) -> Control | None:
    """None = the device has no such control. device: of linuxpy, open; OSError as the kernel tells it."""
    video = linuxpy_video()
    query = video.raw.v4l2_query_ext_ctrl(id=control_id)
    try:
        video.ioctl(device, video.IOC.QUERY_EXT_CTRL, query)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOTTY):
            return None
        raise
    if query.flags & _DISABLED:
        return None
    items: tuple[int, ...] = ()
    if query.type in _MENUS:
        items = tuple(i for i in range(query.minimum, query.maximum + 1) if _has_item(device, control_id, i))
    return Control(
        control_id,
        query.name.decode(errors="replace"),
        query.minimum,
        query.maximum,
        max(1, query.step),
        query.default_value,
        items,
    )


def _has_item(device: Any, control_id: int, index: int) -> bool:
    video = linuxpy_video()
    try:
        video.ioctl(device, video.IOC.QUERYMENU, video.raw.v4l2_querymenu(id=control_id, index=index))
    except OSError as error:
        if error.errno == errno.EINVAL:
            return False
        raise
    return True


def write_control(device: Any, control: Control, value: int) -> None:
    """CameraError for what the control does not allow; the kernel would quietly take the nearest value."""
    if not control.allows(value):
        raise CameraError(f"{control}: expected {control.allowed}, got {value}")
    linuxpy_video().set_control(device, control.id, value)


def read_control(device: Any, control: Control) -> int:
    return int(linuxpy_video().get_control(device, control.id))
