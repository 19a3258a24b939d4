"""Images and focus motor of one V4L2 camera: two parts of it that share the open device."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, replace

from hybriddepth_ros.cameras import v4l2_controls as cid
from hybriddepth_ros.cameras.base import FrameTimeout
from hybriddepth_ros.cameras.lens import FocusLens, LensState
from hybriddepth_ros.cameras.source import ImageSource, RawFrame
from hybriddepth_ros.cameras.v4l2_controls import EXPOSURE_UNIT_MS, Control
from hybriddepth_ros.cameras.v4l2_device import RawBuffer, StreamFormat, V4L2Device
from hybriddepth_ros.cameras.v4l2_discovery import uvc_stamps_by_hardware
from hybriddepth_ros.cameras.v4l2_formats import DamagedFrame, decode
from hybriddepth_ros.cameras.v4l2_stamps import (
    EXPOSURE_START,
    FRAME_END,
    READOUT_START,
    FrameCounter,
    RowTiming,
    StampReader,
    SteadyClock,
)
from hybriddepth_ros.errors import CameraError, LensError

# Of a rolling shutter: all of a frame period at the sensor's fastest but for its vertical blanking.
_READOUT_SHARE = 0.9
_BUFFERS = 4
_APPLIED_AFTER_FRAMES = 2  # what is set while a camera streams, shows a frame or two later
_SLICE_S = 0.5  # of a longer wait
_ARRIVED_BY_S = 0.5  # a motor that reports where it is while it moves, has come to rest by then
_READ_BACK_EVERY_S = 0.01
_FOUND_BY_THE_CAMERA = (cid.EXPOSURE_ABSOLUTE, cid.GAIN, cid.WHITE_BALANCE_TEMPERATURE)
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StreamSettings:
    """How a source is to stream. exposure_ms, white_balance: 0, gain: -1 = lock what the camera found.

    readout_ms: -1 = estimated, and shortened by frames that came sooner. auto_s: how long the camera has to
    find them. stamp: where in a frame its stamp lies (a name of v4l2_stamps), or "driver" = as the driver
    says.
    """

    width: int = 640
    height: int = 480
    frame_rate_hz: float = 30.0
    fourcc: str = "auto"
    exposure_ms: float = 0.0
    gain: int = -1
    white_balance_k: int = 0
    readout_ms: float = -1.0
    auto_s: float = 1.0
    stamp: str = "driver"


class V4L2Source(ImageSource):
    """Streams from a V4L2 device whose exposure, gain and white balance are locked when it is opened.

    frames_damaged: that were dropped as data was missing; stamps_replaced: that the kernel cannot have meant.
    """

    def __init__(self, device: V4L2Device, settings: StreamSettings, clock: SteadyClock) -> None:
        self._device, self._settings = device, settings
        self._steady = clock
        self.clock = clock
        self._opened = False
        self._closed = threading.Event()
        self._format: StreamFormat | None = None
        self._set_up(
            StreamFormat("", settings.width, settings.height, 0, settings.frame_rate_hz), None, 0.0, 0
        )
        self._usable_from_ns = 0

    def _set_up(
        self, stream: StreamFormat, exposure_ms: float | None, fastest_hz: float, started_ns: int
    ) -> None:
        """Timing of the stream; an exposure that is not known is taken for the longest that there can be."""
        period_ns = round(1e9 / stream.rate_hz)
        readout_ms = self._settings.readout_ms
        shortest_ns = round(1e9 / max(fastest_hz, stream.rate_hz))
        self.timing = RowTiming(
            period_ns if exposure_ms is None else round(exposure_ms * 1e6),
            round(_READOUT_SHARE * shortest_ns) if readout_ms < 0 else round(readout_ms * 1e6),
            period_ns,
        )
        self._stamps, self._counter = StampReader(period_ns, started_ns), FrameCounter(period_ns)
        self.frames_damaged = 0

    def open(self) -> None:
        """Takes as long as the camera has to find its exposure, if that is to be locked."""
        if self._opened:
            raise CameraError(f"{self._device.name}: already open")
        self._device.open()
        self._opened = True
        self._closed.clear()
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        settings, device = self._settings, self._device
        if settings.exposure_ms * settings.frame_rate_hz > 1e3:
            raise CameraError(
                f"{device.name}: expected exposure_ms within the frame period,"
                f" {1e3 / settings.frame_rate_hz:.1f} ms, got {settings.exposure_ms:g}"
            )
        stream = device.configure(settings.fourcc, settings.width, settings.height, settings.frame_rate_hz)
        stop_auto_focus(device)
        # Else the camera takes longer frames in the dark, whatever rate it was set to.
        _set_if_present(device, cid.EXPOSURE_AUTO_PRIORITY, 0)
        started_ns = self._steady.monotonic_ns()
        if settings.exposure_ms and settings.gain >= 0 and settings.white_balance_k:
            exposure_ms = self._lock_all()
            device.start(_BUFFERS)
            self._usable_from_ns = 0
        else:
            self._watch_exposure()
            device.start(_BUFFERS)
            self._let_it_adjust()
            exposure_ms = self._lock_all()
            self._usable_from_ns = self._steady.now_ns() + round(_APPLIED_AFTER_FRAMES * 1e9 / stream.rate_hz)
        fastest = max(
            (
                rate
                for mode in device.modes()
                if mode.fourcc == stream.fourcc and mode.takes(stream.width, stream.height)
                for rate in mode.rates_hz
            ),
            default=0.0,
        )
        self._format = stream
        self._set_up(stream, exposure_ms, fastest, started_ns)

    def _watch_exposure(self) -> None:
        """Let the camera find what it is to find: an earlier user may have left it at manual."""
        settings, device = self._settings, self._device
        auto = device.control(cid.EXPOSURE_AUTO)
        if settings.exposure_ms == 0.0 and auto is not None:
            found = [
                item
                for item in (cid.EXPOSURE_APERTURE_PRIORITY, cid.EXPOSURE_FULLY_AUTO)
                if auto.allows(item)
            ]
            if found:
                device.set(auto, found[0])
        if settings.gain < 0:
            _set_if_present(device, cid.AUTOGAIN, 1)
        if settings.white_balance_k == 0:
            _set_if_present(device, cid.AUTO_WHITE_BALANCE, 1)

    def _let_it_adjust(self) -> None:
        until_ns = self._steady.monotonic_ns() + round(self._settings.auto_s * 1e9)
        while (left_s := (until_ns - self._steady.monotonic_ns()) * 1e-9) > 0:
            self._device.read(min(left_s, _SLICE_S))

    def _lock_all(self) -> float | None:
        """Exposure time [ms]. All are read before the first is locked: some cameras forget the others."""
        settings, device = self._settings, self._device
        exposure, gain, balance = (_found(device, control) for control in _FOUND_BY_THE_CAMERA)
        exposure_ms = self._lock_exposure(exposure)
        wanted_gain = settings.gain if settings.gain >= 0 else None
        _lock(device, cid.AUTOGAIN, cid.GAIN, wanted_gain, gain, "gain")
        kelvin = settings.white_balance_k or None
        _lock(device, cid.AUTO_WHITE_BALANCE, cid.WHITE_BALANCE_TEMPERATURE, kelvin, balance, "white_balance")
        return exposure_ms

    def _lock_exposure(self, found: int | None) -> float | None:
        """The exposure time [ms] from now on; None = the camera does not let it be known."""
        device, wanted_ms = self._device, self._settings.exposure_ms
        auto, absolute = device.control(cid.EXPOSURE_AUTO), device.control(cid.EXPOSURE_ABSOLUTE)
        if absolute is None or found is None:
            if wanted_ms:
                raise CameraError(
                    f"{device.name}: expected a control for the exposure time, as exposure_ms is"
                    f" {wanted_ms:g}, found none"
                )
            return None
        # A camera in manual mode takes up the exposure that it was last given: the one it found is written.
        value = absolute.nearest(wanted_ms / EXPOSURE_UNIT_MS if wanted_ms else found)
        if auto is not None and auto.allows(cid.EXPOSURE_MANUAL):
            device.set(auto, cid.EXPOSURE_MANUAL)
        device.set(absolute, value)
        return value * EXPOSURE_UNIT_MS

    def close(self) -> None:
        self._closed.set()
        if self._opened:
            self._opened = False
            self._device.stop()
            self._device.close()

    def read(self, timeout_s: float = 1.0) -> RawFrame:
        """The next whole frame; one whose data is damaged is dropped, counted and logged."""
        until_ns = self._steady.monotonic_ns() + round(timeout_s * 1e9)
        while True:
            stream = self._format
            if self._closed.is_set() or not self._opened or stream is None:
                raise CameraError(f"{self._device.name}: closed")
            left_s = (until_ns - self._steady.monotonic_ns()) * 1e-9
            buffer = self._device.read(max(left_s, 0.0))
            frame = None if buffer is None else self._frame(buffer, stream)
            if frame is not None and frame.exposure_start_ns >= self._usable_from_ns:
                return frame
            if left_s <= 0:
                raise FrameTimeout(f"{self._device.name}: no frame within {timeout_s:g} s")

    def _frame(self, buffer: RawBuffer, stream: StreamFormat) -> RawFrame | None:
        now_ns = self._steady.monotonic_ns()
        stamp_ns, kernels = self._stamps.read(buffer.monotonic_ns, now_ns, buffer.waited, buffer.sequence)
        sequence = self._counter.number(buffer.sequence, stamp_ns)
        try:
            if buffer.damaged:
                raise DamagedFrame(f"marked as damaged by the driver ({len(buffer.data)} bytes)")
            image = decode(buffer.data, stream.fourcc, stream.width, stream.height, stream.bytes_per_line)
        except DamagedFrame as damage:
            self.frames_damaged += 1
            if self.frames_damaged.bit_count() == 1:  # 1, 2, 4, 8 ...: a bad cable spoils most of them
                _log.warning(
                    "%s: frame %d dropped: %s; %d so far",
                    self._device.name,
                    sequence,
                    damage,
                    self.frames_damaged,
                )
            return None
        point = self._stamp_point(buffer) if kernels else FRAME_END
        if self._settings.readout_ms < 0 and point != FRAME_END:
            began_ns = stamp_ns + (self.timing.exposure_ns if point == EXPOSURE_START else 0)
            self._limit_readout(max(0, now_ns - began_ns))
        start_ns, end_ns = self.timing.exposure(stamp_ns, point)
        # What has come has been exposed, whatever exposure and readout time were said to be.
        end_ns = max(start_ns + 1, min(end_ns, now_ns))
        return RawFrame(
            image, sequence, self._steady.from_monotonic(start_ns), self._steady.from_monotonic(end_ns)
        )

    def _limit_readout(self, at_most_ns: int) -> None:
        """What is here has been read out: the estimate was too long if it says otherwise."""
        if at_most_ns < self.timing.readout_ns:
            self.timing = replace(self.timing, readout_ns=at_most_ns)

    def _stamp_point(self, buffer: RawBuffer) -> str:
        if self._settings.stamp != "driver":
            return self._settings.stamp
        if not buffer.stamped_at_start:
            return FRAME_END
        # uvcvideo flags its stamps as the exposure's start, but unless told to use the camera's own clock it
        # takes them when a frame's first packet arrives, and what arrives has been exposed.
        if self._device.driver == "uvcvideo" and not uvc_stamps_by_hardware():
            return READOUT_START
        return EXPOSURE_START

    @property
    def stamps_replaced(self) -> int:
        return self._stamps.replaced

    @property
    def driver_counts_frames(self) -> bool:
        """Whether sequence numbers are the driver's; if not, frames are counted by their stamps."""
        return self._counter.driver_counts

    @property
    def frame_rate_hz(self) -> float:
        return self._format.rate_hz if self._format else self._settings.frame_rate_hz

    @property
    def size(self) -> tuple[int, int]:
        return (self._settings.width, self._settings.height)


