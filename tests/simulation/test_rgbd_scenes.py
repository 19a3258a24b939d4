import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hybriddepth_ros.errors import ParameterError
from hybriddepth_ros.simulation.rgbd_scenes import scene_from_rgbd
from tests.simulation.test_procedural_scenes import assert_holds_contract

Frame = tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]


def card_before_a_wall() -> Frame:
    """A bright card at 0.5 m before a dark wall that slants from 2 m to 2.4 m."""
    depth = np.broadcast_to(np.linspace(2.0, 2.4, 80, dtype=np.float32), (60, 80)).copy()
    rgb = np.full((60, 80, 3), 60, np.uint8)
    depth[20:40, 30:55] = 0.5
    rgb[20:40, 30:55] = 220
    return rgb, depth


@given(seed=st.integers(0, 2**32 - 1), height=st.integers(4, 50), width=st.integers(4, 50))
def test_visible_valid_depth_is_kept_exactly_and_the_contract_holds(
    seed: int, height: int, width: int
) -> None:
    rng = np.random.default_rng(seed)
    depth = np.full((height, width), rng.uniform(1, 5), np.float32) + np.linspace(
        0, 1, width, dtype=np.float32
    )
    for _ in range(int(rng.integers(0, 6))):
        top, left = int(rng.integers(0, height - 1)), int(rng.integers(0, width - 1))
        depth[top : top + 15, left : left + 12] = rng.uniform(0.2, 6)
    depth[rng.random(depth.shape) < 0.1] = rng.choice([0.0, np.nan, np.inf, -1.0])
    depth[height // 2, width // 2] = 1.5
    rgb = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    scene, valid = scene_from_rgbd(rgb, depth, blur_px_per_diopter=13.7)
    assert_holds_contract(scene)
    assert np.array_equal(valid.numpy(), np.isfinite(depth) & (depth > 0))
    expected = np.float32(13.7) / depth[valid.numpy()]
    assert np.array_equal(scene.depth_diopters.numpy()[valid.numpy()], expected)
    seen = scene.color.gather(0, scene.seen[None, None].expand(1, 3, -1, -1))[0]
    shown = (seen.permute(1, 2, 0).numpy() ** (1 / 2.2) * 255).round()
    assert np.array_equal(shown, rgb)


def test_card_becomes_a_layer_and_the_wall_goes_on_behind_it() -> None:
    rgb, depth = card_before_a_wall()
    scene, valid = scene_from_rgbd(rgb, depth)
    assert bool(valid.all()) and len(scene.coverage) == 2
    card = torch.zeros(60, 80, dtype=torch.bool)
    card[20:40, 30:55] = True
    assert torch.equal(scene.coverage[1] == 1, card) and bool((scene.coverage[0] == 1).all())
    wall = float((60 / 255) ** 2.2)
    assert scene.color[0].numpy() == pytest.approx(wall, abs=1e-5)
    assert float(scene.diopters[0].min()) > 1 / 2.4 - 1e-4 and float(scene.diopters[0].max()) < 0.5 + 1e-4
    assert scene.diopters[1].numpy() == pytest.approx(2.0)


def test_hidden_surface_takes_up_the_texture_at_its_rim() -> None:
    rgb, depth = card_before_a_wall()
    noise = np.random.default_rng(0).integers(0, 120, rgb.shape, dtype=np.uint8)
    rgb = np.where(depth[..., None] > 1, noise, rgb)
    scene, _ = scene_from_rgbd(rgb, depth)
    behind, beside = scene.color[0, :, 20:40, 30:55], scene.color[0, :, :, :30]
    assert float(behind.max()) <= float((120 / 255) ** 2.2)
    assert float(behind.std()) == pytest.approx(float(beside.std()), rel=0.15)


def test_a_hole_beside_what_is_near_belongs_to_what_is_far() -> None:
    rgb, depth = card_before_a_wall()
    depth[20:40, 22:30] = 0.0  # the shadow that the card throws for the depth camera
    scene, valid = scene_from_rgbd(rgb, depth)
    assert not bool(valid[20:40, 22:30].any()) and int((~valid).sum()) == 160
    filled = scene.depth_diopters[20:40, 22:30]
    assert float(filled.max()) < 0.51


def test_a_smooth_floor_stays_one_surface() -> None:
    depth = np.repeat(1 / np.linspace(0.3, 2.0, 120, dtype=np.float32)[:, None], 60, axis=1)
    scene, _ = scene_from_rgbd(np.full((120, 60, 3), 90, np.uint8), depth)
    assert len(scene.coverage) == 1


def test_layers_are_as_many_as_asked_at_most() -> None:
    depth = np.full((60, 80), 5.0, np.float32)
    for index, value in enumerate((4.0, 3.0, 2.0, 1.0)):
        depth[5 * index + 5 : -5 * index - 5, 5 * index + 5 : -5 * index - 5] = value
    rgb = np.full((60, 80, 3), 90, np.uint8)
    counts = [len(scene_from_rgbd(rgb, depth, max_layers=n)[0].coverage) for n in (1, 2, 3, 5, 9)]
    assert counts == [1, 2, 3, 5, 5]


def test_frames_that_do_not_fit_or_hold_nothing_are_refused() -> None:
    rgb, depth = card_before_a_wall()
    with pytest.raises(ParameterError, match="of one size"):
        scene_from_rgbd(rgb, depth[:-1])
    with pytest.raises(ParameterError, match="no measurement"):
        scene_from_rgbd(rgb, 0 * depth)
    with pytest.raises(ParameterError, match="jump"):
        scene_from_rgbd(rgb, depth, jump=0.0)
