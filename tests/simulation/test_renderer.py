"""The renderer against closed forms, and against a lens made of many pinholes."""

from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from hybriddepth_ros.focal_stack import CameraIntrinsics
from hybriddepth_ros.optics import ThinLens, blur_px_per_diopter, circle_of_confusion
from hybriddepth_ros.simulation import (
    Quad,
    Scene,
    Thing,
    breathing_intrinsics,
    desk_scene,
    develop,
    plane_at,
    render,
    render_depth,
    textures,
)
from hybriddepth_ros.simulation.disc_blur import blur_disc, disc_reach

LENS = ThinLens(25.0, 1.4, 100.0)
CAMERA = CameraIntrinsics(LENS.focal_length_px, LENS.focal_length_px, 79.5, 59.5, 160, 120)
REST = np.eye(4)
BLACK = (0.0, 0.0, 0.0)


def textured_plane(depth: float, seed: int = 0) -> Thing:
    texture = textures.mottled(np.random.default_rng(seed), 256, (0.4, 0.3, 0.2), 0.5, 0.7)
    return plane_at(depth, texture, width_m=4.0, repeat=8.0)


def card(depth: float, left: float, right: float, top: float, bottom: float, value: float = 0.8) -> Thing:
    """A card of one colour whose rim lies at these pixels."""
    scale = depth / CAMERA.fx
    origin = np.array([(left - CAMERA.cx) * scale, (top - CAMERA.cy) * scale, depth])
    along, down = np.array([(right - left) * scale, 0, 0]), np.array([0, (bottom - top) * scale, 0])
    return Thing("card", (Quad(origin, along, down, textures.plain((value,) * 3)),))


def with_coarse_textures(scene: Scene) -> Scene:
    """Textures that no view minifies, so that two renderings differ by their optics alone."""

    def coarse(quad: Quad) -> Quad:
        return replace(
            quad, texture=cv2.resize(quad.texture, (24, 24), interpolation=cv2.INTER_AREA), _paint={}
        )

    return Scene(
        tuple(replace(t, quads=tuple(coarse(q) for q in t.quads)) for t in scene.things), scene.backdrop
    )


def moved(
    x: float = 0.0, y: float = 0.0, z: float = 0.0, turn_deg: tuple[float, float, float] = (0, 0, 0)
) -> npt.NDArray[np.float64]:
    pose = np.eye(4)
    pose[:3, :3] = cv2.Rodrigues(np.radians(np.array(turn_deg, np.float64)))[0]
    pose[:3, 3] = (x, y, z)
    return pose


def test_a_plane_in_focus_is_rendered_as_by_a_pinhole() -> None:
    scene = Scene((textured_plane(0.8),))
    sharp, _ = render(scene, REST, CAMERA, None, 0.0)
    focused, _ = render(scene, REST, CAMERA, LENS, 1.25)
    assert sharp.std() > 0.05
    assert np.abs(focused - sharp).max() < 1e-6


@pytest.mark.parametrize("focus", [0.3, 2.4])
def test_a_plane_out_of_focus_is_its_sharp_image_under_the_disc(focus: float) -> None:
    scene = Scene((textured_plane(0.8),))
    diameter = float(circle_of_confusion(1.25, focus, LENS))
    reach = disc_reach(diameter)
    wide = replace(
        CAMERA, cx=CAMERA.cx + reach, cy=CAMERA.cy + reach, width=160 + 2 * reach, height=120 + 2 * reach
    )
    sharp, _ = render(scene, REST, wide, None, 0.0)
    blurred, _ = render(scene, REST, CAMERA, LENS, focus)
    assert diameter > 4
    assert np.abs(blurred - blur_disc(sharp, diameter)).max() < 2e-3


def test_a_step_edge_has_the_profile_of_a_disc_s_chord() -> None:
    scene = Scene((card(1.0, 80.25, 400, -200, 400, value=1.0),), backdrop=BLACK)
    image, _ = render(scene, REST, CAMERA, LENS, 2.5)
    radius = 0.5 * float(circle_of_confusion(1.0, 2.5, LENS))
    x = np.clip((np.arange(160) - 80.25) / radius, -1, 1)
    profile = 0.5 + (x * np.sqrt(1 - x**2) + np.arcsin(x)) / np.pi
    assert radius > 3
    assert np.abs(image[60, :, 0] - profile).max() < 0.02


