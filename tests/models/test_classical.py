"""The classical model on made stacks with known inverse depth."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybriddepth_ros.models import AlignedStack, load_model
from hybriddepth_ros.models.focus_fit import find_optics
from hybriddepth_ros.models.focus_measure import exposure_gains, measure_focus, measure_slice
from tests import stacks

FOCUS = np.array([0.4, 0.9, 1.4, 1.9, 2.4], np.float32)
BLUR = 12.0
INNER = (slice(24, -24), slice(24, -24))


def estimate(images, focus=FOCUS, blur=BLUR, covered=None):
    covered = np.ones(images.shape[:3], np.bool_) if covered is None else covered
    return load_model("classical")(AlignedStack(images, covered, focus, blur))


@settings(max_examples=12)
@given(diopters=st.floats(0.45, 2.35))
def test_wall_at_any_depth_in_the_sweep_is_found_within_a_blur_pixel(diopters):
    result = estimate(stacks.defocused_stack(diopters, FOCUS, BLUR, (160, 200)))
    error = np.abs(result.diopters[INNER] - diopters)
    assert np.median(error) < 1.0 / BLUR
    assert np.median(result.sigma_diopters[INNER]) < 0.25


def test_slanted_surface_is_followed_between_slices():
    truth = np.broadcast_to(np.linspace(0.5, 2.3, 240, dtype=np.float32)[:, None], (240, 320))
    result = estimate(stacks.defocused_stack(truth, FOCUS, BLUR))
    error = (result.diopters - truth)[INNER]
    assert np.median(np.abs(error)) < 0.05
    rows = result.diopters[INNER].mean(axis=1)
    assert (np.diff(rows[::8]) > 0).all()


def test_sigma_covers_the_error():
    truth = np.broadcast_to(np.linspace(0.5, 2.3, 320, dtype=np.float32)[None, :], (240, 320))
    errors, sigmas = [], []
    for seed in range(3):
        result = estimate(stacks.defocused_stack(truth, FOCUS, BLUR, seed=seed))
        errors.append(np.abs(result.diopters - truth)[INNER])
        sigmas.append(result.sigma_diopters[INNER])
    error, sigma = np.array(errors), np.array(sigmas)
    assert (error < sigma).mean() > 0.65
    assert (error < 3.0 * sigma).mean() > 0.97
    # Well textured and registered: better than the scenes that sigma was fitted to, but not worlds apart.
    assert np.median(sigma) < 10.0 * np.median(error)


def test_surface_without_texture_has_a_large_sigma():
    images = stacks.defocused_stack(1.4, FOCUS, BLUR)
    rng = np.random.default_rng(0)
    blank = (128.0 + rng.normal(0, 1, images[:, :, 160:].shape)).astype(np.uint8)
    images[:, :, 160:] = blank
    sigma = estimate(images).sigma_diopters
    assert np.median(sigma[24:-24, 24:120]) < 0.1
    assert np.median(sigma[24:-24, 220:-24]) > 0.25


def test_constant_stack_gives_no_estimate_but_no_error():
    result = estimate(np.full((5, 120, 160, 3), 90, np.uint8))
    assert np.isfinite(result.diopters).all()
    assert (result.sigma_diopters > 0.25).all()


def test_two_peaked_focus_curve_has_a_large_sigma():
    """A window pane: what is behind it and what is on it are sharp in different slices."""
    near = stacks.defocused_stack(2.4, FOCUS, BLUR, seed=1).astype(np.uint16)
    far = stacks.defocused_stack(0.4, FOCUS, BLUR, seed=2).astype(np.uint16)
    both = ((near + far) // 2).astype(np.uint8)
    clear = estimate(near.astype(np.uint8)).sigma_diopters[INNER]
    mixed = estimate(both).sigma_diopters[INNER]
    assert np.median(mixed) > 3.0 * np.median(clear)


def test_pixels_that_not_all_slices_saw_are_less_certain():
    images = stacks.defocused_stack(1.4, FOCUS, BLUR)
    covered = np.ones(images.shape[:3], np.bool_)
    covered[1, :, :100] = False
    seen, unseen = estimate(images).sigma_diopters, estimate(images, covered=covered).sigma_diopters
    np.testing.assert_allclose(unseen[:, :100], 2.0 * seen[:, :100], rtol=1e-6)
    np.testing.assert_allclose(unseen[:, 100:], seen[:, 100:], rtol=1e-6)


@pytest.mark.parametrize(("blur", "softness_px"), [(5.0, 0.0), (12.0, 0.0), (12.0, 0.9), (12.0, 1.4)])
def test_unknown_lens_is_found_from_the_stack(blur, softness_px):
    truth = np.broadcast_to(np.linspace(0.5, 2.3, 240, dtype=np.float32)[:, None], (240, 320))
    images = stacks.defocused_stack(truth, FOCUS, blur)
    if softness_px:
        images = np.stack([cv2.GaussianBlur(image, (0, 0), softness_px) for image in images])
    found = find_optics(measure_focus([image[..., 0] for image in images]), FOCUS, None)
    assert found.blur_px_per_diopter == pytest.approx(blur, rel=0.15)
    result = estimate(images, blur=None)
    assert np.median(np.abs(result.diopters - truth)[INNER]) < 0.15


@pytest.mark.parametrize("count", [2, 3, 10])
def test_any_number_of_slices(count):
    focus = np.linspace(0.8, 2.0, count).astype(np.float32)
    result = estimate(stacks.defocused_stack(1.3, focus, BLUR, (160, 200)), focus)
    assert np.median(np.abs(result.diopters[INNER] - 1.3)) < 0.12


@pytest.mark.parametrize("shape", [(33, 47), (121, 163)])
def test_odd_sizes_come_out_at_full_size(shape):
    result = estimate(stacks.defocused_stack(1.4, FOCUS, BLUR, shape))
    assert result.diopters.shape == result.sigma_diopters.shape == shape
    assert result.diopters.dtype == result.sigma_diopters.dtype == np.float32


@pytest.mark.parametrize(
    "focus, truth",
    [
        ((1.0, 1.7, 2.4), 0.1),
        ((1.0, 1.35, 1.7, 2.05, 2.4), 0.5),
        (FOCUS, 4.0),
        (FOCUS, 3.2),
        (FOCUS, 0.05),
        (FOCUS, 2.6),
        (FOCUS, 0.3),
    ],
)
def test_surface_outside_the_sweep_is_no_confident_estimate(focus, truth):
    """Whatever is said of a textured wall that no slice was focused near must be covered by its sigma."""
    focus = np.array(focus, np.float32)
    result = estimate(stacks.defocused_stack(truth, focus, BLUR, (160, 200)), focus)
    claimed = result.sigma_diopters[INNER] < 0.25
    wrong = np.abs(result.diopters[INNER] - truth) > 3.0 * result.sigma_diopters[INNER]
    assert (claimed & wrong).mean() < 0.05


def test_blank_surface_does_not_take_its_neighbours_depth_for_its_own():
    """Left half textured at 2.4 D, right half blank: beyond the window's reach nothing is known there."""
    images = stacks.defocused_stack(2.4, FOCUS, BLUR)
    rng = np.random.default_rng(0)
    images[:, :, 160:] = (128.0 + rng.normal(0, 1, images[:, :, 160:].shape)).astype(np.uint8)
    sigma = estimate(images).sigma_diopters
    assert (sigma[24:-24, 24:120] < 0.25).mean() > 0.95
    assert (sigma[24:-24, 190:-24] < 0.25).mean() < 0.1


