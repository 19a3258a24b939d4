"""A bounded queue of swept frames that, when its reader is too slow, loses whole sweeps and counts them."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

from hybriddepth_ros.cameras.base import CameraFrame, FrameTimeout
from hybriddepth_ros.errors import CameraEnded, CameraError


@dataclass(frozen=True)
class SweptFrame:
    """A frame and its place in a sweep: slice `slice_index` of `slice_count`, in sweep `sweep_id`.

    settled: the lens stood still at `frame.focus_diopters` before the exposure began. commanded_ns,
    settled_ns: when the lens was sent there, for the last time, and from when on it stood still; 0 = unknown.
    """

    frame: CameraFrame
    sweep_id: int
    slice_index: int
    slice_count: int
    settled: bool
    commanded_ns: int = 0
    settled_ns: int = 0


class SweepQueue:
    """Frames in order, at most `capacity` sweeps and the one being written.

    When a sweep begins and the queue is full, the oldest sweep of which nothing was read yet makes room. A
    sweep that the reader has begun is never cut short.
    """

    def __init__(self, capacity: int = 2) -> None:
        self._capacity = max(1, capacity)
        self._frames: deque[SweptFrame] = deque()
        self._reading: int | None = None  # the sweep of the frame read last
        self._changed = threading.Condition()
        self._closed = False
        self._error: BaseException | None = None
        self.frames_dropped = 0
        self.sweeps_dropped = 0

    def put(self, frame: SweptFrame) -> None:
        with self._changed:
            self._frames.append(frame)
            waiting = list(dict.fromkeys(f.sweep_id for f in self._frames))
            if len(waiting) > self._capacity + 1:
                self._drop(next(sweep for sweep in waiting if sweep != self._reading))
            self._changed.notify_all()

    def _drop(self, sweep_id: int) -> None:
        kept = deque(f for f in self._frames if f.sweep_id != sweep_id)
        self.frames_dropped += len(self._frames) - len(kept)
        self.sweeps_dropped += 1
        self._frames = kept

    def get(self, timeout_s: float) -> SweptFrame:
        """The next frame; what is left is still given after `close`, then its error is raised."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._frames or self._closed, timeout_s):
                raise FrameTimeout(f"focus sweep: no frame within {timeout_s:g} s")
            if self._frames:
                frame = self._frames.popleft()
                self._reading = frame.sweep_id
                return frame
            if isinstance(self._error, CameraEnded):
                raise CameraEnded(str(self._error)) from self._error
            if self._error is not None:
                raise CameraError(f"focus sweep ended: {self._error}") from self._error
            raise CameraError("focus sweep: stopped")

    def close(self, error: BaseException | None) -> None:
        """No more frames will come; the first error given is kept."""
        with self._changed:
            self._closed = True
            self._error = self._error or error
            self._changed.notify_all()
