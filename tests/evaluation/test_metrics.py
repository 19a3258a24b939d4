"""The measures, against values worked out by hand."""

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybriddepth_ros.evaluation.metrics import (
    METRIC_NAMES,
    ScoreKeeper,
    depth_metrics,
    distance_bins,
    relative_error,
    sigma_coverage,
)
from tests.published_weights import load_fixture


def test_metrics_of_two_pixels_worked_out_by_hand() -> None:
    target = np.array([[1.0, 2.0]])
    prediction = np.array([[1.1, 1.5]])
    metrics = depth_metrics(prediction, target)
    assert tuple(metrics) == METRIC_NAMES
    assert metrics["mse"] == pytest.approx((0.1**2 + 0.5**2) / 2)
    assert metrics["rmse"] == pytest.approx(math.sqrt((0.1**2 + 0.5**2) / 2))
    assert metrics["log_rmse"] == pytest.approx(math.sqrt((math.log(1.1) ** 2 + math.log(0.75) ** 2) / 2))
    assert metrics["abs_rel"] == pytest.approx((0.1 + 0.25) / 2)
    assert metrics["sq_rel"] == pytest.approx((0.01 / 1 + 0.25 / 2) / 2)
    assert (metrics["delta1"], metrics["delta2"], metrics["delta3"]) == (0.5, 1.0, 1.0)


def test_pixels_without_estimate_or_truth_or_outside_the_mask_do_not_count() -> None:
    target = np.array([[1.0, np.nan, 2.0, 0.0, 4.0]])
    prediction = np.array([[1.5, 1.0, np.nan, 1.0, 40.0]])
    mask = np.array([[True, True, True, True, False]])
    assert depth_metrics(prediction, target, mask)["abs_rel"] == pytest.approx(0.5)


def test_nothing_comparable_gives_nan_and_no_warning() -> None:
    with np.errstate(all="raise"):
        metrics = depth_metrics(np.full((2, 2), np.nan), np.ones((2, 2)))
        empty = ScoreKeeper().score()
    assert all(math.isnan(v) for v in metrics.values())
    assert math.isnan(empty.median_relative_error) and empty.images == 0


def test_relative_error_is_signed_and_nan_where_missing() -> None:
    error = relative_error(np.array([2.2, np.nan, 1.8]), np.array([2.0, 2.0, 2.0]))
    assert error[0] == pytest.approx(0.1) and np.isnan(error[1]) and error[2] == pytest.approx(-0.1)


def test_a_calibrated_gaussian_covers_68_and_95_percent() -> None:
    rng = np.random.default_rng(3)
    target = np.full((400, 400), 2.0)
    prediction = target + rng.normal(0, 0.05, target.shape)
    coverage = sigma_coverage(prediction, np.full_like(target, 0.05), target)
    assert coverage[1.0] == pytest.approx(0.683, abs=0.01)
    assert coverage[2.0] == pytest.approx(0.954, abs=0.01)


def test_the_score_bins_by_true_distance_evenly_in_diopters() -> None:
    target = np.tile(np.linspace(0.5, 4.0, 600, dtype=np.float32), (40, 1))
    prediction = target * 1.03
    prediction[:, :30] = np.nan
    keeper = ScoreKeeper(stride=1)
    keeper.add(prediction, 0.05 * target, target)
    score = keeper.score(bin_count=5)
    assert score.median_relative_error == pytest.approx(0.03, rel=1e-3)
    assert score.metrics["abs_rel"] == pytest.approx(0.03, rel=1e-3)
    assert score.valid_share == pytest.approx(570 / 600)
    assert score.coverage[1.0] == 1.0
    widths = [1 / b.near - 1 / b.far for b in score.bins]
    assert np.ptp(widths) < 1e-6 and len(widths) == 5
    assert score.bins[0].valid_share == 0.0 and math.isnan(score.bins[0].median_error)
    assert score.bins[-1].valid_share == 1.0
    assert all(b.median_relative == pytest.approx(0.03, rel=1e-3) for b in score.bins[1:])
    assert score.bins[-1].median_error > score.bins[1].median_error


