from dataclasses import replace

import numpy as np
import pytest

from hybriddepth_ros.focal_stack import CameraIntrinsics
from hybriddepth_ros.simulation import Scene, Thing, desk_scene, render, textures
from hybriddepth_ros.simulation.drawing_order import far_to_near
from hybriddepth_ros.simulation.projection import in_camera_frame, nearest, visible_faces

CAMERA = CameraIntrinsics(325.0, 325.0, 159.5, 119.5, 320, 240)


def test_the_same_seed_gives_the_same_desk_and_another_a_different_one() -> None:
    first, again, other = desk_scene.__wrapped__(3), desk_scene.__wrapped__(3), desk_scene.__wrapped__(4)
    images = [render(scene, np.eye(4), CAMERA, None, 0.0)[0] for scene in (first, again, other)]
    assert np.array_equal(images[0], images[1])
    assert np.abs(images[0] - images[2]).mean() > 0.02


@pytest.mark.parametrize("seed", range(3))
def test_the_desk_fills_the_view_from_near_to_far(seed: int) -> None:
    _, depth = render(desk_scene(seed), np.eye(4), CAMERA, None, 0.0)
    assert np.isfinite(depth).all()
    assert 0.33 < depth.min() < 0.5
    assert 2.5 < depth.max() < 3.2


def test_detail_is_nearly_everywhere_but_not_on_the_plain_things() -> None:
    scene = desk_scene(0)
    textured = [t for t in scene.things if t.quads[0].texture[..., 1].std() > 0.02]
    assert len(scene.things) - len(textured) == 2
    for thing in textured:
        grain = thing.quads[0].texture[..., 1]
        assert np.abs(np.diff(grain, axis=1)).mean() > 0.005, thing.name


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("shift", [(0, 0, 0), (0.05, -0.04, 0.03)])
def test_things_are_drawn_in_the_order_that_the_depth_says(
    seed: int, shift: tuple[float, float, float]
) -> None:
    """Each thing in a grey of its own: the picture must show the grey of what the depth says is nearest."""
    scene = desk_scene(seed)
    greys = np.linspace(0.1, 0.95, len(scene.things))
    things = tuple(
        Thing(
            t.name,
            tuple(replace(q, texture=textures.plain((g, g, g)), shade=1.0, _paint={}) for q in t.quads),
            t.solid,
        )
        for t, g in zip(scene.things, greys, strict=True)
    )
    pose = np.eye(4)
    pose[:3, 3] = shift
    image, depth = render(Scene(things), pose, CAMERA, None, 0.0)
    faces = [visible_faces(thing, CAMERA) for thing in in_camera_frame(Scene(things), pose)]
    exact, owner = nearest(faces, CAMERA)
    assert np.array_equal(depth, exact)
    wrong = np.abs(image[..., 0] - greys[owner]) > 0.5 * (greys[1] - greys[0])
    # Only rims, where a pixel shows two things, may differ.
    assert not (
        wrong[1:-1, 1:-1] & wrong[:-2, 1:-1] & wrong[2:, 1:-1] & wrong[1:-1, :-2] & wrong[1:-1, 2:]
    ).any()


def test_a_wall_and_the_floor_at_its_foot_do_not_stand_before_what_is_on_them() -> None:
    scene = desk_scene(0)
    order = [scene.things[i].name for i in far_to_near(in_camera_frame(scene, np.eye(4)))]
    assert order.index("wall") < order.index("poster")
    assert order.index("floor") < order.index("table") < order.index("carton") < order.index("label")


def test_fractal_texture_tiles_and_has_detail_at_every_scale() -> None:
    field = textures.fractal_field(np.random.default_rng(0), 256)
    seam = np.abs(field[:, 0] - field[:, -1]).mean()
    inside = np.abs(np.diff(field, axis=1)).mean()
    assert seam == pytest.approx(inside, rel=0.3)
    power = np.abs(np.fft.rfft2(field)) ** 2
    frequency = np.hypot(np.fft.fftfreq(256)[:, None], np.fft.rfftfreq(256)[None, :])
    low = power[(frequency > 0.02) & (frequency < 0.03)].mean()
    high = power[(frequency > 0.2) & (frequency < 0.3)].mean()
    assert low / high == pytest.approx(100, rel=0.4)  # amplitude 1 / f is power 1 / f^2
