"""Magnification against focus: what is recovered from sizes that are relative within each sweep."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybriddepth_ros.calibration.breathing import at_other_focus, fit_growth
from hybriddepth_ros.calibration.sharpness import growth
from hybriddepth_ros.errors import CalibrationError
from hybriddepth_ros.focal_stack import CameraIntrinsics

CAMERA = CameraIntrinsics(600.0, 601.0, 320.0, 240.0, 640, 480)


def sizes(percent: float, noise: float, seed: int) -> tuple[np.ndarray, ...]:  # type: ignore[type-arg]
    """Three sweeps about 1, 1.8 and 2.6 1/m, each relative to a size of its own."""
    rng = np.random.default_rng(seed)
    middle = np.repeat([1.0, 1.8, 2.6], 15)
    focus = middle + np.tile(np.linspace(-0.4, 0.4, 15), 3)
    size = (1.0 + 0.01 * percent * focus) / (1.0 + 0.01 * percent * middle)
    return focus, np.log(size) + noise * rng.standard_normal(45), middle


@settings(max_examples=40)
@given(st.floats(-3.0, 5.0), st.integers(0, 999))
def test_breathing_is_recovered(percent: float, seed: int) -> None:
    found, sigma, kept, _ = fit_growth(*sizes(percent, 1e-4, seed))
    assert found == pytest.approx(percent, abs=0.04)
    assert 0.002 < sigma < 0.02 and kept.sum() > 40


def test_shots_whose_corners_ran_away_are_left_out() -> None:
    focus, logs, origin = sizes(1.0, 1e-4, 1)
    logs[[3, 20]] += 0.02
    found, _, kept, _ = fit_growth(focus, logs, origin)
    assert found == pytest.approx(1.0, abs=0.04)
    assert not kept[3] and not kept[20]


def test_too_little_movement_is_refused() -> None:
    with pytest.raises(CalibrationError, match="breathing: expected the board's corners"):
        fit_growth(np.full(20, 1.0), np.zeros(20), np.zeros(20))


@given(st.floats(-2.0, 2.0), st.floats(0.0, 3.0), st.floats(0.0, 3.0))
def test_intrinsics_at_another_focus_and_back(percent: float, here: float, there: float) -> None:
    back = at_other_focus(at_other_focus(CAMERA, here, there, percent), there, here, percent)
    assert back.fx == pytest.approx(CAMERA.fx) and back.fy == pytest.approx(CAMERA.fy)
    at_infinity = at_other_focus(CAMERA, here, 0.0, percent)
    assert at_infinity.fx * (1.0 + 0.01 * percent * here) == pytest.approx(CAMERA.fx)
    assert back.cx == CAMERA.cx


@given(st.floats(0.9, 1.1), st.floats(-30.0, 30.0))
def test_growth_is_measured_wherever_the_points_have_moved(scale: float, shift: float) -> None:
    points = np.random.default_rng(0).uniform(0.0, 400.0, (30, 2))
    found, residual = growth(scale * points + shift, points)
    assert found == pytest.approx(scale) and residual < 1e-9
