"""The fits: what they recover, and what they must never do."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybriddepth_ros.calibration.curves import fit_monotone, fit_peak, nonnegative_least_squares
from hybriddepth_ros.errors import CalibrationError

SEEDS = st.integers(0, 10_000)


@given(st.floats(60.0, 180.0), st.floats(12.0, 30.0), st.floats(0.01, 100.0), st.floats(0.0, 1.0))
def test_a_gaussian_peak_is_recovered(position: float, width: float, height: float, base: float) -> None:
    x = np.linspace(0.0, 255.0, 52)
    y = base + height * np.exp(-0.5 * ((x - position) / width) ** 2)
    peak = fit_peak(x, y, base)
    assert peak is not None
    assert peak.position == pytest.approx(position, abs=1e-4)
    assert peak.width == pytest.approx(width, rel=1e-4)
    assert peak.at(np.array([position]))[0] == pytest.approx(base + height, rel=1e-4)


@settings(max_examples=30)
@given(SEEDS)
def test_the_error_of_a_noisy_peak_is_what_it_says(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = np.linspace(40.0, 120.0, 17)
    errors = []
    for _ in range(40):
        y = np.exp(-0.5 * ((x - 81.3) / 20.0) ** 2) + 0.01 * rng.standard_normal(len(x))
        peak = fit_peak(x, y, 0.0)
        assert peak is not None
        errors.append((peak.position - 81.3) / peak.position_sigma)
    assert 0.5 < np.std(errors) < 2.5


@given(st.floats(-60.0, -5.0))
def test_a_peak_beyond_the_range_is_none(position: float) -> None:
    x = np.linspace(0.0, 255.0, 52)
    assert fit_peak(x, np.exp(-0.5 * ((x - position) / 25.0) ** 2), 0.0) is None


def test_nothing_to_see_is_no_peak() -> None:
    assert fit_peak(np.arange(9.0), np.zeros(9), 0.0) is None


@settings(max_examples=12, deadline=None)
@given(st.floats(-1.0, 1.0).filter(lambda b: abs(b) > 0.05), st.booleans(), SEEDS)
def test_a_bent_table_is_recovered_between_and_a_little_beyond_the_points(
    bend: float, falls: bool, seed: int
) -> None:
    sign = -1.0 if falls else 1.0

    def table(x: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
        return sign * 3.0 * np.expm1(bend * x / 255.0) / np.expm1(bend)

    noise = 0.002 * np.random.default_rng(seed).standard_normal(8)
    x = np.linspace(15.0, 240.0, 8)
    curve = fit_monotone(x, table(x) + noise, 0.0, 255.0)
    everywhere = np.linspace(0.0, 255.0, 100)
    assert np.abs(curve.at(everywhere) - table(everywhere)).max() < 0.03
    assert curve.inverse(curve.at(100.0)) == pytest.approx(100.0, abs=0.1)


@settings(max_examples=30, deadline=None)
@given(SEEDS)
def test_the_curve_is_monotone_whatever_the_points(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = np.sort(rng.uniform(0.0, 255.0, 6))
    y = rng.uniform(0.0, 3.0, 6)
    slopes = np.diff(fit_monotone(x, y, 0.0, 255.0).at(np.linspace(-20.0, 275.0, 300)))
    assert (slopes > 0).all() or (slopes < 0).all()


def test_three_points_are_too_few() -> None:
    with pytest.raises(CalibrationError, match="at least 4 distances"):
        fit_monotone(np.arange(3.0), np.arange(3.0), 0.0, 3.0)


@given(SEEDS)
def test_nonnegative_least_squares_is_optimal(seed: int) -> None:
    """Karush, Kuhn and Tucker: no step within x >= 0 would improve it."""
    rng = np.random.default_rng(seed)
    matrix, target = rng.standard_normal((12, 5)), rng.standard_normal(12)
    x = nonnegative_least_squares(matrix, target)
    gradient = matrix.T @ (matrix @ x - target)
    assert (x >= 0).all()
    assert (gradient >= -1e-8).all()
    assert np.abs(gradient[x > 0]).max(initial=0.0) < 1e-8
