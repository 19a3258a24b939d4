"""The emulated bench's camera as an image source and a focus lens, on a clock that nobody waits for."""

from __future__ import annotations

import threading

from hybriddepth_ros.cameras.base import Clock, FrameTimeout
from hybriddepth_ros.cameras.lens import FocusLens, LensState
from hybriddepth_ros.cameras.source import ImageSource, RawFrame
from hybriddepth_ros.emulation.bench import EmulatedBench
from hybriddepth_ros.errors import CameraError, LensError

_BEGIN_NS = 1_000_000_000_000


class VirtualClock(Clock):
    """Time passes only when someone waits, and then at once."""

    def __init__(self) -> None:
        self._now_ns = _BEGIN_NS

    def now_ns(self) -> int:
        return self._now_ns

    def wait(self, event: threading.Event, seconds: float) -> bool:
        if not event.is_set():
            self._now_ns += max(0, round(seconds * 1e9))
        return event.is_set()


class EmulatedSource(ImageSource):
    """Frames of the bench at its frame rate. A slow reader finds the newest; the others are lost (a gap)."""

    def __init__(self, bench: EmulatedBench, clock: Clock) -> None:
        self.clock = clock
        self._bench = bench
        truth = bench.truth
        self._period_ns = round(1e9 / truth.frame_rate_hz)
        self._exposure_ns = round(truth.exposure_ms * 1e6)
        self._delivery_ns = self._exposure_ns // 2 + round(truth.latency_ms * 1e6)  # after the start
        self._opened_ns = 0
        self._next = 0
        self._closed = threading.Event()
        self._closed.set()

    def open(self) -> None:
        self._opened_ns = self.clock.now_ns()
        self._next = 0
        self._closed.clear()

    def close(self) -> None:
        self._closed.set()

    def read(self, timeout_s: float = 1.0) -> RawFrame:
        deadline_ns = self.clock.now_ns() + round(timeout_s * 1e9)
        while True:
            if self._closed.is_set():
                raise CameraError("camera emulated: closed")
            now_ns = self.clock.now_ns()
            arrival_ns = self._opened_ns + self._next * self._period_ns + self._delivery_ns
            if arrival_ns <= now_ns:
                return self._frame((now_ns - arrival_ns) // self._period_ns)
            if now_ns >= deadline_ns:
                raise FrameTimeout(f"camera emulated: no frame within {timeout_s:g} s")
            self.clock.wait(self._closed, (min(arrival_ns, deadline_ns) - now_ns) * 1e-9)

    def _frame(self, lost: int) -> RawFrame:
        """The newest frame, before which so many went by unread."""
        self._next += lost
        start_ns = self._opened_ns + self._next * self._period_ns
        end_ns = start_ns + self._exposure_ns
        frame = RawFrame(self._bench.picture(start_ns, end_ns), self._next, start_ns, end_ns)
        self._next += 1
        return frame

    @property
    def frame_rate_hz(self) -> float:
        return self._bench.truth.frame_rate_hz

    @property
    def size(self) -> tuple[int, int]:
        return (self._bench.truth.camera.width, self._bench.truth.camera.height)


class EmulatedMotor(FocusLens):
    """The bench's focus motor; whole positions only, as UVC has them."""

    def __init__(self, bench: EmulatedBench, clock: Clock) -> None:
        self.clock = clock
        self._bench = bench
        self._position: float = bench.truth.actuator_range[0]
        self._opened = False

    def open(self) -> None:
        self._opened = True

    def close(self) -> None:
        self._opened = False

    def command(self, position: float) -> int:
        low, high = self.position_range
        if not self._opened:
            raise LensError("lens emulated: closed")
        if not low <= position <= high:
            raise LensError(f"lens emulated: expected a position of {low:g} to {high:g}, got {position:g}")
        now_ns = self.clock.now_ns()
        self._position = float(round(position))
        self._bench.command(self._position, now_ns)
        return now_ns

    @property
    def position_range(self) -> tuple[float, float]:
        return self._bench.truth.actuator_range

    def state(self) -> LensState:
        return LensState(self._position)
