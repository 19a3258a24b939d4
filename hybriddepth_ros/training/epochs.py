"""Which batches an epoch takes of an endless row, so that a resumed training goes on where it stopped."""

from __future__ import annotations

from collections.abc import Iterator

from torch.utils.data import Sampler


class EpochSampler(Sampler[int]):
    """Indices of one process's batches: epoch e takes those after epoch e - 1, whoever ran that one.

    Lightning calls `set_epoch` before each epoch except the first that it runs: that is `epoch`.
    """

    def __init__(
        self, steps_per_epoch: int, epochs: int, rank: int = 0, world: int = 1, epoch: int = 0
    ) -> None:
        self._steps, self._epochs, self._rank, self._world = steps_per_epoch, epochs, rank, world
        self.set_epoch(epoch)

    def set_epoch(self, epoch: int) -> None:
        self._epoch = min(epoch, self._epochs - 1)

    def __len__(self) -> int:
        return self._steps

    def __iter__(self) -> Iterator[int]:
        first = self._epoch * self._steps
        return iter(range(first * self._world + self._rank, (first + self._steps) * self._world, self._world))
