"""Calibration of sigma: as many errors within 1 sigma as there should be, whatever the network says."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hybriddepth_ros.errors import ParameterError
from hybriddepth_ros.models.sweepnet_weights import SigmaCalibration
from hybriddepth_ros.training.calibration import calibrate, fit_calibration
from hybriddepth_ros.training.synthetic_stacks import Batch


@settings(max_examples=25)
@given(seed=st.integers(0, 1000), factor=st.floats(0.1, 10.0), power=st.floats(0.3, 2.0))
def test_two_thirds_of_held_out_errors_lie_within_sigma(seed: int, factor: float, power: float) -> None:
    rng = np.random.default_rng(seed)

    def drawn(count: int) -> tuple[np.ndarray, np.ndarray]:
        scale = np.exp(rng.normal(-1.0, 1.0, count))
        return scale, rng.laplace(0.0, factor * scale**power)

    calibration = fit_calibration(*drawn(20_000))
    scale, error = drawn(20_000)
    sigma = calibration.sigma(scale.astype(np.float32))
    assert abs(np.mean(np.abs(error) <= sigma) - 0.6827) < 0.03
    for part in np.array_split(np.argsort(scale), 4):  # not on average alone
        assert abs(np.mean(np.abs(error[part]) <= sigma[part]) - 0.6827) < 0.06


@given(
    scale=st.lists(st.floats(1e-6, 1e6), min_size=2, max_size=30),
    width=st.lists(st.floats(-3, 3), min_size=3, max_size=3),
)
def test_sigma_rises_with_the_scale_within_the_knots_and_beyond(
    scale: list[float], width: list[float]
) -> None:
    calibration = SigmaCalibration((-2.0, 0.0, 1.5), tuple(sorted(width)))
    sigma = calibration.sigma(np.sort(np.array(scale, np.float32)))
    assert (np.diff(sigma) >= -1e-5 * sigma[1:]).all() and (sigma > 0).all() and sigma.dtype == np.float32


def test_a_scale_that_says_nothing_gives_one_sigma() -> None:
    rng = np.random.default_rng(0)
    calibration = fit_calibration(np.exp(rng.normal(size=30_000)), rng.normal(0.0, 0.25, 30_000))
    sigma = calibration.sigma(np.exp(np.linspace(-1, 1, 9)).astype(np.float32))
    assert np.allclose(sigma, 0.25, rtol=0.05)


def test_no_calibration_leaves_the_scale_as_it_is() -> None:
    scale = np.array([1e-3, 1.0, 20.0], np.float32)
    assert np.allclose(SigmaCalibration().sigma(scale), scale)


def test_too_few_errors_are_refused() -> None:
    with pytest.raises(ParameterError, match="at least 12 errors"):
        fit_calibration(np.ones(3), np.ones(3))


class Blurred(torch.nn.Module):
    """Finds the truth but for an error of its scale within the sweep and of three times its scale beyond."""

    def __init__(self) -> None:
        super().__init__()
        self.nothing = torch.nn.Parameter(torch.zeros(1))

    def forward(self, stack: torch.Tensor, positions: torch.Tensor) -> SimpleNamespace:
        rng = torch.Generator().manual_seed(1)
        position = torch.rand(stack.shape[0], *stack.shape[-2:], generator=rng) * 16.0 - 3.0
        beyond = (position < positions[:, :1, None]) | (position > positions[:, -1:, None])
        scale = torch.exp(torch.randn(position.shape, generator=rng))
        self.target = position + torch.randn(position.shape, generator=rng) * scale * (1.0 + 2.0 * beyond)
        return SimpleNamespace(position=position, scale=scale, spacing=torch.full((stack.shape[0],), 2.5))


def test_what_lies_beyond_the_sweep_is_calibrated_by_itself() -> None:
    network, positions = Blurred(), torch.tensor([[0.0, 2.5, 5.0, 7.5, 10.0]]).expand(4, 5)
    stack = torch.zeros(4, 5, 3, 192, 192, dtype=torch.uint8)
    network(stack, positions)
    within, beyond = calibrate(network, [Batch(stack, positions, network.target)])  # type: ignore[arg-type]
    assert beyond is not None
    scale = np.array([0.2, 0.4, 0.8], np.float32)
    assert within.sigma(scale) == pytest.approx(scale, rel=0.1)
    assert beyond.sigma(scale) == pytest.approx(3.0 * scale, rel=0.1)