@pytest.mark.parametrize("focus", [0.2, 1.0, 1.7, 3.0])
def test_light_is_conserved_out_of_focus(focus: float) -> None:
    scene = Scene((card(1.0, 60, 90, 40, 75),), backdrop=BLACK)
    image, _ = render(scene, REST, CAMERA, LENS, focus)
    assert image[..., 0].sum() == pytest.approx(0.8 * 30 * 35, rel=1e-3)


def test_blur_grows_linearly_with_diopters() -> None:
    """The line spread of a disc of diameter c has the deviation c / 4."""
    foci = np.array([2.0, 2.5, 3.0, 3.5, 4.0])
    widths = []
    for focus in foci:
        scene = Scene((card(1.0, 79.5, 400, -200, 400, value=1.0),), backdrop=BLACK)
        image, _ = render(scene, REST, CAMERA, LENS, float(focus))
        spread = np.diff(image[60, :, 0].astype(np.float64))
        x = np.arange(len(spread))
        mean = (spread * x).sum()
        # The kernel's weights are means over a pixel, whose own variance is 1/12.
        widths.append(4 * np.sqrt((spread * (x - mean) ** 2).sum() - 1 / 12))
    expected = (foci - 1.0) * np.array([blur_px_per_diopter(LENS, float(f)) for f in foci])
    assert widths == pytest.approx(expected.tolist(), rel=0.02)


def test_through_a_blurred_rim_the_background_is_seen() -> None:
    back = Thing("back", plane_at(2.0, textures.plain((0.2, 0.2, 0.2))).quads)
    scene = Scene((card(0.5, 80.0, 400, -200, 400, value=0.8), back))
    image, _ = render(scene, REST, CAMERA, LENS, 0.5)
    coverage, _ = render(Scene(scene.things[:1], BLACK), REST, CAMERA, LENS, 0.5)
    assert image == pytest.approx(0.2 + (0.8 - 0.2) * coverage / 0.8, abs=1e-4)
    assert image[60, 80, 0] == pytest.approx(0.5, abs=0.02)


def test_what_is_far_from_a_blurred_foreground_is_not_touched_by_it() -> None:
    scene = Scene((textured_plane(1.5), card(0.5, 60, 90, 40, 75)))
    focus = 1 / 1.5
    image, _ = render(scene, REST, CAMERA, LENS, focus)
    alone, _ = render(Scene(scene.things[:1]), REST, CAMERA, LENS, focus)
    reach = disc_reach(float(circle_of_confusion(2.0, focus, LENS))) + 1
    touched = np.abs(image - alone).max(axis=-1) > 1e-5
    rows, columns = np.nonzero(touched)
    assert rows.min() >= 40 - reach and rows.max() <= 75 + reach
    assert columns.min() >= 60 - reach and columns.max() <= 90 + reach


@pytest.mark.parametrize("focus", [0.4, 1.2, 2.6])
def test_a_slanted_surface_of_one_colour_stays_closed(focus: float) -> None:
    """Where layers of different blur meet, neither the backdrop shines through nor light piles up."""
    floor = Quad(
        np.array([-6.0, 0.25, 0.1]),
        np.array([12.0, 0, 0]),
        np.array([0, 0, 5.0]),
        textures.plain((0.5, 0.5, 0.5)),
    )
    scene = Scene((Thing("floor", (floor,)),), backdrop=BLACK)
    image, _ = render(scene, moved(turn_deg=(-35, 0, 0)), CAMERA, LENS, focus)
    assert image == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("turn", [(0, 0, 0), (-20, 10, 5)])
def test_depth_of_a_known_plane_is_exact(turn: tuple[float, float, float]) -> None:
    normal_point = np.array([0.1, -0.05, 1.4])
    u, v = np.array([3.0, 0.2, 0.9]), np.array([-0.1, 3.0, 0.6])
    plane = Quad(normal_point - u / 2 - v / 2, u, v, textures.plain((0.5, 0.5, 0.5)))
    pose = moved(0.03, -0.02, 0.05, turn)
    depth = render_depth(Scene((Thing("plane", (plane,)),)), pose, CAMERA)
    rows, columns = np.mgrid[: CAMERA.height, : CAMERA.width]
    seen = np.isfinite(depth)
    rays = np.stack(
        [(columns - CAMERA.cx) / CAMERA.fx, (rows - CAMERA.cy) / CAMERA.fy, np.ones(depth.shape)], -1
    )
    world = (rays[seen] * depth[seen][:, None].astype(np.float64)) @ pose[:3, :3].T + pose[:3, 3]
    distance = (world - normal_point) @ plane.normal
    assert seen.mean() > 0.9
    assert np.abs(distance).max() < 1e-5


