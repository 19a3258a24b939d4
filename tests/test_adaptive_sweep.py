"""Planning foci: where they lie, given where the scene is and how well it is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybriddepth_ros.adaptive_sweep import (
    LEAST_EXTENT_PX,
    MARGIN_PX,
    SPANNED_SHARE,
    FocusDemand,
    candidate_foci,
    demand_of,
    plan_foci,
)
from hybriddepth_ros.errors import ParameterError
from hybriddepth_ros.estimator import EstimatorOptions, load_estimator
from hybriddepth_ros.focal_stack import FocalSlice, FocalStack
from hybriddepth_ros.optics import ThinLens
from tests.stacks import disc_blur, texture

BLUR = 12.0  # px/D
CANDIDATES = candidate_foci(0.0, 3.0, BLUR)
STEP = CANDIDATES[1] - CANDIDATES[0]
BINS = np.linspace(-0.2, 3.4, 72)


def peaks(*at: float, width: float = 0.05) -> FocusDemand:
    return FocusDemand(BINS, sum(np.exp(-0.5 * ((BINS - d) / width) ** 2) for d in at))


def between(far: float, near: float) -> FocusDemand:
    """As much of the scene everywhere from far to near [1/m]."""
    return FocusDemand(np.linspace(far, near, 64), np.ones(64))


weights = st.lists(st.floats(0.0, 1e3), min_size=len(BINS), max_size=len(BINS)).filter(
    lambda w: sum(w) > 1e-3
)


@settings(max_examples=100, deadline=None)
@given(weights, st.integers(2, 16), st.floats(1.0, 60.0))
def test_foci_are_distinct_rising_candidates_about_the_scene(
    weight: list[float], count: int, blur: float
) -> None:
    demand = FocusDemand(BINS, np.array(weight))
    candidates = candidate_foci(0.0, 3.0, blur)
    foci = plan_foci(demand, candidates, count, blur)
    assert len(foci) == count and set(foci) <= set(candidates)
    assert (np.diff(foci) > 0.0).all()
    # What lies before the first focus, or behind the last, is let out; a bin may lie half in, half out.
    for outside, at_end in (
        (foci[0] > BINS, foci[0] > candidates[0]),
        (foci[-1] < BINS, foci[-1] < candidates[-1]),
    ):
        if at_end:
            let_out = (1.0 - SPANNED_SHARE) * demand.weight.sum()
            assert demand.weight[outside].sum() <= let_out * (1 + 1e-9)


@settings(max_examples=50, deadline=None)
@given(weights, st.integers(3, 7), st.floats(0.1, 1e3))
def test_only_ratios_of_weights_matter(weight: list[float], count: int, factor: float) -> None:
    one = plan_foci(FocusDemand(BINS, np.array(weight)), CANDIDATES, count, BLUR)
    other = plan_foci(FocusDemand(BINS, factor * np.array(weight)), CANDIDATES, count, BLUR)
    assert np.abs(np.array(one) - other).max() <= 1.01 * STEP  # at most rounded the other way


@settings(max_examples=50, deadline=None)
@given(st.floats(0.2, 1.2), st.floats(0.6, 1.5), st.integers(2, 9))
def test_an_even_scene_is_spanned_evenly_and_a_little_more(far: float, extent: float, count: int) -> None:
    foci = np.array(plan_foci(between(far, far + extent), CANDIDATES, count, BLUR))
    margin = MARGIN_PX / BLUR
    assert foci[0] == pytest.approx(far - margin, abs=0.02 * extent + 0.51 * STEP)
    assert foci[-1] == pytest.approx(far + extent + margin, abs=0.02 * extent + 0.51 * STEP)
    # The margin, where nothing is, draws no slices: a little wider there.
    spacings = np.diff(foci)
    assert spacings.max() - spacings.min() <= margin + 2.0 * STEP
    assert np.allclose(foci + foci[::-1], foci[0] + foci[-1], atol=2.0 * STEP)


@settings(max_examples=60, deadline=None)
@given(st.floats(0.6, 2.4), st.floats(0.6, 2.4), st.floats(0.1, 0.3), st.integers(5, 12))
def test_slices_lie_closer_where_more_is_wanted(at: float, also_at: float, width: float, count: int) -> None:
    """Were the variance to go with the square of the spacing, less of it is expected than from even foci."""
    demand = FocusDemand(BINS, peaks(at, width=width).weight + 0.2 * peaks(also_at, width=width).weight)
    foci = np.array(plan_foci(demand, np.linspace(0.0, 3.0, 2001).tolist(), count, BLUR))

    def expected(foci: np.ndarray) -> float:
        within = (demand.diopters > foci[0]) & (demand.diopters < foci[-1])
        spacing = np.diff(foci)[np.searchsorted(foci, demand.diopters[within]) - 1]
        return float((demand.weight[within] * spacing**2).sum())

    assert expected(foci) <= 1.02 * expected(np.linspace(foci[0], foci[-1], count))


def test_the_gap_between_two_surfaces_is_spared() -> None:
    foci = np.array(plan_foci(peaks(0.6, 2.4, width=0.1), CANDIDATES, 8, BLUR))
    spacings, middles = np.diff(foci), 0.5 * (foci[1:] + foci[:-1])
    at_surface = np.minimum(np.abs(middles - 0.6), np.abs(middles - 2.4)) < 0.2
    in_gap = np.abs(middles - 1.5) < 0.4
    assert spacings[in_gap].min() > 1.3 * spacings[at_surface].max()


def test_more_weight_draws_more_slices() -> None:
    one, other = peaks(0.6, width=0.15), peaks(2.4, width=0.15)
    demand = FocusDemand(BINS, 30.0 * one.weight + other.weight)
    foci = np.array(plan_foci(demand, CANDIDATES, 8, BLUR))
    assert (foci < 1.5).sum() > (foci > 1.5).sum() >= 1


@pytest.mark.parametrize("blur", [6.0, 12.0, 40.0])
def test_a_mere_wall_is_seen_blurred_from_both_sides(blur: float) -> None:
    wall = FocusDemand(np.array([1.5]), np.ones(1))
    foci = plan_foci(wall, candidate_foci(0.0, 3.0, blur), 3, blur)
    assert (foci[-1] - foci[0]) * blur == pytest.approx(LEAST_EXTENT_PX, abs=0.6)
    assert foci[1] == pytest.approx(1.5, abs=0.3 / blur)


@pytest.mark.parametrize(("at", "end"), [(3.3, -1), (-0.2, 0), (9.0, -1)])
def test_a_scene_beyond_reach_is_looked_at_from_that_end(at: float, end: int) -> None:
    demand = FocusDemand(np.array([at - 0.1, at, at + 0.1]), np.ones(3))
    foci = plan_foci(demand, CANDIDATES, 3, BLUR)
    assert foci[end] == CANDIDATES[end]
    assert foci[-1] - foci[0] == pytest.approx(LEAST_EXTENT_PX / BLUR, abs=2 * STEP)


def test_a_lens_of_few_steps_looks_from_both_sides() -> None:
    wall = FocusDemand(np.array([1.5]), np.ones(1))
    assert plan_foci(wall, (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0), 5, BLUR) == (0.5, 1.0, 1.5, 2.0, 2.5)
    at_end = FocusDemand(np.array([3.0]), np.ones(1))
    assert plan_foci(at_end, (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0), 4, BLUR) == (1.5, 2.0, 2.5, 3.0)


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
