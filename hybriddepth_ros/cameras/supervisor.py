"""Keeps a focus sweep going: opens the camera, sweeps, and opens it again whenever it fails.

No device can hold it up: what hangs is left behind in a thread of its own, after a limit.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from hybriddepth_ros.cameras.base import Clock, FocusCamera, FrameTimeout, Progress
from hybriddepth_ros.cameras.sweep import FocusSweep, SweepOptions, SweptFrame
from hybriddepth_ros.cameras.sweep_patterns import Pattern, sawtooth
from hybriddepth_ros.errors import CameraEnded, CameraError

FIRST_REOPEN_DELAY_S = 0.25
# So that a camera that is plugged in again sweeps within 3 s, also one that first finds its exposure in 1 s.
LONGEST_REOPEN_DELAY_S = 1.0
_POLL_S = 0.1
# Stopping and closing are to be over within 1.5 s, also where a device hangs in both.
_SWEEP_STOP_LIMIT_S = 0.4
_CLOSE_LIMIT_S = 0.5
_STOP_LIMIT_S = 1.0
_log = logging.getLogger(__name__)


def _nothing(*_: object) -> None:
    pass


@dataclass(frozen=True)
class SweepListener:
    """What a supervisor tells, from its thread. frame: with the camera that took it. failed: the reason and
    the time to the next attempt [s]. unexpected: an exception that is no CameraError. recovered: a whole
    sweep came after a failure. finished: a recording has ended, which is no failure. warned: a device that
    hangs was left behind. progress: of what a camera does ahead of sweeping; may raise CameraError to end it.
    """

    frame: Callable[[SweptFrame, FocusCamera], None] = _nothing
    failed: Callable[[CameraError, float], None] = _nothing
    unexpected: Callable[[Exception], None] = _nothing
    recovered: Callable[[], None] = _nothing
    finished: Callable[[str], None] = _nothing
    warned: Callable[[str], None] = _nothing
    progress: Progress = _nothing


class SweepSupervisor:
    """`open` and `start` raise CameraError; from then on failures are told to the listener, and mended.

    make: an unopened camera, new for every attempt. positions: the foci to sweep [1/m], asked of an open
    camera. make_pattern: the order of the foci, anew whenever a sweep begins on a camera that was opened.
    reopen_delay_max_s: asked before each wait. in_thread: False sweeps in the thread that calls `step`, for a
    clock of one's own.
    """

    def __init__(
        self,
        make: Callable[[], FocusCamera],
        positions: Callable[[FocusCamera], Sequence[float]],
        options: SweepOptions | None = None,
        listener: SweepListener | None = None,
        *,
        make_pattern: Callable[[FocusCamera], Pattern] = lambda camera: sawtooth,
        reopen_delay_max_s: Callable[[], float] = lambda: LONGEST_REOPEN_DELAY_S,
        clock: Clock | None = None,
        in_thread: bool = True,
    ) -> None:
        self._make, self._positions = make, positions
        self._options, self._listener = options or SweepOptions(), listener or SweepListener()
        self._make_pattern = make_pattern
        self._reopen_delay_max_s, self._clock = reopen_delay_max_s, clock or Clock()
        self._in_thread = in_thread
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._camera: FocusCamera | None = None
        self._sweep: FocusSweep | None = None
        self._frames: Iterator[SweptFrame] = iter(())
        self._delay_s = FIRST_REOPEN_DELAY_S
        self._turns, self._turned_s = 0, 0.0
        self.error = ""  # why there are no frames; until a whole sweep came
        self.finished = ""  # why there are no more frames, when that is no failure

    # What the owner does.

    def open(self) -> None:
        """Take the device, and do what it needs ahead of sweeping (the simulated camera renders)."""
        stopping = self._stopping

        def progress(done: int, total: int) -> None:
            if stopping.is_set():
                raise CameraError("stopped while preparing the camera")
            self._listener.progress(done, total)

        camera = self._make()
        try:
            camera.open()
            camera.prepare(self._positions(camera), progress)
            if stopping.is_set():
                raise CameraError("stopped while opening the camera")
        except BaseException:
            self._close(camera, _CLOSE_LIMIT_S)
            raise
        self._camera = camera

    def start(self) -> None:
        """Sweep, and go on until `stop`."""
        self.error = self.finished = ""
        self._delay_s = FIRST_REOPEN_DELAY_S
        self._stopping = stop = threading.Event()
        self._begin()
        self._thread = threading.Thread(target=self._run, args=(stop,), name="sweep_supervisor", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """No more frames; the camera stays open unless it hangs. Returns within 1 s, whatever it does."""
        self._stopping.set()
        thread, self._thread = self._thread, None
        if thread is None:
            self._end_sweep()
        else:
            thread.join(_STOP_LIMIT_S)
            if thread.is_alive():  # in `open`, which closes what it opened too late, or in the listener
                self._tell(
                    self._listener.warned,
                    f"the sweep did not end within {_STOP_LIMIT_S:g} s and was left behind",
                )
                self._end_sweep(0.0)

    def close(self) -> None:
        """Release the camera; returns within 0.5 s more."""
        camera, self._camera = self._camera, None
        if camera is not None:
            self._close(camera, _CLOSE_LIMIT_S)

    # What any thread may ask.

    @property
    def stopping(self) -> bool:
        """Whether it was told to stop, and not to start again since."""
        return self._stopping.is_set()

    @property
    def sweep(self) -> FocusSweep | None:
        """The one that is running; None while the camera is broken or the supervisor is stopped."""
        return self._sweep

    @property
    def camera(self) -> FocusCamera | None:
        return self._camera

    # The work.

    def _run(self, stop: threading.Event) -> None:
        while not stop.is_set() and not self.finished:
            self.step()
        if self._stopping is stop:  # else it was left behind, and another one runs
            self._end_sweep()

    def step(self) -> SweptFrame | None:
        """One frame, or one failure dealt with, the wait for the next attempt included; None without a
        frame.
        """
        stop = self._stopping
        try:
            if self._sweep is None:
                self._begin()
            swept = self._next_frame()
            if swept is not None and self._camera is not None:
                self._listener.frame(swept, self._camera)
                if self.error and swept.slice_index == swept.slice_count - 1:
                    self.error, self._delay_s = "", FIRST_REOPEN_DELAY_S
                    self._listener.recovered()
            return swept
        except CameraEnded as end:
            self._give_up(stop)
            self.finished = f"finished: {end}"
            self._tell(self._listener.finished, self.finished)
        except CameraError as error:
            self._give_up(stop, str(error))
            if not stop.is_set():
                self._tell(self._listener.failed, error, self._delay_s)
                self._wait(stop)
        except Exception as error:
            self._give_up(stop, f"{type(error).__name__}: {error}")
            self._tell(self._listener.unexpected, error)
            self._wait(stop)
        return None

    def _tell(self, listener: Callable[..., None], *what: object) -> None:
        """What a listener raises ends neither the sweep nor the release of a device."""
        try:
            listener(*what)
        except Exception as error:
            _log.warning("listener of the sweep: %s: %s", type(error).__name__, error)

    def _warn(self, text: str) -> None:
        self._tell(self._listener.warned, text)

    def _begin(self) -> None:
        if self._camera is None:
            self.open()
        assert self._camera is not None
        pattern = self._make_pattern(self._camera)
        sweep = FocusSweep(self._camera, self._positions(self._camera), self._options, pattern)
        if self._in_thread:
            sweep.start(self._listener.progress)
        self._frames = sweep.frames()
        self._turns, self._turned_s = sweep.turns, time.monotonic()
        self._sweep = sweep

    def _next_frame(self) -> SweptFrame | None:
        sweep = self._sweep
        assert sweep is not None
        if not self._in_thread:
            return next(self._frames, None)
        try:
            return sweep.read(_POLL_S)
        except FrameTimeout:
            pass
        now_s = time.monotonic()
        if sweep.turns != self._turns:
            self._turns, self._turned_s = sweep.turns, now_s
        elif now_s - self._turned_s > sweep.frame_timeout_s:
            raise CameraError(f"camera: hangs, expected an answer within {sweep.frame_timeout_s:g} s")
        return None

    def _wait(self, stop: threading.Event) -> None:
        self._clock.wait(stop, self._delay_s)
        self._delay_s = min(2.0 * self._delay_s, self._reopen_delay_max_s())

    def _give_up(self, stop: threading.Event, error: str = "") -> None:
        if self._stopping is stop:  # else it was left behind, and another one runs
            self.error = error
            self._end_sweep()
            self.close()

    def _end_sweep(self, limit_s: float = _SWEEP_STOP_LIMIT_S) -> None:
        sweep, self._sweep = self._sweep, None
        if sweep is not None and not sweep.stop(limit_s):
            self._tell(
                self._listener.warned, f"the camera did not answer within {limit_s:g} s and was left behind"
            )
            camera, self._camera = self._camera, None  # whoever hangs in it must not be met again
            if camera is not None:
                self._close(camera, min(limit_s, _CLOSE_LIMIT_S))

    def _close(self, camera: FocusCamera, limit_s: float) -> None:
        """In a thread: closing may hang too."""
        failure: list[BaseException] = []

        def close() -> None:
            try:
                camera.close()
            except BaseException as error:
                failure.append(error)

        thread = threading.Thread(target=close, name="camera_close", daemon=True)
        thread.start()
        thread.join(limit_s)
        if thread.is_alive():
            self._warn(f"closing the camera took more than {limit_s:g} s: left behind")
        elif failure:
            self._warn(f"closing the camera: {failure[0]}")
