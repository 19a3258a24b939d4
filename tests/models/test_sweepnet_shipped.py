"""The weights that are shipped: small, honest, better than the classical model on stacks they never saw."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hybriddepth_ros.models import AlignedStack, DepthModel, load_model
from hybriddepth_ros.models.sweepnet_weights import SHIPPED, load_sweepnet
from hybriddepth_ros.simulation.exposure import Exposure, develop_stack
from hybriddepth_ros.simulation.layers import LayeredScene
from hybriddepth_ros.simulation.procedural_scenes import SceneBank
from hybriddepth_ros.simulation.stack_renderer import StackOptics, render_stack

FOCUS = np.linspace(0.3, 2.1, 6).astype(np.float32)
BLUR = 10.0
SIZE = (192, 256)


def photographed(scene: LayeredScene, seed: int) -> AlignedStack:
    linear = render_stack(scene, FOCUS.tolist(), StackOptics(BLUR))
    stack = develop_stack(linear, Exposure(gamma=2.2), torch.Generator().manual_seed(seed))
    images = np.ascontiguousarray(stack.permute(0, 2, 3, 1).numpy())
    return AlignedStack(images, np.ones(images.shape[:3], np.bool_), FOCUS, BLUR)


@pytest.fixture(scope="module")
def unseen() -> list[tuple[AlignedStack, np.ndarray]]:
    """Stacks with their inverse depth [H, W] 1/m; the seed is none of a training's."""
    bank = SceneBank([987, 65])
    pairs = []
    for seed in range(12):
        scene = bank.scene(SIZE, (BLUR * float(FOCUS[0]), BLUR * float(FOCUS[-1])))
        in_diopters = LayeredScene(scene.color, scene.coverage, scene.diopters / BLUR)
        pairs.append((photographed(in_diopters, seed), in_diopters.depth_diopters.numpy()))
    return pairs


def errors(model: DepthModel, pairs: list[tuple[AlignedStack, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """|error| and sigma of all pixels, 1/m."""
    found = [(model(stack), truth) for stack, truth in pairs]
    return (
        np.concatenate([np.abs(estimate.diopters - truth).ravel() for estimate, truth in found]),
        np.concatenate([estimate.sigma_diopters.ravel() for estimate, _ in found]),
    )


def test_the_file_is_small_and_says_what_made_it() -> None:
    assert SHIPPED.stat().st_size < 10e6
    loaded = load_sweepnet()
    assert sum(p.numel() for p in loaded.network.parameters()) <= 1_500_000
    assert {"model", "data", "stages", "version"} <= set(loaded.card)
    for stage in loaded.card["stages"]:
        assert {"config", "commit", "device", "settings"} <= set(stage)


def test_it_beats_the_classical_model_on_unseen_stacks(
    unseen: list[tuple[AlignedStack, np.ndarray]],
) -> None:
    learned, _ = errors(load_model("sweepnet", "cpu"), unseen)
    classical, _ = errors(load_model("classical"), unseen)
    assert learned.mean() < 0.7 * classical.mean()
    assert np.median(learned) < 0.7 * np.median(classical)


def test_sigma_holds_two_thirds_of_the_errors_and_knows_the_large_ones(
    unseen: list[tuple[AlignedStack, np.ndarray]],
) -> None:
    error, sigma = errors(load_model("sweepnet", "cpu"), unseen)
    assert abs(np.mean(error <= sigma) - 0.683) < 0.1
    surest = np.argsort(sigma)[: len(sigma) // 2]
    assert error[surest].mean() < 0.5 * error.mean()


def test_a_blank_wall_has_a_larger_sigma_than_a_textured_one() -> None:
    rng = np.random.default_rng(0)
    color = np.full((1, 3, *SIZE), 0.4, np.float32)
    color[..., : SIZE[1] // 2] *= rng.uniform(0.3, 1.7, (1, 1, SIZE[0], SIZE[1] // 2)).astype(np.float32)
    flat = torch.full((1, *SIZE), 1.0)
    scene = LayeredScene(torch.from_numpy(color), torch.ones(1, *SIZE), flat)
    found = load_model("sweepnet", "cpu")(photographed(scene, 1))
    textured, blank = found.sigma_diopters[:, 20:90], found.sigma_diopters[:, -90:-20]
    assert np.median(blank) > 3.0 * np.median(textured)
    assert np.abs(found.diopters[:, 20:90] - 1.0).mean() < 0.06  # a sixth of a step of the sweep
