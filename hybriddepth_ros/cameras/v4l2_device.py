"""One V4L2 capture device, by linuxpy: its formats, its controls, its mapped buffers.

All that goes wrong is a CameraError of one line: who holds a busy device, what is offered instead of what was
asked for, both values of a control that does not keep what it is told.
"""

from __future__ import annotations

import errno
import mmap
import os
import select
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from hybriddepth_ros.cameras.v4l2_controls import Control, query_control, read_control, write_control
from hybriddepth_ros.cameras.v4l2_discovery import find_device, holders, linuxpy_video
from hybriddepth_ros.cameras.v4l2_formats import FORMATS
from hybriddepth_ros.errors import CameraError

_RATE_TOLERANCE = 0.01  # 29.97 is 30
_RELEASE_S = 0.4  # how long stopping, and closing, waits for a camera that hangs: its transfers take 5 s
_ENDED = select.POLLERR | select.POLLHUP | select.POLLNVAL


@dataclass(frozen=True)
class Mode:
    """A pixel format and size that a device offers, and its frame rates [Hz], fastest first.

    Where a device takes any of a range, `maximum` is the largest size; rates are then the range's ends.
    """

    fourcc: str
    width: int
    height: int
    rates_hz: tuple[float, ...]
    maximum: tuple[int, int] | None = None

    def takes(self, width: int, height: int) -> bool:
        if self.maximum is None:
            return (width, height) == (self.width, self.height)
        return self.width <= width <= self.maximum[0] and self.height <= height <= self.maximum[1]

    def __str__(self) -> str:
        size = f"{self.width}x{self.height}"
        if self.maximum:
            size += f" to {self.maximum[0]}x{self.maximum[1]}"
        rates = ", ".join(f"{rate:.4g}" for rate in self.rates_hz)
        return f"{self.fourcc} {size}" + (f" at {rates} Hz" if rates else "")


@dataclass(frozen=True)
class StreamFormat:
    """What the device was set to, read back."""

    fourcc: str
    width: int
    height: int
    bytes_per_line: int
    rate_hz: float


@dataclass(frozen=True)
class RawBuffer:
    """One dequeued frame. monotonic_ns: the kernel's stamp, None = of another clock or none.

    waited: it was not ready yet when it was asked for. damaged: the driver says that data is missing.
    """

    data: bytes
    sequence: int
    monotonic_ns: int | None
    stamped_at_start: bool
    damaged: bool
    waited: bool


