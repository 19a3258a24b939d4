"""The emulated focus motor: when it moves, how, and where it ends."""

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybriddepth_ros.emulation.motor import EmulatedMovement
from hybriddepth_ros.emulation.truth import EmulatedTruth

TRUTH = replace(EmulatedTruth.from_seed(4), dead_ms=5.0, settle_ms=40.0, play=3.0)
T0 = 1_700_000_000_000_000_000  # as time.time_ns counts
MS = 1_000_000


@given(st.floats(20.0, 120.0), st.floats(130.0, 250.0))
def test_it_waits_moves_evenly_and_rests(first: float, second: float) -> None:
    movement = EmulatedMovement(TRUTH, 0.0)
    movement.command(first, T0)
    at = T0 + 10**9
    movement.command(second, at)
    duration = round(MS * 35.0 * (second - first) / (255.0 - 3.0))
    assert movement.focus_diopters(at + 5 * MS) == pytest.approx(TRUTH.table.diopters(first - 1.5), abs=1e-9)
    for share in (0.25, 0.5, 1.0, 1.5):
        expected = TRUTH.table.diopters(first - 1.5 + min(share, 1.0) * (second - first))
        assert movement.focus_diopters(at + 5 * MS + round(share * duration)) == pytest.approx(
            expected, abs=1e-6
        )


def test_the_settle_time_is_that_of_the_longest_move() -> None:
    movement = EmulatedMovement(TRUTH, 0.0)
    movement.command(255.0, T0)
    movement.command(0.0, T0 + 10**9)
    at = T0 + 2 * 10**9
    movement.command(255.0, at)
    end = TRUTH.table.diopters(253.5)
    assert movement.focus_diopters(at + 40 * MS + 10) == pytest.approx(end, abs=1e-9)
    assert abs(movement.focus_diopters(at + 39 * MS) - end) > 1e-3


@given(st.floats(20.0, 230.0))
def test_play_parts_rising_and_falling_approaches(position: float) -> None:
    movement = EmulatedMovement(TRUTH, 0.0)
    movement.command(position, T0)
    rising = movement.focus_diopters(T0 + 10**9)
    movement.command(255.0, T0 + 10**9)
    movement.command(position, T0 + 2 * 10**9)
    falling = movement.focus_diopters(T0 + 3 * 10**9)
    assert rising == pytest.approx(TRUTH.table.diopters(position - 1.5))
    assert falling == pytest.approx(TRUTH.table.diopters(position + 1.5))


def test_a_reversal_within_the_play_moves_nothing() -> None:
    movement = EmulatedMovement(TRUTH, 0.0)
    movement.command(100.0, T0)
    before = movement.focus_diopters(T0 + 10**9)
    movement.command(98.0, T0 + 10**9)
    assert movement.focus_diopters(T0 + 2 * 10**9) == before


def test_a_command_during_a_move_turns_it_without_a_jump() -> None:
    movement = EmulatedMovement(TRUTH, 0.0)
    movement.command(200.0, T0)
    movement.command(0.0, T0 + 20 * MS)
    foci = [movement.focus_diopters(T0 + k * MS // 10) for k in range(900)]
    steepest = max(abs((d1 - d0) / (a1 - a0)) for (a0, d0), (a1, d1) in itertools.pairwise(TRUTH.table.pairs))
    fastest = 1.001 * steepest * 0.1 * TRUTH.speed  # per 0.1 ms
    assert max(abs(b - a) for a, b in itertools.pairwise(foci)) < fastest
    assert foci[-1] == pytest.approx(TRUTH.table.diopters(1.5))


def test_a_perfect_calibration_knows_both_approaches() -> None:
    for table in (TRUTH.table, replace(TRUTH.table, pairs=tuple((a, -d) for a, d in TRUTH.table.pairs))):
        truth = replace(TRUTH, table=table)
        found = truth.as_calibration()
        assert found.focus_table is not None and found.focus_table_falling is not None
        movement = EmulatedMovement(truth, 0.0)
        movement.command(64.0, T0)
        movement.command(128.0, T0 + 10**9)
        rises = table.pairs[-1][1] > table.pairs[0][1]
        expected = found.focus_table if rises else found.focus_table_falling
        assert movement.focus_diopters(T0 + 2 * 10**9) == pytest.approx(expected.diopters(128.0), abs=2e-3)
