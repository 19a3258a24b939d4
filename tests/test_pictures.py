"""Pictures: colours that can be read back, hatching where nothing was estimated, round legends."""

import cv2
import numpy as np
import pytest

from hybriddepth_ros.image_files import encode_png
from hybriddepth_ros.pictures import (
    HATCH_DARK,
    HATCH_LIGHT,
    Panel,
    Scale,
    colourise,
    depth_panel,
    depth_scale,
    draw_panels,
    error_panel,
    round_ticks,
    sigma_panel,
)


def test_no_estimate_is_hatched_in_two_greys_and_nothing_else_is() -> None:
    depth = np.linspace(0.3, 4.0, 64 * 64, dtype=np.float32).reshape(64, 64)
    depth[16:32, 16:48] = np.nan
    picture = colourise(depth, depth_scale(depth))
    grey = (picture == picture[..., :1]).all(axis=2) & np.isin(picture[..., 0], (HATCH_LIGHT, HATCH_DARK))
    assert np.array_equal(grey, np.isnan(depth))
    assert {HATCH_LIGHT, HATCH_DARK} == set(picture[16:32, 16:48].ravel().tolist())


def test_depth_colours_are_even_in_diopters() -> None:
    scale = Scale(0.5, 4.0, spacing="diopters")
    middle = 2.0 / (1 / 0.5 + 1 / 4.0)
    assert scale.position(np.array([0.5, middle, 4.0, 0.1, 90.0])) == pytest.approx([0, 0.5, 1, 0, 1])
    places = np.linspace(0, 1, 11)
    assert scale.position(scale.value(places)) == pytest.approx(places, abs=1e-6)


def test_one_scale_gives_two_pictures_the_same_colour_for_the_same_depth() -> None:
    one, other = np.full((4, 4), 1.0, np.float32), np.linspace(0.5, 3, 16, dtype=np.float32).reshape(4, 4)
    scale = depth_scale(one, other)
    other[0, 0] = 1.0
    assert np.array_equal(colourise(one, scale)[0, 0], colourise(other, scale)[0, 0])


@pytest.mark.parametrize(
    "scale",
    [
        Scale(0.3, 2.2, spacing="diopters"),
        Scale(0.0013, 0.81, spacing="log"),
        Scale(0, 0.0031),
        Scale(-7, 7),
        Scale(0.07, 18, spacing="diopters"),
    ],
)
def test_ticks_are_round_inside_the_scale_and_apart(scale: Scale) -> None:
    ticks = np.array(round_ticks(scale))
    assert 4 <= len(ticks) <= 12
    assert (ticks >= scale.low).all() and (ticks <= scale.high).all()
    assert (np.diff(scale.position(ticks)) >= 0.09 - 1e-6).all()
    assert all(len(f"{tick:g}".lstrip("-0.").replace(".", "").rstrip("0")) <= 2 for tick in ticks)


@pytest.mark.parametrize("missing", [0.0, 0.5, 1.0])
def test_a_figure_is_drawn_even_when_nothing_was_estimated(missing: float) -> None:
    depth = np.linspace(0.5, 2, 48 * 64, dtype=np.float32).reshape(48, 64)
    depth[: int(48 * missing)] = np.nan
    scene = np.zeros((48, 64, 3), np.uint8)
    panels = [Panel("scene", scene), depth_panel("depth", depth), sigma_panel("sigma", depth / 20)]
    png = draw_panels([*panels, error_panel("error", depth - 1)], title="all", columns=2)
    picture = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None and picture.shape[1] > 800


def test_a_constant_depth_has_a_scale() -> None:
    scale = depth_scale(np.full((4, 4), 1.5, np.float32))
    assert scale.high > scale.low
    assert round_ticks(scale)


def test_png_keeps_the_order_of_colours() -> None:
    image = np.zeros((2, 2, 3), np.uint8)
    image[..., 0] = 255  # red
    decoded = cv2.imdecode(np.frombuffer(encode_png(image), np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None and decoded[0, 0].tolist() == [0, 0, 255]