class V4L2Motor(FocusLens):
    """The focus motor of a V4L2 camera; positions are those of its control. It stays where it was left."""

    def __init__(self, device: V4L2Device, clock: SteadyClock, settle_ms: float | None = None) -> None:
        self._device = device
        self.clock = clock
        self._settle_ms = settle_ms
        self._lock = threading.Lock()
        self._control: Control | None = None
        self._position = float("nan")
        self._opened = False
        self._closed = threading.Event()

    def open(self) -> None:
        """Auto-focus off first: while it is on, a motor ignores where it is told to go."""
        if self._opened:
            raise LensError(f"{self._device.name}: focus motor already open")
        self._device.open()
        self._opened = True
        self._closed.clear()
        try:
            stop_auto_focus(self._device)
            self._control = self._device.control(cid.FOCUS_ABSOLUTE)
            if self._control is None:
                raise CameraError(
                    f"{self._device.name}: expected a focus motor (control 0x{cid.FOCUS_ABSOLUTE:08x}),"
                    " found none"
                )
            self._position = float(self._device.get(self._control))
        except BaseException as error:
            self.close()
            if isinstance(error, CameraError):
                raise LensError(str(error)) from error
            raise

    def close(self) -> None:
        self._closed.set()
        if self._opened:
            self._opened = False
            self._device.close()

    def command(self, position: float) -> int:
        with self._lock:
            control = self._focus()
            low, high = self.position_range
            if not low <= position <= high:
                raise LensError(
                    f"{self._device.name}: expected a focus position of {low:g} to {high:g}, got {position:g}"
                )
            value = control.nearest(position)
            try:
                self._device.write(control, value)
                commanded_ns = self.clock.now_ns()
                self._position = float(value)
                self._read_back(control, value)
            except LensError:
                raise
            except CameraError as error:
                raise LensError(str(error)) from error
            return commanded_ns

    def _read_back(self, control: Control, value: int) -> None:
        """Some motors tell where they are instead of where they were sent: those are waited for."""
        waited_s = 0.0
        while (got := self._device.get(control)) != value:
            if waited_s >= _ARRIVED_BY_S:
                raise LensError(f"{self._device.name}: set {control} to {value}, reads back {got}")
            if self.clock.wait(self._closed, _READ_BACK_EVERY_S):
                raise LensError(f"{self._device.name}: closed")
            waited_s += _READ_BACK_EVERY_S

    @property
    def position_range(self) -> tuple[float, float]:
        control = self._focus()
        return (float(control.minimum), float(control.maximum))

    def nearest(self, position: float) -> float:
        return float(self._focus().nearest(position))

    def state(self) -> LensState:
        return LensState(self._position)

    @property
    def settle_ms(self) -> float | None:
        return self._settle_ms

    def _focus(self) -> Control:
        if not self._opened or self._control is None:
            raise LensError(f"{self._device.name}: focus motor closed")
        return self._control


def stop_auto_focus(device: V4L2Device) -> None:
    _set_if_present(device, cid.FOCUS_AUTO, 0)


def _set_if_present(device: V4L2Device, control_id: int, value: int) -> None:
    control = device.control(control_id)
    if control is not None:
        device.set(control, value)


def _found(device: V4L2Device, control_id: int) -> int | None:
    control = device.control(control_id)
    return None if control is None else device.get(control)


def _lock(
    device: V4L2Device, auto_id: int, value_id: int, wanted: int | None, found: int | None, parameter: str
) -> None:
    """Switch an automatic off, and write what was asked for, or else what it had found."""
    control = device.control(value_id)
    if control is None and wanted is not None:
        raise CameraError(f"{device.name}: expected a control for {parameter}, which is {wanted}, found none")
    _set_if_present(device, auto_id, 0)
    if control is not None and found is not None:
        device.set(control, control.nearest(found) if wanted is None else wanted)
