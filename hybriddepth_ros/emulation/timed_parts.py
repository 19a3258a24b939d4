"""An image source and a lens without devices, exact in time: for tests and benchmarks of the sweep.

Both live on one clock that only moves when somebody waits. Every picture says where the lens truly was while
it was exposed, so that whoever reads it can tell a frame that was given a wrong focus.
"""

from __future__ import annotations

import random
import threading
from collections import deque
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hybriddepth_ros.cameras.base import Clock, FrameTimeout
from hybriddepth_ros.cameras.lens import FocusLens, LensState
from hybriddepth_ros.cameras.source import ImageSource, RawFrame
from hybriddepth_ros.errors import CameraError, LensError

WIDTH, HEIGHT = 24, 2
_NEVER_NS = 1 << 62


class VirtualTime(Clock):
    """Waiting takes no time at all, but the clock says that it did; `set_by` sets it as ntpd would.

    steady_ns is the time that nobody can set: what devices live by.
    """

    def __init__(self, start_ns: int = 1_700_000_000_000_000_000) -> None:
        self.steady_ns = start_ns
        self._offset_ns = 0

    def now_ns(self) -> int:
        return self.steady_ns + self._offset_ns

    def offset_ns(self) -> int:
        return self._offset_ns

    def wait(self, event: threading.Event, seconds: float) -> bool:
        if not event.is_set():
            self.pass_ns(max(1, round(seconds * 1e9)))
        return event.is_set()

    def pass_ns(self, nanoseconds: int) -> None:
        self.steady_ns += nanoseconds

    def set_by(self, seconds: float) -> None:
        self._offset_ns += round(seconds * 1e9)


