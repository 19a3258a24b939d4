"""DFV: what holds for any weights. Its parity with the published network is in test_hybriddepth.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hybriddepth_ros.errors import ModelError
from hybriddepth_ros.models.feature_pyramid import pool_counts
from hybriddepth_ros.models.focal_volume import FocalVolume, FocusDepth, regress, slice_differences
from tests.models.conftest import made_stack

FOCUS = torch.tensor([[0.35, 0.5, 0.9, 1.33, 2.21]])


def assert_same(result: FocusDepth, expected: FocusDepth, atol: float = 2e-5) -> None:
    for name in ("depth", "std", "probability"):
        torch.testing.assert_close(getattr(result, name), getattr(expected, name), rtol=0.0, atol=atol)


def test_differences_of_neighbours_and_the_last_slice_itself() -> None:
    features = torch.tensor([1.0, 4.0, 9.0, 16.0, 5.0, 5.0, 6.0, 8.0]).reshape(8, 1, 1, 1).expand(8, 2, 3, 3)
    volume = slice_differences(features, slices=4)  # two samples of four slices
    assert volume.shape == (8, 2, 3, 3)
    assert volume[:, 1, 2, 2].tolist() == [-3.0, -5.0, -7.0, 16.0, 0.0, -1.0, -2.0, 8.0]


@pytest.mark.parametrize(
    ("smallest", "counts"),
    [(2, [1, 1, 1, 1]), (3, [1, 1, 1, 1]), (7, [1, 1, 2, 3]), (15, [1, 3, 5, 7]), (16, [1, 3, 5, 8])],
)
def test_pyramid_windows_grow_from_the_whole_axis(smallest: int, counts: list[int]) -> None:
    assert pool_counts(smallest) == counts


def test_regression_is_mean_and_spread_of_the_probability() -> None:
    cost = torch.tensor([0.0, np.log(3.0)]).reshape(1, 2, 1, 1)
    depth, std, probability = regress(cost, torch.tensor([[1.0, 2.0]]))
    assert probability.flatten().tolist() == pytest.approx([0.25, 0.75])
    assert depth.item() == pytest.approx(1.75)
    assert std.item() == pytest.approx(np.sqrt(0.25 * 0.75))


def test_the_order_of_the_slices_does_not_matter(focal_volume: FocalVolume) -> None:
    stack = made_stack(2, 5, 64, 64)
    focus = FOCUS * torch.tensor([[1.0], [1.3]])
    expected = focal_volume(stack, focus)
    for seed in range(2):
        generator = torch.Generator().manual_seed(seed)
        order = torch.stack(
            [torch.randperm(5, generator=generator) for _ in range(2)]
        )  # [B, N], one per sample
        shuffled = torch.take_along_dim(stack, order[:, :, None, None, None], dim=1)
        result = focal_volume(shuffled, torch.take_along_dim(focus, order, dim=1))
        torch.testing.assert_close(result.depth, expected.depth)
        torch.testing.assert_close(result.std, expected.std)
        in_order = torch.take_along_dim(expected.probability, order[:, :, None, None], dim=1)
        torch.testing.assert_close(result.probability, in_order)


def test_falling_order_is_that_of_weights_for_disparity(
    focal_volume: FocalVolume, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = made_stack(1, 5, 64, 64)
    disparity = 1.0 / FOCUS  # near to far, as the authors' loader has it: falling
    monkeypatch.setattr(focal_volume, "slice_order", "given")
    published = focal_volume(stack, disparity)
    reversed_as_given = focal_volume(stack.flip(1), disparity.flip(1))
    monkeypatch.setattr(focal_volume, "slice_order", "falling")
    result = focal_volume(stack.flip(1), disparity.flip(1))
    torch.testing.assert_close(result.depth, published.depth)
    torch.testing.assert_close(result.probability.flip(1), published.probability)
    assert float((reversed_as_given.depth - published.depth).abs().max()) > 0.01


def test_an_unknown_order_is_refused() -> None:
    with (
        torch.device("meta"),
        pytest.raises(ModelError, match="slice_order: expected rising, falling, given"),
    ):
        FocalVolume("near")


@pytest.mark.parametrize(("height", "width"), [(70, 100), (64, 65), (40, 96), (20, 24)])
def test_padding_inside_is_padding_outside_by_reflection(
    focal_volume: FocalVolume, height: int, width: int
) -> None:
    stack = made_stack(1, 3, height, width)
    targets = [max(-(-size // 32) * 32, 64) for size in (height, width)]
    margins = [(0, 0), (0, 0), (0, 0), (0, targets[0] - height), (0, targets[1] - width)]
    outside = torch.from_numpy(np.pad(stack.numpy(), margins, mode="reflect"))
    result = focal_volume(stack, FOCUS[:, :3])
    expected = focal_volume(outside, FOCUS[:, :3])
    assert result.depth.shape == (1, 1, height, width)
    torch.testing.assert_close(result.depth, expected.depth[..., :height, :width])
    torch.testing.assert_close(result.std, expected.std[..., :height, :width])
    torch.testing.assert_close(result.probability, expected.probability[..., :height, :width])


def test_each_sample_stands_for_itself_in_a_batch_of_four(focal_volume: FocalVolume) -> None:
    stack = made_stack(4, 3, 64, 64)
    focus = FOCUS[:, :3] * torch.tensor([[1.0], [0.5], [2.0], [3.0]])
    together = focal_volume(stack, focus)
    for i in range(4):
        alone = focal_volume(stack[i : i + 1], focus[i : i + 1])
        assert_same(
            FocusDepth(together.depth[i], together.std[i], together.probability[i]),
            FocusDepth(alone.depth[0], alone.std[0], alone.probability[0]),
            atol=5e-5,
        )


@pytest.mark.parametrize("slices", [2, 3, 10])
def test_any_number_of_slices_gives_depth_within_the_sweep(focal_volume: FocalVolume, slices: int) -> None:
    focus = torch.linspace(0.4, 2.5, slices)[None]
    result = focal_volume(made_stack(1, slices, 64, 64), focus)
    assert result.probability.shape == (1, slices, 64, 64)
    assert float(result.depth.min()) >= 0.4 and float(result.depth.max()) <= 2.5
    torch.testing.assert_close(result.probability.sum(dim=1), torch.ones(1, 64, 64))
    assert float(result.std.max()) <= 0.5 * 2.1 + 1e-5


def test_depth_and_std_scale_with_the_focus_distances(focal_volume: FocalVolume) -> None:
    stack = made_stack(1, 5, 64, 64)
    metres, millimetres = focal_volume(stack, FOCUS), focal_volume(stack, 1000.0 * FOCUS)
    torch.testing.assert_close(millimetres.depth, 1000.0 * metres.depth)
    torch.testing.assert_close(millimetres.std, 1000.0 * metres.std, rtol=1e-4, atol=1e-2)


def test_one_slice_is_refused(focal_volume: FocalVolume) -> None:
    with pytest.raises(ModelError, match="2 or more slices, got 1"):
        focal_volume(made_stack(1, 1, 64, 64), FOCUS[:, :1])


def test_a_missing_pixel_does_not_spread_and_is_most_uncertain(focal_volume: FocalVolume) -> None:
    stack = made_stack(1, 5, 64, 96)
    whole = focal_volume(stack, FOCUS)
    stack[0, 2, 1, 30, 40] = float("nan")
    stack[0, :, :, 10, 11] = float("inf")
    result = focal_volume(stack, FOCUS)
    assert bool(torch.isfinite(result.depth).all() and torch.isfinite(result.probability).all())
    half_range = float(FOCUS.max() - FOCUS.min()) / 2
    assert result.std[0, 0, 30, 40].item() == pytest.approx(half_range)
    assert result.std[0, 0, 10, 11].item() == pytest.approx(half_range)
    elsewhere = (result.depth - whole.depth).abs()
    assert float(elsewhere[..., 50:, 70:].max()) < 0.1  # through the pooling over the whole image, a little


def test_the_four_training_scores_end_in_the_one_of_evaluation(focal_volume: FocalVolume) -> None:
    stack = made_stack(1, 3, 64, 128)
    costs = focal_volume.training_costs(stack)
    assert [tuple(c.shape) for c in costs] == [(1, 3, 64 // k, 128 // k) for k in (4, 8, 16, 32)]
    torch.testing.assert_close(costs[0], focal_volume.cost(stack))


def test_the_std_carries_no_gradient_and_the_depth_does() -> None:
    with torch.enable_grad():
        cost = torch.randn(1, 3, 4, 4, requires_grad=True)
        depth, std, _ = regress(cost, torch.tensor([[1.0, 2.0, 3.0]]))
    assert depth.requires_grad and not std.requires_grad
