"""Which foci a sweep takes of what was asked for and what the lens reaches."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hybriddepth_ros.errors import CameraError
from hybriddepth_ros.ros.schema import FocusSweepParameters
from hybriddepth_ros.ros.sweep_positions import sweep_positions


def camera(low: float, high: float, suggested: tuple[float, ...] = (), step: float = 0.0) -> Any:
    return SimpleNamespace(
        focus_range_diopters=(low, high),
        default_focus_diopters=suggested,
        lens=None,
        nearest_focus=lambda focus: step * round(focus / step) if step else focus,
    )


@given(
    near=st.floats(0.05, 5.0),
    span=st.floats(0.02, 20.0),
    far=st.booleans(),
    low=st.floats(-2.0, 2.0),
    reach=st.floats(0.5, 20.0),
    count=st.integers(2, 12),
)
def test_planned_foci_differ_and_are_reached(
    near: float, span: float, far: bool, low: float, reach: float, count: int
) -> None:
    parameters = FocusSweepParameters(
        near_distance=near, far_distance=near + span if far else 0.0, slice_count=count
    )
    asked_far, asked_near = 1.0 / (near + span) if far else 0.0, 1.0 / near
    high = low + reach
    assume(min(asked_near, high) - max(asked_far, low) > 0.02)
    foci, warnings = sweep_positions(parameters, camera(low, high))
    assert len(foci) == count
    assert all(after - before > 1e-4 for before, after in pairwise(foci))
    assert low <= foci[0] and foci[-1] <= high
    assert foci[0] == pytest.approx(max(asked_far, low), abs=1e-9)
    assert foci[-1] == pytest.approx(min(asked_near, high), abs=1e-9)
    assert any("near_distance" in text for text in warnings) == (high < asked_near * (1 - 1e-6))


def test_a_sweep_that_the_lens_shortens_is_told_with_both_numbers() -> None:
    parameters = FocusSweepParameters(near_distance=0.25, far_distance=5.0)
    foci, warnings = sweep_positions(parameters, camera(0.5, 2.9))
    assert foci == pytest.approx((0.5, 1.1, 1.7, 2.3, 2.9))
    assert warnings == (
        "far_distance is 5 m (0.2 1/m), the lens reaches 2 m (0.5 1/m): the sweep ends there",
        "near_distance is 0.25 m (4 1/m), the lens reaches 0.345 m (2.9 1/m): the sweep ends there",
    )
    assert sweep_positions(parameters, camera(0.0, 5.0))[1] == ()


def test_room_below_the_farthest_focus_shortens_the_plan_and_makes_no_two_foci_equal() -> None:
    parameters = FocusSweepParameters(near_distance=0.5, far_distance=0.0, approach="rising", overshoot=0.3)
    foci, warnings = sweep_positions(parameters, camera(0.0, 2.0))
    assert foci == pytest.approx((0.3, 0.725, 1.15, 1.575, 2.0))
    assert len(warnings) == 1 and "far_distance is 0, infinity (0 1/m)" in warnings[0]


def test_what_the_lens_cannot_reach_at_all_is_refused_with_both_ranges() -> None:
    parameters = FocusSweepParameters(near_distance=0.1, far_distance=0.2)
    with pytest.raises(CameraError, match=r"expected some of 0\.5 to 2\.9 1/m .* got 5 to 10 1/m"):
        sweep_positions(parameters, camera(0.5, 2.9))


def test_a_suggestion_is_taken_unless_its_foci_become_one() -> None:
    parameters = FocusSweepParameters()
    assert sweep_positions(parameters, camera(0.0, 3.0, (0.0, 1.0, 3.00001)))[0] == (0.0, 1.0, 3.0)
    with pytest.raises(CameraError, match=r"suggests lies beyond the same end of that \(0, 4, 5\)"):
        sweep_positions(parameters, camera(0.0, 3.0, (0.0, 4.0, 5.0)))


def test_foci_of_one_step_of_the_motor_are_swept_once() -> None:
    parameters = FocusSweepParameters(focus_diopters=(0.5, 1.0, 1.06, 1.5))
    assert sweep_positions(parameters, camera(0.0, 3.0)) == ((0.5, 1.0, 1.06, 1.5), ())
    foci, warnings = sweep_positions(parameters, camera(0.0, 3.0, step=0.25))
    assert foci == (0.5, 1.0, 1.5)
    assert warnings == ("the lens's steps are coarse: 1.06 1/m would be swept twice and is left out",)
    with pytest.raises(CameraError, match="one step of its motor"):
        sweep_positions(FocusSweepParameters(focus_diopters=(1.0, 1.06)), camera(0.0, 3.0, step=0.25))
