"""The driver of an emulated V4L2 camera: what the kernel answers to each ioctl, errors included.

Source: the V4L2 API's documentation (Linux Media Infrastructure, part I).
"""

from __future__ import annotations

import errno
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from mmap import ALLOCATIONGRANULARITY
from select import POLLERR, POLLHUP, POLLIN
from typing import Any

import linuxpy.video.device as video
from linuxpy.ctypes import memcpy

from hybriddepth_ros.emulation.v4l2_control_calls import control_calls
from hybriddepth_ros.emulation.v4l2_parts import (
    EmittedFrame,
    EmulatedMode,
    Image,
    buffer_size,
    bytes_per_line,
    encode,
)
from hybriddepth_ros.emulation.v4l2_sensor import EmulatedSensor, Exposure

raw, IOC = video.raw, video.IOC
_CAPTURE = int(video.BufferType.VIDEO_CAPTURE)
_MMAP = int(video.Memory.MMAP)
_CAPABILITIES = video.Capability.VIDEO_CAPTURE | video.Capability.STREAMING
_TIME_PER_FRAME = 0x1000  # V4L2_CAP_TIMEPERFRAME
_MOST_BUFFERS = 32
_FUTURE_NS = 5_000_000_000
_OTHER_CLOCK_NS = 1_234_567_891_000

_Picture = Callable[[int, int], Image]


@dataclass
class OpenFile:
    """One open of the device: its memory, into which the buffers are mapped, and the buffers' states."""

    fd: int
    plugged_in: int  # which time; after the camera was unplugged, files from before stay dead
    length: int = 0  # of one buffer
    count: int = 0
    queued: deque[int] = field(default_factory=deque)
    done: deque[Any] = field(default_factory=deque)
    streaming: bool = False


