"""Registration against known motion: breathing, hand shake, unequal blur, and slices that must not be
trusted.
"""

import multiprocessing

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybriddepth_ros import registration
from hybriddepth_ros.focal_stack import FocalStack
from hybriddepth_ros.registration import register
from tests import stacks
from tests.conftest import shared_path

WIDTH, HEIGHT, MARGIN = 640, 480, 80
FOCUS = np.array([0.4, 0.9, 1.4, 1.9, 2.4], np.float32)


@pytest.fixture(scope="module")
def scene():
    return stacks.texture((HEIGHT + 2 * MARGIN, WIDTH + 2 * MARGIN), seed=3)


def corner_error_px(found, truth):
    """How far the image's corners land from where they should."""
    corners = np.array([[0, 0, 1], [WIDTH - 1, 0, 1], [0, HEIGHT - 1, 1], [WIDTH - 1, HEIGHT - 1, 1.0]])
    a, b = corners @ found.T, corners @ truth.T
    return np.linalg.norm(a[:, :2] / a[:, 2:] - b[:, :2] / b[:, 2:], axis=1).max()


def hand_held(scene, seed=0, blur=12.0, shake_px=25.0, breathing=0.012):
    """Five slices of a wall at 1.4 D: shaken, breathing, each blurred by its own defocus. Returns greys and
    truth.
    """
    rng = np.random.default_rng(seed)
    greys, truth = [], []
    for index, focus in enumerate(FOCUS):
        still = index == 2
        shift = (0.0, 0.0) if still else tuple(rng.uniform(-shake_px, shake_px, 2))
        roll = 0.0 if still else rng.uniform(-0.015, 0.015)
        transform = stacks.motion((WIDTH, HEIGHT), shift, 1.0 + breathing * float(focus - FOCUS[2]), roll)
        view = stacks.disc_blur(stacks.seen_through(scene, transform, MARGIN), blur * abs(float(focus) - 1.4))
        greys.append(stacks.as_bytes(view * rng.uniform(0.8, 1.0), noise=1.0, seed=index))
        truth.append(transform)
    return greys, truth


@pytest.mark.parametrize("seed", range(4))
def test_hand_held_breathing_blurred_slices_register_to_a_quarter_pixel(scene, seed):
    greys, truth = hand_held(scene, seed)
    found = register(greys, FOCUS, reference=2)
    errors = [corner_error_px(t, g) for t, g in zip(found.transforms, truth, strict=True)]
    assert max(errors) < 0.5
    assert np.median(errors) < 0.25
    assert found.used.all()
    assert (found.residual_px < 0.3).all()
    others = np.arange(5) != 2
    assert (found.residual_before_px[others] > 3.0 * found.residual_px[others]).all()
    assert found.breathing_per_diopter == pytest.approx(0.012, abs=0.002)


def test_known_magnifications_are_taken_as_the_breathing(scene):
    greys, truth = hand_held(scene, seed=7)
    known = [1.0 + 0.012 * float(focus - FOCUS[2]) for focus in FOCUS]
    found = register(greys, FOCUS, reference=2, magnifications=known)
    assert found.breathing_per_diopter == pytest.approx(0.012, abs=1e-6)
    assert max(corner_error_px(t, g) for t, g in zip(found.transforms, truth, strict=True)) < 0.5


@pytest.mark.parametrize("wrong", [1.2, 1 / 1.2])
def test_magnifications_that_the_slices_contradict_are_not_believed(scene, wrong):
    """Intrinsics of another lens, or of another focus."""
    greys, truth = hand_held(scene, seed=7)
    found = register(greys, FOCUS, reference=2, magnifications=[wrong] * 5)
    assert max(corner_error_px(t, g) for t, g in zip(found.transforms, truth, strict=True)) < 0.5
    assert found.used.all()
    assert found.breathing_per_diopter == pytest.approx(0.012, abs=0.002)


@pytest.mark.parametrize("seed", [0, 1])
def test_slice_with_little_texture_is_drawn_towards_the_breathing_of_the_others(scene, seed):
    """Alone, the tiles of the patch find a scale that is wrong by 0.02 and 0.009."""
    rng = np.random.default_rng(seed)
    greys, truth = [], []
    for index, focus in enumerate(FOCUS):
        shift = (0.0, 0.0) if index == 2 else tuple(rng.uniform(-8.0, 8.0, 2))
        transform = stacks.motion((WIDTH, HEIGHT), shift, 1.0 + 0.03 * float(focus - FOCUS[2]))
        view = stacks.seen_through(scene, transform, MARGIN)
        view = stacks.disc_blur(view, 6.0 * abs(float(focus) - 1.4))
        if index == 4:
            patch = np.zeros((HEIGHT, WIDTH), np.float32)
            patch[140:340, 220:420] = 1.0
            view = 128.0 + (view - 128.0) * cv2.GaussianBlur(patch, (0, 0), 8.0)
        greys.append(stacks.as_bytes(view))
        truth.append(transform)
    found = register(greys, FOCUS, reference=2)
    assert found.breathing_per_diopter == pytest.approx(0.03, abs=0.001)
    scale = np.sqrt(np.linalg.det(found.transforms[4][:2, :2]))
    assert scale == pytest.approx(np.sqrt(np.linalg.det(truth[4][:2, :2])), abs=(0.012, 0.006)[seed])


