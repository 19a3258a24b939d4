"""The measures of sigma, against closed forms and against what must hold of any numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybriddepth_ros.evaluation.uncertainty import (
    FRACTIONS,
    NOMINAL,
    boundary_errors,
    depth_edges,
    diopter_error,
    near_edges,
    negative_log_likelihood,
    reliability,
    sparsification,
)

seeds = st.integers(0, 2**32 - 1)


@given(st.floats(0.01, 2.0), st.floats(0.0, 3.0))
def test_likelihoods_of_one_pixel_are_those_of_the_densities(sigma: float, in_sigmas: float) -> None:
    target = np.array([4.0])
    prediction = target + in_sigmas * sigma
    gaussian = math.exp(-0.5 * in_sigmas**2) / (sigma * math.sqrt(2 * math.pi))
    laplace = math.exp(-math.sqrt(2) * in_sigmas) / (math.sqrt(2) * sigma)
    arrays = (prediction, np.array([sigma]), target)
    assert negative_log_likelihood(*arrays) == pytest.approx(-math.log(gaussian), abs=1e-6)
    assert negative_log_likelihood(*arrays, "laplace") == pytest.approx(-math.log(laplace), abs=1e-6)


def test_the_likelihood_is_best_for_the_sigma_that_the_errors_have() -> None:
    rng = np.random.default_rng(1)
    target = np.full(100_000, 3.0)
    for distribution, errors in (
        ("gaussian", rng.normal(0.0, 0.1, target.size)),
        ("laplace", rng.laplace(0.0, 0.1 / math.sqrt(2), target.size)),
    ):
        found = {
            sigma: negative_log_likelihood(target + errors, np.full_like(target, sigma), target, distribution)
            for sigma in (0.08, 0.1, 0.125)
        }
        assert min(found, key=lambda sigma: found[sigma]) == 0.1
    entropy = 0.5 * math.log(2 * math.pi * math.e * 0.01)
    gaussian = target + rng.normal(0.0, 0.1, target.size)
    likelihood = negative_log_likelihood(gaussian, np.full_like(target, 0.1), target)
    assert likelihood == pytest.approx(entropy, abs=0.01)


def test_a_sigma_that_orders_the_errors_leaves_no_area() -> None:
    rng = np.random.default_rng(2)
    target = np.full(4000, 2.0)
    error = rng.uniform(0.01, 0.5, target.size)
    assert sparsification(target + error, error**2, target, "rmse").ause == pytest.approx(0.0, abs=1e-12)
    relative = sparsification(target + error, error * (target + error), target, "abs_rel")
    assert relative.ause == pytest.approx(0.0, abs=1e-12)
    assert relative.by_sigma[0] == pytest.approx(np.mean(error / target))


def test_a_sigma_that_knows_nothing_leaves_the_area_worked_out_by_hand() -> None:
    """Uniform errors 0..1: without order the mean stays 1/2, the oracle's is (1 - f) / 2; between: f / 2."""
    rng = np.random.default_rng(3)
    error = (np.arange(200_000) + 0.5) / 200_000
    rng.shuffle(error)
    target = np.ones(error.size)
    curves = sparsification(target + error, rng.random(error.size) * (target + error), target)
    assert np.allclose(curves.by_sigma, 0.5, atol=0.02)
    assert np.allclose(curves.by_error, (1.0 - FRACTIONS) / 2, atol=1e-4)
    assert curves.ause == pytest.approx(0.98**2 / 4, abs=0.005)


def test_rmse_curves_are_roots_of_means_of_squares() -> None:
    error = np.linspace(0.1, 1.0, 1000)
    target = np.full(1000, 5.0)
    curves = sparsification(target + error, 2.0 - error, target, "rmse")  # the worst order there is
    assert [curves.by_sigma[0], curves.by_error[0]] == pytest.approx([np.sqrt(np.mean(error**2))] * 2)
    half = np.searchsorted(FRACTIONS, 0.5)
    assert curves.by_sigma[half] == pytest.approx(np.sqrt(np.mean(error[500:] ** 2)))
    assert curves.by_error[half] == pytest.approx(np.sqrt(np.mean(error[:500] ** 2)))


