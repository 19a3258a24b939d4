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
    before, after = TRUTH.table.diopters(first - 1.5), TRUTH.table.diopters(second - 1.5)
    assert movement.focus_diopters(at + 5 * MS) == pytest.approx(before, abs=1e-9)
    assert movement.focus_diopters(at + 40 * MS) == pytest.approx(after, abs=1e-9)
    assert movement.focus_diopters(at + 40 * MS - 35 * MS // 2) == pytest.approx(
        0.5 * (before + after), abs=1e-6
    )


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
    fastest = (TRUTH.table.diopters(200.0) - TRUTH.table.diopters(0.0)) / 300  # per 0.1 ms, with a margin
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
