"""Blur: the disc between a sharp image and a blurred one, and the slope over defocus."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybriddepth_ros.calibration.aperture import _Sharp, fit_slope, least
from hybriddepth_ros.calibration.board import BoardSpec, draw_board
from hybriddepth_ros.focal_stack import CameraIntrinsics
from hybriddepth_ros.simulation.disc_blur import blur_disc, disc_reach
from hybriddepth_ros.simulation.sensor import develop

CAMERA = CameraIntrinsics(600.0, 600.0, 225.0, 175.0, 450, 350)
REGION = np.array([[70.0, 60.0], [380.0, 60.0], [380.0, 290.0], [70.0, 290.0]])


@pytest.mark.parametrize("diameter", [3.0, 6.5, 12.0, 20.0])
def test_the_disc_between_two_images_is_found(diameter: float) -> None:
    rng = np.random.default_rng(1)
    light = (0.03 + 0.6 * draw_board(BoardSpec(), 50).astype(np.float32) / 255.0)[:, :, None]
    reach = disc_reach(diameter)
    blurred = blur_disc(np.pad(light, ((reach, reach), (reach, reach), (0, 0)), mode="edge"), diameter)
    sharp, image = (develop(part[..., 0], rng) for part in (light, blurred.reshape(light.shape)))
    assert _Sharp(sharp, CAMERA).disc_that_gives(image, CAMERA, REGION) == pytest.approx(diameter, rel=0.03)


@given(st.floats(3.0, 30.0), st.integers(0, 999))
def test_the_slope_ignores_a_few_wild_widths(slope: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.uniform(0.2, 1.0, 40)
    y = slope * x * (1.0 + 0.01 * rng.standard_normal(40))
    y[:2] *= 1.6
    found, sigma = fit_slope(x, y, np.repeat(np.arange(4.0), 10))
    assert found == pytest.approx(slope, rel=0.02)
    assert sigma < 0.2 * slope


@given(st.floats(0.5, 29.0))
def test_the_valley_is_found(bottom: float) -> None:
    assert least(lambda x: abs(x - bottom) ** 1.5, 0.0, 30.0, 1e-3) == pytest.approx(bottom, abs=1e-3)