def test_depth_of_a_scene_is_that_of_the_nearest_surface() -> None:
    scene = Scene((card(0.5, 60, 90, 40, 75), textured_plane(1.5), card(0.8, 50, 80, 60, 100)))
    _, depth = render(scene, REST, CAMERA, LENS, 1.0)
    assert depth.dtype == np.float32
    assert depth[70, 70] == pytest.approx(0.5)
    assert depth[90, 70] == pytest.approx(0.8)
    assert depth[10, 10] == pytest.approx(1.5)


def test_nothing_is_infinitely_far() -> None:
    image, depth = render(Scene((), backdrop=(0.1, 0.2, 0.3)), REST, CAMERA, LENS, 1.0)
    assert np.isinf(depth).all()
    assert image[5, 5] == pytest.approx([0.1, 0.2, 0.3])


def test_breathing_magnifies_about_the_principal_point() -> None:
    scene = Scene((card(1.0, 99.5, 119.5, 39.5, 59.5, value=1.0),), backdrop=BLACK)
    grown = breathing_intrinsics(CAMERA, 2.0, 5.0)
    assert (grown.fx, grown.cx) == (pytest.approx(1.1 * CAMERA.fx), CAMERA.cx)
    image, _ = render(scene, REST, grown, None, 0.0)
    columns, rows = image[..., 0].sum(axis=0), image[..., 0].sum(axis=1)
    middle = (columns * np.arange(160)).sum() / columns.sum(), (rows * np.arange(120)).sum() / rows.sum()
    assert middle == pytest.approx((79.5 + 1.1 * 30, 59.5 - 1.1 * 10), abs=0.01)


@pytest.mark.parametrize("focus", [0.5, 1.6, 2.3])
def test_the_desk_looks_as_through_a_lens_made_of_pinholes(focus: float) -> None:
    """A thin lens is the mean of the pinholes in its aperture, shifted so that the focal plane coincides."""
    lens = ThinLens(25.0, 1.4, 150.0)
    fx = lens.focal_length_px
    camera = CameraIntrinsics(fx, fx, 79.5, 59.5, 160, 120)
    scene = with_coarse_textures(desk_scene(0))
    image, _ = render(scene, REST, camera, lens, focus)
    # Unit focusing: the blur is that of an aperture seen at the image distance, while `camera` here does not
    # breathe.
    radius = 0.5 * float(blur_px_per_diopter(lens, focus)) / fx
    total = np.zeros((120, 160, 3))
    count = 120
    for i in range(count):
        angle, r = (
            2.399963 * i,
            radius * np.sqrt((i + 0.5) / count),
        )  # golden angle: evenly
        x, y = r * np.cos(angle), r * np.sin(angle)
        shifted = replace(camera, cx=camera.cx + fx * x * focus, cy=camera.cy + fx * y * focus)
        total += render(scene, moved(x, y), shifted, None, 0.0)[0]
    error = np.abs(image - total / count)
    sharp, _ = render(scene, REST, camera, None, 0.0)
    assert error.mean() < 0.003
    assert np.percentile(error, 99) < 0.03
    # What is left is that pinholes sample textures at points, where the renderer's kernels average over
    # pixels.
    assert error.mean() < 0.33 * np.abs(sharp - total / count).mean()


def test_developing_without_noise_is_srgb() -> None:
    linear = np.full((2, 2, 3), 0.2140, np.float32)
    assert (develop(linear) == 127).all() or (develop(linear) == 128).all()
    assert develop(np.full((1, 1, 3), 3.0, np.float32)).max() == 255


def test_shot_noise_grows_with_the_root_of_the_light_and_follows_its_seed() -> None:
    def deviation(level: float) -> float:
        linear = np.full((200, 200, 3), level, np.float32)
        noisy = develop(linear, np.random.default_rng(1), 4000.0, 0.0).astype(np.float64)
        slope = (develop(linear + np.float32(0.02)).mean() - develop(linear - np.float32(0.02)).mean()) / 0.04
        return float(noisy.std() / slope)

    assert deviation(0.5) == pytest.approx(np.sqrt(0.5 / 4000), rel=0.05)
    assert deviation(0.125) == pytest.approx(0.5 * deviation(0.5), rel=0.08)
    linear = np.full((20, 20, 3), 0.3, np.float32)
    same = [develop(linear, np.random.default_rng(7)) for _ in range(2)]
    assert np.array_equal(*same)
    assert not np.array_equal(same[0], develop(linear, np.random.default_rng(8)))
