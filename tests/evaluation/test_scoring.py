"""Rows of measures, samples and texture, on frames whose answers are known."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybriddepth_ros.errors import DatasetError
from hybriddepth_ros.evaluation.contenders import with_slices
from hybriddepth_ros.evaluation.frames import DisparityTruth, MetricTruth
from hybriddepth_ros.evaluation.scoring import SAMPLE_PIXELS, Reading, Subject, score, texture
from tests.evaluation.conftest import SIZE, make_frame, off_by


def test_every_measure_of_an_estimate_that_is_ten_percent_too_far() -> None:
    subject, reading = off_by(1.1).judge(make_frame())
    measures = score(subject, reading).measures
    assert [measures["abs_rel"], measures["median_abs_rel"]] == pytest.approx([0.1, 0.1], rel=1e-5)
    assert measures["interior_abs_rel"] == pytest.approx(0.1, rel=1e-5)
    truth = np.linspace(1.0, 3.0, SIZE[1])
    assert measures["diopter_mae"] == pytest.approx(np.mean((1 - 1 / 1.1) / truth), rel=1e-5)
    assert measures["ause_rmse"] == pytest.approx(0.0, abs=1e-9)
    assert measures["coverage_2_sigma"] == measures["valid_share"] == measures["delta1"] == 1.0
    assert measures["runtime_ms"] == 5.0
    assert math.isnan(measures["boundary_abs_rel"])  # a slope has no edge
    assert not any(name.startswith("disparity") for name in measures)


def test_what_was_not_estimated_is_told_by_the_share_alone() -> None:
    subject, reading = off_by(1.1).judge(make_frame())
    depth = reading.depth.copy()
    depth[:, :8] = np.nan
    measures = score(subject, replace(reading, depth=depth)).measures
    assert measures["valid_share"] == pytest.approx(24 / 32)
    assert measures["abs_rel"] == pytest.approx(0.1, rel=1e-5)


def test_a_truth_in_disparity_is_scored_in_metres_and_in_disparity() -> None:
    frame = make_frame()
    disparity = np.nan_to_num(6.0 / frame.truth.values, nan=0.0).astype(np.float32)
    subject = replace(Subject.of(frame), truth=DisparityTruth(disparity, 6.0))
    depth = (frame.depth_m() / 1.1).astype(np.float32)
    measures = score(subject, Reading(depth, 0.1 * depth)).measures
    assert measures["abs_rel"] == pytest.approx(1 - 1 / 1.1, rel=1e-5)
    assert measures["disparity_abs_rel"] == pytest.approx(0.1, rel=1e-5)  # 10 % nearer is 10 % more of it
    known = disparity[1:]
    assert measures["disparity_rmse"] == pytest.approx(np.sqrt(np.mean((0.1 * known) ** 2)), rel=1e-5)


def test_confidence_weighs_the_errors() -> None:
    subject, reading = off_by(1.1).judge(make_frame())
    depth = reading.depth.copy()
    depth[:, 16:] *= 2.0
    confidence = np.zeros(SIZE, np.float32)
    confidence[:, :16] = 0.7
    weighed = score(replace(subject, confidence=confidence), replace(reading, depth=depth))
    assert weighed.measures["abs_rel"] == pytest.approx(0.1, rel=1e-5)


def test_an_estimate_of_another_size_is_refused() -> None:
    subject, reading = off_by(1.1).judge(make_frame())
    with pytest.raises(DatasetError, match=r"frame: expected a depth of \[24, 32\]"):
        score(subject, replace(reading, depth=reading.depth[:-1]))


def test_the_sample_holds_known_pixels_only_and_not_too_many() -> None:
    subject, reading = off_by(1.1).judge(make_frame())
    sample = score(subject, reading).sample
    assert sample.shape == (4, (SIZE[0] - 1) * SIZE[1])
    np.testing.assert_allclose(sample[0], 1.1 * sample[2], rtol=1e-6)
    large = np.full((600, 800), 2.0, np.float32)
    blank = np.zeros((600, 800, 3), np.uint8)
    big = replace(subject, truth=type(subject.truth)(large), valid=large > 0, scene=blank, texture=large)  # type: ignore[call-arg]
    assert 0.5 * SAMPLE_PIXELS < score(big, Reading(large, large)).sample.shape[1] <= SAMPLE_PIXELS


@given(rows=st.integers(1, 7), columns=st.integers(1, 7), first=st.integers(0, 6))
@settings(max_examples=20)
def test_a_truth_of_some_rows_and_columns_is_sampled_too(rows: int, columns: int, first: int) -> None:
    """As a scanner gives it; and from all over the image."""
    subject, _ = off_by(1.1).judge(make_frame())
    truth = np.full((600, 800), np.nan, np.float32)
    truth[first::rows, first::columns] = 2.0
    where = np.broadcast_to(np.linspace(0.0, 1.0, 600, dtype=np.float32)[:, None], truth.shape)
    sparse = replace(subject, truth=MetricTruth(truth), valid=truth > 0, texture=where)
    sample = score(sparse, Reading(truth, truth)).sample
    assert sample.shape[1] == min(SAMPLE_PIXELS, int((truth > 0).sum()))
    assert (sample[2] == 2.0).all() and sample[3].mean() == pytest.approx(0.5, abs=0.02)


def test_texture_is_the_deviation_in_the_sharpest_slice() -> None:
    checks = np.indices((40, 40)).sum(axis=0) % 2 * 100 + 50  # 50 and 150: deviation 50
    sharp = np.repeat(checks[..., None], 3, axis=2).astype(np.uint8)
    flat = np.full_like(sharp, 100)
    found = texture([flat, sharp])
    assert found[20, 20] == pytest.approx(50.0, rel=0.01)
    assert texture([flat]).max() == pytest.approx(0.0, abs=0.1)


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_slices_are_spread_evenly_and_the_reference_is_among_them(count: int) -> None:
    frame = make_frame(slices=9)
    chosen = with_slices(frame, count)
    focus = chosen.stack.focus_diopters
    assert len(focus) == count
    assert focus[chosen.reference] == frame.stack.focus_diopters[frame.reference]
    assert np.array_equal(focus, np.sort(focus))
    assert np.ptp(focus) >= np.ptp(frame.stack.focus_diopters) * (0.7 if count > 2 else 0.2)


@given(available=st.integers(3, 16), data=st.data())
def test_of_few_slices_the_farthest_stays_unless_the_reference_is_closest_to_it(
    available: int, data: st.DataObject
) -> None:
    count = data.draw(st.integers(2, available))
    order = data.draw(st.permutations(range(available)))
    frame = make_frame(slices=available)
    slices = tuple(frame.stack.slices[i] for i in order)
    reference = data.draw(st.integers(0, available - 1))
    frame = replace(frame, stack=replace(frame.stack, slices=slices), reference=reference)
    chosen = with_slices(frame, count)
    kept = [round(focus - 0.3) for focus in chosen.stack.focus_diopters.tolist()]  # places in order of focus
    assert kept == [place for place in order if place in kept] and len({*kept}) == count
    assert kept[chosen.reference] == order[reference]
    second = sorted(np.linspace(0, available - 1, count).round().tolist())[1]
    assert (0 in kept) or order[reference] < second - order[reference]


def test_more_slices_than_there_are_is_refused() -> None:
    with pytest.raises(DatasetError, match="frame: expected at least 6 slices, got 5"):
        with_slices(make_frame(), 6)
