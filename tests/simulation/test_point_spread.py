"""The image of a point out of focus."""

from __future__ import annotations

import math

import pytest
import torch

from hybriddepth_ros.errors import ParameterError
from hybriddepth_ros.simulation import PointSpread


def moments(kernel: torch.Tensor) -> tuple[float, float]:
    """Variances along x and y [px^2]."""
    at = torch.arange(len(kernel), dtype=torch.float32) - len(kernel) // 2
    return float((kernel.sum(0) * at**2).sum()), float((kernel.sum(1) * at**2).sum())


@pytest.mark.parametrize("exponent", [2.0, 3.0, 8.0, math.inf])
@pytest.mark.parametrize("diameter", [1.6, 2.2, 3.0, 5.0, 9.0, 12.0])
def test_second_moment_is_that_of_the_disc_for_every_exponent(exponent: float, diameter: float) -> None:
    kernel = PointSpread(exponent).kernel(diameter)
    assert float(kernel.sum()) == pytest.approx(1.0, abs=1e-5)
    assert moments(kernel) == pytest.approx((diameter**2 / 16,) * 2, rel=0.01)


def test_exponent_two_is_a_gaussian_and_infinity_a_disc() -> None:
    sigma2 = 9.0**2 / 16
    gaussian = PointSpread(2.0).kernel(9.0)
    middle = len(gaussian) // 2
    across = gaussian[middle, middle:]
    expected = torch.exp(-0.5 * torch.arange(len(across)) ** 2 / sigma2) / (2 * math.pi * sigma2)
    torch.testing.assert_close(across, expected, atol=3e-4, rtol=0.0)
    disc = PointSpread(math.inf).kernel(9.0)
    inside = torch.hypot(*torch.meshgrid(*[torch.arange(-4, 5).float()] * 2, indexing="ij")) < 3.5
    assert disc[inside] == pytest.approx(4 / (math.pi * 81), rel=0.03)
    assert float(disc[0, 0]) == 0.0


def test_ellipse_turns_over_across_the_focus() -> None:
    spread = PointSpread(4.0, ellipticity=0.2)
    front, behind = spread.kernel(8.0, in_front=True), spread.kernel(8.0, in_front=False)
    assert moments(front) == pytest.approx((4 * 1.2, 4 * 0.8), rel=0.02)
    torch.testing.assert_close(behind, front.T, atol=1e-5, rtol=0.0)


def test_bad_parameters_are_one_line() -> None:
    for bad in ({"exponent": 1.0}, {"exponent": math.nan}, {"ellipticity": 1.0}, {"angle_deg": math.inf}):
        with pytest.raises(ParameterError, match=f"{next(iter(bad))}: expected") as caught:
            PointSpread(**bad)
        assert "\n" not in str(caught.value)
