"""What `hybriddepth doctor` says of cameras, focus motors, lenses and the permission to open them."""

from __future__ import annotations

import glob
import grp
import os
from collections.abc import Iterator

from hybriddepth_ros.commands.doctor_check import Check
from hybriddepth_ros.commands.versions import installed_version
from hybriddepth_ros.errors import CameraError

_NO_CAMERA = "plug in a UVC camera with a focus motor (docs/devices.md); `lsusb` must list it"
_NO_FOCUS = "take a camera with a focus motor, or put a lens before it (docs/optotune.md)"


def check_cameras() -> list[Check]:
    """One finding per camera, and whether its focus can be moved; nothing is set and no lens is moved."""
    devices = sorted(glob.glob("/dev/video[0-9]*"), key=lambda path: (len(path), path))
    if not devices:
        return [Check("cameras", "warn", "no /dev/video*; simulated and replay need none", _NO_CAMERA)]
    devices, refused = _allowed("cameras", devices, "video")
    if not devices:
        return refused
    if installed_version("linuxpy") is None:
        found = f"{', '.join(devices)}; the camera v4l2 needs linuxpy"
        return [*refused, Check("cameras", "warn", found, "pip install linuxpy")]
    checks = [*refused, *_described(devices)]
    return checks or [Check("cameras", "warn", f"{', '.join(devices)}: none captures video", _NO_CAMERA)]


def _described(devices: list[str]) -> Iterator[Check]:
    from hybriddepth_ros.cameras.v4l2_controls import FOCUS_ABSOLUTE
    from hybriddepth_ros.cameras.v4l2_device import V4L2Device
    from hybriddepth_ros.cameras.v4l2_discovery import card_name, holders, usb_serial_number

    for path in devices:
        device = V4L2Device(path)
        try:
            device.open()
        except CameraError as error:
            if "VIDEO_CAPTURE" not in str(error):  # the node of a camera's metadata
                yield Check("cameras", "warn", str(error), f"ls -l {path}; unplug it and plug it in again")
            continue
        try:
            serial = usb_serial_number(path)
            name = f"{path}: {card_name(path)}" + (f", serial number {serial}" if serial else "")
            focus = device.control(FOCUS_ABSOLUTE)
            others = holders(path)
        except CameraError as error:
            yield Check("cameras", "warn", str(error), f"unplug {path} and plug it in again")
            continue
        finally:
            device.close()
        if focus is None:
            yield Check("cameras", "warn", f"{name}: its focus cannot be moved", _NO_FOCUS)
        elif others:
            yield Check("cameras", "warn", f"{name}: held by {others}", f"end {others}")
        else:
            yield Check("cameras", "ok", f"{name}, focus {focus.minimum} to {focus.maximum}")


def check_lenses() -> list[Check]:
    """Serial ports, and which of them are lens drivers by what USB tells."""
    name = "lenses"
    if installed_version("pyserial") is None:
        return [Check(name, "ok", "not looked for: the lens optotune needs pyserial", "pip install pyserial")]
    from hybriddepth_ros.cameras.optotune import USB_IDS
    from hybriddepth_ros.cameras.optotune_link import usb_ports

    kinds = {ids: kind for kind, ids in USB_IDS.items()}
    ports = list(usb_ports())
    found = [
        (port, kinds[port.vendor_id, port.product_id])
        for port in ports
        if port.vendor_id is not None
        and port.product_id is not None
        and (port.vendor_id, port.product_id) in kinds
    ]
    if not found:
        others = f" (other serial ports: {', '.join(port.path for port in ports)})" if ports else ""
        step = "only for a liquid lens: plug in its driver (docs/optotune.md)"
        return [Check(name, "ok", f"none{others}", step)]
    allowed, refused = _allowed(name, [port.path for port, _ in found], "dialout")
    return refused + [
        Check(
            name,
            "ok",
            f"{port.path}: {kind}" + (f", serial number {port.serial_number}" if port.serial_number else ""),
        )
        for port, kind in found
        if port.path in allowed
    ]


def _allowed(name: str, devices: list[str], group: str) -> tuple[list[str], list[Check]]:
    """(devices that may be opened, what to do about each of the others)."""
    allowed = [device for device in devices if os.access(device, os.R_OK | os.W_OK)]
    checks = []
    for device in devices:
        if device in allowed:
            continue
        found = f"no permission: {device}"
        step = f"ls -l {device}; a udev rule is needed (docs/devices.md)"
        if not _in_group(group):
            found += f" (you are not in group {group})"
            step = f"sudo usermod -aG {group} $USER, then log in again; or a udev rule (docs/devices.md)"
        checks.append(Check(name, "warn", found, step))
    return allowed, checks


def _in_group(group: str) -> bool:
    """By number: groups of the user may have no name, as in containers."""
    try:
        return grp.getgrnam(group).gr_gid in (os.getegid(), *os.getgroups())
    except KeyError:
        return False
