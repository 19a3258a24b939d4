"""message_filters: matching, and what must survive a callback that raises and a clock that jumps back."""

from __future__ import annotations

import copy
import itertools
import random
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("rclpy", reason="message_filters needs a ROS 2 installation")
pytest.importorskip("message_filters", reason="message_filters is not installed")

import message_filters
from builtin_interfaces.msg import Time as TimeMessage
from message_filters import ApproximateTimeSynchronizer, Cache, SimpleFilter, TimeSynchronizer
from rclpy.time import Time
from std_msgs.msg import Header, String

overlay_only = pytest.mark.skipif(
    not getattr(message_filters, "PIP_OVERLAY", False),
    reason="the real message_filters is installed; this is what the stand-in does better",
)

SECOND = 10**9
Sets = list[tuple["Stamped", ...]]
MakeSynchronizer = Callable[[Sequence[SimpleFilter], int], TimeSynchronizer]

EXACT: MakeSynchronizer = TimeSynchronizer


def CLOSE(inputs: Sequence[SimpleFilter], queue_size: int) -> ApproximateTimeSynchronizer:  # noqa: N802
    return ApproximateTimeSynchronizer(inputs, queue_size, 0.1)


both_synchronizers = pytest.mark.parametrize("make", [EXACT, CLOSE], ids=["exact", "approximate"])


