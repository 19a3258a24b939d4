from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybriddepth_ros.errors import DatasetError
from hybriddepth_ros.estimator import reference_index
from hybriddepth_ros.evaluation.protocols import EvaluationProtocol, parse_protocol
from hybriddepth_ros.evaluation.synthesis import RgbdImage, fit, synthesise
from hybriddepth_ros.focal_stack import CameraIntrinsics
from tests.rgbd_files import rgb_and_depth

LENS = {"focal_length_mm": 50.0, "f_number": 8.0, "pixel_pitch_um": 12.0}


def protocol(**changes: Any) -> EvaluationProtocol:
    camera = {"width": 64, "height": 48, "blur_px_per_diopter": 13.7} | changes.pop("camera", {})
    content = {"camera": camera, "sweep": {"focus_diopters": [0.2, 0.5, 1.0]}} | changes
    return parse_protocol(content, "p", "p.yaml")


def published(**changes: Any) -> EvaluationProtocol:
    camera = {"width": 64, "height": 48} | LENS
    content = {"camera": camera, "sweep": {"from_truth": {"count": 5}}, "renderer": "published"} | changes
    return parse_protocol(content, "p", "p.yaml")


def images(frame: Any) -> np.ndarray:
    return np.stack([s.image for s in frame.stack.slices])