@settings(max_examples=15)
@given(x=st.floats(-40, 40), y=st.floats(-40, 40), roll=st.floats(-0.02, 0.02), tilt=st.floats(-0.01, 0.01))
def test_any_small_motion_is_found(x, y, roll, tilt):
    image = stacks.texture((HEIGHT + 2 * MARGIN, WIDTH + 2 * MARGIN), seed=5)
    truth = stacks.motion((WIDTH, HEIGHT), (x, y), 1.0, roll, tilt)
    reference = stacks.seen_through(image, np.eye(3), MARGIN)
    moved = stacks.disc_blur(stacks.seen_through(image, truth, MARGIN), 4.0)
    found = register([stacks.as_bytes(reference), stacks.as_bytes(moved)], FOCUS[:2], reference=0)
    assert corner_error_px(found.transforms[1], truth) < 0.5


def test_registered_slices_need_no_further_motion(scene):
    grey = stacks.as_bytes(stacks.seen_through(scene, np.eye(3), MARGIN))
    found = register([grey] * 3, FOCUS[:3], reference=1)
    np.testing.assert_allclose(found.transforms, np.tile(np.eye(3), (3, 1, 1)), atol=0.03)
    assert found.residual_px.max() < 0.01


@pytest.mark.parametrize("bad", ["another scene", "noise", "black"])
def test_slice_that_shows_something_else_is_not_used(scene, bad):
    greys, _ = hand_held(scene, seed=1)
    if bad == "another scene":
        greys[1] = stacks.as_bytes(stacks.texture((HEIGHT, WIDTH), seed=99))
    elif bad == "noise":
        greys[1] = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH), np.uint8)
    else:
        greys[1] = np.zeros((HEIGHT, WIDTH), np.uint8)
    found = register(greys, FOCUS, reference=2)
    assert found.used.tolist() == [True, False, True, True, True]


def test_residual_limit_decides_what_is_used(scene):
    greys, _ = hand_held(scene, seed=2)
    found = register(greys, FOCUS, reference=2, max_residual_px=1e-6)
    assert found.used.tolist() == [False, False, True, False, False]