def test_exposure_that_drifts_over_the_sweep_changes_little():
    truth = np.broadcast_to(np.linspace(0.6, 2.2, 240, dtype=np.float32)[:, None], (240, 320))
    images = stacks.defocused_stack(truth, FOCUS, BLUR)
    gains = np.linspace(0.75, 1.2, 5)
    drifting = np.stack(
        [(image * gain).clip(0, 255).astype(np.uint8) for image, gain in zip(images, gains, strict=True)]
    )
    np.testing.assert_allclose(
        exposure_gains(np.stack([measure_slice(image[..., 0]).cells for image in drifting])),
        gains / gains[2],
        rtol=0.03,
    )
    steady, drifted = (np.abs(estimate(stack).diopters - truth)[INNER] for stack in (images, drifting))
    assert np.median(drifted) < np.median(steady) + 0.01


def test_clipped_highlights_are_less_certain():
    images = stacks.defocused_stack(1.4, FOCUS, BLUR)
    bright = (images.astype(np.uint16) * 2).clip(0, 255).astype(np.uint8)
    assert np.median(estimate(bright).sigma_diopters[INNER]) > 2.0 * np.median(
        estimate(images).sigma_diopters[INNER]
    )


def test_sigma_covers_a_depth_edge():
    """Around the step between two textured walls the window sees both: what is claimed must be covered."""
    near, far = (
        stacks.defocused_stack(2.2, FOCUS, BLUR, seed=1),
        stacks.defocused_stack(0.7, FOCUS, BLUR, seed=2),
    )
    images = far.copy()
    images[:, :, 160:] = near[:, :, 160:]
    truth = np.full(images.shape[1:3], 0.7)
    truth[:, 160:] = 2.2
    result = estimate(images)
    band = (slice(24, -24), slice(120, 200))
    wrong = np.abs(result.diopters - truth)[band] > 3.0 * result.sigma_diopters[band]
    assert (wrong & (result.sigma_diopters[band] < 0.25)).mean() < 0.05


@pytest.mark.parametrize("between", [0.0, 0.25, 0.5, 0.75])
def test_no_bias_between_candidates(between):
    """Depth grows evenly: the estimate must not step from candidate to candidate."""
    truth = 1.4 + between * 0.05
    result = estimate(stacks.defocused_stack(truth, FOCUS, BLUR, (160, 200)))
    assert np.median(result.diopters[INNER]) == pytest.approx(truth, abs=0.02)
