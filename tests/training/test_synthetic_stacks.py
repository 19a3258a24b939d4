"""Training data: what a batch holds, and that it depends on the seed and its number alone."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hybriddepth_ros.simulation import LayeredScene
from hybriddepth_ros.training.synthetic_stacks import (
    Batch,
    NoisyPhotograph,
    RenderedStacks,
    StackSettings,
    SyntheticBatches,
    _soften,
    gathered_stack,
    random_slice_count,
    random_slices,
    random_sweep,
)

SMALL = StackSettings(
    render_px=48, crop_px=32, batch_size=2, rendered_slices=4, gathered_share=0.3, pool_stacks=8, new_stacks=1
)


def same(one: Batch, other: Batch) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_batch_holds_slices_in_rising_order_and_a_target_for_every_pixel() -> None:
    for batch in SyntheticBatches(SMALL, 5, 5):
        count = batch.stack.shape[1]
        assert batch.stack.shape == (2, count, 3, 32, 32) and batch.stack.dtype == torch.uint8
        assert batch.positions.shape == (2, count) and (batch.positions.diff(dim=1) > 0).all()
        assert batch.target.shape == (2, 32, 32) and torch.isfinite(batch.target).all()
        assert (batch.target >= 0).all(), "nothing lies beyond infinity"


@pytest.mark.parametrize("start", [3, 11], ids=["the pool grows", "the pool is full"])
def test_who_begins_later_gets_the_same_batches(start: int) -> None:
    whole = list(SyntheticBatches(SMALL, 5, start + 3))
    for one, other in zip(whole[start:], SyntheticBatches(SMALL, 5, 3, start), strict=True):
        assert same(one, other)
    assert not torch.equal(whole[0].target, next(iter(SyntheticBatches(SMALL, 6, 1))).target)


def test_batches_are_the_same_with_workers() -> None:
    pairs = zip(SyntheticBatches(SMALL, 5, 3), SyntheticBatches(SMALL, 5, 3, workers=2), strict=True)
    assert all(same(one, other) for one, other in pairs)


def test_the_pool_keeps_no_shared_memory_of_the_workers() -> None:
    batches = SyntheticBatches(SMALL, 5, 1, workers=1)
    list(batches)
    assert batches._pool and not any(part.is_shared() for stack in batches._pool for part in stack)


def test_an_epoch_goes_on_where_the_one_before_it_ended() -> None:
    epochs = SyntheticBatches(SMALL, 5, 2)
    batches = [*epochs, *epochs]
    assert all(same(one, other) for one, other in zip(batches, SyntheticBatches(SMALL, 5, 4), strict=True))


def test_no_two_processes_see_the_same_stack() -> None:
    seen = [
        {tuple(part.positions.tolist()) for part in batches._pool}
        for rank in range(2)
        for batches in [SyntheticBatches(SMALL, 5, 3, rank=rank, world=2)]
        if list(batches)
    ]
    assert len(seen) == 2 and not seen[0] & seen[1]


def test_a_stack_is_a_function_of_its_number_whatever_was_read_before() -> None:
    stacks = RenderedStacks(SMALL, 5)
    stacks[700]
    again = RenderedStacks(SMALL, 5)[3]
    assert all(torch.equal(a, b) for a, b in zip(stacks[3], again, strict=True))


def test_what_lies_at_a_slice_is_sharp_in_it() -> None:
    """The unit of target and positions is one: where they are equal there is no blur."""
    large = StackSettings(
        render_px=96,
        crop_px=96,
        batch_size=4,
        rendered_slices=10,
        gathered_share=0.2,
        pool_stacks=24,
        new_stacks=4,
    )
    right, mirrored = [], []
    for batch in SyntheticBatches(large, 2, 6):
        grey = batch.stack.float().mean(dim=2)
        energy = (grey[..., 1:, 1:] - grey[..., :-1, :-1]).abs()[..., 2:-2, 2:-2]
        target = batch.target[:, 3:-2, 3:-2]
        away = (batch.positions[:, :, None, None] - target[:, None]).abs()
        nearest = away.argmin(dim=1)
        strong = energy.amax(dim=1) > 30
        sharpest = energy.argmax(dim=1)
        right.append((sharpest == nearest)[strong].float().mean().item())
        mirrored.append((sharpest == batch.stack.shape[1] - 1 - nearest)[strong].float().mean().item())
    assert np.nanmean(right) > 0.4
    assert np.nanmean(right) > 1.5 * np.nanmean(mirrored)


def test_the_papers_blur_copies_what_is_nearly_in_focus() -> None:
    color = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    scene = LayeredScene(color, torch.ones(1, 16, 16), torch.full((1, 16, 16), 10.0))
    stack = gathered_stack(scene, torch.tensor([4.0, 9.0, 11.5]), NoisyPhotograph(0.0, 0.0, 1))
    torch.testing.assert_close(stack[1], color[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(stack[2], color[0], rtol=1e-4, atol=1e-5)
    assert float(stack[0].std()) < 0.6 * float(color.std())


def test_a_photographs_noise_is_blurred_with_it() -> None:
    scene = LayeredScene(
        torch.full((1, 3, 32, 32), 0.3), torch.ones(1, 32, 32), torch.full((1, 32, 32), 10.0)
    )
    focused, blurred = gathered_stack(scene, torch.tensor([10.0, 4.0]), NoisyPhotograph(0.02, 0.0, 1))
    shown = focused ** (1 / 2.2)
    assert float(shown.std()) == pytest.approx(0.02, rel=0.05)
    assert float((blurred ** (1 / 2.2)).std()) < 0.3 * float(shown.std())
    grained = NoisyPhotograph(0.02, 1.0, 1).added_to(torch.full((3, 64, 64), 0.5))
    assert float(grained.std()) == pytest.approx(0.02, rel=0.05)
    neighbours = torch.stack([grained[..., 1:].flatten(), grained[..., :-1].flatten()])
    assert float(torch.corrcoef(neighbours)[0, 1]) > 0.6


def test_softness_is_a_gaussian_for_each_stack_of_its_own() -> None:
    linear = torch.zeros(3, 1, 3, 31, 31)
    linear[..., 15, 15] = 1.0
    sharp = linear.clone()
    _soften(linear, [0.0, 1.0, 2.0])
    assert torch.equal(linear[0], sharp[0])
    at = torch.arange(31.0) - 15.0
    for stack, sigma in ((1, 1.0), (2, 2.0)):
        spread = linear[stack, 0, 0]
        assert float(spread.sum()) == pytest.approx(1.0, abs=1e-4)
        assert float((spread.sum(dim=0) * at**2).sum()) == pytest.approx(sigma**2, rel=0.03)


@given(seed=st.integers(0, 10_000), count=st.integers(2, 16))
def test_sweeps_rise_from_infinity_or_nearer(seed: int, count: int) -> None:
    sweep = random_sweep(np.random.default_rng(seed), count)
    assert sweep.shape == (count,) and sweep[0] >= 0 and (np.diff(sweep) > 0).all()
    assert 4.9 < sweep[-1] - sweep[0] < 56


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000), rendered=st.integers(2, 16))
def test_a_batch_never_takes_more_slices_than_were_rendered(seed: int, rendered: int) -> None:
    assert 2 <= random_slice_count(np.random.default_rng(seed), rendered) <= rendered


@given(seed=st.integers(0, 10_000), rendered=st.integers(2, 16), data=st.data())
def test_slices_are_chosen_in_order_and_none_twice(seed: int, rendered: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(2, rendered))
    index = random_slices(np.random.default_rng(seed), rendered, count)
    assert len(index) == count and (np.diff(index) > 0).all()
    assert index[0] >= 0 and index[-1] < rendered
