"""Training data: what a batch holds, and that it depends on the seed and its number alone."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hybriddepth_ros.training.sweepnet_settings import LANES
from hybriddepth_ros.training.synthetic_stacks import (
    Batch,
    StackSettings,
    SyntheticStacks,
    random_slice_count,
    random_sweep,
)

SMALL = StackSettings(
    render_px=48, crop_px=32, batch_size=2, rendered_slices=4, chunk_stacks=3, chunk_batches=3
)


@pytest.fixture(scope="module")
def stacks() -> SyntheticStacks:
    return SyntheticStacks(SMALL, seed=5, length=100)


def same(one: Batch, other: Batch) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_batch_holds_slices_in_rising_order_and_a_target_for_every_pixel(stacks: SyntheticStacks) -> None:
    batch = stacks[0]
    count = batch.stack.shape[1]
    assert batch.stack.shape == (2, count, 3, 32, 32) and batch.stack.dtype == torch.uint8
    assert batch.positions.shape == (2, count) and (batch.positions.diff(dim=1) > 0).all()
    assert batch.target.shape == (2, 32, 32) and torch.isfinite(batch.target).all()
    assert (batch.target >= 0).all(), "nothing lies beyond infinity"


def test_a_batch_is_a_function_of_its_number_whatever_was_read_before(stacks: SyntheticStacks) -> None:
    number = LANES * SMALL.chunk_batches + 1  # the second chunk of its lane
    stacks[2]
    later = stacks[number]
    assert same(later, SyntheticStacks(SMALL, seed=5, length=100)[number])
    assert not torch.equal(later.target, SyntheticStacks(SMALL, seed=6, length=100)[number].target)


def test_batches_of_a_chunk_see_every_stack_equally_often() -> None:
    stacks = SyntheticStacks(SMALL, seed=5, length=100)
    chunk = stacks._render_chunk(0, 0)
    positions = [rendered.positions for rendered in chunk]
    seen = np.zeros(len(chunk), int)
    for row in range(SMALL.chunk_batches):
        for sweep in stacks[row * LANES].positions:
            # A look takes some of the slices, all times one factor: the ratios of steps tell whose they are.
            matches = [_is_part(sweep, whole) for whole in positions]
            seen[int(np.argmax(matches))] += 1
    assert seen.tolist() == [2, 2, 2]


def _is_part(sweep: torch.Tensor, whole: torch.Tensor) -> float:
    """How well the sweep is a choice from `whole` times a factor: minus the least misfit."""
    best = -np.inf
    for first in range(len(whole)):
        for last in range(first + len(sweep) - 1, len(whole)):
            if whole[first] == 0:
                factor = float(sweep[-1] / whole[last])
            else:
                factor = float(sweep[0] / whole[first])
            distance = (sweep[:, None] / factor - whole[None]).abs().min(dim=1).values.max()
            best = max(best, -float(distance))
    return best


def test_what_lies_at_a_slice_is_sharp_in_it() -> None:
    """The unit of target and positions is one: where they are equal there is no blur."""
    clean = StackSettings(
        render_px=96, crop_px=96, batch_size=4, rendered_slices=10, chunk_stacks=4, chunk_batches=1
    )
    stacks = SyntheticStacks(clean, seed=2, length=40)
    right, mirrored = [], []
    for index in range(6):
        batch = stacks[index]
        grey = batch.stack.float().mean(dim=2)
        energy = (grey[..., 1:, 1:] - grey[..., :-1, :-1]).abs()[..., 2:-2, 2:-2]
        target = batch.target[:, 3:-2, 3:-2]
        away = (batch.positions[:, :, None, None] - target[:, None]).abs()
        nearest = away.argmin(dim=1)
        strong = energy.amax(dim=1) > 40
        sharpest = energy.argmax(dim=1)
        right.append((sharpest == nearest)[strong].float().mean().item())
        mirrored.append((sharpest == batch.stack.shape[1] - 1 - nearest)[strong].float().mean().item())
    assert np.nanmean(right) > 0.4
    assert np.nanmean(right) > 1.5 * np.nanmean(mirrored)


@given(seed=st.integers(0, 10_000), count=st.integers(2, 16))
def test_sweeps_rise_from_infinity_or_nearer(seed: int, count: int) -> None:
    sweep = random_sweep(np.random.default_rng(seed), count)
    assert sweep.shape == (count,) and sweep[0] >= 0 and (np.diff(sweep) > 0).all()
    assert 4.9 < sweep[-1] - sweep[0] < 56


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000), rendered=st.integers(2, 16))
def test_a_batch_never_takes_more_slices_than_were_rendered(seed: int, rendered: int) -> None:
    assert 2 <= random_slice_count(np.random.default_rng(seed), rendered) <= rendered