class Stamped:
    """The least that a filter takes for a message."""

    def __init__(self, seconds: float, name: str = "") -> None:
        nanoseconds = round(seconds * SECOND)
        self.header = Header(stamp=TimeMessage(sec=nanoseconds // SECOND, nanosec=nanoseconds % SECOND))
        self.name = name

    def __repr__(self) -> str:
        return f"{self.name}@{self.header.stamp.sec + self.header.stamp.nanosec / SECOND}"


def synchronize(
    make: MakeSynchronizer, queue_size: int = 10, inputs: int = 2
) -> tuple[list[SimpleFilter], Sets]:
    """Inputs to feed with signalMessage and the sets that come out."""
    filters = [SimpleFilter() for _ in range(inputs)]
    sets: Sets = []
    synchronizer = make(filters, queue_size)
    synchronizer.registerCallback(lambda *messages: sets.append(messages))
    return filters, sets


def feed(filters: list[SimpleFilter], seconds: float, name: str = "") -> list[Stamped]:
    messages = [Stamped(seconds, f"{name}{index}") for index in range(len(filters))]
    for filter_, message in zip(filters, messages, strict=True):
        filter_.signalMessage(message)
    return messages


def in_a_thread(action: Callable[[], Any]) -> bool:
    """Whether `action` comes back; a lock that is still held keeps it away."""
    thread = threading.Thread(target=action, daemon=True)
    thread.start()
    thread.join(10.0)
    return not thread.is_alive()


# --- SimpleFilter ---


def test_callbacks_get_the_messages_and_their_own_arguments() -> None:
    calls: list[Any] = []
    filter_ = SimpleFilter()
    filter_.registerCallback(lambda *arguments: calls.append(arguments), "mine", 7)
    filter_.signalMessage("a", "b")
    assert calls == [("a", "b", "mine", 7)]


@overlay_only
def test_numbers_of_callbacks_are_never_given_twice() -> None:
    calls: list[str] = []
    filter_ = SimpleFilter()
    first = filter_.registerCallback(lambda _: calls.append("first"))
    filter_.registerCallback(lambda _: calls.append("second"))
    filter_.unregisterCallback(first)
    filter_.registerCallback(lambda _: calls.append("third"))
    filter_.signalMessage(0)
    assert calls == ["second", "third"]


@overlay_only
def test_a_callback_may_unregister_itself() -> None:
    calls: list[int] = []
    filter_ = SimpleFilter()

    def once(value: int) -> None:
        calls.append(value)
        filter_.unregisterCallback(connection)

    connection = filter_.registerCallback(once)
    filter_.signalMessage(1)
    filter_.signalMessage(2)
    assert calls == [1]


# --- matching ---


@both_synchronizers
def test_messages_of_one_stamp_come_together(make: MakeSynchronizer) -> None:
    filters, sets = synchronize(make, inputs=3)
    expected = [tuple(feed(filters, second)) for second in range(20)]
    assert sets == expected


@both_synchronizers
def test_the_order_in_which_inputs_arrive_does_not_matter(make: MakeSynchronizer) -> None:
    for order in itertools.permutations(range(3)):
        filters, sets = synchronize(make, inputs=3)
        messages = [Stamped(1.0, str(index)) for index in range(3)]
        for index in order:
            filters[index].signalMessage(messages[index])
        assert sets == [tuple(messages)]


@both_synchronizers
def test_a_message_is_used_once(make: MakeSynchronizer) -> None:
    filters, sets = synchronize(make)
    feed(filters, 1.0)
    filters[0].signalMessage(Stamped(1.0, "again"))
    assert len(sets) == 1


@both_synchronizers
@pytest.mark.parametrize("seed", range(5))
def test_an_input_that_comes_scrambled_finds_all_its_partners(make: MakeSynchronizer, seed: int) -> None:
    if make is EXACT and not getattr(message_filters, "PIP_OVERLAY", False):
        pytest.skip("later versions of the real TimeSynchronizer drop what is older than the last match")
    shuffled = random.Random(seed)
    for count in range(1, 10):
        filters, sets = synchronize(make, queue_size=count)
        first = [Stamped(second, "a") for second in range(count)]
        second = [Stamped(second, "b") for second in range(count)]
        for message in shuffled.sample(first, count):
            filters[0].signalMessage(message)
        assert sets == []
        for message in shuffled.sample(second, count):
            filters[1].signalMessage(message)
        assert set(sets) == set(zip(first, second, strict=True))


@overlay_only
def test_what_the_other_input_has_overtaken_is_dropped() -> None:
    filters, sets = synchronize(EXACT)
    filters[0].signalMessage(Stamped(0.0))
    filters[1].signalMessage(Stamped(1.0))
    filters[0].signalMessage(Stamped(1.0))
    filters[1].signalMessage(Stamped(0.0))
    assert len(sets) == 1


@both_synchronizers
def test_a_queue_holds_no_more_than_its_size(make: MakeSynchronizer) -> None:
    filters, sets = synchronize(make, queue_size=3)
    for second in range(5):
        filters[0].signalMessage(Stamped(second))
    for second in range(5):
        filters[1].signalMessage(Stamped(second))
    assert [message.header.stamp.sec for message, _ in sets] == [2, 3, 4]


def test_approximate_takes_the_nearest_within_the_slop() -> None:
    filters, sets = synchronize(CLOSE)
    for seconds in (0.92, 0.97, 1.05):
        filters[0].signalMessage(Stamped(seconds))
    filters[1].signalMessage(Stamped(1.0, "late"))
    assert [message.header.stamp.nanosec for message, _ in sets] == [970_000_000]


def test_approximate_refuses_what_is_further_apart_than_the_slop() -> None:
    filters, sets = synchronize(CLOSE)
    filters[0].signalMessage(Stamped(1.0))
    filters[1].signalMessage(Stamped(1.11))
    assert sets == []


def test_approximate_measures_the_spread_of_the_whole_set() -> None:
    filters, sets = synchronize(CLOSE, inputs=3)
    filters[0].signalMessage(Stamped(1.00))
    filters[1].signalMessage(Stamped(1.14))
    filters[2].signalMessage(Stamped(1.07))  # within the slop of each, but the two are not of each other
    assert sets == []
    filters[1].signalMessage(Stamped(1.05))
    assert len(sets) == 1


@overlay_only
def test_no_slop_at_all_still_matches_equal_stamps() -> None:
    filters, sets = synchronize(lambda inputs, size: ApproximateTimeSynchronizer(inputs, size, 0.0))
    feed(filters, 1.0)
    assert len(sets) == 1


@given(
    offsets=st.lists(st.integers(-40, 40), min_size=8, max_size=8),
    gaps=st.lists(st.integers(250, 2000), min_size=8, max_size=8),
)
def test_jitter_below_half_the_slop_never_costs_a_set(offsets: list[int], gaps: list[int]) -> None:
    filters, sets = synchronize(CLOSE)
    expected = []
    for milliseconds, offset in zip(itertools.accumulate(gaps, initial=1000), offsets, strict=False):
        pair = Stamped(milliseconds / 1000), Stamped((milliseconds + offset) / 1000)
        filters[0].signalMessage(pair[0])
        filters[1].signalMessage(pair[1])
        expected.append(pair)
    assert sets == expected


@overlay_only
def test_many_inputs_with_full_queues_match_without_trying_every_combination() -> None:
    filters, sets = synchronize(
        lambda inputs, size: ApproximateTimeSynchronizer(inputs, size, 0.2), 40, inputs=7
    )
    for index, filter_ in enumerate(filters[:-1]):  # 40**5 combinations, none of which is close enough
        for step in range(40):
            filter_.signalMessage(Stamped((1.0 if index % 2 else 1.3) + step * 1e-4))
    filters[-1].signalMessage(Stamped(1.15))
    assert sets == []


# --- signatures of Jazzy and Kilted ---


@pytest.mark.parametrize(
    ("positional", "keywords"),
    [
        pytest.param((True,), {}, id="Jazzy", marks=overlay_only),
        pytest.param((False, True), {}, id="Kilted", marks=overlay_only),
        pytest.param((), {"allow_headerless": True}, id="by name"),
    ],
)
def test_headerless_messages_are_taken_however_that_is_asked_for(
    positional: tuple[Any, ...], keywords: dict[str, Any]
) -> None:
    filters, sets = synchronize(
        lambda inputs, size: ApproximateTimeSynchronizer(inputs, size, 1000.0, *positional, **keywords)
    )
    filters[0].signalMessage(String(data="a"))
    filters[1].signalMessage(String(data="b"))
    assert sets == [(String(data="a"), String(data="b"))]


def test_headerless_messages_are_dropped_unless_asked_for() -> None:
    filters, sets = synchronize(CLOSE)
    filters[0].signalMessage(String())
    filters[1].signalMessage(String())
    assert sets == []
    feed(filters, 1.0)
    assert len(sets) == 1


@overlay_only
def test_offsets_are_taken_off_before_stamps_are_compared() -> None:
    filters, sets = synchronize(
        lambda inputs, size: ApproximateTimeSynchronizer(inputs, size, 0.1, [0, 5 * SECOND])
    )
    filters[0].signalMessage(Stamped(1.0))
    filters[1].signalMessage(Stamped(6.05))
    assert len(sets) == 1
    with pytest.raises(ValueError, match="3 entries for 2 inputs"):
        ApproximateTimeSynchronizer(filters, 10, 0.1, [0, 0, 0])


@overlay_only
def test_arrival_time_can_replace_the_stamps() -> None:
    filters, sets = synchronize(
        lambda inputs, size: ApproximateTimeSynchronizer(inputs, size, 1000.0, sync_arrival_time=True)
    )
    filters[0].signalMessage(Stamped(1.0))
    filters[1].signalMessage(Stamped(99_999.0))
    assert len(sets) == 1


@overlay_only
def test_exact_says_what_to_use_for_messages_without_a_stamp() -> None:
    filters, _ = synchronize(EXACT)
    with pytest.raises(ValueError, match="ApproximateTimeSynchronizer"):
        filters[0].signalMessage(String())


# --- a callback that raises ---


@overlay_only
@both_synchronizers
def test_an_exception_in_a_callback_passes_on_and_leaves_the_lock_free(make: MakeSynchronizer) -> None:
    filters = [SimpleFilter(), SimpleFilter()]
    synchronizer = make(filters, 10)
    sets: Sets = []

    def fail_first(*messages: Stamped) -> None:
        sets.append(messages)
        if len(sets) == 1:
            raise RuntimeError("no depth today")

    synchronizer.registerCallback(fail_first)
    with pytest.raises(RuntimeError, match="no depth today"):
        feed(filters, 1.0)
    assert in_a_thread(lambda: feed(filters, 2.0)), "the lock is still held"
    assert [message.header.stamp.sec for message, _ in sets] == [
        1,
        2,
    ]  # the set that failed does not come again


@overlay_only
@both_synchronizers
def test_a_callback_may_feed_the_inputs(make: MakeSynchronizer) -> None:
    filters = [SimpleFilter(), SimpleFilter()]
    synchronizer = make(filters, 10)
    seconds: list[int] = []

    def feed_next(message: Stamped, _: Stamped) -> None:
        seconds.append(message.header.stamp.sec)
        if len(seconds) < 3:
            feed(filters, message.header.stamp.sec + 1)

    synchronizer.registerCallback(feed_next)
    assert in_a_thread(lambda: feed(filters, 1.0)), "the callback waits for its own lock"
    assert seconds == [1, 2, 3]


@both_synchronizers
def test_callbacks_never_run_at_the_same_time(make: MakeSynchronizer) -> None:
    filters = [SimpleFilter(), SimpleFilter()]
    synchronizer = make(filters, 1000)
    running = threading.Lock()
    clashes: list[str] = []
    count = itertools.count()

    def callback(*_: Stamped) -> None:
        if not running.acquire(blocking=False):
            clashes.append("two at once")
            return
        next(count)
        running.release()

    synchronizer.registerCallback(callback)
    threads = [
        threading.Thread(target=lambda f=f: [f.signalMessage(Stamped(second)) for second in range(300)])  # type: ignore[misc]
        for f in filters
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20.0)
    assert not clashes
    assert next(count) == 300 or not getattr(message_filters, "PIP_OVERLAY", False)


# --- a clock that jumps back ---


@overlay_only
@both_synchronizers
@pytest.mark.parametrize("jump", [3.0, 8.0, 100.0], ids="{} s".format)
@pytest.mark.parametrize("queue_size", [1, 2, 10])
def test_matching_goes_on_with_the_first_messages_after_a_jump(
    make: MakeSynchronizer, jump: float, queue_size: int
) -> None:
    filters, sets = synchronize(make, queue_size)
    for step in range(20):  # one input loses its partner all the time: its queue is full of old messages
        filters[0].signalMessage(Stamped(200.0 + step / 5))
    feed(filters, 204.0)
    filters[0].signalMessage(Stamped(204.2))
    sets.clear()
    expected = [tuple(feed(filters, 204.0 - jump + step / 5, "new")) for step in range(5)]
    assert sets == expected


@overlay_only
@both_synchronizers
@pytest.mark.parametrize("seconds", [3, 60], ids="a bag of {} s".format)
def test_no_message_of_the_last_loop_meets_one_of_this_loop(make: MakeSynchronizer, seconds: int) -> None:
    filters, sets = synchronize(make, queue_size=5)
    for loop in range(3):
        for step in range(seconds * 10):
            stamp, last = step / 10, step == seconds * 10 - 1
            if loop == 0 or not last:
                filters[0].signalMessage(Stamped(stamp, f"loop{loop}"))
            if (
                loop > 0 or not last
            ):  # the last pair of the first loop stays alone, and again that of the next
                filters[1].signalMessage(Stamped(stamp, f"loop{loop}"))
    assert len(sets) == 3 * (seconds * 10 - 1)
    assert all(first.name == second.name for first, second in sets)


@overlay_only
@both_synchronizers
def test_a_far_jump_makes_the_old_messages_forgotten_at_once(make: MakeSynchronizer) -> None:
    filters, sets = synchronize(make)
    filters[0].signalMessage(Stamped(1000.0, "old"))
    filters[0].signalMessage(Stamped(1.0))
    filters[1].signalMessage(Stamped(1000.0, "straggler"))
    assert sets == []


@overlay_only
@both_synchronizers
def test_inputs_that_jump_one_after_the_other_lose_nothing_new(make: MakeSynchronizer) -> None:
    filters, sets = synchronize(make)
    feed(filters, 500.0)
    sets.clear()
    ahead = [Stamped(step / 5, "new") for step in range(4)]
    for message in ahead:
        filters[0].signalMessage(message)
    behind = [Stamped(step / 5, "new") for step in range(4)]
    for message in behind:
        filters[1].signalMessage(message)
    assert sets == list(zip(ahead, behind, strict=True))


@overlay_only
def test_a_cache_forgets_the_time_before_a_jump() -> None:
    filter_ = SimpleFilter()
    cache = Cache(filter_, 10)
    for second in (100, 101, 102):
        filter_.signalMessage(Stamped(second))
    filter_.signalMessage(Stamped(1, "new"))
    assert cache.getElemAfterTime(Time(seconds=50)) is None
    assert cache.getLast().name == "new"


# --- Cache ---


def test_a_cache_is_searched_by_time() -> None:
    filter_ = SimpleFilter()
    cache = Cache(filter_, cache_size=3)
    assert cache.getLast() is None
    assert cache.getOldestTime() is None
    messages = [Stamped(second) for second in range(5)]
    for message in messages:
        filter_.signalMessage(message)
    at = {second: Time.from_msg(messages[second].header.stamp) for second in range(5)}
    assert cache.getOldestTime() == at[2]
    assert cache.getLast() is messages[4]
    assert cache.getInterval(at[0], at[3]) == messages[2:4]
    assert cache.getElemAfterTime(at[3]) is messages[3]
    assert cache.getElemBeforeTime(at[3]) is messages[3]
    assert cache.getElemBeforeTime(at[1]) is None
    with pytest.raises(AssertionError):
        cache.getInterval(at[3], at[0])


def test_a_cache_passes_messages_on() -> None:
    passed: list[Any] = []
    filter_ = SimpleFilter()
    Cache(filter_).registerCallback(passed.append)
    message = Stamped(1.0)
    filter_.signalMessage(message)
    assert passed == [message]


@overlay_only
def test_a_cache_is_searched_with_times_of_any_clock() -> None:
    filter_ = SimpleFilter()
    cache = Cache(filter_)
    filter_.signalMessage(Stamped(1.0))  # stamps are ROS time, Time(seconds=1) is system time
    assert cache.getElemAfterTime(Time(seconds=1)) is not None


@overlay_only
def test_a_subscriber_without_a_subscription_can_be_asked_and_copied() -> None:
    empty = object.__new__(message_filters.Subscriber)
    assert not hasattr(empty, "sub")
    assert isinstance(copy.copy(empty), message_filters.Subscriber)
