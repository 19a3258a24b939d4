"""A prior is brought to the focus estimate's scale, and its sigma is what the residuals say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybriddepth_ros.errors import ModelError, ParameterError
from hybriddepth_ros.models import FocusEstimate
from hybriddepth_ros.models.bilateral_grid import GridShape
from hybriddepth_ros.models.prior_alignment import (
    LEAST_MISFIT,
    AlignmentOptions,
    align_prior,
    global_pair,
    misfit_variance,
    observe,
    weighted_line,
)
from hybriddepth_ros.simulation.relative_prior import smooth_field

SIZE = (96, 128)
SHAPE = GridShape.for_image(SIZE, 48, 4)


def scene(seed: int = 0) -> np.ndarray:
    """A slanted wall with a near box on it, 0.4 to 2 1/m."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : SIZE[0], 0 : SIZE[1]] / np.array(SIZE)[:, None, None]
    diopters = 0.4 + 0.6 * x + 0.2 * y
    top, left = (int(rng.integers(10, 40)) for _ in range(2))
    diopters[top : top + 35, left : left + 50] = 1.9
    return diopters.astype(np.float32)


def focus_on(truth: np.ndarray, sigma: float | np.ndarray = 0.05, seed: int = 0) -> FocusEstimate:
    rng = np.random.default_rng(seed)
    sigmas = np.broadcast_to(np.float32(sigma), truth.shape).astype(np.float32)
    return FocusEstimate(truth + sigmas * rng.standard_normal(SIZE).astype(np.float32), sigmas, 8.0)


def rms(image: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(image))))


