"""Planning foci by what they tell: the information they carry, and where they end up."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybriddepth_ros.adaptive_sweep import (
    SCENE_SHARE,
    FocusDemand,
    candidate_foci,
    demand_of,
    information,
    plan_foci,
)
from hybriddepth_ros.errors import ParameterError
from hybriddepth_ros.estimator import EstimatorOptions, load_estimator
from hybriddepth_ros.focal_stack import FocalSlice, FocalStack
from hybriddepth_ros.optics import ThinLens
from tests.stacks import disc_blur, texture

BLUR = 12.0  # px/D
CANDIDATES = candidate_foci(0.0, 3.0, BLUR)
BINS = np.linspace(-0.2, 3.4, 72)


def peaks(*at: float, width: float = 0.05) -> FocusDemand:
    return FocusDemand(BINS, sum(np.exp(-0.5 * ((BINS - d) / width) ** 2) for d in at))


def expected_variance(demand: FocusDemand, foci: tuple[float, ...]) -> float:
    before = 12.0 / (CANDIDATES[-1] - CANDIDATES[0]) ** 2
    informed = information(demand.diopters, np.array(foci), BLUR)
    return float((demand.weight / (before + informed)).sum() / demand.weight.sum())


weights = st.lists(st.floats(0.0, 1e3), min_size=len(BINS), max_size=len(BINS)).filter(
    lambda w: sum(w) > 1e-3
)


@settings(max_examples=60, deadline=None)
@given(weights, st.integers(2, 9))
def test_foci_are_distinct_rising_candidates_about_the_scene(weight: list[float], count: int) -> None:
    demand = FocusDemand(BINS, np.array(weight))
    foci = plan_foci(demand, CANDIDATES, count, BLUR)
    assert len(foci) == count and set(foci) <= set(CANDIDATES)
    assert (np.diff(foci) > 0.0).all()
    # what lies before the first focus, or behind the last, is no more than is let out on each side
    for outside, at_end in (
        (foci[0] > BINS, foci[0] > CANDIDATES[0]),
        (foci[-1] < BINS, foci[-1] < CANDIDATES[-1]),
    ):
        if at_end:
            assert demand.weight[outside].sum() <= 0.5 * (1.0 - SCENE_SHARE) * demand.weight.sum() * (
                1 + 1e-9
            )


@settings(max_examples=30, deadline=None)
@given(weights, st.integers(3, 7), st.floats(0.1, 1e3))
def test_only_ratios_of_weights_matter(weight: list[float], count: int, factor: float) -> None:
    one = plan_foci(FocusDemand(BINS, np.array(weight)), CANDIDATES, count, BLUR)
    demand = FocusDemand(BINS, factor * np.array(weight))
    other = plan_foci(demand, CANDIDATES, count, BLUR)
    assert expected_variance(demand, one) == pytest.approx(expected_variance(demand, other), rel=1e-3)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.floats(0.3, 2.7), min_size=1, max_size=3),
    st.floats(0.02, 0.3),
    st.integers(3, 8),
)
def test_no_even_sweep_is_expected_to_tell_more(at: list[float], width: float, count: int) -> None:
    """Over the lens's reach, nor over the scene."""
    demand = peaks(*at, width=width)
    planned = expected_variance(demand, plan_foci(demand, CANDIDATES, count, BLUR))
    for low, high in ((0.0, 3.0), (max(min(at) - 3 * width, 0.0), min(max(at) + 3 * width, 3.0))):
        even = tuple(np.linspace(low, high, count))
        assert planned <= expected_variance(demand, even) * 1.05  # foci between two candidates may do better


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(0.0, 3.0), min_size=1, max_size=8),
    st.floats(0.0, 3.0),
    st.floats(1.0, 60.0),
)
def test_a_slice_more_never_tells_less(foci: list[float], another: float, blur: float) -> None:
    fewer = information(BINS, np.unique(foci), blur)
    more = information(BINS, np.unique([*foci, another]), blur)
    assert (fewer >= -1e-6).all()
    assert (more >= fewer * (1.0 - 1e-6) - 1e-6).all()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0.0, 3.0), min_size=2, max_size=6), st.floats(-2.0, 2.0), st.floats(0.5, 3.0))