@given(seeds, st.sampled_from(["abs_rel", "rmse"]))
def test_no_order_is_better_than_the_oracle(seed: int, measure: str) -> None:
    rng = np.random.default_rng(seed)
    target, prediction, sigma = rng.uniform(0.5, 5.0, (3, 200))
    curves = sparsification(prediction, sigma, target, measure)  # type: ignore[arg-type]
    assert np.all(curves.by_sigma >= curves.by_error - 1e-12)
    assert curves.by_sigma[0] == pytest.approx(curves.by_error[0])
    assert np.all(np.diff(curves.by_error) <= 1e-12)


def test_a_gaussian_fills_its_intervals() -> None:
    rng = np.random.default_rng(4)
    target = np.full(200_000, 2.0)
    sigma = rng.uniform(0.01, 0.2, target.size)
    prediction = target + sigma * rng.standard_normal(target.size)
    np.testing.assert_allclose(reliability(prediction, sigma, target), NOMINAL, atol=0.005)
    twice = reliability(prediction, 2.0 * sigma, target, [0.682689])
    assert twice[0] == pytest.approx(0.9545, abs=0.003)


@given(seeds)
def test_coverage_grows_with_the_interval_and_with_sigma(seed: int) -> None:
    rng = np.random.default_rng(seed)
    target, prediction, sigma = rng.uniform(0.5, 5.0, (3, 100))
    shares = reliability(prediction, sigma, target)
    assert np.all(np.diff(shares) >= 0.0)
    assert np.all(reliability(prediction, 1.5 * sigma, target) >= shares)


def test_diopter_error_of_two_pixels() -> None:
    assert diopter_error(np.array([1.0, 4.0]), np.array([2.0, 2.0])) == pytest.approx((0.5 + 0.25) / 2)


def step_scene() -> tuple[np.ndarray, np.ndarray]:
    """A step from 1 m to 2 m between columns 19 and 20, and an estimate 10 % off within 4 px of it."""
    target = np.ones((30, 40))
    target[:, 20:] = 2.0
    prediction = 1.02 * target
    prediction[:, 15:25] = 1.1 * target[:, 15:25]
    return prediction, target


def test_edges_are_where_the_truth_jumps() -> None:
    _, target = step_scene()
    assert np.array_equal(np.flatnonzero(depth_edges(target)[3]), [19, 20])
    assert np.array_equal(np.flatnonzero(near_edges(target, 4)[3]), np.arange(15, 25))
    slope = np.tile(np.linspace(1.0, 3.0, 60), (10, 1))
    assert not depth_edges(slope).any()
    target[:, 19:21] = np.nan
    assert not depth_edges(target).any()


def test_errors_near_edges_and_elsewhere_are_told_apart() -> None:
    prediction, target = step_scene()
    near, elsewhere = boundary_errors(prediction, target, distance_px=4)
    assert (near, elsewhere) == (pytest.approx(0.1), pytest.approx(0.02))
    near, elsewhere = boundary_errors(np.ones((5, 5)), np.ones((5, 5)))
    assert math.isnan(near) and elsewhere == 0.0


def test_without_an_estimate_everything_is_nan_and_nothing_warns() -> None:
    nothing, target = np.full((4, 4), np.nan), np.ones((4, 4))
    with np.errstate(all="raise"):
        assert math.isnan(negative_log_likelihood(nothing, target, target))
        assert math.isnan(negative_log_likelihood(target, nothing, target, "laplace"))
        assert math.isnan(sparsification(nothing, target, target).ause)
        assert np.isnan(reliability(nothing, target, target)).all()
        assert math.isnan(diopter_error(nothing, target))
        assert all(math.isnan(e) for e in boundary_errors(nothing, target))
