"""The step response: dead time and settle time from frames at any phase."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybriddepth_ros.calibration.latency import (
    LongResponse,
    Move,
    StepResponse,
    WayAtRest,
    expected_level,
    expected_progress,
    fit_move,
    progress_of,
    solve_latency,
)
from hybriddepth_ros.errors import CalibrationError

NOISE = 0.01  # added to the sharpness of every frame


def response(dead: float, settle: float, exposure: float, noise: float, seed: int) -> StepResponse:
    rng = np.random.default_rng(seed)
    starts = np.arange(24) * 33.3 / 24
    times = np.concatenate([start + 33.3 * np.arange(-1, 12) for start in starts])
    # By brute force, so that the closed form is not held against itself.
    inside = times[:, None] + exposure * (np.linspace(0.0, 1.0, 401)[None, :] - 0.5)
    progress = np.clip((inside - dead) / (settle - dead), 0.0, 1.0).mean(axis=1)
    return StepResponse(
        times, progress + noise * rng.standard_normal(len(times)), exposure, np.full(9, 25.0), 20.0
    )


def long_response(dead: float, settle: float, exposure: float, alike: float = 1.0) -> LongResponse:
    """Over 200 of 250 units, of which only the last tenth shows; images that are, at `alike` below 1, so far
    from multiples of each other that their mean has less contrast than they have."""
    share = np.linspace(0.0, 1.0, 201)
    contrast = np.maximum(0.1, 10.0 * share - 9.0)
    turn = np.arccos(alike) * share  # each image is a vector of this length and direction
    images = contrast[:, None] * np.column_stack([np.cos(turn), np.sin(turn)])
    starts = np.arange(24) * 33.3 / 24
    times = np.concatenate([start + 33.3 * np.arange(-1, 12) for start in starts])
    inside = times[:, None] + exposure * (np.linspace(0.0, 1.0, 401)[None, :] - 0.5)
    way = np.clip((inside - dead) / (settle - dead), 0.0, 1.0)
    seen = np.stack([np.interp(way, share, column) for column in images.T]).mean(axis=-1)
    level = np.sqrt((seen**2).sum(axis=0) + NOISE)
    return LongResponse(times, level, exposure, WayAtRest(share, images @ images.T, NOISE), 200.0, 250.0)


def fit(step: StepResponse) -> Move:
    return fit_move(step.progress, lambda a, b: expected_progress(step.time_ms, step.exposure_ms, a, b))


# The same examples every time: of 600 at random, one with an exposure as long as the move erred by 2 ms.
@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    st.floats(0.0, 20.0),
    st.floats(10.0, 150.0),
    st.floats(1.0, 30.0),
    st.floats(0.0, 0.03),
    st.integers(0, 99),
)
def test_dead_and_settle_time_are_recovered(
    dead: float, duration: float, exposure: float, noise: float, seed: int
) -> None:
    found = fit(response(dead, dead + duration, exposure, noise, seed))
    tolerance = 0.5 + noise * max(60.0, 0.6 * duration)  # a share of the way is worth more of a long time
    assert found.settle_ms == pytest.approx(dead + duration, abs=tolerance)
    assert found.dead_ms == pytest.approx(dead, abs=tolerance)


@pytest.mark.parametrize("alike", [1.0, 0.5])
@pytest.mark.parametrize(("dead", "speed", "exposure"), [(5.0, 4.0, 8.0), (0.0, 4.0, 2.0), (12.0, 1.5, 20.0)])
def test_settle_time_is_that_of_the_whole_range(
    dead: float, speed: float, exposure: float, alike: float
) -> None:
    short = response(dead, dead + 20.0 / speed, exposure, 0.0, 1)
    found = solve_latency(short, long_response(dead, dead + 200.0 / speed, exposure, alike))
    assert found.short_ms == pytest.approx(dead + 20.0 / speed, abs=0.5)
    assert found.long_ms == pytest.approx(dead + 200.0 / speed, abs=0.5)
    assert found.settle_ms == pytest.approx(dead + 250.0 / speed, abs=1.0)
    assert found.dead_ms == pytest.approx(dead, abs=0.5)
    assert found.latency_ms == 25.0


def test_a_lens_whose_time_does_not_grow_keeps_the_longer_of_both() -> None:
    found = solve_latency(response(5.0, 60.0, 8.0, 0.0, 1), long_response(5.0, 50.0, 8.0))
    assert found.settle_ms == pytest.approx(60.0, abs=0.5)


@pytest.mark.parametrize("alike", [1.0, 0.3])
def test_the_level_of_a_moving_lens_is_that_of_the_way(alike: float) -> None:
    seen = long_response(5.0, 55.0, 8.0, alike)
    assert expected_level(seen, 5.0, 55.0) == pytest.approx(seen.level, abs=0.01)


def test_a_few_frames_that_failed_do_not_decide() -> None:
    good = response(5.0, 45.0, 8.0, 0.005, 1)
    progress = good.progress.copy()
    progress[::20] = 0.5
    found = fit(StepResponse(good.time_ms, progress, 8.0, good.delivery_ms, 20.0))
    assert found.settle_ms == pytest.approx(45.0, abs=1.0)


def test_the_progress_of_a_long_exposure_begins_before_the_lens_does() -> None:
    times = np.array([-20.0, 0.0, 100.0])
    assert expected_progress(times, 20.0, 5.0, 45.0).tolist() == pytest.approx([0.0, 0.5 * 25 / 20 / 40, 1.0])


def test_the_first_frame_precedes_the_command_whatever_its_stamp_says() -> None:
    levels = np.column_stack([np.arange(9.0), np.linspace(2.0, 1.0, 9)])
    times = np.array([-8.0, 25.0, 58.0, 330.0])
    seen = np.array([2.0, 1.6, 1.2, 1.0])
    for exposure in (16.0, 35.0):
        assert progress_of(seen, levels, times, exposure).tolist() == pytest.approx([0.0, 0.4, 0.8, 1.0])


def test_a_progress_that_is_no_number_is_refused() -> None:
    levels = np.column_stack([np.arange(9.0), np.linspace(2.0, 1.0, 9)])
    with pytest.raises(CalibrationError, match="before and after each step"):
        progress_of(np.ones(3), levels, np.array([-8.0, 25.0, 58.0]), 8.0)  # none after it came to rest
    with pytest.raises(CalibrationError, match="before and after each step"):
        progress_of(np.ones(3), levels, np.array([-8.0, 25.0, 358.0]), 8.0)  # nothing moved
    good = response(5.0, 45.0, 8.0, 0.0, 1)
    progress = good.progress.copy()
    progress[7] = np.nan
    with pytest.raises(CalibrationError, match="no number"):
        fit(StepResponse(good.time_ms, progress, 8.0, good.delivery_ms, 20.0))


def test_a_lens_that_never_rests_is_refused() -> None:
    with pytest.raises(CalibrationError, match="to rest within 400 ms"):
        fit(response(0.0, 395.0, 8.0, 0.0, 1))
    with pytest.raises(CalibrationError, match="to cross its range within 400 ms"):
        solve_latency(response(0.0, 32.0, 8.0, 0.0, 1), long_response(0.0, 340.0, 8.0))


@pytest.mark.parametrize("falls", [False, True])
def test_sharpness_is_turned_into_progress(falls: bool) -> None:
    at_rest = np.array([(100.0 + 5.0 * k, 1.0 + 0.3 * k) for k in range(9)])
    if falls:
        at_rest[:, 1] = at_rest[::-1, 1]
    moved = np.array([0.0, 0.25, 0.5, 1.0, 1.0])
    seen = np.interp(100.0 + 40.0 * moved, at_rest[:, 0], at_rest[:, 1])
    times = np.array([-10.0, 20.0, 30.0, 340.0, 380.0])
    assert progress_of(seen, at_rest, times, 8.0) == pytest.approx(moved)


def test_a_target_without_texture_is_refused() -> None:
    at_rest = np.array([(float(k), 1.0 + 0.01 * k) for k in range(9)])
    with pytest.raises(CalibrationError, match="more light or texture"):
        progress_of(np.ones(4), at_rest, np.array([-10.0, 10.0, 350.0, 390.0]), 8.0)
