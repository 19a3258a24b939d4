"""The thin lens in diopters, checked against its closed forms and against a lens traced in metres."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybriddepth_ros.errors import ParameterError
from hybriddepth_ros.optics import (
    MIN_SWEEP_BLUR_PX,
    ThinLens,
    blur_px_per_diopter,
    breathing_scale,
    circle_of_confusion,
    depth_of_field_diopters,
    diopters_from_metres,
    hyperfocal_distance,
    magnification,
    metres_from_diopters,
    plan_sweep,
    sigma_metres,
)

PHONE = ThinLens(focal_length_mm=6.81, f_number=1.85, pixel_pitch_um=3.8)
lenses = st.builds(ThinLens, st.floats(1.0, 100.0), st.floats(0.9, 22.0), st.floats(0.5, 20.0))
focuses = st.floats(-0.5, 9.0)  # 1/m; the longest of `lenses` focuses up to 10
limits = st.floats(0.1, 10.0)  # px


def blur_traced_in_metres(depth_m: float, focus_m: float, lens: ThinLens) -> float:
    """Blur diameter [px] by similar triangles behind the lens, in metres as in the papers."""
    f = lens.focal_length_mm * 1e-3
    sensor, image = f * focus_m / (focus_m - f), f * depth_m / (depth_m - f)
    return (f / lens.f_number) * abs(sensor - image) / image / (lens.pixel_pitch_um * 1e-6)


@given(lenses, st.floats(0.15, 50.0), st.floats(0.15, 50.0))
def test_blur_agrees_with_a_lens_traced_in_metres(lens: ThinLens, depth_m: float, focus_m: float) -> None:
    blur = circle_of_confusion(1.0 / depth_m, 1.0 / focus_m, lens)
    assert blur == pytest.approx(blur_traced_in_metres(depth_m, focus_m, lens), rel=1e-6, abs=1e-6)


@given(lenses, focuses, st.floats(0.01, 5.0))
def test_blur_is_linear_in_diopters_and_the_same_on_both_sides(
    lens: ThinLens, focus: float, offset: float
) -> None:
    near, far = (circle_of_confusion(focus + sign * offset, focus, lens) for sign in (1, -1))
    assert near == pytest.approx(far, rel=1e-9)
    assert near == pytest.approx(offset * blur_px_per_diopter(lens, focus), rel=1e-9)
    assert circle_of_confusion(focus + 2 * offset, focus, lens) == pytest.approx(2 * near, rel=1e-9)


@given(lenses, focuses)
def test_blur_is_zero_in_focus(lens: ThinLens, focus: float) -> None:
    assert circle_of_confusion(focus, focus, lens) == 0.0


def test_blur_of_a_phone_lens_is_what_its_data_say() -> None:
    # f^2 / (N p) = 6.81e-3^2 / (1.85 * 3.8e-6) px per diopter
    assert blur_px_per_diopter(PHONE) == pytest.approx(6.597, abs=1e-3)
    assert blur_px_per_diopter(PHONE, 4.0) == pytest.approx(6.597 / (1 - 6.81e-3 * 4.0), abs=1e-3)


def test_blur_takes_arrays_in_their_own_type_and_shape() -> None:
    depth = np.linspace(0.0, 5.0, 12, dtype=np.float32).reshape(3, 4)
    blur = circle_of_confusion(depth, 2.0, PHONE)
    assert blur.shape == (3, 4) and blur.dtype == np.float32
    focus = np.array([0.5, 2.0, 4.0])[:, None, None]
    volume = circle_of_confusion(depth, focus, PHONE)
    assert volume.shape == (3, 3, 4)
    np.testing.assert_allclose(volume[1], blur, rtol=1e-5, atol=1e-5)


def test_blur_and_diopters_take_tensors_and_keep_gradients() -> None:
    torch = pytest.importorskip("torch")
    depth = torch.tensor([0.5, 1.0, 4.0], requires_grad=True)
    blur = circle_of_confusion(diopters_from_metres(depth), 1.5, PHONE)
    expected = circle_of_confusion(np.array([2.0, 1.0, 0.25]), 1.5, PHONE)
    np.testing.assert_allclose(blur.detach().numpy(), expected, rtol=1e-5)
    blur.sum().backward()
    assert depth.grad.abs().min() > 0
    assert metres_from_diopters(torch.zeros(2)).isinf().all()


@given(lenses, focuses, limits)
def test_depth_of_field_ends_where_blur_reaches_the_limit(lens: ThinLens, focus: float, limit: float) -> None:
    field = depth_of_field_diopters(lens, focus, limit)
    assert field.far_diopters < focus < field.near_diopters
    for end in field:
        assert circle_of_confusion(end, focus, lens) == pytest.approx(limit, rel=1e-6)
    assert field.width_diopters == pytest.approx(field.near_diopters - field.far_diopters)


@given(lenses, limits)
def test_hyperfocal_focus_keeps_infinity_just_within_the_limit(lens: ThinLens, limit: float) -> None:
    focus = 1.0 / hyperfocal_distance(lens, limit)
    assert circle_of_confusion(0.0, focus, lens) == pytest.approx(limit, rel=1e-9)
    near = depth_of_field_diopters(lens, focus, limit).near_diopters
    assert near == pytest.approx(2 * focus, rel=1e-9)  # sharp from half the hyperfocal distance on


@given(lenses, focuses)
def test_breathing_is_the_change_of_the_image_distance(lens: ThinLens, focus: float) -> None:
    assert breathing_scale(lens, 0.0) == 1.0
    assert breathing_scale(lens, focus, focus) == 1.0
    assert breathing_scale(lens, focus) * breathing_scale(lens, 0.0, focus) == pytest.approx(1.0)
    # an object of 1 m at the focus distance: its size on the sensor is the image distance over the object's
    image_distance = lens.focal_length_m * breathing_scale(lens, focus)
    assert magnification(lens, focus) == pytest.approx(image_distance * focus)


def test_magnification_is_one_at_twice_the_focal_length() -> None:
    assert magnification(PHONE, 1.0 / (2 * PHONE.focal_length_m)) == pytest.approx(1.0)


@given(st.floats(1e-3, 1e6))
def test_diopters_and_metres_undo_each_other(metres: float) -> None:
    assert metres_from_diopters(diopters_from_metres(metres)) == pytest.approx(metres, rel=1e-12)


@pytest.mark.filterwarnings("error")
def test_infinity_is_zero_diopters() -> None:
    assert diopters_from_metres(math.inf) == 0.0
    assert metres_from_diopters(0.0) == math.inf
    assert metres_from_diopters(-0.0) == math.inf
    assert metres_from_diopters(np.float32(0.0)) == math.inf
    diopters = diopters_from_metres(np.array([math.inf, 2.0, math.nan], np.float32))
    np.testing.assert_array_equal(diopters, np.array([0.0, 0.5, math.nan], np.float32))
    np.testing.assert_array_equal(metres_from_diopters(np.array([0, -0.0, 4])), [math.inf, math.inf, 0.25])


@given(st.floats(0.1, 20.0), st.floats(1e-4, 1e-2))
def test_sigma_grows_with_depth_squared(depth: float, sigma_diopters: float) -> None:
    sigma = sigma_metres(depth, sigma_diopters)
    assert sigma_metres(2 * depth, sigma_diopters) == pytest.approx(4 * sigma)
    # and it is how far the depth moves when its inverse moves by one sigma
    step = 1e-3 * sigma_diopters
    moved = metres_from_diopters(1.0 / depth - step) - metres_from_diopters(1.0 / depth + step)
    assert moved / (2 * step) * sigma_diopters == pytest.approx(sigma, rel=1e-3)


@given(st.floats(0.1, 1.0), st.floats(1.1, 50.0) | st.just(math.inf), st.integers(2, 16))
def test_plan_is_even_in_diopters_and_keeps_its_ends(near_m: float, far_m: float, count: int) -> None:
    plan = plan_sweep(near_m, far_m, count)
    assert len(plan.focus_diopters) == count
    assert plan.focus_diopters[0] == diopters_from_metres(far_m)
    assert plan.focus_diopters[-1] == pytest.approx(1.0 / near_m)
    np.testing.assert_allclose(np.diff(plan.focus_diopters), plan.spacing_diopters, rtol=1e-9)
    assert plan.total_blur_px is None and plan.warnings == ()


@given(lenses, st.floats(0.15, 1.0), st.integers(2, 40), limits)
def test_plan_warns_exactly_when_a_depth_is_sharp_in_no_slice(
    lens: ThinLens, near_m: float, count: int, limit: float
) -> None:
    plan = plan_sweep(near_m, 2.0, count, lens, limit)
    # The depth of field narrows towards the near end: between the last two slices a gap opens first.
    last = plan.focus_diopters[-1]
    widest_gap = plan.spacing_diopters - depth_of_field_diopters(lens, last, limit).width_diopters
    warned = any("depth of field" in warning for warning in plan.warnings)
    assert warned == (widest_gap > 0) or abs(widest_gap) < 1e-6
    assert plan.total_blur_px == pytest.approx(circle_of_confusion(1 / near_m, 0.5, lens))


def test_the_slices_that_a_warning_asks_for_are_just_enough() -> None:
    warning = plan_sweep(0.3, math.inf, 3, PHONE).warnings[0]
    enough = int(warning.split("; ")[1].split()[0])
    assert plan_sweep(0.3, math.inf, enough, PHONE).warnings == ()
    assert plan_sweep(0.3, math.inf, enough - 1, PHONE).warnings != ()


def test_plan_warns_when_the_whole_sweep_moves_blur_too_little() -> None:
    webcam = ThinLens(focal_length_mm=3.6, f_number=2.8, pixel_pitch_um=6.0)
    (warning,) = plan_sweep(1.0, 3.0, 5, webcam).warnings
    blur = circle_of_confusion(1.0, 1.0 / 3.0, webcam)
    assert blur < MIN_SWEEP_BLUR_PX
    assert f"{blur:.2g} px" in warning and "0.667 1/m" in warning and "\n" not in warning
    assert plan_sweep(0.1, 3.0, 16, webcam).warnings == ()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((0.0, 2.0, 5), "near_m"),
        ((-1.0, 2.0, 5), "near_m"),
        ((math.nan, 2.0, 5), "near_m"),
        ((math.inf, math.inf, 5), "near_m"),
        ((2.0, 2.0, 5), "far_m"),
        ((2.0, 1.0, 5), "far_m"),
        ((2.0, math.nan, 5), "far_m"),
        ((0.5, 2.0, 1), "count"),
        ((0.5, 2.0, 2.5), "count"),
        ((0.5, 2.0, True), "count"),
        ((0.005, 2.0, 5, PHONE), "near_m"),
        ((0.5, 2.0, 5, PHONE, 0.0), "coc_limit_px"),
    ],
)
def test_a_sweep_that_cannot_be_planned_is_refused_by_name(arguments: tuple, named: str) -> None:
    with pytest.raises(ParameterError, match=f"^{named}: expected .* got "):
        plan_sweep(*arguments)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf, "6.81", True, None])
@pytest.mark.parametrize("name", ["focal_length_mm", "f_number", "pixel_pitch_um"])
def test_a_lens_that_cannot_be_is_refused_by_name(name: str, bad: object) -> None:
    values = {"focal_length_mm": 6.81, "f_number": 1.85, "pixel_pitch_um": 3.8, name: bad}
    with pytest.raises(ParameterError, match=f"^lens.{name}: expected a finite number above 0, got "):
        ThinLens(**values)


@pytest.mark.parametrize("focus", [1.0 / 6.81e-3 + 0.01, np.array([0.0, 200.0]), np.float32(150.0)])
def test_focus_within_the_focal_length_is_refused(focus: object) -> None:
    with pytest.raises(ParameterError, match=r"^focus_diopters: expected less than 146\.8 1/m"):
        blur_px_per_diopter(PHONE, focus)


@pytest.mark.parametrize("limit", [0.0, -1.0, math.nan])
def test_a_blur_limit_that_is_no_size_is_refused(limit: float) -> None:
    with pytest.raises(ParameterError, match=r"^coc_limit_px: expected .* above 0"):
        depth_of_field_diopters(PHONE, 1.0, limit)
    with pytest.raises(ParameterError, match=r"^coc_limit_px: expected .* above 0"):
        hyperfocal_distance(PHONE, limit)