class V4L2Device:
    """Opened by each part of a camera that uses it, closed when the last one has released it.

    Controls may be set by any thread while another one reads frames.
    """

    def __init__(self, device: str = "", serial_number: str = "") -> None:
        self._wanted = (device, serial_number)
        self.path = device
        self.driver = ""
        self._users = 0
        self._lock = threading.RLock()  # guards opening and closing; never held while the device may hang
        self._setting = threading.RLock()  # held while the device is asked for a control
        self._reading = threading.Lock()  # held while frames are waited for
        self._device: Any = None
        self._buffers: list[mmap.mmap] = []
        self._controls: dict[int, Control | None] = {}
        self._stopped = threading.Event()  # frames are no longer to be waited for
        self._wake = -1
        self._release: threading.Thread | None = None

    @property
    def name(self) -> str:
        return f"camera v4l2 {self.path or self._wanted[1]}".rstrip()

    def open(self) -> None:
        """Take the device, or one more share in it; CameraError if it cannot capture by mapped buffers."""
        with self._lock:
            if self._users == 0:
                self._open()
            self._users += 1

    def close(self) -> None:
        """Give a share back. With the last one the device is released, within a second whatever it does."""
        with self._lock:
            self._users = max(0, self._users - 1)
            if self._users or self._device is None:
                return
            device, self._device = self._device, None
            wake, self._wake = self._wake, -1
            buffers, self._buffers = self._buffers, []
        self._stopped.set()
        os.eventfd_write(wake, 1)

        def release() -> None:
            with self._reading, self._setting:
                _stop_streaming(device, buffers)
                with suppress(OSError):
                    device.close()
                os.close(wake)

        self._in_background(release)

    def _in_background(self, release: Callable[[], None]) -> None:
        """Do it, and wait for it, but not for ever."""
        self._release = threading.Thread(target=release, name="v4l2_release", daemon=True)
        self._release.start()
        self._release.join(_RELEASE_S)

    def _await_release(self) -> None:
        if self._release is not None:
            self._release.join(_RELEASE_S)
            if self._release.is_alive():
                raise CameraError(f"{self.name}: still not released after it was closed: unplug it")

    def _open(self) -> None:
        self._await_release()
        video = linuxpy_video()
        self.path = find_device(*self._wanted)
        device = video.Device(self.path)
        with self._telling("open"):
            device.open()
        try:
            with self._telling("query"):
                capabilities = device.info.device_capabilities
                self.driver = device.info.driver
            for needed in (video.Capability.VIDEO_CAPTURE, video.Capability.STREAMING):
                if needed not in capabilities:
                    raise CameraError(f"{self.name}: expected a device that can do {needed.name}")
        except BaseException:
            device.close()
            raise
        self._controls.clear()
        self._stopped.clear()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._device = device

    # Formats

    def modes(self) -> list[Mode]:
        """What it offers, of any pixel format that linuxpy has a name for."""
        video, device = linuxpy_video(), self._opened()
        modes: list[Mode] = []
        with self._telling("list the formats"):
            for description in device.info.buffer_formats(video.BufferType.VIDEO_CAPTURE):
                code = description.pixel_format
                for size in device.info.format_frame_sizes(code):
                    modes.append(_mode(device, code, size))
        return modes

    def configure(self, fourcc: str, width: int, height: int, rate_hz: float) -> StreamFormat:
        """Set format, size and rate; CameraError lists what it offers if it takes another one.

        fourcc "auto": the first of FORMATS that comes in this size at this rate.
        """
        video, device = linuxpy_video(), self._opened()
        offered = self.modes()
        if fourcc == "auto":
            fourcc = _choose(offered, width, height, rate_hz)
        kind = video.BufferType.VIDEO_CAPTURE
        asked = f"{fourcc} {width}x{height} at {rate_hz:g} Hz"
        if not any(mode.fourcc == fourcc and mode.takes(width, height) for mode in offered):
            raise CameraError(f"{self.name}: expected {_listed(offered)}, got {asked}")
        with self._telling(f"set {asked}"):
            device.set_format(kind, width, height, fourcc)
            got = device.get_format(kind)
            device.set_fps(kind, rate_hz)
            try:
                got_rate = float(device.get_fps(kind))
            except ZeroDivisionError:
                raise CameraError(f"{self.name}: set {asked}, but it tells no frame rate") from None
        got_fourcc = got.pixel_format.human_str()
        if (got_fourcc, got.width, got.height) != (fourcc, width, height) or (
            abs(got_rate - rate_hz) > _RATE_TOLERANCE * rate_hz
        ):
            raise CameraError(
                f"{self.name}: set {asked}, reads back {got_fourcc} {got.width}x{got.height}"
                f" at {got_rate:.4g} Hz; it offers {_listed(offered)}"
            )
        return StreamFormat(got_fourcc, got.width, got.height, got.bytes_per_line, got_rate)

    # Controls

    def control(self, control_id: int) -> Control | None:
        """What it says of a control; None = it has none of this number."""
        with self._setting, self._telling(f"query control 0x{control_id:08x}"):
            device = self._opened()
            if control_id not in self._controls:
                self._controls[control_id] = query_control(device, control_id)
            return self._controls[control_id]

    def get(self, control: Control) -> int:
        with self._setting, self._telling(f"read {control}"):
            return read_control(self._opened(), control)

    def set(self, control: Control, value: int) -> None:
        """Write, and read back: CameraError with both values where they differ."""
        self.write(control, value)
        got = self.get(control)
        if got != value:
            raise CameraError(f"{self.name}: set {control} to {value}, reads back {got}")

    def write(self, control: Control, value: int) -> None:
        """Without reading back, for what takes time to get there."""
        with self._setting, self._telling(f"set {control} to {value}"):
            try:
                write_control(self._opened(), control, value)
            except CameraError as error:
                raise CameraError(f"{self.name}: {error}") from None

    # Frames

    def start(self, buffers: int = 4) -> None:
        """Map and queue the buffers, and stream."""
        video, device = linuxpy_video(), self._opened()
        kind, memory = video.BufferType.VIDEO_CAPTURE, video.Memory.MMAP
        self._await_release()
        with suppress(BlockingIOError):
            os.eventfd_read(self._wake)
        self._stopped.clear()
        with self._telling("start streaming"):
            count = video.request_buffers(device, kind, memory, buffers).count  # it may grant others
            for index in range(count):
                queried = video.query_buffer(device, kind, memory, index)
                self._buffers.append(video.mmap_from_buffer(device, queried))
                video.enqueue_buffer(device, kind, memory, 0, index)
            device.stream_on(kind)

    def stop(self) -> None:
        """Stop streaming and give the buffers back; a reader that waits is told that it is closed."""
        self._stopped.set()
        with self._lock:
            device, buffers = self._device, self._buffers
            self._buffers = []
            if device is None:
                return
            os.eventfd_write(self._wake, 1)

        def release() -> None:
            with self._reading:
                _stop_streaming(device, buffers)

        self._in_background(release)

    def read(self, timeout_s: float) -> RawBuffer | None:
        """The next buffer, or None if none came in time; CameraError when closed or unplugged."""
        with self._reading, self._telling("read a frame"):
            device, wake, buffers = self._device, self._wake, self._buffers
            if device is None or self._stopped.is_set() or not buffers:
                raise CameraError(f"{self.name}: closed")
            poll = device.io.select.poll()
            poll.register(device.fileno(), select.POLLIN)
            poll.register(wake, select.POLLIN)
            ready = dict(poll.poll(0))
            waited = not ready
            if waited:
                ready = dict(poll.poll(max(0.0, 1e3 * timeout_s)))
            if self._stopped.is_set():
                raise CameraError(f"{self.name}: closed")
            if not ready.get(device.fileno()):
                return None
            try:
                return self._dequeue(device, buffers, waited)
            except BlockingIOError:
                if ready[device.fileno()] & _ENDED:
                    raise CameraError(f"{self.name}: stopped delivering frames") from None
                return None

    def _dequeue(self, device: Any, buffers: list[mmap.mmap], waited: bool) -> RawBuffer:
        video = linuxpy_video()
        kind, memory = video.BufferType.VIDEO_CAPTURE, video.Memory.MMAP
        flag = video.BufferFlag
        buffer = video.dequeue_buffer(device, kind, memory)
        data = buffers[buffer.index][: buffer.bytesused]
        video.enqueue_buffer(device, kind, memory, 0, buffer.index)
        monotonic = buffer.flags & flag.TIMESTAMP_MASK == flag.TIMESTAMP_MONOTONIC
        return RawBuffer(
            data=data,
            sequence=buffer.sequence,
            monotonic_ns=(
                buffer.timestamp.secs * 1_000_000_000 + buffer.timestamp.usecs * 1000 if monotonic else None
            ),
            stamped_at_start=buffer.flags & flag.TSTAMP_SRC_MASK == flag.TSTAMP_SRC_SOE,
            damaged=bool(buffer.flags & flag.ERROR),
            waited=waited,
        )

    def _opened(self) -> Any:
        if self._device is None:
            raise CameraError(f"{self.name}: closed")
        return self._device

    @contextmanager
    def _telling(self, what: str) -> Iterator[None]:
        """Tell what the kernel refused as a CameraError."""
        try:
            yield
        except OSError as error:
            raise CameraError(f"{self.name}: {self._reason(error, what)}") from error

    def _reason(self, error: OSError, what: str) -> str:
        if error.errno == errno.EBUSY:
            holder = holders(self.path)
            return f"could not {what}: in use by {holder or 'another process or another part of this one'}"
        if error.errno in (errno.ENODEV, errno.ENXIO):
            return "unplugged"
        if error.errno == errno.ENOENT:
            return "expected a video device, found none of this name"
        if error.errno in (errno.EACCES, errno.EPERM) and what == "open":
            return "may not be opened: expected this user in the group `video`"
        return f"could not {what}: {error.strerror or error}"