def test_parallax_shows_as_residual(scene):
    """Two halves that move apart fit no single motion; the residual must say so."""
    image = stacks.seen_through(scene, np.eye(3), MARGIN)
    apart = image.copy()
    right = stacks.seen_through(scene, stacks.motion((WIDTH, HEIGHT), (6.0, 0.0)), MARGIN)
    apart[:, WIDTH // 2 :] = right[:, WIDTH // 2 :]
    found = register(
        [stacks.as_bytes(image), stacks.as_bytes(apart)], FOCUS[:2], reference=0, max_residual_px=1.0
    )
    assert found.residual_px[1] > 0.5


def moved_block(scene, shift_px):
    """The scene twice; in the second a block of 29 % of it has moved to the left."""
    image = stacks.seen_through(scene, np.eye(3), MARGIN)
    moved = image.copy()
    aside = stacks.seen_through(scene, stacks.motion((WIDTH, HEIGHT), (-shift_px, 0.0)), MARGIN)
    moved[120:400, 180:500] = aside[120:400, 180:500]
    return [stacks.as_bytes(image), stacks.as_bytes(moved, noise=1.0)]


@pytest.mark.parametrize("shift_px", [2.0, 4.0, 8.0, 16.0, 30.0])
def test_foreground_that_moved_by_itself_shows_where_it_is(scene, shift_px):
    found = register(moved_block(scene, shift_px), FOCUS[:2], reference=0, max_residual_px=1.28)
    still = register(moved_block(scene, 0.0), FOCUS[:2], reference=0)
    assert found.residual_p75_px[1] > max(0.5 * min(shift_px, 3.0), 3.0 * still.residual_p75_px[1])
    rows, columns = found.tile_residual_px.shape[1:]
    y, x = (np.arange(rows) + 0.5) * HEIGHT / rows, (np.arange(columns) + 0.5) * WIDTH / columns
    in_block = ((y > 140) & (y < 380))[:, None] & ((x > 200) & (x < 480))
    beside = ((y < 100) | (y > 420))[:, None] | ((x < 160) | (x > 520))
    residual = found.tile_residual_px[1]
    assert (residual[in_block] > 0.6 * min(shift_px, 3.0)).mean() > 0.8
    # Either the rest lies well, or the block took it along and the slice is not used at all.
    assert np.median(residual[beside]) < 0.5 or not found.used[1]


def test_residuals_are_in_pixels_of_the_image(scene):
    image = stacks.seen_through(scene, np.eye(3), MARGIN)
    aside = stacks.seen_through(scene, stacks.motion((WIDTH, HEIGHT), (6.0, -3.0)), MARGIN)
    found = register([stacks.as_bytes(image), stacks.as_bytes(aside)], FOCUS[:2], reference=0)
    assert found.residual_before_px[1] == pytest.approx(np.hypot(6.0, 3.0), abs=0.1)
    # Rows of a rolling picture: alternately 1 px to the left and to the right, which no motion can follow.
    rolled = image.copy()
    for top in range(0, HEIGHT, 80):
        rolled[top : top + 40] = np.roll(image[top : top + 40], 1, axis=1)
        rolled[top + 40 : top + 80] = np.roll(image[top + 40 : top + 80], -1, axis=1)
    found = register([stacks.as_bytes(image), stacks.as_bytes(rolled)], FOCUS[:2], reference=0)
    assert found.residual_px[1] == pytest.approx(1.0, abs=0.25)


def test_matched_blur_has_equal_gradients():
    sharp = stacks.texture((240, 320), seed=1) / 40.0
    first, second = registration.match_blur(sharp, stacks.disc_blur(sharp, 6.0))
    ratio = np.square(np.diff(first)).mean() / np.square(np.diff(second)).mean()
    assert ratio == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize("shape", [(48, 64), (96, 128), (120, 160), (964, 1280), (100, 2000), (2000, 100)])
def test_other_sizes(shape):
    image = stacks.texture((shape[0] + 20, shape[1] + 20), seed=2)
    transform = stacks.motion((shape[1], shape[0]), (1.5, -1.0))
    reference = stacks.as_bytes(stacks.seen_through(image, np.eye(3), 10))
    moved = stacks.as_bytes(stacks.seen_through(image, transform, 10))
    found = register([reference, moved], FOCUS[:2], reference=0)
    assert found.used.all()
    np.testing.assert_allclose(found.transforms[1][:2, 2], [1.5, -1.0], atol=0.25)


def test_small_slices_that_moved_register():
    """Tiles at the border drop out when the image moves: enough must be left of 160x120."""
    image = stacks.texture((120 + 60, 160 + 60), seed=4)
    truth = stacks.motion((160, 120), (9.0, -7.0), 1.01, 0.01)
    reference = stacks.as_bytes(stacks.seen_through(image, np.eye(3), 30))
    moved = stacks.as_bytes(stacks.seen_through(image, truth, 30), noise=1.0)
    found = register([reference, moved], FOCUS[:2], reference=0)
    assert found.used.all()
    np.testing.assert_allclose(found.transforms[1][:2, 2], truth[:2, 2], atol=0.5)


def _register_in_child(greys, queue):
    queue.put(register(greys, FOCUS[:2], reference=0).residual_px)


def test_forked_process_registers_too(scene):
    """As PyTorch's data loaders do: the child inherits the thread pool, but none of its threads."""
    grey = stacks.as_bytes(stacks.seen_through(scene, np.eye(3), MARGIN))
    here = register([grey, grey], FOCUS[:2], reference=0)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_register_in_child, args=([grey, grey], queue), daemon=True)
    child.start()
    try:
        np.testing.assert_array_equal(queue.get(timeout=60.0), here.residual_px)
    finally:
        child.kill()


@pytest.mark.parametrize("name", ["phone_desk", "phone_room"])
def test_hand_held_phone_stacks_register(name):
    stack = FocalStack.from_folder(shared_path(f"data/stacks/{name}"))
    from hybriddepth_ros.image_files import to_grey

    found = register(
        [to_grey(s.image) for s in stack.slices], stack.focus_diopters, reference=2, max_residual_px=2.5
    )
    others = np.arange(5) != 2
    assert found.used.all()
    assert (found.residual_px[others] < 1.5).all()
    assert (found.residual_px[others] < 0.2 * found.residual_before_px[others]).all()
    assert 0.005 < found.breathing_per_diopter < 0.03
