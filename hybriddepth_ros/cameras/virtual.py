"""What cameras without a device share: a free-running sensor, a lens that takes time to move, frame buffers.

Nothing runs in the background: when a frame is asked for, what a real sensor and lens would have done until
then is worked out from the clock and from the focus commands. So the timing is exact, and a test may bring
its own clock.
"""

from __future__ import annotations

import math
import threading
from abc import abstractmethod
from collections import deque
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hybriddepth_ros.cameras.base import CameraFrame, Clock, FocusCamera, FrameTimeout
from hybriddepth_ros.errors import CameraError
from hybriddepth_ros.focal_stack import CameraIntrinsics

_TINY_MOVE_DIOPTERS = 1e-4  # a lens that is told to stay where it is does not ring


@dataclass(frozen=True)
class SensorTiming:
    """Exposure, readout and the lens's settle time [ms]; buffers: frames kept for a slow reader."""

    frame_rate_hz: float
    exposure_ms: float
    readout_ms: float
    settle_ms: float
    buffers: int = 4

    def check(self, camera: str) -> None:
        """CameraError if the sensor could not run like this."""
        if self.exposure_ms > 1e3 / self.frame_rate_hz:
            raise CameraError(
                f"camera {camera}: expected exposure_ms within the frame period, "
                f"{1e3 / self.frame_rate_hz:.1f} ms, got {self.exposure_ms:g}"
            )


@dataclass(frozen=True)
class LensMotion:
    """Focus over one exposure [1/m]: where the lens came from, where it went, the mean; equal at rest."""

    origin_diopters: float
    target_diopters: float
    mean_diopters: float

    @property
    def still(self) -> bool:
        return self.origin_diopters == self.target_diopters


@dataclass(frozen=True)
class Picture:
    """What a virtual camera shows in one exposure; fields as in CameraFrame. Read-only: it is shown again."""

    image: npt.NDArray[np.uint8]
    focus_diopters: float
    camera: CameraIntrinsics
    ground_truth_depth: npt.NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        self.image.setflags(write=False)
        if self.ground_truth_depth is not None:
            self.ground_truth_depth.setflags(write=False)


