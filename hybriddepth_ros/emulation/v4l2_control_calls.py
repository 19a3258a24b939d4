"""What an emulated driver answers to the ioctls that have to do with controls."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any

import linuxpy.video.device as video

from hybriddepth_ros.emulation.v4l2_parts import MENU, EmulatedControl
from hybriddepth_ros.emulation.v4l2_sensor import EmulatedSensor

raw, IOC = video.raw, video.IOC
_NEXT = int(video.ControlFlag.NEXT_CTRL)
_NEXT_FLAGS = _NEXT | int(video.ControlFlag.NEXT_COMPOUND)
_DEFAULT_VALUES = int(raw.ControlWhichValue.DEF_VAL)


def control_calls(sensor: EmulatedSensor, now_ns: Callable[[], int]) -> dict[int, Callable[[Any], None]]:
    """ioctl -> what fills in its struct, or raises the kernel's OSError."""

    def control(control_id: int) -> EmulatedControl:
        if control_id not in sensor.controls:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return sensor.controls[control_id]

    def query(described: Any) -> None:
        wanted = described.id & ~_NEXT_FLAGS
        if described.id & _NEXT:
            wanted = next((other for other in sensor.controls if other > wanted), 0)
        found = control(wanted)
        described.id, described.type, described.name = found.id, found.kind, found.name.encode()[:31]
        described.minimum, described.maximum, described.step = found.minimum, found.maximum, found.step
        described.default_value = found.default
        described.flags = video.ControlFlag.INACTIVE if sensor.inactive(found) else 0
        if isinstance(described, raw.v4l2_query_ext_ctrl):
            described.elem_size, described.elems, described.nr_of_dims = 4, 1, 0

    def query_menu(menu: Any) -> None:
        found = control(menu.id)
        if found.kind != MENU or menu.index not in found.items:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        menu.m1.name = found.items[menu.index].encode()[:31]

    def get(asked: Any) -> None:
        asked.value = sensor.read(asked.id, now_ns())

    def set_(asked: Any) -> None:
        sensor.write(asked.id, asked.value, now_ns())
        asked.value = sensor.controls[asked.id].value

    def get_several(asked: Any) -> None:
        for one in asked.controls[: asked.count]:
            if asked.m1.which == _DEFAULT_VALUES:
                one.value = control(one.id).default
            else:
                get(one)

    def set_several(asked: Any) -> None:
        for one in asked.controls[: asked.count]:
            set_(one)

    return {
        IOC.QUERYCTRL: query,
        IOC.QUERY_EXT_CTRL: query,
        IOC.QUERYMENU: query_menu,
        IOC.G_CTRL: get,
        IOC.S_CTRL: set_,
        IOC.G_EXT_CTRLS: get_several,
        IOC.S_EXT_CTRLS: set_several,
    }
