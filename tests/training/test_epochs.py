"""Which batches which epoch takes."""

from hypothesis import given
from hypothesis import strategies as st

from hybriddepth_ros.training.epochs import EpochSampler


@given(steps=st.integers(1, 20), epochs=st.integers(1, 10), world=st.integers(1, 8))
def test_all_processes_and_epochs_together_take_every_batch_once(steps: int, epochs: int, world: int) -> None:
    taken = []
    for rank in range(world):
        sampler = EpochSampler(steps, epochs, rank, world)
        for epoch in range(epochs):
            sampler.set_epoch(epoch)
            batches = list(sampler)
            assert len(batches) == len(sampler) == steps
            taken += batches
    assert sorted(taken) == list(range(steps * epochs * world))


def test_an_epoch_takes_the_same_whether_or_not_the_earlier_ones_were_run() -> None:
    resumed, whole = EpochSampler(5, 4), EpochSampler(5, 4)
    for epoch in range(3):
        whole.set_epoch(epoch)
        list(whole)
    resumed.set_epoch(2)
    assert list(resumed) == list(whole) == [10, 11, 12, 13, 14]
