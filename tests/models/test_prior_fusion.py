"""Focus and prior are joined as their sigmas say, and what they share is not counted twice."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybriddepth_ros.models import FocusEstimate
from hybriddepth_ros.models.prior_alignment import AlignedPrior
from hybriddepth_ros.models.prior_fusion import fuse, with_prior
from hybriddepth_ros.simulation.relative_prior import PriorErrors, simulate_prior, simulated_focus

SIGMA = st.floats(0.001, 10.0)


def image(*values: float) -> np.ndarray:
    return np.array([values], np.float32)


def focus_of(diopters: np.ndarray, sigma: np.ndarray) -> FocusEstimate:
    return FocusEstimate(diopters.astype(np.float32), sigma.astype(np.float32), 8.0)


def prior_of(diopters: np.ndarray, fit: np.ndarray, misfit: np.ndarray) -> AlignedPrior:
    return AlignedPrior(*(a.astype(np.float32) for a in (diopters, fit, misfit)), 1.0, 0.0)


@given(own=SIGMA, misfit=SIGMA)
def test_independent_estimates_are_weighted_by_inverse_variance(own: float, misfit: float) -> None:
    fused = fuse(focus_of(image(1.0), image(own)), prior_of(image(1.0001), image(0.0), image(misfit)))
    expected = 1.0 / (1.0 / own**2 + 1.0 / misfit**2)
    assert fused.sigma_diopters[0, 0] ** 2 == pytest.approx(expected, rel=1e-3)
    assert fused.diopters[0, 0] == pytest.approx(1.0 + 0.0001 * expected / misfit**2, abs=2e-6)


@given(own=SIGMA, fit=SIGMA, misfit=SIGMA, difference=st.floats(-5, 5))
def test_the_result_lies_between_and_is_never_surer_than_independence_allows(
    own: float, fit: float, misfit: float, difference: float
) -> None:
    focus, prior = (
        focus_of(image(1.0), image(own)),
        prior_of(image(1 + difference), image(fit), image(misfit)),
    )
    fused = fuse(focus, prior)
    low, high = sorted((1.0, 1.0 + difference))
    assert low - 1e-5 <= fused.diopters[0, 0] <= high + 1e-5
    independent = 1.0 / (1.0 / own**2 + 1.0 / (fit**2 + misfit**2))
    assert fused.sigma_diopters[0, 0] ** 2 >= independent * (1 - 1e-3)


@given(own=SIGMA, extra=st.floats(1.0, 5.0))
def test_a_prior_that_follows_the_focus_adds_nothing(own: float, extra: float) -> None:
    fused = fuse(focus_of(image(1.0), image(own)), prior_of(image(1.0), image(extra * own), image(0.0)))
    assert fused.sigma_diopters[0, 0] == pytest.approx(own, rel=1e-3)


@pytest.mark.parametrize(("own", "fit", "misfit"), [(0.3, 0.0, 0.1), (0.2, 0.15, 0.05), (0.1, 0.1, 0.2)])
def test_coverage_is_that_of_a_gaussian_though_errors_are_shared(
    own: float, fit: float, misfit: float
) -> None:
    """The shared error has the variance of the fit; ignoring it would say too small a sigma."""
    rng = np.random.default_rng(0)
    shared, alone, wrong = rng.standard_normal((3, 200, 500))
    e_focus = fit * shared + np.sqrt(own**2 - fit**2) * alone
    e_prior = fit * shared + misfit * wrong
    size = np.ones((200, 500))
    fused = fuse(focus_of(1 + e_focus, own * size), prior_of(1 + e_prior, fit * size, misfit * size))
    inside = np.mean(np.abs(fused.diopters - 1.0) <= fused.sigma_diopters)
    assert 0.68 <= inside <= 0.75  # surprises only widen it
    assert np.std(fused.diopters) <= min(own, np.hypot(fit, misfit)) * 1.01


def test_a_contradiction_is_said_aloud() -> None:
    fused = fuse(
        focus_of(image(1.0, 1.0), image(0.1, 0.1)), prior_of(image(1.1, 3.0), image(0, 0), image(0.1, 0.1))
    )
    agreed, contradicted = fused.sigma_diopters[0]
    assert agreed < 0.08 and contradicted == pytest.approx(1.0, rel=0.02)


def test_texture_speaks_by_focus_and_walls_by_the_prior() -> None:
    focus = focus_of(image(1.0, 5.0), image(0.01, 1e3))
    fused = fuse(focus, prior_of(image(1.2, 2.0), image(0.02, 0.05), image(0.1, 0.1)))
    assert fused.diopters[0].tolist() == pytest.approx([1.0, 2.0], abs=0.005)


def test_what_nobody_saw_stays_unknown_and_holes_of_the_prior_stay_focus() -> None:
    focus = focus_of(image(1.0, 1.0), image(np.inf, 0.2))
    fused = fuse(focus, prior_of(image(2.0, np.nan), image(0.1, 0.1), image(0.1, 0.1)))
    assert np.isinf(fused.sigma_diopters[0, 0])
    assert fused.diopters[0, 1] == 1.0 and fused.sigma_diopters[0, 1] == np.float32(0.2)


def test_a_prior_that_cannot_be_aligned_leaves_the_focus_estimate_itself() -> None:
    focus = focus_of(np.random.default_rng(0).random((40, 50)) + 1.0, np.full((40, 50), 0.1))
    assert with_prior(focus, np.ones((40, 50), np.float32)) is focus


def textured_room() -> tuple[np.ndarray, np.ndarray]:
    """A corner of two walls with a box before it; texture on half of it. Inverse depth, image."""
    rng = np.random.default_rng(5)
    y, x = np.mgrid[0:120, 0:160].astype(np.float32)
    truth = 0.5 + np.abs(x - 70) / 120 + y / 400
    truth[60:105, 85:130] = 1.8
    picture = np.full((120, 160, 3), 120, np.uint8)
    texture = rng.integers(40, 200, (120, 160, 1), np.uint8)
    for part in (np.s_[:, :40], np.s_[80:, 40:120], np.s_[20:60, 120:]):
        picture[part] = texture[part]
    return truth, picture


@pytest.mark.parametrize("seed", range(4))
def test_fused_depth_beats_focus_and_globally_aligned_prior_with_an_honest_sigma(seed: int) -> None:
    from hybriddepth_ros.models.prior_alignment import AlignmentOptions, align_prior

    truth, picture = textured_room()
    rng = np.random.default_rng(seed)
    focus = simulated_focus(truth, picture, rng)
    relative = simulate_prior(truth, rng, PriorErrors(edge_blur_px=1.0)).relative
    whole = align_prior(focus, relative, AlignmentOptions(piecewise=False))
    fused = with_prior(focus, relative)
    assert whole is not None and fused is not focus

    def error(diopters: np.ndarray) -> float:
        return float(np.mean(np.abs(1 / np.maximum(diopters, 0.05) - 1 / truth) * truth))

    assert error(fused.diopters) < 0.8 * min(error(focus.diopters), error(whole.diopters))
    inside = np.mean(np.abs(fused.diopters - truth) <= fused.sigma_diopters)
    assert 0.55 < inside < 0.95
