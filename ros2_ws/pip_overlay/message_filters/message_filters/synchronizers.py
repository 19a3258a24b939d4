"""Sets of messages, one per input, whose stamps are equal (TimeSynchronizer) or close
(ApproximateTimeSynchronizer)."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rclpy.clock import ROSClock
from rclpy.duration import Duration
from rclpy.logging import get_logger

from message_filters.message_traits import JUMP_BACK_NS, TimeGetter, get_time_from_message_header
from message_filters.simple_filter import SimpleFilter

Queue = dict[int, Any]  # nanoseconds -> message, in order of arrival


@dataclass
class _InputClock:
    """How far the stamps of one input have got; tells a restart of time from a message that was overtaken."""

    newest: int | None = None
    behind: int = 0  # messages since `newest`, all of them older
    newest_behind: int = 0

    def advance(self, time: int, patience: int) -> int | None:
        """Take note of a message's stamp. After a jump back in time: the stamp above which all is from before
        it.

        A jump is a fall by more than JUMP_BACK_NS, or `patience` messages in a row that are older than the
        newest. The result lies half-way, because the other inputs may have made the same jump already or have
        yet to.
        """
        if self.newest is None or time >= self.newest:
            self.newest, self.behind = time, 0
            return None
        self.newest_behind = time if self.behind == 0 else max(time, self.newest_behind)
        self.behind += 1
        fell_far = self.newest - time > JUMP_BACK_NS
        if not fell_far and self.behind < patience:
            return None
        restart = time if fell_far else self.newest_behind
        stale_after = (self.newest + restart) // 2
        self.newest, self.behind = restart, 0
        return stale_after


class TimeSynchronizer(SimpleFilter):
    """Calls back with one message of each input as soon as all inputs have one of the same stamp.

    queue_size: messages per input that wait for the others. Callbacks run one after the other, whatever
    threads the messages come from; a set has left the queues before its callback runs.
    """

    def __init__(
        self,
        fs: Sequence[SimpleFilter],
        queue_size: int,
        time_getter: TimeGetter = get_time_from_message_header,
    ) -> None:
        super().__init__()
        self.queue_size = queue_size
        self.time_getter = time_getter
        self.lock = threading.RLock()  # reentrant: a callback may feed an input
        self.connectInput(fs)

    def connectInput(self, fs: Sequence[SimpleFilter]) -> None:  # noqa: N802
        self.queues: list[Queue] = [{} for _ in fs]
        self._clocks = [_InputClock() for _ in fs]
        self.input_connections = [
            f.registerCallback(self.add, queue, index)
            for index, (f, queue) in enumerate(zip(fs, self.queues, strict=True))
        ]

    def add(self, msg: Any, my_queue: Queue, my_queue_index: int | None = None) -> None:
        """Take `msg` from the input that `my_queue` belongs to; calls back if that completes a set."""
        stamp = self.time_getter(msg)
        if stamp is None:
            raise ValueError(
                f"{type(msg).__name__} has no stamp; use ApproximateTimeSynchronizer with allow_headerless "
                "or give a time_getter"
            )
        index = self._index_of(my_queue, my_queue_index)
        with self.lock:
            self._enqueue(msg, index, stamp.nanoseconds)
            if all(stamp.nanoseconds in queue for queue in self.queues):
                matched = [queue.pop(stamp.nanoseconds) for queue in self.queues]
                self._forget_overtaken(index, stamp.nanoseconds)
                self.signalMessage(*matched)

    def _forget_overtaken(self, index: int, matched: int) -> None:
        """The other inputs are past `matched` already: what this one has from before it will find no partner.

        Jazzy up to 4.11.9 drops nothing here and later versions drop from every queue; from this queue alone
        keeps the promises of both, for an input that comes scrambled and for one that lags.
        """
        queue = self.queues[index]
        _drop(queue, [time for time in queue if time < matched])

    def _index_of(self, my_queue: Queue, my_queue_index: int | None) -> int:
        if my_queue_index is not None:
            return my_queue_index
        return next(index for index, queue in enumerate(self.queues) if queue is my_queue)

    def _enqueue(self, msg: Any, index: int, time: int) -> None:
        stale_after = self._clocks[index].advance(time, patience=self.queue_size)
        if stale_after is not None:
            for queue in self.queues:
                _drop(queue, [old for old in queue if old > stale_after])
        queue = self.queues[index]
        queue.pop(time, None)  # a repeated stamp counts as arriving now
        queue[time] = msg
        _drop(queue, list(queue)[: max(len(queue) - self.queue_size, 0)])


class ApproximateTimeSynchronizer(TimeSynchronizer):
    """Calls back with one message of each input, the stamps equal or less than `slop` seconds apart.

    Each new message is tried with the nearest of the other inputs first.
    queue_offset: nanoseconds to take off each input's stamps before they are compared.
    allow_headerless: messages without a stamp count as stamped when they arrived; otherwise dropped with a
    warning. sync_arrival_time: all messages count as stamped when they arrived.
    The fourth positional argument is queue_offset in Kilted and allow_headerless in Jazzy: a bool is the
    latter.
    """

    def __init__(
        self,
        fs: Sequence[SimpleFilter],
        queue_size: int,
        slop: float,
        queue_offset: Sequence[int] | bool = False,
        allow_headerless: bool = False,
        sync_arrival_time: bool = False,
        time_getter: TimeGetter = get_time_from_message_header,
    ) -> None:
        super().__init__(fs, queue_size, time_getter)
        self.slop = Duration(seconds=slop)
        self.allow_headerless = allow_headerless or queue_offset is True
        self.queue_offset: Sequence[int] = [0] * len(fs) if isinstance(queue_offset, bool) else queue_offset
        self.sync_arrival_time = sync_arrival_time
        if len(self.queue_offset) != len(fs):
            raise ValueError(f"queue_offset has {len(self.queue_offset)} entries for {len(fs)} inputs")

    def add(self, msg: Any, my_queue: Queue, my_queue_index: int | None = None) -> None:
        """Take `msg` from the input that `my_queue` belongs to; calls back if that completes a set."""
        stamp = None if self.sync_arrival_time else self.time_getter(msg)
        if stamp is None and not (self.allow_headerless or self.sync_arrival_time):
            get_logger("message_filters_approx").warning(
                "dropped a message without a stamp; allow_headerless=True stamps it on arrival",
                throttle_duration_sec=5.0,
            )
            return
        index = self._index_of(my_queue, my_queue_index)
        arrival_or_stamp = ROSClock().now() if stamp is None else stamp
        time = arrival_or_stamp.nanoseconds - self.queue_offset[index]
        with self.lock:
            self._enqueue(msg, index, time)
            times = self._closest_set(index, time)
            if times is not None:
                self.signalMessage(*[queue.pop(t) for queue, t in zip(self.queues, times, strict=True)])

    def _closest_set(self, index: int, time: int) -> list[int] | None:
        """One stamp per queue, with `time` for its own; None if there is no set within the slop."""
        slop = self.slop.nanoseconds
        candidates = [
            [time]
            if i == index
            else sorted((t for t in queue if abs(t - time) <= slop), key=lambda t: abs(t - time))
            for i, queue in enumerate(self.queues)
        ]
        return _first_within(candidates, slop, [])


def _first_within(candidates: list[list[int]], slop: int, chosen: list[int]) -> list[int] | None:
    """The first choice, one of each list, whose spread is below `slop`; branches that cannot get there are
    not tried."""
    if len(chosen) == len(candidates):
        return chosen
    for time in candidates[len(chosen)]:
        trial = [*chosen, time]
        spread = max(trial) - min(trial)
        if spread == 0 or spread < slop:
            found = _first_within(candidates, slop, trial)
            if found is not None:
                return found
    return None


def _drop(queue: Queue, times: list[int]) -> None:
    for time in times:
        del queue[time]