@given(seed=st.integers(0, 10_000), count=st.integers(3, 50))
def test_the_line_is_the_closed_form_of_weighted_least_squares(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    x, y, weight = rng.normal(3, 2, count), rng.normal(0, 1, count), rng.uniform(0.1, 10, count)
    design = np.stack((x, np.ones(count)), axis=1)
    expected = np.linalg.solve(design.T @ (weight[:, None] * design), design.T @ (weight * y))
    np.testing.assert_allclose(weighted_line(x, y, weight), expected, rtol=1e-6, atol=1e-9)


@given(scale=st.floats(1e-3, 1e3), shift=st.floats(-100, 100), seed=st.integers(0, 1000))
def test_whatever_affine_the_prior_comes_in_the_result_is_the_same(
    scale: float, shift: float, seed: int
) -> None:
    truth = scene(seed)
    aligned = align_prior(focus_on(truth, 0.05, seed), ((truth - shift * scale) / scale).astype(np.float32))
    assert aligned is not None
    assert rms(aligned.diopters - truth) < 0.01
    assert aligned.scale == pytest.approx(scale, rel=0.05)


def test_the_result_lies_nearer_to_the_truth_than_either_input() -> None:
    truth, rng = scene(), np.random.default_rng(3)
    prior = (5.0 * truth * (1.0 + 0.1 * smooth_field(rng, SIZE)) - 3.0).astype(np.float32)
    focus = focus_on(truth, 0.1)
    whole = align_prior(focus, prior, AlignmentOptions(piecewise=False))
    pieces = align_prior(focus, prior)
    assert whole is not None and pieces is not None
    assert rms(pieces.diopters - truth) < 0.5 * rms(whole.diopters - truth)
    assert rms(pieces.diopters - truth) < 0.5 * rms(focus.diopters - truth)


def test_a_wrong_plane_does_not_move_the_rest_of_the_image() -> None:
    truth = scene()
    prior, wrong = truth.copy(), np.s_[60:, :64]
    prior[wrong] += np.linspace(0.0, 0.8, 64, dtype=np.float32)
    focus = focus_on(truth, 0.02)
    rest = np.ones(SIZE, bool)
    rest[wrong] = False
    pair = global_pair(observe(focus, prior, SHAPE))
    assert pair is not None
    plain = weighted_line(prior.ravel(), focus.diopters.ravel(), np.ones(prior.size))
    errors = [rms(scale * prior[rest] + shift - truth[rest]) for scale, shift in (pair, plain)]
    assert errors[0] < 0.75 * errors[1]
    aligned = align_prior(focus, prior)
    assert aligned is not None
    assert rms(aligned.diopters[rest] - truth[rest]) < 0.04


def test_pixels_count_by_their_sigma() -> None:
    truth = scene()
    sigma = np.full(SIZE, 0.02, np.float32)
    sigma[:, 64:] = 1.0
    focus = focus_on(truth, sigma)
    focus.diopters[:, 64:] = 1.0  # says nothing of the prior, and says so
    errors = []
    for weighted in (True, False):
        aligned = align_prior(focus, truth, AlignmentOptions(piecewise=False, weighted=weighted))
        assert aligned is not None
        errors.append(rms(aligned.diopters - truth))
    assert errors[0] < 0.02 < errors[1]


def test_the_correction_fades_where_the_focus_says_nothing() -> None:
    truth = scene()
    sigma = np.full(SIZE, 0.03, np.float32)
    sigma[:, 64:] = 5.0
    aligned = align_prior(focus_on(truth, sigma), truth)
    assert aligned is not None
    assert aligned.fit_sigma[:, 110:].mean() > 2.0 * aligned.fit_sigma[:, :40].mean()
    assert rms(aligned.diopters[:, 64:] - truth[:, 64:]) < 0.1


def test_sigma_grows_where_the_prior_is_wrong_and_the_focus_knows_it() -> None:
    truth, rng = scene(), np.random.default_rng(0)
    prior = truth.copy()
    prior[:, 64:] += 0.25 * rng.standard_normal((12, 8)).repeat(8, 0).repeat(8, 1).astype(np.float32)
    aligned = align_prior(focus_on(truth, 0.02), prior)
    assert aligned is not None
    assert aligned.misfit_sigma[:, 80:].mean() > 1.4 * aligned.misfit_sigma[:, :40].mean()


@given(seed=st.integers(0, 1000))
def test_sigma_is_never_below_what_a_prior_can_be(seed: int) -> None:
    truth = scene(seed)
    aligned = align_prior(focus_on(truth, 0.3, seed), truth)
    assert aligned is not None
    extent = np.ptp(np.percentile(truth, (1, 99)))
    assert aligned.misfit_sigma.min() > 0.3 * LEAST_MISFIT * extent
    assert np.isfinite(aligned.sigma_diopters).all()


@given(seed=st.integers(0, 1000), misfit=st.floats(0.05, 1.0))
def test_the_misfit_is_what_residuals_have_beyond_their_variances(seed: int, misfit: float) -> None:
    rng = np.random.default_rng(seed)
    variance = rng.uniform(0.01, 0.2, 40_000) ** 2
    residual = rng.standard_normal(40_000) * np.sqrt(variance + misfit**2)
    assert misfit_variance(residual, variance) ** 0.5 == pytest.approx(misfit, rel=0.1)
    assert misfit_variance(0.5 * rng.standard_normal(40_000) * np.sqrt(variance), variance) == 0.0


NOTHING = np.full(SIZE, np.nan, np.float32)


@pytest.mark.parametrize(
    "prior", [np.full(SIZE, 3.0, np.float32), -scene(), NOTHING], ids=["constant", "wrong sign", "no number"]
)
def test_a_prior_that_cannot_be_aligned_is_none(prior: np.ndarray) -> None:
    assert align_prior(focus_on(scene()), prior) is None


def test_too_few_usable_pixels_align_nothing() -> None:
    focus = focus_on(scene())
    sigma = np.full(SIZE, np.inf, np.float32)
    assert align_prior(replace(focus, sigma_diopters=sigma), scene()) is None
    sigma[40, 60:62] = 0.05
    assert align_prior(replace(focus, sigma_diopters=sigma), scene()) is None


def test_an_unrelated_prior_is_refused_or_said_to_be_wrong() -> None:
    truth = scene()
    noise = np.random.default_rng(1).standard_normal(SIZE).astype(np.float32)
    aligned = align_prior(focus_on(truth), noise)
    assert aligned is None or np.median(aligned.sigma_diopters) > 0.15


def test_holes_in_the_prior_stay_holes_and_harm_nothing() -> None:
    truth = scene()
    prior = truth.copy()
    prior[:10] = np.nan
    aligned = align_prior(focus_on(truth), prior)
    assert aligned is not None
    assert np.isnan(aligned.diopters[:10]).all() and rms(aligned.diopters[10:] - truth[10:]) < 0.02


def test_a_prior_of_another_size_and_impossible_options_are_refused() -> None:
    with pytest.raises(
        ModelError, match=r"prior: expected \[96, 128\] like the focus estimate, got \[5, 6\]"
    ):
        align_prior(focus_on(scene()), np.zeros((5, 6), np.float32))
    with pytest.raises(ParameterError, match="expected at least 1 cell, 2 levels"):
        AlignmentOptions(levels=1)
