"""Which /dev/videoN is meant, and who holds one: what sysfs and procfs tell about video devices."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from hybriddepth_ros.errors import CameraError

SYSFS = Path("/sys/class/video4linux")
PROC = Path("/proc")
DEV = Path("/dev")
UVC_HARDWARE_STAMPS = Path("/sys/module/uvcvideo/parameters/hwtimestamps")


def linuxpy_video() -> ModuleType:
    """linuxpy.video.device, imported when the first device is asked for."""
    try:
        import linuxpy.video.device as video
    except ImportError:
        raise CameraError("camera v4l2: expected the package linuxpy: pip install linuxpy") from None
    return video


def find_device(device: str, serial_number: str) -> str:
    """The path to open: `device` (a path or a link such as those in /dev/v4l/by-id), else by serial number.

    Neither given: the only device that captures. CameraError lists what there is.
    """
    if device and serial_number:
        raise CameraError(
            f"camera v4l2: expected either device or serial_number, got {device} and {serial_number}"
        )
    if device:
        return os.path.realpath(os.path.expanduser(device))
    present = list(_capture_devices())
    if serial_number:
        present = [path for path in present if usb_serial_number(path) == serial_number]
    if len(present) == 1:
        return present[0]
    wanted = f"one with serial_number {serial_number}" if serial_number else "one that captures, or device"
    raise CameraError(f"camera v4l2: expected {wanted}, found {_listed(present or list(_capture_devices()))}")


def usb_serial_number(path: str) -> str:
    """Of the USB device that a /dev/videoN belongs to; "" = none."""
    interface = (SYSFS / Path(path).name / "device").resolve()
    for folder in (interface, interface.parent):
        try:
            return (folder / "serial").read_text().strip()
        except OSError:
            continue
    return ""


def _listed(paths: list[str]) -> str:
    if not paths:
        closed = sorted(str(p) for p in DEV.glob("video*") if not os.access(p, os.R_OK | os.W_OK))
        reason = f" but {', '.join(closed)}, which only the group `video` may open" if closed else ""
        return f"none{reason}"
    return ", ".join(
        f"{path} ({usb_serial_number(path) or 'no serial number'}, {card_name(path)})" for path in paths
    )


def card_name(path: str) -> str:
    """What the driver calls a /dev/videoN."""
    try:
        return (SYSFS / Path(path).name / "name").read_text().strip()
    except OSError:
        return "no name"


def _capture_devices() -> Iterator[str]:
    """A UVC camera also has a node for metadata, which captures no video."""
    video = linuxpy_video()
    for path in sorted(video.iter_video_files(), key=str):
        try:
            with video.IO.open(path, True) as file:
                capabilities = video.Capability(video.read_capabilities(file).device_caps)
        except OSError:
            continue  # gone meanwhile, or not ours to open
        if video.Capability.VIDEO_CAPTURE in capabilities:
            yield str(path)


def holders(path: str) -> str:
    """Who has the device open, as `name (pid 123)`; "" = nobody whose files this user may see."""
    found = []
    for process in sorted(PROC.glob("[0-9]*"), key=lambda folder: int(folder.name)):
        if int(process.name) != os.getpid() and _has_open(process, path):
            try:
                name = (process / "comm").read_text().strip()
            except OSError:
                name = "a process"
            found.append(f"{name} (pid {process.name})")
    return ", ".join(found)


def _has_open(process: Path, path: str) -> bool:
    try:
        return any(os.path.realpath(link) == path for link in (process / "fd").iterdir())
    except OSError:
        return False


def uvc_stamps_by_hardware() -> bool:
    """Whether uvcvideo takes its stamps from the camera's clock: a module parameter, off by default."""
    try:
        return UVC_HARDWARE_STAMPS.read_text().strip() not in ("0", "N")
    except OSError:
        return False
