"""From rendered light to 8-bit slices."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hybriddepth_ros.errors import ParameterError
from hybriddepth_ros.simulation import Exposure, develop, develop_stack
from hybriddepth_ros.simulation.exposure import develop_stacks

NOISELESS = {"full_well_electrons": None, "read_noise_electrons": None}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_without_noise_it_is_what_the_simulated_camera_develops() -> None:
    light = torch.rand(2, 3, 20, 30, generator=seeded()) * 1.2
    stack = develop_stack(light, Exposure(**NOISELESS), seeded())
    expected = np.stack([develop(image.permute(1, 2, 0).numpy()) for image in light])
    assert stack.dtype == torch.uint8
    # `develop` reads a table of 16384 entries.
    assert int(np.abs(stack.permute(0, 2, 3, 1).numpy().astype(int) - expected).max()) <= 1


def test_noise_is_shot_noise_and_read_noise() -> None:
    exposure = Exposure(full_well_electrons=1000.0, read_noise_electrons=10.0, gamma=1.0)
    for level in (0.2, 0.7):
        stack = develop_stack(torch.full((1, 3, 200, 200), level), exposure, seeded())
        values = stack.double() / 255
        assert float(values.mean()) == pytest.approx(level, abs=1e-3)
        assert float(values.var()) == pytest.approx(level / 1000 + 0.01**2, rel=0.05)


def test_gain_jitter_is_one_gain_per_slice() -> None:
    exposure = Exposure(gain=0.5, gain_jitter=0.1, gamma=1.0, **NOISELESS)
    stack = develop_stack(torch.ones(400, 3, 2, 2), exposure, seeded()).double() / 255
    assert bool((stack == stack[:, :1, :1, :1]).all())
    assert float(stack[:, 0, 0, 0].mean()) == pytest.approx(0.5, abs=0.01)
    assert float(stack[:, 0, 0, 0].std()) == pytest.approx(0.05, rel=0.15)


def test_sharpening_overshoots_at_edges_and_leaves_flat_areas() -> None:
    light = torch.full((1, 3, 16, 32), 0.2)
    light[..., 16:] = 0.6
    plain, sharp = (
        develop_stack(light, Exposure(sharpening=amount, gamma=1.0, **NOISELESS), seeded()).int()
        for amount in (0.0, 1.0)
    )
    assert torch.equal(plain[..., :10], sharp[..., :10]) and torch.equal(plain[..., -10:], sharp[..., -10:])
    assert int(sharp[0, 0, 8, 16]) > int(plain[0, 0, 8, 16])
    assert int(sharp[0, 0, 8, 15]) < int(plain[0, 0, 8, 15])


def test_jpeg_keeps_channels_and_loses_detail_with_quality() -> None:
    light = torch.rand(2, 3, 32, 40, generator=seeded())
    light[:, 0] = 0.9
    light[:, 2] *= 0.1
    exact = develop_stack(light, Exposure(**NOISELESS), seeded()).double()
    fine, coarse = (
        (develop_stack(light, Exposure(jpeg_quality=q, **NOISELESS), seeded()).double() - exact).abs()
        for q in (100, 10)
    )
    assert fine.shape == exact.shape
    assert float(fine.mean()) < float(coarse.mean())
    assert float(coarse.mean(dim=(0, 2, 3)).max()) < 60  # swapped channels would be far off


def test_stacks_developed_together_are_those_developed_alone() -> None:
    light = torch.rand(3, 2, 3, 16, 24, generator=seeded())
    exposures = [
        Exposure(gain=0.7, gamma=2.0, **NOISELESS),
        Exposure(sharpening=0.5, **NOISELESS),
        Exposure(jpeg_quality=80, gamma=1.0, **NOISELESS),
    ]
    together = develop_stacks(light, exposures, seeded())
    for index, exposure in enumerate(exposures):
        alone = develop_stack(light[index], exposure, seeded())
        assert int((together[index].int() - alone.int()).abs().max()) <= 1, exposure


def test_only_the_noisy_ones_of_several_stacks_are_noisy() -> None:
    light = torch.full((2, 1, 3, 32, 32), 0.5)
    quiet, noisy = develop_stacks(light, [Exposure(**NOISELESS), Exposure()], seeded())
    assert bool((quiet == quiet[0, 0, 0, 0]).all()) and float(noisy.float().std()) > 0.5


def test_same_seed_same_stack() -> None:
    light = torch.rand(2, 3, 8, 8, generator=seeded())
    first, again, other = (develop_stack(light, Exposure(gain_jitter=0.1), seeded(s)) for s in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_bad_parameters_are_one_line() -> None:
    with pytest.raises(ParameterError, match=r"gain_jitter: expected 0 to 0\.5, got 2"):
        Exposure(gain_jitter=2.0)
    with pytest.raises(ParameterError, match="expected both or neither"):
        Exposure(read_noise_electrons=None)
    with pytest.raises(ParameterError, match="jpeg_quality: expected 1 to 100, got 0"):
        Exposure(jpeg_quality=0)
