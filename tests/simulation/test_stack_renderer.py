"""The stack renderer against closed forms, and against rays traced one by one."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hybriddepth_ros.errors import ParameterError
from hybriddepth_ros.optics import ThinLens, circle_of_confusion
from hybriddepth_ros.simulation import CameraMotion, LayeredScene, PointSpread, StackOptics, render_stack

ONE_PX = StackOptics(blur_px_per_diopter=1.0)  # so that diopters out of focus are pixels of blur
FINE = 4  # rays start this many times per pixel and axis, and the traced scene's outlines are as fine


def flat_scene(image: Tensor, diopters: float = 0.0) -> LayeredScene:
    shape = image.shape[-2:]
    return LayeredScene(image.expand(1, 3, *shape), torch.ones(1, *shape), torch.full((1, *shape), diopters))


def disc_edge(x: Tensor, diameter: float) -> Tensor:
    """Share of a disc's area left of x, averaged over a pixel."""
    at = (x[:, None] + (torch.arange(64) + 0.5) / 64 - 0.5).clamp(-diameter / 2, diameter / 2) * 2 / diameter
    return (0.5 + (at * (1 - at**2).sqrt() + at.asin()) / math.pi).mean(dim=1)


# worst: over all places of the edge in its pixel. The sharp image does not say where it lies there, which
# counts where blur is not much wider than a pixel: most for an edge between two pixels. The mean over places
# is free of it.
@pytest.mark.parametrize(
    "diameter, worst, mean",
    [
        (1.2, 0.09, 0.02),
        (2.4, 0.09, 0.02),
        (3.3, 0.03, 0.01),
        (6.5, 0.02, 0.01),
        (11.0, 0.02, 0.01),
        (18.0, 0.02, 0.015),  # at half resolution
        (36.0, 0.02, 0.015),  # at a quarter
    ],
)
def test_edge_profile_is_that_of_the_disc(diameter: float, worst: float, mean: float) -> None:
    size, places = 96, 64
    color = torch.stack([torch.zeros(3, size, size), torch.ones(3, size, size)])
    diopters = torch.stack([torch.zeros(size, size), torch.ones(size, size)])
    at = torch.arange(size)
    errors = []
    for place in range(places):
        edge = size // 2 + place * 4 / places  # over four pixels, as far as a reduced image's are wide
        coverage = torch.ones(2, size, size)
        coverage[1] = (edge - at).clamp(0.0, 1.0)
        image = render_stack(LayeredScene(color, coverage, diopters), [1.0 + diameter], ONE_PX)
        errors.append(image[0, 0, size // 2] - disc_edge(edge - 0.5 - at, diameter))
    aligned = torch.stack([error.roll(-(place * 4 // places)) for place, error in enumerate(errors)])
    assert float(aligned.abs().max()) < worst
    assert float(aligned[1::2].mean(dim=0).abs().max()) < mean  # the middles of eighths, evenly over a pixel


@pytest.mark.parametrize("exponent", [2.0, 4.0, math.inf])
@pytest.mark.parametrize("diameter", [0.7, 2.0, 5.3, 10.0, 21.0, 33.0])
def test_point_keeps_its_light_and_place_and_has_its_second_moment(exponent: float, diameter: float) -> None:
    size, phases = 128, 8  # a reduced image enlarges each place within its pixel a little differently
    optics = replace(ONE_PX, point_spread=PointSpread(exponent))
    at = torch.arange(size, dtype=torch.float64)
    moments = torch.zeros(2, dtype=torch.float64)
    for point in range(60, 60 + phases):
        image = torch.zeros(size, size)
        image[point, point] = 5000.0
        spot = render_stack(flat_scene(image), [diameter], optics)[0, 1].double()
        assert float(spot.sum()) == pytest.approx(5000.0, rel=1e-3)
        for axis in (0, 1):
            profile = spot.sum(axis) / spot.sum()
            assert float((profile * at).sum()) == pytest.approx(point, abs=0.02)
            moments[axis] += (profile * (at - point) ** 2).sum() / phases
    assert moments.tolist() == pytest.approx((diameter**2 / 16,) * 2, rel=0.02)


def test_what_is_in_focus_is_the_image_itself() -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(3, 40, 56, generator=generator)
    sharp, _ = render_stack(flat_scene(image, 1.5), [1.5, 9.0], ONE_PX)
    torch.testing.assert_close(sharp, image, atol=1e-6, rtol=0.0)


def test_blur_is_the_circle_of_confusion() -> None:
    lens = ThinLens(focal_length_mm=6.0, f_number=1.8, pixel_pitch_um=4.0)
    depth, focus = torch.tensor([0.1, 1.0, 5.0]), torch.tensor(4.0)
    blur = StackOptics.of_lens(lens).blur_px(depth, focus)
    torch.testing.assert_close(blur.abs(), circle_of_confusion(depth, focus, lens))
    assert blur.sign().tolist() == [-1.0, -1.0, 1.0]


def traced(
    scene: LayeredScene, fine_coverage: Tensor, focus: float, samples: int = 24, slant: bool = False
) -> Tensor:
    """[3, H, W]: the mean, over pixel and aperture, of what each ray meets first (thin lens, ONE_PX)."""
    axis = (np.arange(samples) + 0.5) / samples - 0.5
    aperture = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    aperture = aperture[(aperture**2).sum(1) <= 0.25]
    layers, _, height, width = scene.color.shape
    color, depth = scene.color.numpy(), scene.diopters.numpy()
    fine = fine_coverage.numpy() > 0.5
    y, x = np.meshgrid(
        (np.arange(height * FINE) + 0.5) / FINE, (np.arange(width * FINE) + 0.5) / FINE, indexing="ij"
    )
    total = np.zeros((3, height * FINE, width * FINE))

    def inside(value: np.ndarray, count: int) -> np.ndarray:
        index = np.floor(value).astype(int)
        index = np.where(index < 0, -1 - index, index)
        return np.where(index >= count, 2 * count - 1 - index, index)

    for right, down in aperture:
        open_way = np.ones(x.shape, bool)
        for layer in reversed(range(layers)):
            hit_x, hit_y = x, y
            for _ in range(4 if slant else 2):  # where ray and surface meet
                u = depth[layer, inside(hit_y, height), inside(hit_x, width)] - focus
                hit_x, hit_y = x + u * right, y + u * down
            met = (
                open_way
                & fine[layer, inside(hit_y * FINE, height * FINE), inside(hit_x * FINE, width * FINE)]
            )
            total += met * color[layer][:, inside(hit_y, height), inside(hit_x, width)]
            open_way &= ~met
    light = total.reshape(3, height, FINE, width, FINE).mean(axis=(2, 4)) / len(aperture)
    return torch.from_numpy(light).float()


def occluded_scene(slant: float = 0.0, size: int = 24) -> tuple[LayeredScene, Tensor]:
    """A textured surface at 0, before it a textured disc at 4 1/m; and coverage FINE times finer."""
    generator = torch.Generator().manual_seed(1)
    color = torch.rand(2, 3, size // 4, size // 4, generator=generator)
    color = F.interpolate(color, size=(size, size), mode="bilinear")
    color[0] = 0.5 * color[0]
    color[1] = 0.5 + 0.5 * color[1]
    at = (torch.arange(size * FINE) + 0.5) / FINE - 0.5 * size
    near = (torch.hypot(at[:, None] + 1.3, at[None, :] - 0.6) < 6.2).float()
    fine = torch.stack([torch.ones_like(near), near])
    diopters = torch.stack([torch.zeros(size, size), torch.full((size, size), 4.0)])
    diopters = diopters + slant * torch.linspace(-1, 1, size)
    return LayeredScene(color, F.avg_pool2d(fine[None], FINE)[0], diopters), fine


# Blur of both at an outline is what layers cannot do exactly: which rays the near surface lets pass there
# depends on where they go. The rest is rungs and pixels.
@pytest.mark.parametrize(
    "focus, slant, worst, mean",
    [
        (4.0, 0.0, 0.02, 0.004),  # sharp foreground, blurred background
        (0.0, 0.0, 0.02, 0.004),  # blurred foreground, sharp background
        (2.0, 0.0, 0.10, 0.010),  # both blurred, in opposite directions
        (-2.0, 0.0, 0.10, 0.010),  # both blurred, beyond the far one
        (4.0, 0.8, 0.03, 0.005),
        (0.0, 0.8, 0.03, 0.005),
    ],
)
def test_render_is_the_mean_of_what_rays_meet(focus: float, slant: float, worst: float, mean: float) -> None:
    scene, fine = occluded_scene(slant)
    expected = traced(scene, fine, focus, slant=bool(slant))
    rendered = render_stack(scene, [focus], ONE_PX)[0]
    error = (rendered - expected)[:, 3:-3, 3:-3].abs()
    assert float(error.max()) < worst
    assert float(error.mean()) < mean


def test_foreground_in_focus_takes_nothing_from_behind_and_gives_nothing_to_it() -> None:
    scene, _ = occluded_scene()
    image = render_stack(scene, [4.0], ONE_PX)[0]
    whole = scene.coverage[1] == 1.0
    torch.testing.assert_close(image[:, whole], scene.color[1][:, whole], atol=1e-5, rtol=0.0)
    other = replace(scene, color=torch.stack([scene.color[0], 1.0 - scene.color[1]]))
    bare = scene.coverage[1] == 0.0
    assert torch.equal(render_stack(other, [4.0], ONE_PX)[0][:, bare], image[:, bare])


def test_motion_shifts_and_rotates_all_but_the_reference_slice() -> None:
    generator = torch.Generator().manual_seed(0)
    image = F.interpolate(torch.rand(1, 3, 9, 9, generator=generator), size=(63, 63), mode="bicubic")[
        0
    ].clamp(0)
    motion = CameraMotion(((1.0, 1.0), (4.0, -1.0), (1.0, 1.0)), (0.0, 0.0, 90.0))
    still, shifted, turned = render_stack(flat_scene(image), [0.0] * 3, ONE_PX, motion)
    assert torch.equal(still, image)
    torch.testing.assert_close(shifted[:, 5:-5, 8:-5], image[:, 7:-3, 5:-8], atol=1e-4, rtol=0.0)
    torch.testing.assert_close(turned, image.rot90(-1, (1, 2)), atol=1e-4, rtol=0.0)
    moved = render_stack(flat_scene(image), [0.0] * 3, ONE_PX, motion, reference=1)
    assert torch.equal(moved[1], image) and not torch.equal(moved[0], image)


def test_breathing_magnifies_about_the_centre() -> None:
    at = torch.arange(101.0) - 50.0
    image = (-(at[:, None] ** 2 + (at[None, :] - 30.0) ** 2) / 20).exp()
    optics = StackOptics(0.0, breathing_percent_per_diopter=5.0)
    stack = render_stack(flat_scene(image), [1.0, 3.0, 0.0], optics)
    profiles = stack[:, 0].sum(dim=1)
    centres = (profiles * at).sum(1) / profiles.sum(1)
    assert centres.tolist() == pytest.approx([30.0, 33.0, 28.5], abs=0.02)


def test_vignetting_darkens_corners_by_the_cosine_law() -> None:
    image = render_stack(flat_scene(torch.ones(31, 41)), [0.0], StackOptics(1.0, vignetting=0.25))[0, 0]
    assert float(image[15, 20]) == pytest.approx(1.0)
    assert float(image[0, 0]) == float(image[-1, -1]) == pytest.approx(1.25**-2)


def test_ellipse_turns_over_across_the_focus_in_the_stack() -> None:
    image = torch.zeros(64, 64)
    image[32, 32] = 1000.0
    optics = replace(ONE_PX, point_spread=PointSpread(4.0, ellipticity=0.3))
    before, behind = render_stack(flat_scene(image), [-8.0, 8.0], optics)[:, 0]
    at = torch.arange(64.0) - 32.0
    variances = [float((spot.sum(axis) * at**2).sum() / 1000) for spot in (before, behind) for axis in (0, 1)]
    assert variances == pytest.approx([5.2, 2.8, 2.8, 5.2], rel=0.04)


def test_blur_wider_than_the_image_stays_within_its_range() -> None:
    image = torch.rand(9, 7, generator=torch.Generator().manual_seed(0))
    stack = render_stack(flat_scene(image), [40.0, 300.0], ONE_PX)
    assert bool(((stack >= image.min()) & (stack <= image.max())).all())
    assert float(stack[1].std()) < 0.2 * float(image.std())


def test_same_seed_same_motion() -> None:
    walks = [CameraMotion.random(5, 0.5, 0.1, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4)]
    assert walks[0] == walks[1] != walks[2]


def test_bad_input_is_one_line() -> None:
    scene = flat_scene(torch.ones(8, 8))
    with pytest.raises(ParameterError, match="blur_px_per_diopter: expected 0 to 10000, got -1"):
        StackOptics(-1.0)
    with pytest.raises(ParameterError, match="focus_diopters: expected at least one finite number"):
        render_stack(scene, [], ONE_PX)
    with pytest.raises(ParameterError, match="focus_diopters: expected less than 10 1/m"):
        render_stack(scene, [11.0], StackOptics(1.0, focal_length_m=0.1))
    with pytest.raises(ParameterError, match="reference: expected a slice of 0 to 0, got 1"):
        render_stack(scene, [1.0], ONE_PX, reference=1)
    with pytest.raises(ParameterError, match="motion: expected 2 slices, got 1"):
        render_stack(scene, [1.0, 2.0], ONE_PX, CameraMotion(((0.0, 0.0),), (0.0,)))
    with pytest.raises(ParameterError, match="as many shifts as rotations"):
        CameraMotion(((0.0, 0.0),), ())
    with pytest.raises(ParameterError, match="finite diopters"):
        render_stack(flat_scene(torch.ones(8, 8), math.inf), [1.0], ONE_PX)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_renders_what_the_cpu_does() -> None:
    scene, _ = occluded_scene(0.8)
    there = LayeredScene(scene.color.cuda(), scene.coverage.cuda(), scene.diopters.cuda())
    focus = [-4.0, 0.0, 4.0, 9.0]
    torch.testing.assert_close(
        render_stack(there, focus, ONE_PX).cpu(), render_stack(scene, focus, ONE_PX), atol=1e-3, rtol=0.0
    )
