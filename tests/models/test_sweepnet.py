"""sweepnet's network: what holds of it whatever its weights are."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hybriddepth_ros.models.sweepnet import ConvexUpsampling, SweepNet
from hybriddepth_ros.models.sweepnet_features import (
    GEOMETRY,
    MEASURES,
    FocusMeasures,
    local_spacing,
    mean_spacing,
    slice_geometry,
)

MOST_PARAMETERS = 1_500_000


@pytest.fixture(scope="module")
def network() -> SweepNet:
    """With drawn weights everywhere, also where training begins at 0."""
    generator = torch.Generator().manual_seed(3)
    made = SweepNet().eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return made


def made_stack(batch: int, slices: int, height: int = 32, width: int = 64, seed: int = 0) -> Tensor:
    return torch.rand(batch, slices, 3, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("slices", [2, 5, 16])
def test_any_number_of_slices_gives_one_estimate_per_pixel(network: SweepNet, slices: int) -> None:
    positions = torch.linspace(2.0, 20.0, slices).expand(2, slices)
    with torch.inference_mode():
        found = network(made_stack(2, slices), positions)
    assert found.position.shape == found.scale.shape == (2, 32, 64)
    assert found.log_probability.shape == (2, slices, 8, 16)
    torch.testing.assert_close(found.log_probability.exp().sum(dim=1), torch.ones(2, 8, 16))
    assert bool(torch.isfinite(found.position).all()) and bool((found.scale > 0).all())
    torch.testing.assert_close(found.spacing, torch.full((2,), 18.0 / (slices - 1)))


def test_a_shift_of_the_whole_sweep_shifts_the_estimate_alone(network: SweepNet) -> None:
    stack, positions = made_stack(1, 4), torch.tensor([[3.0, 5.0, 9.0, 11.0]])
    with torch.inference_mode():
        here, there = network(stack, positions), network(stack, positions + 40.0)
    torch.testing.assert_close(there.position, here.position + 40.0, rtol=0.0, atol=1e-3)
    torch.testing.assert_close(there.scale, here.scale, rtol=1e-3, atol=0.0)


def test_samples_of_a_batch_do_not_see_one_another(network: SweepNet) -> None:
    stack, positions = made_stack(3, 3), torch.tensor([[1.0, 4.0, 6.0], [2.0, 3.0, 9.0], [0.0, 8.0, 30.0]])
    with torch.inference_mode():
        together, alone = network(stack, positions), network(stack[1:2], positions[1:2])
    torch.testing.assert_close(together.position[1:2], alone.position, rtol=1e-4, atol=1e-4)


def test_every_parameter_is_trained_and_they_are_few() -> None:
    with torch.enable_grad():
        network = SweepNet().train()
        found = network(made_stack(2, 3, 64, 64), torch.tensor([[1.0, 5.0, 9.0], [0.0, 3.0, 20.0]]))
        (found.position.square().mean() + found.scale.mean()).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []
    assert sum(parameter.numel() for parameter in network.parameters()) <= MOST_PARAMETERS


# ---- what it is told


def test_the_sharpest_slice_has_the_largest_measure_at_every_scale() -> None:
    sharp = made_stack(1, 1, 64, 64)[:, 0]
    blurred = torch.nn.functional.avg_pool2d(sharp, 5, stride=1, padding=2, count_include_pad=False)
    measures, level = FocusMeasures()(torch.stack([blurred, sharp, blurred], dim=1))
    assert measures.shape == (1, 3, MEASURES, 16, 16) and level.shape == (1, 1, MEASURES, 16, 16)
    assert bool((measures[:, 1] > measures[:, 0]).float().mean() > 0.95)
    torch.testing.assert_close(measures.sum(dim=1), torch.zeros(1, MEASURES, 16, 16), rtol=0.0, atol=1e-5)


def test_a_flat_image_measures_the_noise_floor() -> None:
    measures, level = FocusMeasures()(torch.full((1, 2, 3, 32, 32), 0.5))
    assert float(measures.abs().max()) < 1e-5
    assert float(level.max()) < -5.0  # ln 0.004, ln 0.003


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(0.01, 30.0), min_size=1, max_size=15), st.floats(-10.0, 50.0))
def test_geometry_is_finite_and_knows_nothing_of_where_the_sweep_lies(
    steps: list[float], start: float
) -> None:
    positions = torch.tensor([[0.0, *steps]], dtype=torch.float64).cumsum(dim=1)
    features = slice_geometry(positions)
    assert features.shape == (1, len(steps) + 1, GEOMETRY) and bool(torch.isfinite(features).all())
    torch.testing.assert_close(slice_geometry(positions + start), features)
    assert float(local_spacing(positions).min()) >= min(steps) - 1e-9
    torch.testing.assert_close(
        mean_spacing(positions), torch.tensor([sum(steps) / len(steps)], dtype=torch.float64)
    )


def test_convex_upsampling_stays_between_its_neighbours() -> None:
    upsampling = ConvexUpsampling(4, 2)
    image = torch.rand(2, 1, 5, 6)
    finer = upsampling(image, torch.randn(2, 4, 5, 6))
    assert finer.shape == (2, 1, 10, 12)
    around = torch.nn.functional.max_pool2d(image, 3, stride=1, padding=1).repeat_interleave(2, 2)
    assert bool((finer <= around.repeat_interleave(2, 3) + 1e-6).all())
    torch.testing.assert_close(
        upsampling(torch.ones(1, 1, 3, 3), torch.randn(1, 4, 3, 3)), torch.ones(1, 1, 6, 6)
    )