class EmulatedDriver:
    """All opens of one device. `ioctl` and `poll_events` answer as the kernel does; OSError carries errno."""

    def __init__(
        self,
        sensor: EmulatedSensor,
        modes: Sequence[EmulatedMode],
        picture: _Picture,
        now_ns: Callable[[], int],
        boot_ns: int,
        names: tuple[str, str],
        stamped_at: str,
        padding: int,
    ) -> None:
        self.sensor, self.faults = sensor, sensor.faults
        self.now_ns = now_ns
        self._modes = tuple(modes)
        self._picture = picture
        self._boot_ns = boot_ns
        self._names, self._stamped_at, self._padding = names, stamped_at, padding
        self._mode = self._modes[0].nearest(0, 0)
        self._lock = threading.RLock()
        self.present = True
        self._plugged_in = 0
        self._owner: OpenFile | None = None  # whose buffers exist
        self.frames: deque[EmittedFrame] = deque(maxlen=100_000)
        self._calls: dict[int, Callable[[OpenFile, Any], None]] = {
            IOC.QUERYCAP: self._querycap,
            IOC.ENUM_FMT: self._enum_fmt,
            IOC.ENUM_FRAMESIZES: self._enum_framesizes,
            IOC.ENUM_FRAMEINTERVALS: self._enum_frameintervals,
            IOC.G_FMT: self._g_fmt,
            IOC.S_FMT: self._s_fmt,
            IOC.TRY_FMT: self._try_fmt,
            IOC.G_PARM: self._g_parm,
            IOC.S_PARM: self._s_parm,
            IOC.REQBUFS: self._reqbufs,
            IOC.QUERYBUF: self._querybuf,
            IOC.QBUF: self._qbuf,
            IOC.DQBUF: self._dqbuf,
            IOC.STREAMON: self._streamon,
            IOC.STREAMOFF: self._streamoff,
        }
        self._control_calls = control_calls(sensor, now_ns)

    # What the boundary calls

    def open(self, fd: int) -> OpenFile:
        with self._lock:
            if not self.present:
                raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
            return OpenFile(fd, self._plugged_in)

    def release(self, file: OpenFile) -> None:
        with self._lock:
            self._stop(file)
            if self._owner is file:
                self._owner = None

    def ioctl(self, file: OpenFile, request: int, argument: Any) -> None:
        with self._lock:
            self._advance()
            if not self._alive(file):
                raise _error(errno.ENODEV)
            if request in self._control_calls:
                self._control_calls[request](argument)
            elif request in self._calls:
                self._calls[request](file, argument)
            else:
                raise _error(errno.ENOTTY)

    def poll_events(self, file: OpenFile) -> int:
        with self._lock:
            self._advance()
            if not self._alive(file):
                return POLLERR | POLLHUP
            if not file.streaming:
                return POLLERR
            return POLLIN if file.done else 0

    @property
    def next_event_ns(self) -> float:
        with self._lock:
            return self.sensor.next_event_ns

    def unplug(self) -> None:
        with self._lock:
            self._advance()
            self._unplug()

    def plug_in(self) -> None:
        with self._lock:
            self.present = True
            self._plugged_in += 1

    # Frames

    def _alive(self, file: OpenFile) -> bool:
        return self.present and file.plugged_in == self._plugged_in

    def _unplug(self) -> None:
        self.present = False
        self.sensor.stop()
        if self._owner is not None:
            self._owner.streaming = False
            self._owner = None

    def _stop(self, file: OpenFile) -> None:
        if file.streaming:
            self.sensor.stop()
        file.streaming = False
        file.queued.clear()
        file.done.clear()

    def _advance(self) -> None:
        for exposure in self.sensor.advance(self.now_ns()):
            if self.faults.unplug_at is not None and exposure.number >= self.faults.unplug_at:
                self.faults.unplug_at = None
                self._unplug()
                return
            if self._owner and self._owner.queued and exposure.number not in self.faults.drop:
                self._fill(self._owner, exposure)

    def _fill(self, file: OpenFile, exposure: Exposure) -> None:
        mode, number = self._mode, exposure.number
        image = self._picture(exposure.start_ns, exposure.end_ns)
        data = encode(image, mode.fourcc, mode.width, mode.height, self._padding)
        if number in self.faults.truncate:
            data = data[: len(data) // 2]
        index = file.queued.popleft()
        data = data[: file.length]
        os.pwrite(file.fd, data, index * _page_aligned(file.length))
        buffer = self._described(file, index)
        buffer.bytesused = len(data)
        buffer.sequence = 0 if self.faults.sequence_zero else number % 2**32
        self._stamp(buffer, exposure)
        if number in self.faults.damage:
            buffer.flags |= video.BufferFlag.ERROR
        file.done.append(buffer)
        self.frames.append(EmittedFrame(number, exposure.start_ns, exposure.end_ns, exposure.delivery_ns))

    def _stamp(self, buffer: Any, exposure: Exposure) -> None:
        flag = video.BufferFlag
        moments = {
            "first_packet": exposure.first_row_end_ns,
            "exposure_start": exposure.start_ns,
            "frame_end": exposure.end_ns,
        }
        stamp_ns = moments[self._stamped_at] - self._boot_ns
        flags = flag.TSTAMP_SRC_EOF if self._stamped_at == "frame_end" else flag.TSTAMP_SRC_SOE
        match self.faults.stamps:
            case "zero":
                stamp_ns = 0
            case "future":
                stamp_ns += _FUTURE_NS
            case "backwards":
                stamp_ns -= _FUTURE_NS * (exposure.number % 2)
            case "unknown":
                stamp_ns += _OTHER_CLOCK_NS
        kind = flag.TIMESTAMP_UNKNOWN if self.faults.stamps == "unknown" else flag.TIMESTAMP_MONOTONIC
        buffer.flags |= flags | kind
        buffer.timestamp.set_ns(max(0, stamp_ns))

    def _described(self, file: OpenFile, index: int) -> Any:
        buffer = raw.v4l2_buffer(index=index, type=_CAPTURE, memory=_MMAP, length=file.length)
        buffer.m.offset = index * _page_aligned(file.length)
        buffer.field = video.Field.NONE
        buffer.flags = video.BufferFlag.MAPPED
        return buffer

    # Description, format and rate

    def _querycap(self, file: OpenFile, capability: Any) -> None:
        driver, card = self._names
        capability.driver, capability.card = driver.encode()[:15], card.encode()[:31]
        capability.bus_info = b"usb-0000:00:14.0-1"
        capability.version = 0x060800
        capability.device_caps = _CAPABILITIES
        capability.capabilities = _CAPABILITIES | video.Capability.DEVICE_CAPS

    def _enum_fmt(self, file: OpenFile, description: Any) -> None:
        codes = list(dict.fromkeys(mode.fourcc for mode in self._modes))
        _check(description.type == _CAPTURE and description.index < len(codes))
        fourcc = codes[description.index]
        description.pixelformat = _code(fourcc)
        description.flags = video.ImageFormatFlag.COMPRESSED if fourcc == "MJPG" else 0
        description.description = fourcc.encode()

    def _enum_framesizes(self, file: OpenFile, size: Any) -> None:
        modes = [mode for mode in self._modes if _code(mode.fourcc) == size.pixel_format]
        _check(size.index < len(modes))
        mode = modes[size.index]
        if mode.maximum is None:
            size.type = video.FrameSizeType.DISCRETE
            size.m1.discrete.width, size.m1.discrete.height = mode.width, mode.height
        else:
            size.type, steps = video.FrameSizeType.STEPWISE, size.m1.stepwise
            steps.min_width, steps.min_height = mode.width, mode.height
            steps.max_width, steps.max_height = mode.maximum
            steps.step_width = steps.step_height = 2

    def _enum_frameintervals(self, file: OpenFile, interval: Any) -> None:
        size = (interval.width, interval.height)
        near = [m.nearest(*size) for m in self._modes if _code(m.fourcc) == interval.pixel_format]
        rates = [rate for m in near if (m.width, m.height) == size for rate in m.rates_hz]
        _check(interval.index < len(rates))
        interval.type = video.FrameIntervalType.DISCRETE
        interval.m1.discrete.numerator, interval.m1.discrete.denominator = 1, rates[interval.index]

    def _g_fmt(self, file: OpenFile, fmt: Any) -> None:
        _check(fmt.type == _CAPTURE)
        self._tell(fmt, self._mode)

    def _s_fmt(self, file: OpenFile, fmt: Any) -> None:
        self._refuse_if_busy(file)
        if file.count:
            raise _error(errno.EBUSY)
        self._mode = self._nearest(fmt)
        self.sensor.rate_hz = float(self._mode.rates_hz[0])
        self._tell(fmt, self._mode)

    def _try_fmt(self, file: OpenFile, fmt: Any) -> None:
        self._tell(fmt, self._nearest(fmt))

    def _nearest(self, fmt: Any) -> EmulatedMode:
        _check(fmt.type == _CAPTURE)
        wanted = fmt.fmt.pix
        modes = [m for m in self._modes if _code(m.fourcc) == wanted.pixelformat] or self._modes
        modes = [m.nearest(wanted.width, wanted.height) for m in modes]
        mode = min(modes, key=lambda m: abs(m.width - wanted.width) + abs(m.height - wanted.height))
        if self.faults.size is not None:
            mode = EmulatedMode(mode.fourcc, *self.faults.size, mode.rates_hz)
        return mode

    def _tell(self, fmt: Any, mode: EmulatedMode) -> None:
        pix = fmt.fmt.pix
        pix.width, pix.height, pix.pixelformat = mode.width, mode.height, _code(mode.fourcc)
        pix.field = video.Field.NONE
        pix.bytesperline = bytes_per_line(mode.fourcc, mode.width, self._padding)
        pix.sizeimage = buffer_size(mode.fourcc, mode.width, mode.height, self._padding)

    def _g_parm(self, file: OpenFile, parm: Any) -> None:
        _check(parm.type == _CAPTURE)
        period = 1 / Fraction(self.sensor.rate_hz)
        parm.parm.capture.capability = _TIME_PER_FRAME
        parm.parm.capture.timeperframe.numerator = period.numerator
        parm.parm.capture.timeperframe.denominator = period.denominator

    def _s_parm(self, file: OpenFile, parm: Any) -> None:
        _check(parm.type == _CAPTURE)
        if file.streaming:
            raise _error(errno.EBUSY)
        wanted = parm.parm.capture.timeperframe
        if wanted.numerator and wanted.denominator:
            rate = wanted.denominator / wanted.numerator
            self.sensor.rate_hz = float(min(self._mode.rates_hz, key=lambda offered: abs(offered - rate)))
        self._g_parm(file, parm)

    # Buffers

    def _refuse_if_busy(self, file: OpenFile) -> None:
        if self.faults.busy or (self._owner is not None and self._owner is not file):
            raise _error(errno.EBUSY)

    def _reqbufs(self, file: OpenFile, request: Any) -> None:
        _check(request.type == _CAPTURE and request.memory == _MMAP)
        self._refuse_if_busy(file)
        if file.streaming:
            raise _error(errno.EBUSY)
        file.queued.clear()
        file.done.clear()
        file.count = request.count = min(request.count, _MOST_BUFFERS)
        mode = self._mode
        file.length = buffer_size(mode.fourcc, mode.width, mode.height, self._padding)
        self._owner = file if file.count else None
        if file.count:  # mappings of buffers that were given back may still be open: keep the memory
            os.ftruncate(file.fd, file.count * _page_aligned(file.length))

    def _index(self, file: OpenFile, buffer: Any) -> int:
        _check(buffer.type == _CAPTURE and buffer.memory in (0, _MMAP) and buffer.index < file.count)
        return int(buffer.index)

    def _querybuf(self, file: OpenFile, buffer: Any) -> None:
        described = self._described(file, self._index(file, buffer))
        if buffer.index in file.queued:
            described.flags |= video.BufferFlag.QUEUED
        memcpy(buffer, described)

    def _qbuf(self, file: OpenFile, buffer: Any) -> None:
        index = self._index(file, buffer)
        _check(index not in file.queued and all(done.index != index for done in file.done))
        file.queued.append(index)

    def _dqbuf(self, file: OpenFile, buffer: Any) -> None:
        _check(buffer.type == _CAPTURE and file.streaming)
        if not file.done:
            raise _error(errno.EAGAIN)
        memcpy(buffer, file.done.popleft())

    def _streamon(self, file: OpenFile, kind: Any) -> None:
        self._refuse_if_busy(file)
        _check(file.count > 0)
        if not file.streaming:
            file.streaming = True
            self.sensor.start(self.now_ns())

    def _streamoff(self, file: OpenFile, kind: Any) -> None:
        self._stop(file)


def _check(allowed: bool) -> None:
    if not allowed:
        raise _error(errno.EINVAL)


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def _code(fourcc: str) -> int:
    return int(raw.v4l2_fourcc(*fourcc))


def _page_aligned(length: int) -> int:
    return -(-length // ALLOCATIONGRANULARITY) * ALLOCATIONGRANULARITY
