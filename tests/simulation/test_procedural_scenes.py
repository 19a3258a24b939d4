from itertools import islice

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hybriddepth_ros.errors import ParameterError
from hybriddepth_ros.simulation.layers import LayeredScene
from hybriddepth_ros.simulation.procedural_scenes import SceneBank, random_scene
from hybriddepth_ros.simulation.procedural_settings import _before_camera, _far_to_near
from hybriddepth_ros.simulation.procedural_solids import Seen
from hybriddepth_ros.simulation.procedural_textures import pixel_coordinates

SPAN = (4.0, 28.0)


def assert_holds_contract(scene: LayeredScene) -> None:
    for values in (scene.color, scene.coverage, scene.diopters):
        assert values.dtype == torch.float32 and values.is_contiguous() and bool(values.isfinite().all())
    assert bool((scene.color >= 0).all())
    assert bool((scene.coverage >= 0).all()) and bool((scene.coverage <= 1).all())
    assert bool((scene.coverage[0] == 1).all())
    assert bool((scene.diopters >= 0).all())
    top = scene.diopters[0]
    for coverage, diopters in zip(scene.coverage[1:], scene.diopters[1:], strict=True):
        assert bool((coverage >= 0.5).any())
        covers = coverage > 0
        assert bool((diopters >= top)[covers].all())
        top = torch.where(covers, diopters, top)


def same(first: LayeredScene, second: LayeredScene) -> bool:
    return all(
        torch.equal(a, b)
        for a, b in (
            (first.color, second.color),
            (first.coverage, second.coverage),
            (first.diopters, second.diopters),
        )
    )


@given(
    seed=st.integers(0, 2**32 - 1),
    height=st.integers(16, 90),
    width=st.integers(16, 90),
    far=st.floats(-5, 40),
    length=st.floats(0.5, 60),
)
def test_layers_lie_in_front_of_one_another_at_any_seed_size_and_span(
    seed: int, height: int, width: int, far: float, length: float
) -> None:
    span = (far, max(far, 0.0) + length)
    scene = random_scene(np.random.default_rng(seed), (height, width), span)
    assert scene.coverage.shape[1:] == (height, width)
    assert_holds_contract(scene)


def test_same_seed_gives_the_same_scene_and_another_seed_another() -> None:
    first, again, other = (random_scene(np.random.default_rng(seed), (64, 48), SPAN) for seed in (7, 7, 8))
    assert same(first, again)
    assert not (first.color.shape == other.color.shape and same(first, other))


def test_same_seed_gives_the_same_row_of_scenes_past_the_bank_s_refreshes() -> None:
    first, again = (list(islice(SceneBank(3, refresh=2).scenes((32, 40), SPAN), 8)) for _ in range(2))
    assert all(same(a, b) for a, b in zip(first, again, strict=True))
    worker = SceneBank([3, 1]).scene((32, 40), SPAN)
    assert not (worker.color.shape == first[0].color.shape and same(worker, first[0]))


def test_scenes_fill_the_span_and_reach_past_either_end() -> None:
    scenes = list(islice(SceneBank(0).scenes((64, 64), SPAN), 120))
    depth = torch.stack([scene.depth_diopters for scene in scenes])
    inside = (depth >= SPAN[0]) & (depth <= SPAN[1])
    assert 0.8 < float(inside.float().mean()) < 0.99
    per_scene = depth.flatten(1)
    assert 0.05 < float((per_scene.amin(1) < SPAN[0] - 0.5).float().mean()) < 0.6
    assert 0.05 < float((per_scene.amax(1) > SPAN[1] + 0.5).float().mean()) < 0.6
    ranges = per_scene.amax(1) - per_scene.amin(1)
    assert float(ranges.median()) > 0.3 * (SPAN[1] - SPAN[0])


def test_scenes_hold_planes_blank_surfaces_and_many_layers() -> None:
    scenes = list(islice(SceneBank(1).scenes((64, 64), SPAN), 120))
    assert sum(len(scene.coverage) >= 4 for scene in scenes) > 20
    # A plane's 1/z is linear in the pixel: its second derivative vanishes.
    planar = [
        float((scene.diopters[0].diff(n=2, dim=0)[:, 1:-1].abs() < 1e-3).float().mean()) for scene in scenes
    ]
    assert np.mean(np.array(planar) > 0.85) > 0.4
    gamma = torch.stack([scene.color[0].clamp(0, 1) ** (1 / 2.2) for scene in scenes])
    detail = gamma.diff(dim=3).abs().mean(dim=(1, 2, 3))
    assert 0.1 < float((detail < 0.006).float().mean()) < 0.8


def test_drawing_scenes_leaves_opencv_s_threads_alone() -> None:
    threads = cv2.getNumThreads()
    random_scene(np.random.default_rng(0), (32, 32), SPAN)
    assert cv2.getNumThreads() == threads


@pytest.mark.parametrize("span", [(5.0, 5.0), (9.0, 3.0), (-4.0, -1.0), (0.0, float("nan"))])
def test_spans_without_a_length_before_the_camera_are_refused(span: tuple[float, float]) -> None:
    with pytest.raises(ParameterError, match="span must rise"):
        random_scene(np.random.default_rng(0), (32, 32), span)


def test_sizes_of_a_few_pixels_are_refused() -> None:
    with pytest.raises(ParameterError, match=r"at least 16 pixels each way, got \(8, 64\)"):
        random_scene(np.random.default_rng(0), (8, 64), SPAN)


def test_bodies_are_laid_far_to_near_even_where_their_distances_mislead() -> None:
    """A long board that runs towards the camera, and a ball before its far end, farther than its middle."""
    rim = np.zeros((20, 30), np.float32)
    at = pixel_coordinates((20, 30))

    def body(columns: slice, diopters: np.ndarray) -> Seen:
        coverage = rim.copy()
        coverage[5:15, columns] = 1
        return Seen(coverage, diopters.astype(np.float32), at, np.ones_like(rim))

    board = body(slice(0, 30), np.broadcast_to(np.linspace(4.0, 1.0, 30), (20, 30)))
    ball = body(slice(25, 30), np.full((20, 30), 1.8))
    for bodies in ([ball, board], [board, ball]):
        first, last = _far_to_near(bodies)
        assert first is board and last is ball


@given(seed=st.integers(0, 10_000))
def test_a_box_never_holds_the_camera(seed: int) -> None:
    """Whoever looks out of a box sees none of its faces: there would be nothing to draw."""
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    base, size = rng.normal(0, 0.5, 3), np.exp(rng.normal(0, 1, 3))
    half, centre = _before_camera(base, axes, size)
    assert (np.abs(axes @ centre) > half).any()
    assert (half <= size).all() and np.allclose(half / size, half[0] / size[0])
