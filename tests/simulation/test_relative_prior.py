"""The simulated prior is wrong in the ways it is told to be, and in no other."""

from __future__ import annotations

import numpy as np
import pytest

from hybriddepth_ros.errors import ParameterError
from hybriddepth_ros.simulation.relative_prior import (
    PriorErrors,
    simulate_prior,
    simulated_focus,
    smooth_field,
)

NONE = PriorErrors(scale_field=0.0, shift_field=0.0, edge_blur_px=0.0, wrong_planes=0)


def box_before_a_wall() -> np.ndarray:
    diopters = np.full((90, 120), 0.5, np.float32) + np.linspace(0, 0.3, 120, dtype=np.float32)
    diopters[30:70, 40:80] = 2.0
    return diopters


def test_without_errors_it_is_an_affine_of_the_truth_of_positive_scale() -> None:
    truth = box_before_a_wall()
    for seed in range(5):
        relative = simulate_prior(truth, np.random.default_rng(seed), NONE).relative
        scale, shift = np.polyfit(truth.ravel(), relative.ravel(), 1)
        assert scale > 0
        np.testing.assert_allclose(scale * truth + shift, relative, atol=2e-5 * max(scale, 20))


def test_the_same_seed_gives_the_same_prior() -> None:
    first, second = (simulate_prior(box_before_a_wall(), np.random.default_rng(3)) for _ in range(2))
    assert np.array_equal(first.relative, second.relative) and np.array_equal(first.tilted, second.tilted)


def test_a_wrong_plane_ends_where_its_surface_ends() -> None:
    truth = box_before_a_wall()
    errors = PriorErrors(0.0, 0.0, 0.0, tilt=0.5, scale=(1.0, 1.0), shift=(0.0, 0.0), plane_area=(0.1, 0.2))
    simulated = simulate_prior(truth, np.random.default_rng(0), errors)
    box = np.zeros(truth.shape, bool)
    box[30:70, 40:80] = True
    assert np.array_equal(simulated.tilted, box)
    flat = simulate_prior(
        truth, np.random.default_rng(0), PriorErrors(0.0, 0.0, 0.0, wrong_planes=0)
    ).relative
    slope = np.polyfit(truth[~box], simulated.relative[~box], 1)
    np.testing.assert_allclose(np.polyval(slope, truth[~box]), simulated.relative[~box], atol=1e-4)
    assert np.ptp(simulated.relative[box]) > 0.5 and np.ptp(flat[box]) < 1e-3 * np.ptp(flat)


def test_fields_are_smooth_and_of_deviation_one() -> None:
    field = smooth_field(np.random.default_rng(0), (90, 120))
    assert field.std() == pytest.approx(1.0, abs=0.1) and abs(float(field.mean())) < 0.1
    assert np.abs(np.diff(field)).max() < 0.1


def test_the_simulated_focus_has_the_errors_that_it_says() -> None:
    rng = np.random.default_rng(0)
    picture = np.full((240, 320, 3), 100, np.uint8)
    picture[:, 160:] = rng.integers(0, 255, (240, 160, 1), np.uint8)
    truth = np.ones((240, 320), np.float32)
    focus = simulated_focus(truth, picture, rng)
    assert focus.sigma_diopters[:, 180:].max() < 0.05 < 0.4 < focus.sigma_diopters[:, :140].min()
    within = np.mean(np.abs(focus.diopters - truth) <= focus.sigma_diopters)
    assert within == pytest.approx(0.683, abs=0.05)


def test_errors_out_of_range_are_refused() -> None:
    with pytest.raises(ParameterError, match="tilt: expected 0 to 2"):
        PriorErrors(tilt=-0.1)
    with pytest.raises(ParameterError, match="scale: expected two rising numbers"):
        PriorErrors(scale=(0.0, 1.0))