def test_information_depends_on_blur_alone(foci: list[float], shift: float, scale: float) -> None:
    """A lens with `scale` times the blur over 1 / scale of the range tells scale^2 as much about diopters."""
    focus = np.unique(np.round(foci, 3))
    told = information(BINS, focus, BLUR)
    moved = information((BINS + shift) / scale, (focus + shift) / scale, BLUR * scale)
    assert np.allclose(moved, scale**2 * told, rtol=1e-6, atol=1e-6 * max(told.max(), 1.0))


def test_one_slice_tells_nothing_and_two_about_a_surface_more_than_two_beside_it() -> None:
    """The texture's strength is unknown, so that one slice's energy says nothing."""
    at = np.array([1.0])
    assert information(at, np.array([1.2]), BLUR)[0] == pytest.approx(0.0, abs=1e-9)
    about = information(at, np.array([0.8, 1.2]), BLUR)[0]
    beside = information(at, np.array([1.2, 1.6]), BLUR)[0]
    far_off = information(at, np.array([-3.0, 5.0]), BLUR)[0]
    twice = information(at, np.array([1.2, 1.2001]), BLUR)[0]
    assert about > 2.0 * beside and about > 20.0 * far_off and about > 100.0 * twice


def test_two_surfaces_get_the_slices_and_the_gap_between_them_none() -> None:
    foci = np.array(plan_foci(peaks(0.6, 2.4), CANDIDATES, 6, BLUR))
    assert ((foci > 1.2) & (foci < 1.8)).sum() == 0
    assert ((foci < 1.2).sum(), (foci > 1.8).sum()) == (3, 3)


def test_more_weight_draws_more_slices() -> None:
    one, other = peaks(0.6, width=0.15), peaks(2.4, width=0.15)
    demand = FocusDemand(BINS, 30.0 * one.weight + other.weight)
    foci = np.array(plan_foci(demand, CANDIDATES, 7, BLUR))
    assert (foci < 1.5).sum() > (foci > 1.5).sum() >= 1


def test_a_scene_beyond_reach_gets_the_foci_at_that_end() -> None:
    foci = plan_foci(peaks(3.3), CANDIDATES, 3, BLUR)
    assert foci[-1] == CANDIDATES[-1] and foci[0] > 2.0


@pytest.mark.parametrize("count", [0, 1, len(CANDIDATES) + 1])
def test_a_number_of_slices_that_cannot_be_is_refused(count: int) -> None:
    with pytest.raises(ParameterError, match=f"expected 2 to {len(CANDIDATES)} slices.*got {count}"):
        plan_foci(peaks(1.0), CANDIDATES, count, BLUR)


# -- the demand of an estimate


def test_a_demand_lies_where_the_scene_does_and_weighs_its_uncertainty() -> None:
    depth = np.full((60, 80), 2.0, np.float32)
    depth[:, 40:] = 0.5
    sigma = np.where(depth == 2.0, 0.08, 0.01).astype(np.float32)  # 0.02 and 0.04 1/m
    demand = demand_of(depth, sigma)
    assert demand is not None
    far, near = demand.weight[demand.diopters < 1.0].sum(), demand.weight[demand.diopters > 1.0].sum()
    assert near / far == pytest.approx(2.0, rel=0.02)
    for at, spread in ((0.5, 0.02), (2.0, 0.04)):
        close = np.abs(demand.diopters - at) < 0.5
        mean = np.average(demand.diopters[close], weights=demand.weight[close])
        assert mean == pytest.approx(at, abs=0.02)
        found = np.sqrt(np.average((demand.diopters[close] - mean) ** 2, weights=demand.weight[close]))
        assert found == pytest.approx(spread, abs=0.02)


