"""The sweep's inner half: when the lens is sent on, and which frame shows which focus.

The rule that everything rests on: a frame counts for a focus only if its exposure began when the lens already
stood still there, and ended before the lens was sent on. Everything else is discarded and counted.
"""

from __future__ import annotations

import math
import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from hybriddepth_ros.cameras.base import CameraFrame, FocusCamera, FrameTimeout
from hybriddepth_ros.cameras.frame_timing import FrameTiming
from hybriddepth_ros.cameras.sweep_queue import SweptFrame
from hybriddepth_ros.errors import CameraError

STOP_AND_GO = "stop_and_go"
FREE_RUNNING = "free_running"
SWEEP_MODES = (STOP_AND_GO, FREE_RUNNING)
ANY_WAY = "any"
RISING = "rising"
APPROACHES = (ANY_WAY, RISING)

_POLL_S = 0.1  # how long the camera is waited for before looking whether to stop
_SHORTEST_WAIT_S = 1e-5
_MOST_SENT = 8  # moves ahead of the frames that are delivered, before the lens waits for them
_CLOCK_STEP_NS = 1_000_000  # slewing a clock moves it less than this between two looks


@dataclass(frozen=True)
class SweepOptions:
    """mode: stop_and_go sends the lens on when a frame was delivered, free_running when its exposure is over
    by the camera's own rhythm. approach: any = the shortest way; rising = every focus from below, a falling
    move goes overshoot_diopters too far first.
    """

    mode: str = STOP_AND_GO
    approach: str = ANY_WAY
    overshoot_diopters: float = 0.2

    def __post_init__(self) -> None:
        for name, known in (("mode", SWEEP_MODES), ("approach", APPROACHES)):
            if getattr(self, name) not in known:
                raise CameraError(
                    f"focus sweep: expected {name} as one of {', '.join(known)}, got {getattr(self, name)!r}"
                )

    def focus_range(self, camera: FocusCamera) -> tuple[float, float]:
        """(far, near) [1/m] that can be swept: what is approached from below needs room there."""
        low, high = camera.focus_range_diopters
        return (low + self.overshoot_diopters if self.approach == RISING else low, high)


@dataclass(frozen=True)
class Plan:
    """The focus positions of one sweep; `capture`: who waits for its frames instead of the queue."""

    focus_diopters: tuple[float, ...]
    sweep_id: int
    capture: Future[list[SweptFrame]] | None = None
    frames: list[SweptFrame] = field(default_factory=list)

    @property
    def abandoned(self) -> bool:
        """Nobody waits for it any more."""
        return self.capture is not None and self.capture.cancelled()


@dataclass(eq=False)
class Shot:
    """One slice to be taken: the lens stands still from settled_ns (None = it does not yet) to closed_ns,
    when it was sent on (None = it stays for now).
    """

    plan: Plan
    index: int
    commanded_ns: int = 0
    settled_ns: int | None = None
    closed_ns: int | None = None

    @property
    def focus_diopters(self) -> float:
        return self.plan.focus_diopters[self.index]


