"""Scale and shift: the published least squares, and the one that outliers do not move."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hybriddepth_ros.models.alignment import Alignment, least_squares, robust
from hybriddepth_ros.models.hybriddepth import invert, ratio
from tests.published_weights import load_fixture

FACTORS = st.floats(0.01, 100.0) | st.floats(-100.0, -0.01)


def made_pair(seed: int = 0, height: int = 48) -> tuple[torch.Tensor, torch.Tensor]:
    """relative, target [2, 1, H, 64]: a line with some noise."""
    generator = torch.Generator().manual_seed(seed)
    relative = 0.5 + torch.rand(2, 1, height, 64, generator=generator)
    noise = 0.05 * torch.randn(2, 1, height, 64, generator=generator)
    return relative, 1.7 * relative - 0.4 + noise


@pytest.mark.parametrize("invert_depth", [True, False])
def test_published_alignment(invert_depth: bool) -> None:
    stored = load_fixture("align")
    mode = f"inv{int(invert_depth)}"
    relative = invert(stored["rel"], guard=False) if invert_depth else stored["rel"]
    align = least_squares(relative, stored["target"])
    # Sample 2 is constant: in float32 its published fit with invert_depth is made of rounding noise.
    samples = slice(0, 2 if invert_depth else 3)
    for name in ("scale", "shift"):
        result = getattr(align, name)
        torch.testing.assert_close(result[samples], stored[f"{mode}_{name}"][samples], rtol=0.0, atol=2e-4)
        torch.testing.assert_close(result.double(), stored[f"{mode}_{name}_f64"], rtol=0.0, atol=1e-6)
    global_depth = align(relative)
    expected = stored[f"{mode}_global"]
    torch.testing.assert_close(global_depth[samples], expected[samples], rtol=0.0, atol=2e-4)
    scale_map = ratio(stored["target"], global_depth)
    away_from_poles = expected.abs() > 0.05
    away_from_poles[samples.stop :] = False
    stored_map = stored[f"{mode}_scale_map"]
    torch.testing.assert_close(scale_map[away_from_poles], stored_map[away_from_poles], rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("align", [least_squares, lambda x, y: robust(x, y, torch.ones_like(y))])
@settings(max_examples=20)
@given(x_factor=FACTORS, y_factor=FACTORS, offset=st.floats(-10.0, 10.0))
def test_alignment_follows_the_units_of_both_sides(
    align: object, x_factor: float, y_factor: float, offset: float
) -> None:
    relative, target = made_pair(height=8)
    plain: Alignment = align(relative, target)  # type: ignore[operator]
    scaled: Alignment = align(x_factor * relative, y_factor * target + offset)  # type: ignore[operator]
    expected = y_factor * plain(relative) + offset
    bound = 1e-4 * (abs(y_factor) + abs(offset))
    torch.testing.assert_close(scaled(x_factor * relative), expected, rtol=0.0, atol=bound)


@pytest.mark.parametrize("value", [0.0, 1.5, 2.0 / 3.0, 1e6])
def test_constant_relative_depth_has_no_solution(value: float) -> None:
    relative, target = made_pair()
    relative[1] = value
    published = least_squares(relative, target)
    assert published.scale[1].item() == published.shift[1].item() == 0.0
    assert published.scale[0].item() == pytest.approx(1.7, abs=0.05)
    kept = robust(relative, target, torch.ones_like(target))
    assert kept.scale[1].item() == 0.0
    assert kept.shift[1].item() == pytest.approx(float(target[1].mean()), abs=0.05)


def test_outliers_move_least_squares_but_not_the_robust_fit() -> None:
    relative, target = made_pair()
    target = torch.where(relative > 1.25, 0.3, target)  # a quarter of the image, at the near end
    sigma = torch.full_like(target, 0.05)
    assert abs(least_squares(relative, target).scale[0].item() - 1.7) > 0.3
    align = robust(relative, target, sigma)
    assert align.scale.flatten().tolist() == pytest.approx([1.7, 1.7], abs=0.02)
    assert align.shift.flatten().tolist() == pytest.approx([-0.4, -0.4], abs=0.02)


def test_pixels_of_large_sigma_count_little() -> None:
    relative, target = made_pair()
    target[..., 32:] = 3.0 * relative[..., 32:]  # another line on the other half
    sigma = torch.full_like(target, 0.05)
    sigma[..., 32:] = 5.0
    assert robust(relative, target, sigma).scale[0].item() == pytest.approx(1.7, abs=0.05)


def test_missing_pixels_and_zero_sigma_are_left_out_or_bounded() -> None:
    relative, target = made_pair()
    relative[0, 0, 3, 4], target[0, 0, 5, 6] = float("nan"), float("inf")
    sigma = torch.full_like(target, 0.05)
    sigma[0, 0, :8] = 0.0
    assert robust(relative, target, sigma).scale[0].item() == pytest.approx(1.7, abs=0.05)
    nothing = robust(torch.full_like(relative, float("nan")), target, sigma)
    assert nothing.scale.tolist() == nothing.shift.tolist() == [[0.0], [0.0]]


def test_large_images_are_thinned_without_harm() -> None:
    generator = torch.Generator().manual_seed(1)
    relative = torch.rand(1, 1, 480, 640, generator=generator)
    target = 2.0 * relative + 1.0 + 0.01 * torch.randn(1, 1, 480, 640, generator=generator)
    align = robust(relative, target, torch.ones_like(target))
    assert align.scale.item() == pytest.approx(2.0, abs=1e-2)
    assert align.shift.item() == pytest.approx(1.0, abs=1e-2)


def test_inverting_guards_against_zeros_and_overshoot() -> None:
    relative = torch.tensor([2.0, 0.5, 0.0, -0.01, 1e-6]).reshape(1, 1, 1, 5)
    assert invert(relative).flatten().tolist() == [0.5, 2.0, 0.0, 0.0, 0.0]
    published = invert(relative, guard=False).flatten().tolist()
    assert published == pytest.approx([0.5, 2.0, 0.0, -100.0, 1e6])


def test_nothing_seen_at_all_inverts_to_zero() -> None:
    assert invert(torch.zeros(1, 1, 2, 2)).abs().max().item() == 0.0


def test_a_ratio_without_a_value_is_one() -> None:
    quotient = ratio(torch.tensor([2.0, 1.0, 0.0]), torch.tensor([4.0, 0.0, 0.0]))
    assert quotient.tolist() == [0.5, 1.0, 1.0]
    assert np.isfinite(quotient.numpy()).all()