@dataclass(frozen=True)
class TimedOptions:
    """Of both parts; times in ms. drift_ppm: how much faster than told the sensor runs. jitter_ms: of the
    delivery, evenly spread. stray_ms: of the exposure's start, evenly spread. dropped: share of frames that
    the driver loses. hysteresis: how far above its target the lens stops when it comes from above [1/m].
    command_ms: how long a command takes to reach the lens. opening_ms: how long opening the camera takes.
    warm_c: the lens's temperature; hottest_c: it gives up.
    """

    frame_rate_hz: float = 60.0
    exposure_ms: float = 4.0
    readout_ms: float = 5.0
    delivery_ms: float = 3.0
    jitter_ms: float = 2.0
    stray_ms: float = 0.02
    dropped: float = 0.0
    buffers: int = 4
    drift_ppm: float = 80.0
    command_ms: float = 0.3
    opening_ms: float = 0.0
    dead_ms: float = 1.0
    move_ms: float = 3.0
    hysteresis: float = 0.0
    position_range: tuple[float, float] = (0.0, 5.0)
    warm_c: float = 30.0
    hottest_c: float = 60.0
    seed: int = 0

    @property
    def settle_ms(self) -> float:
        """From a command to standing still."""
        return self.dead_ms + self.move_ms

    @property
    def frames_per_slice(self) -> int:
        """What the sensor's rhythm allows at best: frames from one that counts to the next that can."""
        busy_ms = self.exposure_ms + self.readout_ms + self.command_ms + self.settle_ms
        return int(-(-busy_ms * self.frame_rate_hz // 1e3))

    @property
    def slice_rate_limit_hz(self) -> float:
        """Slices per second that no sweep of this pair can exceed."""
        return self.frame_rate_hz * (1.0 + 1e-6 * self.drift_ppm) / self.frames_per_slice


class Plug:
    """Whether a device is there, and whether it is let in; a time in which it is not may end by itself."""

    def __init__(self, name: str, clock: VirtualTime) -> None:
        self._name, self._clock = name, clock
        self._back_ns = self._free_ns = 0

    def pull(self, seconds: float | None = None) -> None:
        """Out, for so long or until it is put in."""
        self._back_ns = _NEVER_NS if seconds is None else self._clock.steady_ns + round(seconds * 1e9)

    def put_in(self) -> None:
        self._back_ns = 0

    def occupy(self, seconds: float) -> None:
        """Somebody else holds it: whoever opens it is refused for so long."""
        self._free_ns = self._clock.steady_ns + round(seconds * 1e9)

    @property
    def pulled(self) -> bool:
        return self._clock.steady_ns < self._back_ns

    def check(self, error: type[CameraError], opening: bool = False) -> None:
        if self.pulled:
            raise error(f"{self._name}: expected a device, found none")
        if opening and self._clock.steady_ns < self._free_ns:
            raise error(f"{self._name}: expected a device that is free, got busy")


class TimedLens(FocusLens):
    """Counts in diopters. After a command it stays for the dead time, then moves evenly, and stops: at its
    target when it came from below, above it by the hysteresis when it came from above.
    """

    def __init__(self, options: TimedOptions, clock: VirtualTime) -> None:
        self.clock = clock
        self.plug = Plug("lens timed", clock)
        self._hot_ns, self._hot_c = 0, options.warm_c
        self.rest = options.position_range[0]
        self._options, self._clock = options, clock
        self._told = self.rest
        self._open = False
        # (starts, from where, arrives, there), in steady time
        self._moves: deque[tuple[int, float, int, float]] = deque([(0, self.rest, 0, self.rest)], maxlen=256)

    def heat(self, temperature_c: float, seconds: float) -> None:
        """Make it so hot, for so long."""
        self._hot_ns, self._hot_c = self._clock.steady_ns + round(seconds * 1e9), temperature_c

    @property
    def temperature_c(self) -> float:
        return self._hot_c if self._clock.steady_ns < self._hot_ns else self._options.warm_c

    def open(self) -> None:
        self.plug.check(LensError, opening=True)
        self._open = True

    def close(self) -> None:
        if self._open and not self.plug.pulled:
            self._move(self.rest)
        self._open = False

    def command(self, position: float) -> int:
        self._check()
        low, high = self.position_range
        if not low <= position <= high:
            raise LensError(f"lens timed: expected a position of {low:g} to {high:g}, got {position:g}")
        self._clock.pass_ns(round(self._options.command_ms * 1e6))
        self._move(position)
        return self._clock.now_ns()

    def _move(self, position: float) -> None:
        starts = self._clock.steady_ns + round(self._options.dead_ms * 1e6)
        here = self.position_at(starts)
        there = position if position >= here else position + self._options.hysteresis
        if position == self._told:
            there = self.position_at(_NEVER_NS)  # told to stay
        self._told = position
        self._moves.append((starts, here, starts + round(self._options.move_ms * 1e6), there))

    def position_at(self, steady_ns: int) -> float:
        """Where it truly is."""
        starts, origin, arrives, target = next(
            (move for move in reversed(self._moves) if move[0] <= steady_ns), self._moves[0]
        )
        if steady_ns >= arrives:
            return target
        return origin + (target - origin) * (steady_ns - starts) / (arrives - starts)

    def extremes(self, start_ns: int, end_ns: int) -> tuple[float, float]:
        """Lowest and highest position between two times: those at the ends, and where a move began or
        ended.
        """
        times = [start_ns, end_ns]
        for starts, _, arrives, _ in self._moves:
            times += [time for time in (starts, arrives) if start_ns < time < end_ns]
        positions = [self.position_at(time) for time in times]
        return (min(positions), max(positions))

    def state(self) -> LensState:
        self._check()
        return LensState(self._told, self.temperature_c)

    def _check(self) -> None:
        if not self._open:
            raise LensError("lens timed: closed")
        self.plug.check(LensError)
        if self.temperature_c > self._options.hottest_c:
            self._move(self.rest)
            raise LensError(
                f"lens timed: expected at most {self._options.hottest_c:g} deg C, got {self.temperature_c:g}"
            )

    @property
    def position_range(self) -> tuple[float, float]:
        return self._options.position_range

    @property
    def settle_ms(self) -> float | None:
        return self._options.settle_ms


class TimedSource(ImageSource):
    """A free-running rolling-shutter sensor whose driver has so many buffers; stamps are turned into the
    system's time when a frame is read, as a driver that counts in steady time must.

    What arrives while the buffers are full is lost, as is what `dropped` says; both show as a gap.
    """

    def __init__(self, options: TimedOptions, clock: VirtualTime, lens: TimedLens) -> None:
        self.clock = clock
        self.plug = Plug("camera timed", clock)
        self._options, self._clock, self._lens = options, clock, lens
        self._random = random.Random(options.seed)
        self._period_ns = 1e9 / (options.frame_rate_hz * (1.0 + 1e-6 * options.drift_ppm))
        self._silent_ns = self._drop_next = self._late_frames = 0
        self._late_ns = 0
        self._closed = threading.Event()
        self._closed.set()
        self._first_ns = self._sequence = self._last_arrival_ns = 0
        self._next: tuple[int, int, int, int] | None = None  # arrives, sequence, start, end; in steady time
        self._buffers: deque[tuple[int, int, int, int]] = deque()

    # What goes wrong.

    def fall_silent(self, seconds: float) -> None:
        """Deliver nothing for so long; what is exposed meanwhile is lost."""
        self._silent_ns = self._clock.steady_ns + round(seconds * 1e9)

    def drop_next(self, frames: int) -> None:
        """Lose the next frames that the driver gets."""
        self._drop_next += frames

    def delay_next(self, frames: int, seconds: float) -> None:
        """The next frames come so much later, and what comes after them not before them."""
        self._late_frames, self._late_ns = frames, round(seconds * 1e9)

    # A source.

    def open(self) -> None:
        self.plug.check(CameraError, opening=True)
        self._clock.pass_ns(round(self._options.opening_ms * 1e6))
        self._first_ns, self._sequence = self._clock.steady_ns, 0
        self._next = None
        self._buffers.clear()
        self._closed.clear()

    def close(self) -> None:
        self._closed.set()

    def read(self, timeout_s: float = 1.0) -> RawFrame:
        deadline_ns = self._clock.steady_ns + round(timeout_s * 1e9)
        while True:
            if self._closed.is_set():
                raise CameraError("camera timed: closed")
            self.plug.check(CameraError)
            arrives_ns = self._arrive()
            if self._buffers:
                return self._frame(*self._buffers.popleft())
            if self._clock.steady_ns >= deadline_ns:
                raise FrameTimeout(f"camera timed: no frame within {timeout_s:g} s")
            until_ns = min(arrives_ns, deadline_ns)
            self._clock.wait(self._closed, 1e-9 * (until_ns - self._clock.steady_ns))

    def _arrive(self) -> int:
        """Put into the buffers what has arrived; when the next frame will arrive, at the earliest."""
        while True:
            self._next = self._next or self._expose()
            if self._next[0] > self._clock.steady_ns:
                return self._next[0]
            arrived, self._next = self._next, None
            dropped = self._random.random() < self._options.dropped or arrived[0] < self._silent_ns
            if self._drop_next:
                self._drop_next -= 1
                dropped = True
            if not dropped and len(self._buffers) < self._options.buffers:
                self._buffers.append(arrived)

    def _expose(self) -> tuple[int, int, int, int]:
        options, sequence = self._options, self._sequence
        self._sequence += 1
        stray_ms = self._random.uniform(0.0, options.stray_ms)
        start = self._first_ns + round(sequence * self._period_ns + stray_ms * 1e6)
        end = start + round((options.exposure_ms + options.readout_ms) * 1e6)
        delay_ms = options.delivery_ms + self._random.uniform(0.0, options.jitter_ms)
        arrives = end + round(delay_ms * 1e6)
        if self._late_frames:
            self._late_frames -= 1
            arrives += self._late_ns
        self._last_arrival_ns = max(arrives, self._last_arrival_ns + 1)  # in order
        return (self._last_arrival_ns, sequence, start, end)

    def _frame(self, _: int, sequence: int, start: int, end: int) -> RawFrame:
        image = truthful_image(*self._lens.extremes(start, end))
        offset = self._clock.offset_ns()
        return RawFrame(image, sequence, start + offset, end + offset)

    @property
    def frame_rate_hz(self) -> float:
        return self._options.frame_rate_hz

    @property
    def size(self) -> tuple[int, int]:
        return (WIDTH, HEIGHT)


def truthful_image(lowest: float, highest: float) -> npt.NDArray[np.uint8]:
    """[2, 24] grey: the bytes of both numbers."""
    image = np.zeros((HEIGHT, WIDTH), np.uint8)
    image[0, :16] = np.frombuffer(np.array([lowest, highest], np.float64).tobytes(), np.uint8)
    return image


def true_positions(image: npt.NDArray[np.uint8]) -> tuple[float, float]:
    """(lowest, highest) position of the lens while this picture was exposed."""
    lowest, highest = np.frombuffer(image[0, :16].tobytes(), np.float64)
    return (float(lowest), float(highest))
