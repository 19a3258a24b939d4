"""The focus sweep: moves a camera's focus through a list of positions and takes one frame at each.

This is its outer half: its thread, and what others may ask of it. How the lens and the frames are kept in
step stands in sweep_engine.py.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType

from hybriddepth_ros.cameras.base import FocusCamera, Progress
from hybriddepth_ros.cameras.sweep_engine import Plan, SweepEngine, SweepOptions
from hybriddepth_ros.cameras.sweep_patterns import Pattern, sawtooth
from hybriddepth_ros.cameras.sweep_queue import SweepQueue, SweptFrame
from hybriddepth_ros.errors import CameraError

__all__ = ["FocusSweep", "SweepOptions", "SweepStatistics", "SweptFrame"]

_RATE_WINDOW = 60  # slices that the achieved rate is averaged over


@dataclass(frozen=True)
class SweepStatistics:
    """What a sweep has done since it was started; rates in slices per second.

    frames_discarded: not exposed wholly while the lens stood still. frames_lost: gaps in the camera's
    sequence. slices_retaken: the lens was sent on, and then no frame showed what it left.
    frames_dropped and sweeps_dropped: taken, but the reader of the queue was too slow. possible_rate_hz: what
    frame period, exposure and settle time allow, in stop_and_go also the delivery; 0 = not known yet.
    """

    slices: int = 0
    sweeps: int = 0
    frames_discarded: int = 0
    frames_lost: int = 0
    slices_retaken: int = 0
    frames_dropped: int = 0
    sweeps_dropped: int = 0
    achieved_rate_hz: float = 0.0
    possible_rate_hz: float = 0.0

    @property
    def rate_ratio(self) -> float:
        """Achieved over possible; 0 = not known yet."""
        return self.achieved_rate_hz / self.possible_rate_hz if self.possible_rate_hz else 0.0


class FocusSweep:
    """Sweeps an open camera through focus positions, again and again, in a thread of its own.

    `read` gives the frames in order. Holding a focus, new positions and captures take effect between sweeps.
    The queue keeps `queue_sweeps` sweeps; when the reader falls behind, the oldest sweep that it has not
    begun is dropped, whole. `pattern` gives the foci of each pass.
    """

    def __init__(
        self,
        camera: FocusCamera,
        focus_diopters: Sequence[float],
        options: SweepOptions | None = None,
        pattern: Pattern = sawtooth,
        *,
        queue_sweeps: int = 2,
        frame_timeout_s: float | None = None,
    ) -> None:
        self._camera = camera
        options = options or SweepOptions()
        self._options = options
        self._pattern = pattern
        self._positions = self._checked(focus_diopters)
        self._hold: float | None = None
        self.frame_timeout_s = frame_timeout_s or max(2.0, 10.0 / camera.frame_rate_hz)
        self._queue = SweepQueue(queue_sweeps)
        self._lock = threading.Lock()  # guards what other threads may ask for, and the counters
        self._capture: Future[list[SweptFrame]] | None = None
        self._capture_positions: tuple[float, ...] = ()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._running = False

        self._next_sweep_id = 0
        self._engine = SweepEngine(camera, options, self._stop, self._begin, self.frame_timeout_s)
        self._slices = self._sweeps = 0
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

    def stop(self, timeout_s: float | None = None) -> bool:
        """Stop sweeping; returns once the camera is not read any more; it stays open. Safe to call twice.

        timeout_s: wait at most so long; False if a device that hangs holds the thread still.
        """
        self._stop.set()
        self._queue.close(None)
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return True
        thread.join(timeout_s)
        if thread.is_alive():
            self._end_capture(CameraError("the camera hangs"))
        return not thread.is_alive()

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
    def focus_range_diopters(self) -> tuple[float, float]:
        """(far, near) [1/m] that can be swept, held and captured."""
        return self._options.focus_range(self._camera)

    @property
    def focus_diopters(self) -> tuple[float, ...]:
        """The positions of the full sweep, whatever the pattern and whether or not one focus is held now."""
        return self._positions

    @property
    def turns(self) -> int:
        """Grows as long as the camera answers, be it that there is no frame yet."""
        return self._engine.turns

    @property
    def held_diopters(self) -> float | None:
        """The focus that is held, or None while sweeping."""
        return self._hold

    def set_positions(self, focus_diopters: Sequence[float]) -> None:
        """Sweep these positions from the next sweep on."""
        positions = self._checked(focus_diopters)
        with self._lock:
            self._positions = positions

    def hold(self, focus_diopters: float) -> int:
        """After the sweep under way stay at one focus: every frame is then a sweep of one slice.

        Returns the sweep_id from which on frames show this focus.
        """
        (held,) = self._checked((focus_diopters,))
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
        positions = self._checked(focus_diopters) if len(focus_diopters) else self._positions
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
        return self.frame_timeout_s + 2.0 * (len(self._positions) + slices) / rate_hz

    @property
    def statistics(self) -> SweepStatistics:
        with self._lock:
            stamps = self._stamps_ns
            span_ns = stamps[-1] - stamps[0] if len(stamps) > 1 else 0
            return SweepStatistics(
                slices=self._slices,
                sweeps=self._sweeps,
                frames_discarded=self._engine.discarded,
                frames_lost=self._engine.lost,
                slices_retaken=self._engine.retaken,
                frames_dropped=self._queue.frames_dropped,
                sweeps_dropped=self._queue.sweeps_dropped,
                achieved_rate_hz=1e9 * (len(stamps) - 1) / span_ns if span_ns else 0.0,
                possible_rate_hz=self._engine.possible_rate_hz(self._positions, held=self._hold is not None),
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
        self._end_capture(error)

    def _end_capture(self, error: BaseException | None) -> None:
        with self._lock:
            self._running = False
            waiting, self._capture = self._capture, None
        if waiting is not None and not waiting.done() and waiting.set_running_or_notify_cancel():
            reason = f": {error}" if error else ""
            waiting.set_exception(CameraError(f"capture: the focus sweep ended{reason}"))

    def _step(self) -> SweptFrame | None:
        """One frame of the sweep; None when asked to stop, and for a frame that belongs to a capture."""
        taken = self._engine.next_frame()
        if taken is None:
            return None
        shot, frame = taken
        plan = shot.plan
        assert shot.settled_ns is not None
        swept = SweptFrame(
            frame,
            plan.sweep_id,
            shot.index,
            len(plan.focus_diopters),
            settled=True,
            commanded_ns=shot.commanded_ns,
            settled_ns=shot.settled_ns,
        )
        self._count(swept)
        if plan.capture is None:
            return swept
        plan.frames.append(swept)
        if len(plan.frames) == len(plan.focus_diopters) and plan.capture.set_running_or_notify_cancel():
            plan.capture.set_result(plan.frames)
        return None

    def _begin(self) -> Plan:
        with self._lock:
            sweep_id = self._next_sweep_id
            self._next_sweep_id += 1
            if self._capture is not None and self._capture_positions:
                plan = Plan(self._capture_positions, sweep_id, self._capture)
                self._capture_positions = ()
                return plan
            if self._hold is not None:
                return Plan((self._hold,), sweep_id)
            return Plan(self._checked(self._pattern(self._positions)), sweep_id)

    def _count(self, swept: SweptFrame) -> None:
        with self._lock:
            self._slices += 1
            self._sweeps += swept.slice_index == swept.slice_count - 1
            self._stamps_ns.append(swept.frame.stamp_ns)
            del self._stamps_ns[:-_RATE_WINDOW]

    def _checked(self, focus_diopters: Sequence[float]) -> tuple[float, ...]:
        positions = tuple(float(f) for f in focus_diopters)
        low, high = self.focus_range_diopters
        if not positions:
            raise CameraError("focus sweep: expected at least one focus position, got none")
        for position in positions:
            if not low <= position <= high:  # NaN too
                raise CameraError(
                    f"focus sweep: expected positions of {low:g} to {high:g} diopters, got {position:g}"
                )
        return positions
