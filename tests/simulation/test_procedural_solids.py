"""Bodies against rays that are followed through them."""

import numpy as np
import numpy.typing as npt
import pytest

from hybriddepth_ros.simulation.procedural_solids import (
    View,
    see_box,
    see_cylinder,
    see_ellipsoid,
    see_room,
)

VIEW = View((60, 80), 70.0, pitch=0.3, yaw=-0.2, roll=0.1)
LIGHT = np.array([0.0, -1.0, 0.0])
TURN = np.array([[np.cos(0.5), 0.0, np.sin(0.5)], [0.0, 1.0, 0.0], [-np.sin(0.5), 0.0, np.cos(0.5)]])


def first_hit(inside: npt.NDArray[np.bool_], depths: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """1/z of the first sample that lies inside; nan if none does."""
    hit = inside.any(axis=0)
    return np.where(hit, 1 / depths[inside.argmax(axis=0)], np.nan)


@pytest.mark.parametrize("kind", ["box", "ball", "can"])
def test_body_lies_where_a_marched_ray_meets_it(kind: str) -> None:
    centre = VIEW.point(0.55, 0.5, 1.5)
    depths = np.linspace(0.8, 2.6, 1800)
    points = depths[:, None, None, None] * VIEW.rays.astype(np.float64)  # [n, 3, H, W]
    local = np.einsum("ij,njhw->nihw", TURN, points - centre[None, :, None, None])
    if kind == "box":
        half = np.array([0.3, 0.2, 0.15])
        seen = see_box(VIEW, centre, TURN, half, LIGHT, 100.0)
        inside = (np.abs(local) <= half[None, :, None, None]).all(axis=1)
    elif kind == "ball":
        half = np.array([0.3, 0.2, 0.25])
        seen = see_ellipsoid(VIEW, centre, TURN, half, LIGHT, 100.0)
        inside = ((local / half[None, :, None, None]) ** 2).sum(axis=1) <= 1
    else:
        seen = see_cylinder(VIEW, centre, np.array([0.0, -1.0, 0.0]), 0.2, 0.4, LIGHT, 100.0)
        inside = (np.hypot(local[:, 0], local[:, 2]) <= 0.2) & (local[:, 1] <= 0) & (local[:, 1] >= -0.4)
    expected = first_hit(inside, depths)
    hit = np.isfinite(expected)
    assert 100 < hit.sum() < 4000
    assert ((seen.coverage > 0.5) != hit).mean() < 0.005
    sure = hit & (seen.coverage == 1)
    assert np.abs(seen.diopters[sure] - expected[sure]).max() < 0.03  # a graze of the rim between two samples
    assert np.median(np.abs(seen.diopters[sure] - expected[sure])) < 5e-4


def test_room_shows_the_first_wall_that_a_ray_meets_and_its_walls_share_each_pixel() -> None:
    planes = [(np.array([0.0, 1, 0]), 1.2), (np.array([0.0, 0, 1]), 3.0), (np.array([-1.0, 0, 0]), 0.8)]
    diopters, walls = see_room(VIEW, planes, 80.0)
    directions = VIEW.rays.astype(np.float64)
    nearest = np.min(
        [
            np.where((n @ directions.reshape(3, -1)) > 0, d / (n @ directions.reshape(3, -1)), np.inf)
            for n, d in planes
        ],
        axis=0,
    )
    np.testing.assert_allclose(diopters.ravel(), 1 / nearest, rtol=1e-4)
    weights = np.stack([wall.weight for wall in walls])
    assert (weights.mean(axis=(1, 2)) > 0.01).all()
    assert np.abs(weights.sum(axis=0) - 1).mean() < 0.01
    floor = weights[0] == 1
    slope_x, slope_y = (np.diff(diopters, 2, axis=axis) for axis in (0, 1))
    assert np.abs(slope_x[floor[:-2] & floor[1:-1] & floor[2:]]).max() < 1e-5
    assert np.abs(slope_y[floor[:, :-2] & floor[:, 1:-1] & floor[:, 2:]]).max() < 1e-5


def test_texture_coordinates_are_metres_on_the_surface() -> None:
    _, (wall,) = see_room(View((40, 60), 50.0), [(np.array([0.0, 0, 1]), 2.0)], 100.0)
    per_pixel = 100.0 * 2.0 / 50.0
    assert np.abs(np.diff(wall.coordinates.x, axis=1)) == pytest.approx(per_pixel, rel=1e-4)
    assert wall.coordinates.footprint[20, 30] == pytest.approx(per_pixel, rel=1e-2)
