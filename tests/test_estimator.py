"""The pipeline from a stack to metres: frames, units, what is no estimate, and what a user may do wrong."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybriddepth_ros import (
    CameraIntrinsics,
    EstimatorOptions,
    FocalSlice,
    FocalStack,
    ThinLens,
    load_estimator,
)
from hybriddepth_ros.errors import ModelError, ParameterError, RegistrationError
from hybriddepth_ros.estimator import doubted, reference_index, register_stack, to_metres
from hybriddepth_ros.models import AlignedStack, FocusEstimate
from hybriddepth_ros.optics import blur_px_per_diopter
from hybriddepth_ros.registration import Registration
from hybriddepth_ros.stack_alignment import align
from tests import stacks
from tests.conftest import shared_path

FOCUS = np.array([0.4, 0.9, 1.4, 1.9, 2.4], np.float32)
LENS = ThinLens(focal_length_mm=16.0, f_number=1.6, pixel_pitch_um=13.0)  # 12 px per diopter
CAMERA = CameraIntrinsics(400.0, 400.0, 159.5, 119.5, 320, 240)


def made_stack(diopters=1.4, order=range(5), **slice_fields):
    images = stacks.defocused_stack(diopters, FOCUS, blur_px_per_diopter(LENS), (240, 320))
    slices = tuple(
        FocalSlice(images[i], float(FOCUS[i]), stamp_ns=1000 + n, **slice_fields) for n, i in enumerate(order)
    )
    return FocalStack(slices, camera=CAMERA, lens=LENS, name="made")


def test_wall_comes_out_in_metres_with_sigma():
    estimate = load_estimator("classical")(made_stack(1.4))
    inner = (slice(24, -24), slice(24, -24))
    assert np.nanmedian(estimate.depth[inner]) == pytest.approx(1 / 1.4, rel=0.03)
    assert np.isfinite(estimate.depth[inner]).mean() > 0.95
    assert (np.isnan(estimate.depth) == np.isnan(estimate.sigma)).all()
    assert estimate.depth.dtype == estimate.sigma.dtype == np.float32
    assert estimate.all_in_focus.shape == (240, 320, 3) and estimate.all_in_focus.dtype == np.uint8
    assert set(estimate.timings_ms) == {"register", "warp", "classical", "doubt", "to_metres"}


@settings(max_examples=8)
@given(order=st.permutations(range(5)))
def test_order_of_slices_does_not_matter(order):
    straight, mixed = (load_estimator("classical")(made_stack(1.1, order=o)) for o in (range(5), order))
    np.testing.assert_array_equal(straight.depth, mixed.depth)
    np.testing.assert_array_equal(straight.sigma, mixed.sigma)


@pytest.mark.parametrize("rule, expected", [("first", 0), ("last", 4), ("middle", 3)])
def test_reference_rule_decides_frame_and_stamp(rule, expected):
    stack = made_stack(order=[3, 0, 4, 2, 1])
    assert reference_index(stack, rule) == expected
    estimate = load_estimator("classical", options=EstimatorOptions(reference=rule))(stack)
    assert estimate.stamp_ns == 1000 + expected
    assert estimate.registration.reference == expected


def test_sigma_grows_with_depth_squared():
    focus = FocusEstimate(
        np.array([[0.5, 1.0, 2.0]], np.float32), np.full((1, 3), 0.02, np.float32), blur_px_per_diopter=10.0
    )
    depth, sigma, _ = to_metres(focus, EstimatorOptions())
    np.testing.assert_allclose(depth, [[2.0, 1.0, 0.5]])
    np.testing.assert_allclose(sigma, 0.02 * depth**2)


def test_uncertain_near_and_far_estimates_are_none():
    diopters = np.array([[1.0, 1.0, 0.01, 50.0, 0.2, -1.0, 1.0]], np.float32)
    sigma_diopters = np.array([[0.1, 0.3, 0.001, 0.1, 0.15, 0.1, np.inf]], np.float32)
    options = EstimatorOptions(min_depth=0.1, max_depth=10.0, max_sigma_diopters=0.2, max_relative_sigma=0.5)
    depth, sigma, removed = to_metres(FocusEstimate(diopters, sigma_diopters, 10.0), options)
    assert np.isfinite(depth).tolist() == [[True, False, False, False, False, False, False]]
    assert (np.isnan(sigma) == np.isnan(depth)).all()
    # the last pixel was not measured: no limit removed it
    assert removed == {"max_sigma_diopters": 1, "max_relative_sigma": 2, "min_depth": 1, "max_depth": 2}


def test_slice_that_cannot_be_registered_is_left_out():
    stack = made_stack()
    other = replace(
        stack.slices[1], image=np.repeat(stacks.as_bytes(stacks.texture((240, 320), 77))[..., None], 3, 2)
    )
    spoilt = replace(stack, slices=(stack.slices[0], other, *stack.slices[2:]))
    estimate = load_estimator("classical")(spoilt)
    assert estimate.registration.used.tolist() == [True, False, True, True, True]
    without = replace(stack, slices=(stack.slices[0], *stack.slices[2:]))
    aligned = align(spoilt, estimate.registration)
    assert len(aligned.images) == 4
    np.testing.assert_array_equal(aligned.focus_diopters, np.delete(FOCUS, 1))
    expected = load_estimator("classical", options=EstimatorOptions(register=False))(without)
    assert np.nanmedian(np.abs(estimate.depth - expected.depth)) < 0.02


def test_stack_of_which_nothing_registers_is_refused_with_the_residuals():
    rng = np.random.default_rng(0)
    slices = tuple(FocalSlice(rng.integers(0, 256, (120, 160, 3), np.uint8), float(f)) for f in FOCUS)
    with pytest.raises(RegistrationError, match=r"^noise: expected 2 or more slices .* residuals are"):
        load_estimator("classical")(FocalStack(slices, name="noise"))


def test_distortion_is_undone_in_the_same_interpolation():
    """A straight line that the lens bent comes out straight, and the output camera says that there is no
    distortion.
    """
    camera = replace(CAMERA, distortion=(-0.3, 0.1, 0.0, 0.0, 0.0))
    ys, xs = np.mgrid[0:240, 0:320].astype(np.float64)
    x, y = (xs - camera.cx) / camera.fx, (ys - camera.cy) / camera.fy
    # Which undistorted ray does each distorted pixel show? Inverted by fixed-point iteration, apart from
    # OpenCV.
    ux, uy = x.copy(), y.copy()
    for _ in range(50):
        r2 = ux**2 + uy**2
        factor = 1 - 0.3 * r2 + 0.1 * r2**2
        ux, uy = x / factor, y / factor
    lines = (np.abs(ux * camera.fx - 120.0) < 2.0).astype(
        np.uint8
    ) * 200  # straight and vertical at x = cx + 120
    image = np.repeat(lines[..., None], 3, axis=2)
    stack = FocalStack((FocalSlice(image, 1.0), FocalSlice(image, 2.0)), camera=camera)
    aligned = align(stack, Registration.identity(2, 0))
    rows = [
        np.average(np.arange(320), weights=row)
        for row in aligned.images[0][:, :, 0].astype(float)
        if row.sum()
    ]
    np.testing.assert_allclose(rows, camera.cx + 120.0, atol=0.7)
    bent = [np.average(np.arange(320), weights=row) for row in image[:, :, 0].astype(float) if row.sum()]
    assert np.ptp(bent) > 2.0
    assert (
        load_estimator("classical", options=EstimatorOptions(register=False))(stack).camera.distortion == ()
    )


MARGIN = 60
SHAKEN = ((-18.0, 9.0), (14.0, -16.0), (0.0, 0.0), (20.0, 12.0), (-12.0, -20.0))  # [px] per slice


def shaken_stack(distortion=(), breathing=0.0, blur=0.0):
    """(stack, truth [S, 3, 3]: pixel of the reference -> pixel of the slice, both without distortion,
    the scene as the reference should show it). Each slice has the intrinsics of its focus.
    """
    scene = cv2.GaussianBlur(stacks.texture((240 + 2 * MARGIN, 320 + 2 * MARGIN), seed=6), (0, 0), 0.8)
    slices, truth = [], []
    for index, focus in enumerate(FOCUS):
        scale = 1.0 + breathing * float(focus - FOCUS[2])
        camera = replace(
            CAMERA, fx=CAMERA.fx * scale, fy=CAMERA.fy * scale, cx=165.0, cy=112.0, distortion=distortion
        )
        shift = np.array(SHAKEN[index]) + (1.0 - scale) * np.array([camera.cx, camera.cy])
        transform = np.array([[scale, 0.0, shift[0]], [0.0, scale, shift[1]], [0.0, 0.0, 1.0]])
        view = stacks.bent(scene, transform, MARGIN, camera)
        view = stacks.disc_blur(view, blur * abs(float(focus) - 1.4))
        grey = stacks.as_bytes(view, noise=1.0, seed=index)
        slices.append(FocalSlice(np.repeat(grey[..., None], 3, axis=2), float(focus), 1 + index, camera))
        truth.append(transform)
    sharp = scene[MARGIN:-MARGIN, MARGIN:-MARGIN]
    return FocalStack(tuple(slices), lens=LENS, name="shaken"), np.array(truth), sharp


@pytest.mark.parametrize("distortion", [(), (-0.25, 0.06, 0.001, -0.001, 0.0), (0.2, 0.0, 0.0, 0.0, 0.0)])
def test_shaken_slices_of_a_lens_that_distorts_lie_over_each_other(distortion):
    stack, truth, sharp = shaken_stack(distortion, breathing=0.012)
    registration = register_stack(stack, 2, EstimatorOptions())
    corners = np.array([[[20.0, 20.0], [300.0, 20.0], [20.0, 220.0], [300.0, 220.0]]])
    for found, true in zip(registration.transforms, truth, strict=True):
        error = cv2.perspectiveTransform(corners, found) - cv2.perspectiveTransform(corners, true)
        assert np.abs(error).max() < 0.3
    aligned = align(stack, registration)
    for image, covered in zip(aligned.images[..., 0], aligned.covered, strict=True):
        assert np.abs(image - sharp)[covered].mean() < 2.0


@pytest.mark.parametrize("distortion", [(), (0.2, 0.0, 0.0, 0.0, 0.0)])
def test_covered_is_what_each_slice_saw(distortion):
    stack, truth, _ = shaken_stack(distortion)
    aligned = align(stack, replace(Registration.identity(5, 2), transforms=truth))
    pixels = np.stack(np.meshgrid(np.arange(320.0), np.arange(240.0)), axis=-1)
    for covered, transform in zip(aligned.covered, truth, strict=True):
        places = cv2.perspectiveTransform(pixels, transform)
        ray = (places - [165.0, 112.0]) / 400.0
        if distortion:
            ray = ray * (1.0 + distortion[0] * np.square(ray).sum(axis=-1, keepdims=True))
        x, y = np.moveaxis(ray * 400.0 + [165.0, 112.0], -1, 0)
        assert covered[(x > 0.6) & (x < 318.4) & (y > 0.6) & (y < 238.4)].all()
        assert not covered[(x < -0.6) | (x > 319.6) | (y < -0.6) | (y > 239.6)].any()
        assert not covered.all() or np.array_equal(transform, np.eye(3))


def test_output_camera_is_that_of_the_reference_slice():
    stack, _, _ = shaken_stack((-0.25, 0.06, 0.0, 0.0, 0.0), breathing=0.02)
    stack = replace(stack, camera=CAMERA)
    for rule, index in (("first", 0), ("middle", 2), ("last", 4)):
        estimate = load_estimator("classical", options=EstimatorOptions(reference=rule))(stack)
        assert estimate.camera == replace(stack.slices[index].camera, distortion=())


def test_breathing_is_taken_from_the_intrinsics_that_follow_the_focus():
    stack, _, _ = shaken_stack(breathing=0.02)
    registration = register_stack(stack, 2, EstimatorOptions())
    assert registration.breathing_per_diopter == pytest.approx(0.02, abs=1e-6)


def test_equal_intrinsics_for_all_slices_are_no_statement_about_breathing():
    """A camera that was calibrated at one focus, or guessed: what the slices show is believed."""
    stack, _, _ = shaken_stack(breathing=0.02)
    constant = replace(stack, slices=tuple(replace(s, camera=CAMERA) for s in stack.slices))
    registration = register_stack(constant, 2, EstimatorOptions())
    assert registration.breathing_per_diopter == pytest.approx(0.02, abs=0.002)


def test_what_the_reference_or_all_other_slices_did_not_see_has_no_estimate():
    images = stacks.defocused_stack(1.4, FOCUS, blur_px_per_diopter(LENS), (120, 160))
    covered = np.ones(images.shape[:3], np.bool_)
    covered[2, :40] = False  # the reference
    covered[[0, 1, 3, 4], 100:] = False
    covered[[0, 1, 3], :, 120:] = False
    focus = FocusEstimate(np.full((120, 160), 1.4, np.float32), np.full((120, 160), 0.1, np.float32), 12.0)
    aligned = AlignedStack(images, covered, FOCUS, 12.0, reference=2)
    left = doubted(focus, aligned, Registration.identity(5, 2), max_residual_px=1.0)
    depth, sigma, _ = to_metres(left, EstimatorOptions())
    expected = np.ones((120, 160), np.bool_)
    expected[:40] = expected[100:] = False
    np.testing.assert_array_equal(np.isfinite(depth), expected)
    np.testing.assert_array_equal(np.isfinite(sigma), expected)


def test_sigma_grows_where_the_slices_do_not_lie_over_each_other():
    focus = FocusEstimate(np.full((120, 160), 1.4, np.float32), np.full((120, 160), 0.1, np.float32), 12.0)
    aligned = AlignedStack(np.zeros((3, 120, 160, 3), np.uint8), np.ones((3, 120, 160), np.bool_), FOCUS[:3])
    registration = Registration.identity(3, 1, tiles=(6, 8))
    registration.tile_residual_px[:] = 0.9  # within what is allowed
    registration.tile_residual_px[[0, 2], :, 4:] = 5.0
    sigma = doubted(focus, aligned, registration, max_residual_px=1.0).sigma_diopters
    np.testing.assert_allclose(sigma[:, :60], 0.1)
    np.testing.assert_allclose(sigma[:, 100:], np.sqrt(0.1**2 + (5.0**2 - 1.0**2) / 12.0**2), rtol=1e-5)
    registration.used[2] = False  # the same by the only slice that is left
    registration.tile_residual_px[2] = 100.0
    np.testing.assert_array_equal(doubted(focus, aligned, registration, 1.0).sigma_diopters, sigma)


def test_refusal_says_when_it_is_texture_that_lacks():
    slices = tuple(FocalSlice(np.full((120, 160, 3), 90, np.uint8), float(f)) for f in FOCUS)
    with pytest.raises(RegistrationError, match=r"residuals are unknown \(0 textured tiles, expected 8\)"):
        load_estimator("classical")(FocalStack(slices, name="blank"))


def test_rectified_pixels_outside_every_image_have_no_estimate():
    """A pincushion lens: the corners of the rectified frame lie outside what the sensor saw."""
    images = stacks.defocused_stack(1.4, FOCUS, blur_px_per_diopter(LENS), (240, 320))
    camera = replace(CAMERA, distortion=(0.6, 0.0, 0.0, 0.0, 0.0))
    slices = tuple(FocalSlice(image, float(f)) for image, f in zip(images, FOCUS, strict=True))
    stack = FocalStack(slices, camera=camera, lens=LENS)
    estimate = load_estimator("classical")(stack)
    unseen = ~align(stack, estimate.registration).covered.any(axis=0)
    assert unseen.mean() > 0.02
    assert np.isnan(estimate.depth[unseen]).all()
    assert (estimate.all_in_focus[unseen] == 0).all()
    assert np.isfinite(estimate.depth[60:180, 80:240]).mean() > 0.95


def test_unknown_model_is_refused_with_the_known_ones():
    with pytest.raises(
        ModelError,
        match=r"unknown model 'clasical', expected one of sweepnet, classical.*did you mean classical",
    ):
        load_estimator("clasical")


@pytest.mark.parametrize(
    "device, said", [("gpu", "expected auto, cpu, cuda or cuda:N"), ("cuda:99", "is not there")]
)
def test_device_that_is_not_there_is_refused(device, said):
    with pytest.raises(ModelError, match=f"device: .*{said}"):
        load_estimator("classical", device=device)


def test_all_in_focus_is_sharper_than_any_slice():
    truth = np.broadcast_to(np.linspace(0.5, 2.3, 240, dtype=np.float32)[:, None], (240, 320))
    stack = made_stack(truth)
    sharp = load_estimator("classical", options=EstimatorOptions(register=False))(stack).all_in_focus
    energy = [
        np.square(np.diff(image.astype(float), axis=1)).mean()
        for image in (sharp, *(s.image for s in stack.slices))
    ]
    assert energy[0] > 1.2 * max(energy[1:])


def carpet_profile(estimate):
    """Median depth per row over the carpet before the box, from near (bottom) to far."""
    rows = range(940, 520, -20)
    return np.array([np.nanmedian(estimate.depth[row - 10 : row + 10, 350:650]) for row in rows])


def test_phone_room_carpet_recedes():
    stack = FocalStack.from_folder(shared_path("data/stacks/phone_room"))
    profile = carpet_profile(load_estimator("classical")(stack))
    assert (np.diff(profile) > 0).all()


def test_phone_desk_bottle_is_nearer_than_the_door():
    stack = FocalStack.from_folder(shared_path("data/stacks/phone_desk"))
    depth = load_estimator("classical")(stack).depth
    bottle, frame = depth[500:660, 690:740], depth[100:500, 480:500]
    assert np.isfinite(bottle).mean() > 0.8
    assert np.nanmedian(bottle) < 0.5 * np.nanmedian(frame)


def test_an_empty_depth_range_is_refused():
    with pytest.raises(ParameterError, match=r"min_depth: expected less than max_depth \(1 m\), got 5 m"):
        EstimatorOptions(min_depth=5.0, max_depth=1.0)


def test_a_warm_estimator_has_used_everything_that_a_stack_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    estimator = load_estimator("classical", "cpu")
    seen = []
    real = estimator._model
    monkeypatch.setattr(estimator, "_model", lambda stack: (seen.append(stack.images.shape), real(stack))[1])
    estimator.warm_up(width=96, height=72, slices=4)
    assert seen == [(4, 72, 96, 3)]
