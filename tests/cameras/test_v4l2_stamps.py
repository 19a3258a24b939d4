"""Stamps stay in order and true to the system clock, whatever is done to it, to the driver, by the reader."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybriddepth_ros.cameras.base import Clock
from hybriddepth_ros.cameras.v4l2_stamps import (
    EXPOSURE_START,
    FRAME_END,
    READOUT_START,
    FrameCounter,
    RowTiming,
    StampReader,
    SteadyClock,
)

S, MS = 1_000_000_000, 1_000_000
EPOCH_NS = 1_700_000_000 * S


@dataclass
class Machine(Clock):
    """A monotonic clock, and a system clock that may be set."""

    monotonic: int = 50 * S
    offset: int = EPOCH_NS

    def now_ns(self) -> int:
        return self.monotonic + self.offset

    def steady(self) -> SteadyClock:
        return SteadyClock(self, lambda: self.monotonic)


# (time that passes, how far the system clock is set meanwhile, how old a stamp is asked for) [ns]
steps = st.lists(
    st.tuples(st.integers(0, 10 * S), st.integers(-3 * S, 3 * S), st.integers(0, 5 * S)), max_size=30
)


@given(steps)
def test_a_later_stamp_is_never_told_an_earlier_time(history: list[tuple[int, int, int]]) -> None:
    machine = Machine()
    clock = machine.steady()
    told = [(machine.monotonic, clock.now_ns())]
    for passed, step, age in history:
        machine.monotonic += passed
        machine.offset += step
        stamp = max(50 * S, machine.monotonic - age)
        told.append((stamp, clock.from_monotonic(stamp)))
        told.append((machine.monotonic, clock.now_ns()))
    told.sort()
    times = [time for _, time in told]
    assert times == sorted(times)


@given(steps)
def test_it_arrives_at_the_system_clock_in_twice_the_time_that_was_set_back(
    history: list[tuple[int, int, int]],
) -> None:
    machine = Machine()
    clock = machine.steady()
    for passed, step, _ in history:
        machine.monotonic += passed
        machine.offset += step
        clock.now_ns()
    machine.monotonic += S
    behind = max(0, clock.now_ns() - machine.now_ns())
    machine.monotonic += 2 * behind + 2
    assert abs(clock.now_ns() - machine.now_ns()) <= 1


@given(st.integers(-10 * S, 10 * S), st.integers(0, S - 1))
def test_an_undisturbed_clock_is_told_to_the_nanosecond(age: int, passed: int) -> None:
    machine = Machine()
    clock = machine.steady()
    machine.monotonic += passed
    assert clock.from_monotonic(machine.monotonic + age) == machine.now_ns() + age


def test_the_offset_is_taken_from_the_least_disturbed_reading() -> None:
    """A reading during which the process was put aside would be wrong by half of that time."""
    delays = iter([4 * MS, 3 * MS, 2000, 5 * MS, 4 * MS, 9 * MS, 4 * MS, 7 * MS, 4 * MS])
    machine = Machine()

    class Disturbed(Clock):
        def now_ns(self) -> int:
            now = machine.now_ns()
            machine.monotonic += next(delays)  # after the system clock was read
            return now

    clock = SteadyClock(Disturbed(), lambda: machine.monotonic)
    assert abs(clock.now_ns() - machine.now_ns()) <= 1000


def test_whether_the_system_clock_was_set_is_what_that_clock_says() -> None:
    class Told(Clock):
        def offset_ns(self) -> int:
            return 123_456

    assert SteadyClock(Told()).offset_ns() == 123_456


def test_a_short_look_at_the_real_clocks_agrees_with_them() -> None:
    clock = SteadyClock()
    before = Clock().now_ns()
    told = clock.now_ns()
    after = Clock().now_ns()
    assert before - MS <= told <= after + MS


@given(st.integers(1, 40 * MS), st.integers(0, 40 * MS), st.integers(0, EPOCH_NS))
def test_every_kind_of_stamp_tells_the_same_exposure(exposure: int, readout: int, start: int) -> None:
    timing = RowTiming(exposure, readout, 33 * MS)
    whole = (start, start + exposure + readout)
    assert timing.exposure(start, EXPOSURE_START) == whole
    assert timing.exposure(start + exposure, READOUT_START) == whole
    assert timing.exposure(start + exposure + readout, FRAME_END) == whole


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(1, 1000), max_size=20))
def test_a_driver_that_counts_is_believed_also_where_its_number_wraps(first: int, gaps: list[int]) -> None:
    counter = FrameCounter(33 * MS)
    number = first
    assert counter.number(first, 0) == first
    for gap in gaps:
        number += gap
        assert counter.number(number % 2**32, 0) == number  # whatever the stamp
    assert counter.driver_counts


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(-8 * MS, 8 * MS)), max_size=20))
def test_a_driver_that_says_0_for_ever_has_its_frames_counted_by_time(gaps: list[tuple[int, int]]) -> None:
    counter = FrameCounter(33 * MS)
    number, time = counter.number(0, 0), 0
    for gap, jitter in gaps:
        time += gap
        got = counter.number(0, time * 33 * MS + jitter)
        assert got > number
        number = got
    assert abs(number - time) <= len(gaps) // 2
    assert counter.driver_counts == (not gaps)


def test_the_kernels_stamp_is_taken_where_it_can_be_true() -> None:
    reader = StampReader(33 * MS)
    assert reader.read(S, S + 5 * MS, waited=True, sequence=0) == (S, True)
    assert reader.replaced == 0


@pytest.mark.parametrize(
    "stamp", [None, 0, S, 2 * S + 6 * MS], ids=["unknown", "zero", "backwards", "future"]
)
def test_a_stamp_that_cannot_be_true_gives_way_to_the_arrival(stamp: int | None) -> None:
    reader = StampReader(33 * MS)
    reader.read(S, S + 5 * MS, waited=True, sequence=0)
    assert reader.read(stamp, 2 * S + 5 * MS, waited=True, sequence=30) == (2 * S + 5 * MS, False)
    assert reader.replaced == 1


def test_a_slow_reader_does_not_make_old_frames_new() -> None:
    reader = StampReader(33 * MS)
    reader.read(None, S, waited=True, sequence=0)
    late = 3 * S
    got = [reader.read(None, late, waited=False, sequence=n)[0] for n in (1, 2, 3)]
    assert got == [S + 33 * MS, S + 66 * MS, S + 99 * MS]
    assert reader.read(None, late + 10 * MS, waited=True, sequence=60)[0] == late + 10 * MS