class SweepEngine:
    """Moves the lens and tags frames, in one thread; `begin` gives the next sweep when the last is on its
    way.

    Counters may be read by any thread.
    """

    def __init__(
        self,
        camera: FocusCamera,
        options: SweepOptions,
        stop: threading.Event,
        begin: Callable[[], Plan],
        frame_timeout_s: float,
    ) -> None:
        self._camera, self._options, self._stop, self._begin = camera, options, stop, begin
        self._frame_timeout_s = frame_timeout_s
        self._period_ns = 1e9 / camera.frame_rate_hz
        self._timing = FrameTiming()
        self._todo: deque[Shot] = deque()
        self._sent: deque[Shot] = deque()  # in order; the first is the next to get a frame
        self._there: float | None = None  # the focus that the lens was sent to; None on the way below it
        self._rising_from: float | None = None  # no move to here or higher comes from above
        self._commanded_ns = self._settled_ns = 0
        self._turning = False  # on the way below the focus of the last shot, from where it is approached
        self._move_began_ns = 0
        self._move_ns: dict[float, int] = {}  # by focus: from the first command to standing still, shortest
        self._delivery_ns: int | None = None  # shortest seen, from the exposure's start to the reader
        self._span_ns = 0
        self._last_sequence: int | None = None
        self._last_start_ns = 0
        self._last_offset_ns: int | None = None
        self._spoiled: Counter[str] = Counter()  # by reason, frames since the last that counted
        self._newest_spoiled = ""
        self.discarded = self.lost = self.retaken = 0
        self.turns = 0  # of the loop that asks the device; stands still while it hangs

    def next_frame(self) -> tuple[Shot, CameraFrame] | None:
        """The next slice and its frame, with the lens already sent on where it is time; None once stopped."""
        waited_s = 0.0
        if self._last_offset_ns is None:
            self._check_clock()
        while not self._stop.is_set():
            self.turns += 1
            wait_s = min(self._send_due(), self._frame_timeout_s)
            try:
                frame = self._camera.read(wait_s)
            except FrameTimeout as timeout:
                self._check_clock()
                waited_s += wait_s
                if waited_s >= self._frame_timeout_s:
                    raise CameraError(f"{timeout}, nor any within {self._frame_timeout_s:g} s") from timeout
                continue
            self._check_clock()
            waited_s = 0.0
            shot = self._shot_of(frame)
            if shot is not None:
                self._spoiled.clear()
                self._send_due()
                return shot, frame
            self._spoil()
        return None

    def possible_rate_hz(self, focus_diopters: Sequence[float], held: bool) -> float:
        """What frame period, exposure and settle time allow for a sweep over these; 0 = not known yet.

        In stop_and_go the lens also waits for the delivery of each frame.
        """
        if self._delivery_ns is None or not self._move_ns:
            return 0.0
        if held:
            return 1e9 / self._period_ns
        busy_ns = self._delivery_ns if self._options.mode == STOP_AND_GO else self._span_ns
        usual_ns = min(self._move_ns.copy().values())
        frames = [
            max(1, math.ceil((busy_ns + self._move_ns.get(focus, usual_ns)) / self._period_ns - 1e-6))
            for focus in focus_diopters
        ]
        return 1e9 * len(frames) / (sum(frames) * self._period_ns)

    # Commands.

    def _send_due(self) -> float:
        """Send every command whose time has come; how long nothing is to be sent [s]."""
        self._drop_abandoned()
        while (due_ns := self._due_ns()) is not None:
            wait_ns = due_ns - self._camera.clock.now_ns()
            if wait_ns > 0:
                return min(_POLL_S, max(_SHORTEST_WAIT_S, wait_ns * 1e-9))
            if self._turning:
                self._turning = False
                self._finish(self._sent[-1], self._move_began_ns)
            else:
                self._send_next()
        return _POLL_S

    def _due_ns(self) -> int | None:
        """When the next command is to be sent; None = not before another frame was delivered."""
        if self._turning:
            return self._settled_ns
        if not self._sent:
            return self._settled_ns  # turned round half-way, nobody knows from which side the lens came
        if self._options.mode == STOP_AND_GO or len(self._sent) >= _MOST_SENT:
            return None
        last = self._sent[-1]
        if self._next_shot().focus_diopters == last.focus_diopters:
            return None  # no time tells apart the frames of one focus
        assert last.settled_ns is not None
        return self._timing.end_of_first_from(last.settled_ns)

    def _next_shot(self) -> Shot:
        if not self._todo:
            plan = self._begin()
            self._todo.extend(Shot(plan, index) for index in range(len(plan.focus_diopters)))
        return self._todo[0]

    def _send_next(self) -> None:
        shot = self._next_shot()
        self._todo.popleft()
        focus = shot.focus_diopters
        if focus == self._there:
            shot.commanded_ns, shot.settled_ns = self._commanded_ns, self._settled_ns
            self._sent.append(shot)
            return
        began_ns = self._camera.clock.now_ns()  # before the command: the lens may move before it returns
        if self._sent and self._sent[-1].closed_ns is None:
            self._sent[-1].closed_ns = began_ns
        self._sent.append(shot)
        if self._options.approach == RISING and (self._rising_from is None or focus < self._rising_from):
            self._turning, self._move_began_ns = True, began_ns
            self._command(focus - self._options.overshoot_diopters)
            self._there, self._rising_from = None, focus
        else:
            self._finish(shot, began_ns)

    def _finish(self, shot: Shot, began_ns: int) -> None:
        """Send the lens to the shot's own focus, in a move that began then."""
        focus = shot.focus_diopters
        self._command(focus)
        self._there = self._rising_from = focus
        shot.commanded_ns, shot.settled_ns = self._commanded_ns, self._settled_ns
        move_ns = self._settled_ns - began_ns
        self._move_ns[focus] = min(move_ns, self._move_ns.get(focus, move_ns))

    def _command(self, focus_diopters: float) -> None:
        self._commanded_ns = self._camera.clock.now_ns()
        self._settled_ns = self._camera.command_focus(focus_diopters)

    def _drop_abandoned(self) -> None:
        if self._turning:
            return  # the move is finished first
        for shots in (self._todo, self._sent):
            for shot in [shot for shot in shots if shot.plan.abandoned]:
                shots.remove(shot)

    # Frames.

    def _shot_of(self, frame: CameraFrame) -> Shot | None:
        """The slice that a frame counts for; in any doubt none."""
        now_ns = self._camera.clock.now_ns()
        self._follow(frame, now_ns)
        in_order = frame.exposure_start_ns > self._last_start_ns
        self._last_start_ns = frame.exposure_start_ns
        spoiled = self._spoiled_by(frame, now_ns, in_order)
        if spoiled is not None:
            self._spoiled[spoiled[0]] += 1
            self._newest_spoiled = " ".join(spoiled)
            return None
        self._last_sequence = frame.sequence  # what came before the sweep's first frame was nobody's
        return self._sent.popleft()

    def _spoiled_by(self, frame: CameraFrame, now_ns: int, in_order: bool) -> tuple[str, ...] | None:
        """(why it does not count, by how much); None = it counts for the first shot that was sent."""
        if not in_order:
            return ("stamped no later than the one before",)
        if frame.exposure_end_ns > now_ns:
            by = _milliseconds(frame.exposure_end_ns - now_ns)
            return "ending in the future", f"by {by}: exposure or readout time?"
        shot = self._sent[0] if self._sent else None
        if shot is None or shot.settled_ns is None:
            return ("while the lens was on its way",)
        if frame.exposure_start_ns < shot.settled_ns:
            by = _milliseconds(shot.settled_ns - frame.exposure_start_ns)
            return "begun before the lens stood still", f"by {by}: settle time?"
        if shot.closed_ns is not None and frame.exposure_end_ns > shot.closed_ns:
            by = _milliseconds(frame.exposure_end_ns - shot.closed_ns)
            self._retake()
            return "ending after the lens was sent on", f"by {by}"
        return None

    def _follow(self, frame: CameraFrame, now_ns: int) -> None:
        self._timing.add(frame)
        self._span_ns = self._timing.span_ns
        delivery_ns = now_ns - frame.exposure_start_ns
        self._delivery_ns = delivery_ns if self._delivery_ns is None else min(delivery_ns, self._delivery_ns)
        if self._last_sequence is not None:
            self.lost += max(0, frame.sequence - self._last_sequence - 1)
            self._last_sequence = frame.sequence

    def _retake(self) -> None:
        """The lens was sent on and no frame shows what it left: go back, and on from there."""
        self.retaken += 1
        for shot in reversed(self._sent):
            shot.settled_ns = shot.closed_ns = None
            self._todo.appendleft(shot)
        self._sent.clear()
        self._turning = False

    def _spoil(self) -> None:
        self.discarded += self._last_sequence is not None
        patience_ns = 1e9 * self._frame_timeout_s + 4.0 * max(self._move_ns.values(), default=0)
        came = self._spoiled.total()
        if came * self._period_ns > patience_ns:
            causes = ", ".join(f"{count} {why}" for why, count in self._spoiled.most_common())
            raise CameraError(
                f"{came} frames came, expected one of them to be exposed while the lens stood still:"
                f" {causes}; the newest {self._newest_spoiled}"
            )

    def _check_clock(self) -> None:
        """A clock that was set makes stamps from before and after it incomparable."""
        offset_ns = self._camera.clock.offset_ns()
        last_ns, self._last_offset_ns = self._last_offset_ns, offset_ns
        if last_ns is not None and abs(offset_ns - last_ns) > _CLOCK_STEP_NS:
            raise CameraError(f"the system's clock was set by {(offset_ns - last_ns) * 1e-9:+.3f} s")


def _milliseconds(nanoseconds: int) -> str:
    return f"{nanoseconds * 1e-6:.1f} ms"
