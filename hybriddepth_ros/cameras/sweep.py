"""The focus sweep: moves a camera's focus through a list of positions and takes one frame at each.

The rule that everything rests on: a frame counts for a focus only if its exposure began when the lens already
stood still there. Everything older is discarded and counted.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import TracebackType

from hybriddepth_ros.cameras.base import CameraFrame, FocusCamera, FrameTimeout, Progress
from hybriddepth_ros.cameras.sweep_queue import SweepQueue, SweptFrame
from hybriddepth_ros.errors import CameraError

__all__ = ["FocusSweep", "SweepStatistics", "SweptFrame"]

_POLL_S = 0.1  # how long the camera is waited for before looking whether to stop
_RATE_WINDOW = 60  # slices that the achieved rate is averaged over


@dataclass(frozen=True)
class SweepStatistics:
    """What a sweep has done since it was started; rates in slices per second.

    frames_discarded: exposed before the lens stood still. frames_lost: gaps in the camera's sequence.
    frames_dropped and sweeps_dropped: taken, but the reader of the queue was too slow. possible_rate_hz: what
    frame period, delivery and settle time allow; 0 = not known yet.
    """

    slices: int = 0
    sweeps: int = 0
    frames_discarded: int = 0
    frames_lost: int = 0
    frames_dropped: int = 0
    sweeps_dropped: int = 0
    achieved_rate_hz: float = 0.0
    possible_rate_hz: float = 0.0


@dataclass(frozen=True)
class _Plan:
    """The focus positions of one sweep; `capture`: who waits for its frames instead of the queue."""

    focus_diopters: tuple[float, ...]
    capture: Future[list[SweptFrame]] | None = None

    @property
    def abandoned(self) -> bool:
        """Nobody waits for it any more."""
        return self.capture is not None and self.capture.cancelled()


@dataclass
class _Progress:
    """Where the sweep under way stands."""

    plan: _Plan
    sweep_id: int
    frames: list[SweptFrame] = field(default_factory=list)

    @property
    def focus_diopters(self) -> float:
        return self.plan.focus_diopters[len(self.frames)]


class FocusSweep:
    """Sweeps an open camera through focus positions, again and again, in a thread of its own.

    `read` gives the frames in order. Holding a focus, new positions and captures take effect between sweeps.
    The queue keeps `queue_sweeps` sweeps; when the reader falls behind, the oldest sweep that it has not
    begun is dropped, whole.
    """

    def __init__(
        self,
        camera: FocusCamera,
        focus_diopters: Sequence[float],
        *,
        queue_sweeps: int = 2,
        frame_timeout_s: float | None = None,
    ) -> None:
        self._camera = camera
        self._positions = _checked(focus_diopters, camera)
        self._hold: float | None = None
        self._frame_timeout_s = frame_timeout_s or max(2.0, 10.0 / camera.frame_rate_hz)
        self._queue = SweepQueue(queue_sweeps)
        self._lock = threading.Lock()  # guards what other threads may ask for, and the counters
        self._capture: Future[list[SweptFrame]] | None = None
        self._capture_positions: tuple[float, ...] = ()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._running = False

        self._current: _Progress | None = None
        self._next_sweep_id = 0
        self._commanded: float | None = None
        self._settled_ns = 0
        self._settle_time_ns: int | None = None  # shortest seen, as the camera states it
        self._delivery_ns: int | None = None  # shortest seen, from the exposure's start to the reader
        self._last_sequence: int | None = None
        self._slices = self._sweeps = self._discarded = self._lost = 0
        self._stamps_ns: list[int] = []

    # What the owner of the sweep does.

    def start(self, progress: Progress | None = None) -> None:
        """Prepare the camera, which may take seconds, and begin to sweep."""
        if self._thread is not None:
            raise CameraError("focus sweep: already started")
        self._camera.prepare(self._positions, progress)
        self._running = True
        self._thread = threading.Thread(target=self._run, name="focus_sweep", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop sweeping; returns once the camera is not read any more; it stays open. Safe to call twice."""
        self._stop.set()
        self._queue.close(None)
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def read(self, timeout_s: float = 1.0) -> SweptFrame:
        """The next frame in order; FrameTimeout after `timeout_s`, CameraError once the sweep ended."""
        return self._queue.get(timeout_s)

    def __enter__(self) -> FocusSweep:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # What any thread may ask for.

    @property
    def focus_diopters(self) -> tuple[float, ...]:
        """The positions of the sweep, whether or not one focus is held now."""
        return self._positions

    @property
    def held_diopters(self) -> float | None:
        """The focus that is held, or None while sweeping."""
        return self._hold

    def set_positions(self, focus_diopters: Sequence[float]) -> None:
        """Sweep these positions from the next sweep on."""
        positions = _checked(focus_diopters, self._camera)
        with self._lock:
            self._positions = positions

    def hold(self, focus_diopters: float) -> int:
        """After the sweep under way stay at one focus: every frame is then a sweep of one slice.

        Returns the sweep_id from which on frames show this focus.
        """
        (held,) = _checked((focus_diopters,), self._camera)
        with self._lock:
            self._hold = held
            return self._next_sweep_id

    def resume(self) -> None:
        """Sweep again."""
        with self._lock:
            self._hold = None

    def capture(self, focus_diopters: Sequence[float] = (), timeout_s: float = 10.0) -> list[SweptFrame]:
        """One sweep of its own over these positions (none given: those of the sweep), between two sweeps.

        Its frames come back here and not through `read`. One capture at a time; a second is refused.
        """
        positions = _checked(focus_diopters, self._camera) if len(focus_diopters) else self._positions
        future: Future[list[SweptFrame]] = Future()
        with self._lock:
            if self._capture is not None:
                raise CameraError("capture: another capture is running")
            if not self._running:
                raise CameraError("capture: the focus sweep is not running")
            self._capture, self._capture_positions = future, positions
        try:
            return future.result(timeout_s)
        except TimeoutError:
            if not future.cancel():  # it came at the last moment
                return future.result()
            raise CameraError(f"capture: no complete stack within {timeout_s:g} s") from None
        finally:
            with self._lock:
                if self._capture is future:
                    self._capture = None

    def time_for_s(self, slices: int) -> float:
        """How long so many slices may take at most, the sweep under way included, with time to spare [s]."""
        rate_hz = self.statistics.possible_rate_hz or self._camera.frame_rate_hz
        return self._frame_timeout_s + 2.0 * (len(self._positions) + slices) / rate_hz

    @property
    def statistics(self) -> SweepStatistics:
        with self._lock:
            stamps = self._stamps_ns
            span_ns = stamps[-1] - stamps[0] if len(stamps) > 1 else 0
            return SweepStatistics(
                slices=self._slices,
                sweeps=self._sweeps,
                frames_discarded=self._discarded,
                frames_lost=self._lost,
                frames_dropped=self._queue.frames_dropped,
                sweeps_dropped=self._queue.sweeps_dropped,
                achieved_rate_hz=1e9 * (len(stamps) - 1) / span_ns if span_ns else 0.0,
                possible_rate_hz=self._possible_rate(),
            )

    def _possible_rate(self) -> float:
        """A command follows a frame's delivery, and the next frame must begin after it has settled."""
        if self._settle_time_ns is None or self._delivery_ns is None:
            return 0.0
        period_ns = 1e9 / self._camera.frame_rate_hz
        return self._camera.frame_rate_hz / max(
            1, math.ceil((self._delivery_ns + self._settle_time_ns) / period_ns)
        )

    # The sweep itself.

    def frames(self) -> Iterator[SweptFrame]:
        """The sweep without its thread: settled frames in order, for as long as they are taken."""
        while not self._stop.is_set():
            frame = self._step()
            if frame is not None:
                yield frame

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            for frame in self.frames():
                self._queue.put(frame)
        except BaseException as problem:  # kept for the reader, which is where it can be dealt with
            error = problem
        self._queue.close(error)
        with self._lock:
            self._running = False
            waiting = self._capture
        if waiting is not None and not waiting.done() and waiting.set_running_or_notify_cancel():
            reason = f": {error}" if error else ""
            waiting.set_exception(CameraError(f"capture: the focus sweep ended{reason}"))

    def _step(self) -> SweptFrame | None:
        """One frame of the sweep; None when asked to stop, and for a frame that belongs to a capture."""
        if self._current is None or self._current.plan.abandoned:
            self._begin_next()
        current = self._current
        assert current is not None
        frame = self._next_settled_frame()
        if frame is None:
            return None
        plan = current.plan
        swept = SweptFrame(
            frame, current.sweep_id, len(current.frames), len(plan.focus_diopters), settled=True
        )
        current.frames.append(swept)
        # The lens is sent on before anybody looks at the frame: what is left of the frame period is its time
        # to settle.
        if len(current.frames) == len(plan.focus_diopters):
            self._begin_next()
        else:
            self._command(current.focus_diopters)
        self._count(swept)
        if plan.capture is None:
            return swept
        if len(current.frames) == len(plan.focus_diopters) and plan.capture.set_running_or_notify_cancel():
            plan.capture.set_result(current.frames)
        return None

    def _begin_next(self) -> None:
        with self._lock:
            if self._capture is not None and self._capture_positions:
                plan = _Plan(self._capture_positions, self._capture)
                self._capture_positions = ()
            else:
                plan = _Plan(self._positions if self._hold is None else (self._hold,))
            self._current = _Progress(plan, self._next_sweep_id)
            self._next_sweep_id += 1
        self._command(plan.focus_diopters[0])

    def _command(self, focus_diopters: float) -> None:
        if focus_diopters == self._commanded:
            return
        now_ns = self._camera.clock.now_ns()
        self._settled_ns = self._camera.command_focus(focus_diopters)
        self._commanded = focus_diopters
        settle_ns = self._settled_ns - now_ns
        self._settle_time_ns = (
            settle_ns if self._settle_time_ns is None else min(settle_ns, self._settle_time_ns)
        )

    def _next_settled_frame(self) -> CameraFrame | None:
        waited_s = 0.0
        while not self._stop.is_set():
            try:
                frame = self._camera.read(min(_POLL_S, self._frame_timeout_s))
            except FrameTimeout as timeout:
                waited_s += _POLL_S
                if waited_s >= self._frame_timeout_s:
                    raise CameraError(f"{timeout}, nor any within {self._frame_timeout_s:g} s") from timeout
                continue
            waited_s = 0.0
            delivery_ns = self._camera.clock.now_ns() - frame.exposure_start_ns
            with self._lock:
                self._delivery_ns = (
                    delivery_ns if self._delivery_ns is None else min(delivery_ns, self._delivery_ns)
                )
                if self._last_sequence is not None:
                    self._lost += max(0, frame.sequence - self._last_sequence - 1)
                    self._last_sequence = frame.sequence
                if frame.exposure_start_ns >= self._settled_ns:
                    self._last_sequence = (
                        frame.sequence
                    )  # what came before the sweep's first frame was nobody's
                    return frame
                self._discarded += self._last_sequence is not None
        return None

    def _count(self, swept: SweptFrame) -> None:
        with self._lock:
            self._slices += 1
            self._sweeps += swept.slice_index == swept.slice_count - 1
            self._stamps_ns.append(swept.frame.stamp_ns)
            del self._stamps_ns[:-_RATE_WINDOW]


def _checked(focus_diopters: Sequence[float], camera: FocusCamera) -> tuple[float, ...]:
    positions = tuple(float(f) for f in focus_diopters)
    low, high = camera.focus_range_diopters
    if not positions:
        raise CameraError("focus sweep: expected at least one focus position, got none")
    for position in positions:
        if not low <= position <= high:  # NaN too
            raise CameraError(
                f"focus sweep: expected positions of {low:g} to {high:g} diopters, got {position:g}"
            )
    return positions