def _stop_streaming(device: Any, buffers: list[mmap.mmap]) -> None:
    """What fails here fails because the device is gone."""
    video = linuxpy_video()
    kind = video.BufferType.VIDEO_CAPTURE
    if not buffers:
        return
    with suppress(OSError):
        device.stream_off(kind)
    for buffer in buffers:
        buffer.close()
    with suppress(OSError):
        device.free_buffers(kind, video.Memory.MMAP)


def _mode(device: Any, code: Any, size: Any) -> Mode:
    """Of one entry of the list of sizes."""
    video, fourcc, info = linuxpy_video(), code.human_str(), size.info
    if size.type == video.FrameSizeType.DISCRETE:
        smallest = largest = (info.width, info.height)
    else:
        smallest, largest = (info.min_width, info.min_height), (info.max_width, info.max_height)
    rates = {
        float(rate)
        for interval in device.info.fps_intervals(code, *largest)
        for rate in (interval.min_fps, interval.max_fps)
        if rate
    }
    maximum = None if smallest == largest else largest
    return Mode(fourcc, *smallest, tuple(sorted(rates, reverse=True)), maximum)


def _choose(offered: list[Mode], width: int, height: int, rate_hz: float) -> str:
    fitting = [mode for mode in offered if mode.takes(width, height)]
    fast = [m for m in fitting if not m.rates_hz or max(m.rates_hz) >= (1 - _RATE_TOLERANCE) * rate_hz]
    for modes in (fast, fitting):
        for fourcc in FORMATS:
            if any(mode.fourcc == fourcc for mode in modes):
                return fourcc
    return FORMATS[0]


def _listed(offered: list[Mode]) -> str:
    readable = [str(mode) for mode in offered if mode.fourcc in FORMATS]
    return "; ".join(readable) if readable else f"a format of {', '.join(FORMATS)}, which it does not offer"