def test_a_bin_counts_what_lies_within_one_sigma_and_within_two() -> None:
    target = np.repeat(np.linspace(1.0, 2.0, 50), 100)
    sigma = np.full_like(target, 0.1)
    in_sigmas = np.tile([0.5, 1.5, 1.5, 3.0], target.size // 4)
    for one in distance_bins(target + in_sigmas * sigma, sigma, target, 4):
        assert (one.coverage, one.coverage_2_sigma) == (0.25, 0.75)


@given(depths=st.lists(st.sampled_from([0.375, 0.5, 1.0, 2.0, 2.5, 7.0]), min_size=1, max_size=30))
def test_every_bin_is_there_even_an_empty_one_and_every_pixel_is_in_one(depths: list[float]) -> None:
    target = np.array(depths, np.float32)
    prediction = np.where(target == 2.0, np.nan, target).astype(np.float32)
    sigma = np.full_like(target, 0.1)
    limits = (float(target.min()), float(target.max()))
    bins = distance_bins(prediction, sigma, target, 4, limits)
    assert len(bins) == (4 if limits[0] < limits[1] else 1)
    assert (bins[0].near, bins[-1].far) == limits
    assert [one.far for one in bins[:-1]] == [one.near for one in bins[1:]]
    assert sum(one.pixels for one in bins) == int((target != 2.0).sum())
    empty = [one for one in bins if math.isnan(one.valid_share)]
    assert all(one.pixels == 0 and math.isnan(one.median_error) for one in empty)
    there = [any(one.near <= d < one.far for d in depths) or one is bins[-1] for one in bins]
    assert [not math.isnan(one.valid_share) for one in bins] == there
    nothing = np.zeros(0, np.float32)
    assert distance_bins(nothing, nothing, nothing) == []


@given(
    unsure=st.lists(st.booleans(), min_size=120, max_size=120).map(np.array),
    nothing=st.sampled_from([np.nan, np.inf, 0.0, -1.0]),
    seed=st.integers(0, 99),
)
def test_pixels_without_a_sigma_change_no_coverage_and_no_median_sigma(
    unsure: npt.NDArray[np.bool_], nothing: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    target = rng.uniform(1.0, 2.0, 120)
    prediction, sigma = target + rng.normal(0.0, 0.1, 120), rng.uniform(0.05, 0.2, 120)
    sigma[unsure] = nothing
    ends = (1.0, 2.0)
    sure = [a[~unsure] for a in (prediction, sigma, target)]
    expected = {one.near: one for one in distance_bins(*sure, 4, ends)}
    for one in distance_bins(prediction, sigma, target, 4, ends):
        found = (one.coverage, one.coverage_2_sigma, one.median_sigma)
        if one.near in expected:
            other = expected[one.near]
            assert found == (other.coverage, other.coverage_2_sigma, other.median_sigma)
        else:
            assert all(math.isnan(value) for value in found)
        assert one.valid_share == 1.0 and math.isfinite(one.median_error)


@pytest.mark.parametrize("index", [0, 1])
def test_published_measures(index: int) -> None:
    stored = load_fixture("metrics")
    pred, target, mask = (stored[f"{name}_{index}"] for name in ("pred", "target", "mask"))
    expected = np.delete(stored[f"metrics_f64_{index}"].numpy()[0], 5)  # without the SSIM that is always 0
    for arrays in ((pred, target, mask), (pred.numpy(), target.numpy(), mask.numpy())):
        np.testing.assert_allclose(list(depth_metrics(*arrays).values()), expected, rtol=0.0, atol=1e-12)
    in_float32 = np.delete(stored[f"metrics_{index}"].numpy()[0], 5)
    np.testing.assert_allclose(list(depth_metrics(pred, target, mask).values()), in_float32, atol=1e-6)


@pytest.mark.parametrize("index", [0, 1])
def test_confidence_weights_as_published_but_for_the_squared_error_that_is_always_zero_there(
    index: int,
) -> None:
    stored = load_fixture("metrics")
    pred, target, mask, conf = (stored[f"{n}_{index}"] for n in ("pred", "target", "mask", "conf"))
    expected = dict(zip(METRIC_NAMES, np.delete(stored[f"metrics_conf_{index}"].numpy()[0], 5), strict=True))
    metrics = depth_metrics(pred, target, mask, confidence=conf)
    for name in METRIC_NAMES[2:]:
        assert metrics[name] == pytest.approx(expected[name], abs=1e-6)
    assert expected["mse"] == 0.0 and metrics["mse"] > 0.0
    assert metrics["mse"] == pytest.approx(depth_metrics(pred, target, mask)["mse"], rel=0.1)


def test_no_confidence_at_all_gives_nan() -> None:
    ones = np.ones((2, 2))
    assert math.isnan(depth_metrics(ones, ones, confidence=np.zeros((2, 2)))["abs_rel"])
