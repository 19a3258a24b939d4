"""Clocks that disagree are told of, whatever the link does; clocks that agree are not."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybriddepth_ros.clock_check import ENOUGH_SLICES, FUTURE_SLICES, WINDOW, ClockCheck

MS = 1_000_000
START = 1_700_000_000_000 * MS
PERIOD = 33 * MS


def checked(latencies_ns: Sequence[int], offset_ns: int = 0) -> ClockCheck:
    """A check fed with slices of these latencies, stamped by a clock that is ahead by offset_ns."""
    check = ClockCheck()
    received = START
    for index, latency in enumerate(latencies_ns):
        exposed = START + index * PERIOD
        received = max(received, exposed + latency)  # in order
        check.add(exposed + offset_ns, received)
    return check


latencies = st.lists(st.integers(MS // 10, 900 * MS), min_size=1, max_size=3 * WINDOW)


@given(latencies)
def test_clocks_that_agree_are_never_accused(values: list[int]) -> None:
    assert checked(values).verdict() == ""


@given(st.lists(st.integers(0, 50 * MS), min_size=FUTURE_SLICES, max_size=300), st.integers(56, 10**9))
def test_stamps_from_the_future_are_told_by_how_much(values: list[int], ahead_ms: int) -> None:
    check = checked(values, ahead_ms * MS)
    assert check.least_ms is not None and ahead_ms - 50 <= -check.least_ms <= ahead_ms
    expected = f"clocks disagree: slices come from {-check.least_ms:.1f} ms in the future:"
    assert check.verdict() == f"{expected} chrony/ntp or use_sim_time"


@given(
    st.lists(st.integers(0, 400 * MS), min_size=ENOUGH_SLICES, max_size=300),
    st.integers(1_001, 10**9),
)
def test_stamps_that_are_old_by_the_same_time_each_are_told(values: list[int], behind_ms: int) -> None:
    verdict = checked(values, -behind_ms * MS).verdict()
    assert "s old, all alike" in verdict and "use_sim_time" in verdict


@given(st.integers(12, 500))
def test_a_queue_that_fills_is_no_clock(step_ms: int) -> None:
    """Each slice later than the last: their latencies are not alike, however late they are."""
    assert checked([MS + index * step_ms * MS for index in range(WINDOW)]).verdict() == ""


def test_less_than_5_ms_ahead_is_told_only_if_most_slices_are_before_their_exposure() -> None:
    assert checked([MS] * WINDOW, 3 * MS).verdict().startswith("clocks disagree: slices come from 2.0 ms")
    assert checked([MS] * (ENOUGH_SLICES - 1), 3 * MS).verdict() == ""
    assert checked([MS, 8 * MS, 9 * MS] * 33, 3 * MS).verdict() == ""


def test_one_slice_from_the_future_is_none() -> None:
    check = checked([10 * MS] * 50)
    check.add(START + 60 * PERIOD + 10_000 * MS, START + 60 * PERIOD)
    assert check.verdict() == ""


def test_a_clock_that_is_put_right_is_believed_again() -> None:
    check = checked([10 * MS] * 50, 1000 * MS)
    assert check.verdict()
    for index in range(50, 50 + WINDOW):
        check.add(START + index * PERIOD, START + index * PERIOD + 10 * MS)
    assert check.verdict() == ""


def test_time_that_jumps_back_begins_anew() -> None:
    """A receiver's clock that was set back by an hour and put right, or a recording that loops."""
    check = checked([10 * MS] * 50, 1000 * MS)
    check.add(START - 3_600_000 * MS, START - 3_600_000 * MS + 10 * MS)
    assert check.verdict() == "" and check.least_ms == pytest.approx(10.0)


def test_a_simulated_clock_that_has_not_begun_says_nothing() -> None:
    check = ClockCheck()
    for index in range(100):
        check.add(START + index * PERIOD, 0)
    assert check.verdict() == "" and check.least_ms is None