@given(
    rows=st.integers(20, 90),
    columns=st.integers(20, 90),
    width=st.integers(16, 80),
    height=st.integers(16, 80),
)
@settings(max_examples=30)
def test_every_depth_of_the_fitted_image_was_measured_there(
    rows: int, columns: int, width: int, height: int
) -> None:
    """Depth encodes the pixel it came from, so it can be asked where it was."""
    y, x = np.mgrid[:rows, :columns]
    depth = (1 + x + 1000 * y).astype(np.float32)
    depth[::3, ::4] = 0.0
    fitted = fit(RgbdImage(np.zeros((rows, columns, 3), np.uint8), depth), width, height)
    assert fitted.rgb.shape == (height, width, 3) and fitted.depth.shape == (height, width)
    assert set(np.unique(fitted.depth)) <= set(np.unique(depth))
    scale = max(width / columns, height / rows)
    expected_x = (columns - 1) / 2 + (np.arange(width) - (width - 1) / 2) / scale
    seen = fitted.depth > 0
    at_x = (fitted.depth - 1) % 1000
    assert np.abs(at_x - expected_x[None, :])[seen].max() <= 1.6
    expected_y = (rows - 1) / 2 + (np.arange(height) - (height - 1) / 2) / scale
    assert np.abs((fitted.depth - 1) // 1000 - expected_y[:, None])[seen].max() <= 1.6


def test_intrinsics_keep_every_point_on_the_pixel_that_shows_it() -> None:
    """720p to VGA: an eighth is cut on either side, and the rest is two thirds as large."""
    camera = CameraIntrinsics(900.0, 900.0, 640.0, 360.0, 1280, 720)
    rgb = np.zeros((720, 1280, 3), np.uint8)
    rgb[300:309, 700:709] = 255
    depth = np.full((720, 1280), 2.0, np.float32)
    fitted = fit(RgbdImage(rgb, depth, camera), 640, 480)
    spot = np.argwhere(fitted.rgb[..., 0] > 128).mean(axis=0)
    assert fitted.camera is not None
    ray = ((704.0 - camera.cx) / camera.fx, (304.0 - camera.cy) / camera.fy)
    assert spot[1] == pytest.approx(fitted.camera.cx + fitted.camera.fx * ray[0], abs=0.3)
    assert spot[0] == pytest.approx(fitted.camera.cy + fitted.camera.fy * ray[1], abs=0.3)


def test_a_surface_in_focus_comes_out_as_it_went_in_and_blurs_on_either_side() -> None:
    rgb, _ = rgb_and_depth()
    frame = synthesise("a", RgbdImage(rgb, np.full((48, 64), 2.0, np.float32)), protocol())
    far, at, near = images(frame).astype(int)
    assert np.abs(at - rgb).max() <= 1
    for blurred, contrast in ((far, 0.9), (near, 0.8)):
        assert np.std(blurred) < contrast * np.std(at)


def test_truth_is_what_was_measured_and_holes_do_not_count() -> None:
    rgb, depth = rgb_and_depth()
    frame = synthesise("a", RgbdImage(rgb, depth), protocol())
    assert np.array_equal(frame.valid, depth > 0)
    assert np.array_equal(frame.depth_m()[frame.valid], depth[depth > 0])
    assert frame.stack.lens is not None and not frame.oracle and frame.unit == "m"
    assert frame.reference == reference_index(frame.stack, "middle")


def test_the_lens_is_told_only_where_the_protocol_says_so() -> None:
    image = RgbdImage(*rgb_and_depth())
    withheld = synthesise("a", image, protocol(camera={"lens_known": False}))
    assert withheld.stack.lens is None
    assert np.array_equal(images(withheld), images(synthesise("a", image, protocol())))


def test_noise_and_motion_follow_the_name_and_the_seed_alone() -> None:
    image = RgbdImage(*rgb_and_depth())
    noisy = protocol(exposure={}, motion={"step_px": 2.0, "step_deg": 0.2})
    first = images(synthesise("a", image, noisy))
    synthesise("b", image, noisy)
    assert np.array_equal(first, images(synthesise("a", image, noisy)))
    assert not np.array_equal(first, images(synthesise("b", image, noisy)))
    assert not np.array_equal(first, images(synthesise("a", image, replace(noisy, seed=1))))


def test_motion_leaves_the_slice_of_the_truth_where_it_is() -> None:
    image = RgbdImage(*rgb_and_depth())
    still = images(synthesise("a", image, protocol()))
    frame = synthesise(
        "a", image, protocol(motion={"step_px": 3.0}, camera={"breathing_percent_per_diopter": 2})
    )
    moved = images(frame)
    for index in range(3):
        assert np.array_equal(moved[index], still[index]) == (index == frame.reference)


def test_an_oracle_focuses_evenly_in_metres_over_the_depths_that_count() -> None:
    rgb, depth = rgb_and_depth(near=1.0, far=5.0)
    frame = synthesise("a", RgbdImage(rgb, depth), published(frames={"depth_m": [0.0, 3.0]}))
    counted = depth[(depth > 0) & (depth < 3.0)]
    assert frame.oracle and np.array_equal(frame.valid, (depth > 0) & (depth < 3.0))
    expected = np.linspace(counted.min(), counted.max(), 5)
    assert 1 / frame.stack.focus_diopters == pytest.approx(expected, rel=1e-5)


def test_published_slices_are_those_of_the_papers_formula_rounded() -> None:
    from hybriddepth_ros.simulation import published_defocus

    rgb, depth = rgb_and_depth()
    frame = synthesise("a", RgbdImage(rgb, depth), published())
    metres = np.linspace(depth[depth > 0].min(), depth.max(), 5)
    sharp = np.ascontiguousarray(rgb.transpose(2, 0, 1), np.float32) / 255
    stack = published_defocus(sharp, depth, metres, frame.stack.lens)
    assert np.abs(images(frame) - 255 * stack.transpose(0, 2, 3, 1)).max() < 0.51


@pytest.mark.parametrize(
    ("depth", "expected"),
    [
        (np.zeros((48, 64), np.float32), "a: expected a depth image with measurements, found none"),
        (np.full((48, 64), np.nan, np.float32), "a: expected a depth image with measurements"),
        (np.ones((48, 48), np.float32), "a: expected colour and depth of one shape, got 64x48 and 48x48"),
    ],
)
def test_depth_that_cannot_be_used_is_refused_by_name(depth: np.ndarray, expected: str) -> None:
    with pytest.raises(DatasetError, match=expected):
        synthesise("a", RgbdImage(rgb_and_depth()[0], depth), protocol())


def test_an_oracle_over_a_flat_wall_is_refused_by_name() -> None:
    with pytest.raises(DatasetError, match=r"a: .*expected another focus"):
        synthesise("a", RgbdImage(rgb_and_depth()[0], np.full((48, 64), 2.0, np.float32)), published())
    with pytest.raises(DatasetError, match="a: expected depths of 5 to 9 m, found none"):
        synthesise("a", RgbdImage(*rgb_and_depth()), protocol(frames={"depth_m": [5, 9]}))