class VirtualLens:
    """A lens that moves evenly from where it is to where it is sent, in `settle_ns`."""

    def __init__(self, focus_diopters: float, settle_ns: int) -> None:
        self.settle_ns = settle_ns
        self._moves: deque[tuple[int, float, int, float]] = deque([(0, focus_diopters, 0, focus_diopters)])

    def command(self, now_ns: int, focus_diopters: float) -> int:
        """When it will stand still there."""
        here = self.position(now_ns)
        if abs(focus_diopters - here) < _TINY_MOVE_DIOPTERS and now_ns >= self._moves[-1][2]:
            arrival = now_ns
        else:
            arrival = now_ns + self.settle_ns
        self._moves.append((now_ns, here, arrival, focus_diopters))
        return arrival

    def position(self, time_ns: int) -> float:
        """Focus at a time [1/m]."""
        start, origin, arrival, target = next(
            (m for m in reversed(self._moves) if m[0] <= time_ns), self._moves[0]
        )
        if time_ns >= arrival:
            return target
        return origin + (target - origin) * (time_ns - start) / (arrival - start)

    def motion(self, start_ns: int, end_ns: int) -> LensMotion:
        """Over an exposure. Exposures are asked for in order: moves from before this one are forgotten."""
        while len(self._moves) > 1 and self._moves[1][0] <= start_ns:
            self._moves.popleft()
        moving = [m for m in self._moves if m[0] < end_ns and m[2] > start_ns and m[1] != m[3]]
        if not moving:
            here = self.position(end_ns)
            return LensMotion(here, here, here)
        samples = [self.position(start_ns + (end_ns - start_ns) * i // 16) for i in range(17)]
        return LensMotion(moving[0][1], moving[-1][3], math.fsum(samples) / len(samples))


class VirtualCamera(FocusCamera):
    """Delivers pictures of `_expose` with the timing of a real, free-running camera.

    Frame n's exposure starts n periods after `open`; it is delivered after exposure and readout. A reader
    that is slow finds up to `buffers` frames waiting; what comes while they are full is lost and shows as a
    gap in `sequence`.
    """

    def __init__(
        self, name: str, timing: SensorTiming, focus_diopters: float, clock: Clock | None = None
    ) -> None:
        timing.check(name)
        if clock is not None:
            self.clock = clock
        self._name = name
        self._timing = timing
        self._period_ns = round(1e9 / timing.frame_rate_hz)
        self._exposure_ns = round(timing.exposure_ms * 1e6)
        self._delivery_ns = round(
            (timing.exposure_ms + timing.readout_ms) * 1e6
        )  # after the exposure's start
        self._lens = VirtualLens(focus_diopters, round(timing.settle_ms * 1e6))
        self._lock = threading.Lock()  # guards the lens
        self._closed = threading.Event()
        self._closed.set()
        self._opened_ns = 0
        self._next_sequence = 0  # the first frame that has not arrived in a buffer yet
        self._buffers: deque[int] = deque()

    @abstractmethod
    def _expose(self, sequence: int, lens: LensMotion) -> Picture:
        """The picture of frame `sequence`."""

    def _rest(self, focus_diopters: float) -> None:
        """Where the lens is to stand when the camera is opened; no effect while it is open."""
        with self._lock:
            if self._closed.is_set():
                self._lens = VirtualLens(focus_diopters, self._lens.settle_ns)

    @property
    def frame_rate_hz(self) -> float:
        return self._timing.frame_rate_hz

    def open(self) -> None:
        self._opened_ns = self.clock.now_ns()
        self._next_sequence = 0
        self._buffers.clear()
        self._closed.clear()

    def close(self) -> None:
        self._closed.set()

    def command_focus(self, focus_diopters: float) -> int:
        low, high = self.focus_range_diopters
        if not low <= focus_diopters <= high:
            raise CameraError(
                f"camera {self._name}: expected a focus of {low:g} to {high:g} diopters, "
                f"got {focus_diopters:g}"
            )
        with self._lock:
            return self._lens.command(self.clock.now_ns(), self._target(focus_diopters))

    def _target(self, focus_diopters: float) -> float:
        """Where the lens goes when told to go there."""
        return focus_diopters

    def read(self, timeout_s: float = 1.0) -> CameraFrame:
        deadline_ns = self.clock.now_ns() + round(timeout_s * 1e9)
        while True:
            if self._closed.is_set():
                raise CameraError(f"camera {self._name}: closed")
            self._fill_buffers()
            if self._buffers:
                return self._frame(self._buffers.popleft())
            arrival_ns = self._start_ns(self._next_sequence) + self._delivery_ns
            now_ns = self.clock.now_ns()
            if now_ns >= deadline_ns:
                raise FrameTimeout(f"camera {self._name}: no frame within {timeout_s:g} s")
            self.clock.wait(self._closed, max(1, min(arrival_ns, deadline_ns) - now_ns) * 1e-9)

    def _start_ns(self, sequence: int) -> int:
        return self._opened_ns + sequence * self._period_ns

    def _fill_buffers(self) -> None:
        """Put in the buffers what has arrived since the last call; what finds none free is lost."""
        arrived = (
            self.clock.now_ns() - self._opened_ns - self._delivery_ns
        ) // self._period_ns  # the last one
        while self._next_sequence <= arrived and len(self._buffers) < self._timing.buffers:
            self._buffers.append(self._next_sequence)
            self._next_sequence += 1
        self._next_sequence = max(self._next_sequence, arrived + 1)

    def _frame(self, sequence: int) -> CameraFrame:
        start_ns = self._start_ns(sequence)
        with self._lock:
            motion = self._lens.motion(start_ns, start_ns + self._exposure_ns)
        picture = self._expose(sequence, motion)
        return CameraFrame(
            image=picture.image,
            sequence=sequence,
            exposure_start_ns=start_ns,
            stamp_ns=start_ns + self._exposure_ns // 2,
            focus_diopters=picture.focus_diopters,
            actuator_position=picture.focus_diopters,  # a lens without a motor of its own counts in diopters
            camera=picture.camera,
            ground_truth_depth=picture.ground_truth_depth,
            exposure_end_ns=start_ns + self._exposure_ns,
        )