def test_pixels_without_an_estimate_demand_nothing() -> None:
    depth, sigma = np.full((8, 8), np.nan, np.float32), np.full((8, 8), np.nan, np.float32)
    assert demand_of(depth, sigma) is None
    depth[2, 2], sigma[2, 2] = 1.0, 0.05
    demand = demand_of(depth, sigma)
    assert demand is not None
    assert demand.diopters[demand.weight.argmax()] == pytest.approx(1.0, abs=0.01)


def test_a_few_hopeless_pixels_do_not_draw_the_sweep() -> None:
    depth = np.full((40, 40), 1.0, np.float32)
    sigma = np.full((40, 40), 0.02, np.float32)
    depth[:4], sigma[:4] = 0.4, 0.4  # 2.5 1/m, sigma 2.5 1/m
    demand = demand_of(depth, sigma)
    assert demand is not None
    assert demand.weight[demand.diopters < 1.5].sum() > 2.0 * demand.weight[demand.diopters > 1.5].sum()


@pytest.mark.parametrize(
    ("diopters", "weight", "what"),
    [
        ([], [], "1 to 4096 bins"),
        ([1.0, 2.0], [1.0], "a weight each"),
        ([[1.0]], [[1.0]], "a weight each"),
        ([2.0, 1.0], [1.0, 1.0], "rising"),
        ([1.0, np.nan], [1.0, 1.0], "rising"),
        ([1.0, 2.0], [1.0, -1.0], "weights"),
        ([1.0, 2.0], [1.0, np.inf], "weights"),
        ([1.0, 2.0], [0.0, 0.0], "not all 0"),
    ],
)
def test_what_is_no_demand_is_refused(diopters: list[float], weight: list[float], what: str) -> None:
    with pytest.raises(ParameterError, match=what):
        FocusDemand(np.array(diopters), np.array(weight))


# -- what it is for

SIDE = 96
WALLS = ((0.9, 1.15), (1.4, 1.65), (1.85, 2.1), (2.3, 2.6))  # 1/m: far and near


def photographed(walls: tuple[float, float], foci: tuple[float, ...]) -> FocalStack:
    """Two walls side by side, blurred each for itself, with noise."""
    lens = ThinLens(25.0, 1.4, 25.0 * 25.0 / 1.4 / BLUR)
    sharp = texture((SIDE, SIDE), seed=3, slope=0.8)
    halves = (slice(0, SIDE // 2), slice(SIDE // 2, SIDE))
    slices = []
    for focus in foci:
        image = np.empty_like(sharp)
        for columns, diopters in zip(halves, walls, strict=True):
            image[:, columns] = disc_blur(sharp, BLUR * abs(diopters - focus))[:, columns]
        noise = np.random.default_rng(round(1e4 * focus)).normal(0.0, 1.5, sharp.shape)
        grey = np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)
        slices.append(FocalSlice(np.ascontiguousarray(np.repeat(grey[..., None], 3, axis=2)), focus))
    return FocalStack(tuple(slices), lens=lens)


@pytest.mark.parametrize("count", [4, 5])
def test_the_second_sweep_of_a_closed_loop_is_better_with_as_many_slices(count: int) -> None:
    """Walls within a tenth of what the first sweep covers; at some its slices happen to lie well."""
    estimator = load_estimator("classical", options=EstimatorOptions(register=False))
    errors = np.empty((2, len(WALLS)))
    for place, walls in enumerate(WALLS):
        truth = np.where(np.arange(SIDE) < SIDE // 2, *walls)[None, :]
        foci = tuple(np.linspace(0.0, 3.0, count))
        for sweep in range(2):
            estimate = estimator(photographed(walls, foci))
            errors[sweep, place] = np.nanmedian(np.abs(1.0 / estimate.depth - truth))
            demand = demand_of(estimate.depth, estimate.sigma)
            assert demand is not None
            foci = plan_foci(demand, CANDIDATES, count, BLUR)
    assert errors[1].mean() < 0.8 * errors[0].mean(), errors
