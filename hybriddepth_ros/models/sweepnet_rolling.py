"""sweepnet for one new slice at a time: what it made of the other slices is kept, and moved with them.

Slices talk to one another at every resolution, so that nothing is a slice's own for good. What a kept slice
says there is what it said when it was new: of a scene that stands still it is what it would say now.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from hybriddepth_ros.models.base import AlignedStack, FocusEstimate, RollingStack, SlicePlace
from hybriddepth_ros.models.engines import Compiled
from hybriddepth_ros.models.kept_maps import KeptMaps, Maps
from hybriddepth_ros.models.sweepnet import SweepDistribution, SweepNet
from hybriddepth_ros.models.sweepnet_features import slice_geometry
from hybriddepth_ros.models.sweepnet_inference import FoldedFocusMix, PreparedSweep, tensors_of

Floats = npt.NDArray[np.float32]


class SweepRunner(Protocol):
    """What is needed of a SweepNetEstimator."""

    network: SweepNet

    def with_one_new(
        self, image: Tensor, mean: Tensor, positions: Tensor, others: Sequence[Maps], new: int
    ) -> tuple[SweepDistribution, Maps]: ...

    def prepared(self, stack: AlignedStack, blur: float | None = None) -> PreparedSweep: ...

    def running(self, sweep: PreparedSweep) -> AbstractContextManager[tuple[Tensor, Tensor]]: ...

    def read(self, found: SweepDistribution, sweep: PreparedSweep) -> tuple[Floats, Floats, np.float32]: ...

    def estimate(
        self, stack: AlignedStack, sweep: PreparedSweep, position: Floats, scale: Floats, spacing: np.float32
    ) -> FocusEstimate: ...


class RollingSweepNet:
    """See RollingModel. One new slice costs one slice's work; several, or other foci, the whole stack's."""

    reads_aligned = (
        False  # of the slices' images only the new one and the mean of all, for which rough is fine
    )

    def __init__(self, estimator: SweepRunner) -> None:
        self._estimator = estimator
        self._states: dict[int, KeptMaps] = {}
        self._made_for: tuple[object, ...] = ()
        self._blur = 0.0

    def __call__(self, rolling: RollingStack) -> FocusEstimate:
        """FocusEstimate at full resolution."""
        stack, places = rolling.aligned, rolling.places
        new = [row for row, place in enumerate(places) if place.key not in self._states]
        made_for = (stack.images.shape, stack.blur_px_per_diopter, *map(float, stack.focus_diopters))
        begins = made_for != self._made_for or len(new) != 1
        sweep = self._estimator.prepared(stack, None if begins else self._blur)
        self._made_for, self._blur = made_for, sweep.blur
        looked_at = sweep if begins else _new_and_mean(sweep, new[0])
        with self._estimator.running(looked_at) as (images, positions):
            if begins:
                found = self._begin(images, positions, places)
            else:
                found = self._update(images, positions, places, new[0], 1.0 / sweep.factor)
            result = self._estimator.read(found, sweep)
        return self._estimator.estimate(stack, sweep, *result)

    def _begin(self, stack: Tensor, positions: Tensor, places: Sequence[SlicePlace]) -> SweepDistribution:
        network = self._estimator.network
        kept: list[Tensor] = []
        found: SweepDistribution = network(stack, positions, kept)
        self._states = {
            place.key: KeptMaps(tuple(each[row : row + 1] for each in kept), place.transform)
            for row, place in enumerate(places)
        }
        return found

    def _update(
        self, stack: Tensor, positions: Tensor, places: Sequence[SlicePlace], new: int, to_full: float
    ) -> SweepDistribution:
        states = {place.key: self._states[place.key] for place in places if place.key in self._states}
        """stack [1, 2, 3, H, W]: the new slice, and the mean of all."""
        size = stack.shape[-2:]
        rows = [
            None if row == new else states[place.key].moved(place.transform, (size[1], size[0]), to_full)
            for row, place in enumerate(places)
        ]
        found, maps = self._estimator.with_one_new(
            stack[:, 0], stack[:, 1], positions, [row for row in rows if row is not None], new
        )
        states[places[new].key] = KeptMaps(maps, places[new].transform)
        self._states = states
        return found


def _new_and_mean(sweep: PreparedSweep, new: int) -> PreparedSweep:
    """With all that is looked at of the images: the new one, and the mean of all [2, h, w, 3]."""
    total: npt.NDArray[np.uint16] = cv2.add(sweep.images[0], sweep.images[1], dtype=cv2.CV_16U)
    for image in sweep.images[2:]:
        cv2.add(total, image, dst=total, dtype=cv2.CV_16U)
    mean = total.astype(np.float32)
    mean *= np.float32(1.0 / len(sweep.images))
    return replace(sweep, images=np.stack([sweep.images[new].astype(np.float32), mean]))


def with_one_new(
    network: SweepNet, image: Tensor, mean: Tensor, positions: Tensor, others: Sequence[Maps], new: int
) -> tuple[SweepDistribution, Maps]:
    """What SweepNet.forward gives of positions [1, N], and the maps of the slice `new`.

    image [1, 3, H, W] of that slice, mean [1, 3, H, W] of all; others: the maps of the others, in order.
    """
    volumes = iter(zip(*others, strict=True))

    def joined(own: Tensor) -> list[Tensor]:
        volume = list(next(volumes))
        volume.insert(new, own)
        return volume

    return _one_new(network, image, mean, positions, joined, new)


class OneNew(nn.Module):
    """`with_one_new` for an engine: one graph for whichever slice is new."""

    def __init__(self, network: SweepNet) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, image: Tensor, mean: Tensor, positions: Tensor, new: Tensor, order: Tensor, *others: Tensor
    ) -> tuple[Tensor, ...]:
        """SweepDistribution's tensors, then the maps of the slice `new` [1].

        others: [N - 1, c, h, w] each; order [N]: which of them, with the new one behind them, is first.
        """
        volumes = iter(others)

        def joined(own: Tensor) -> Sequence[Tensor]:
            return torch.cat([next(volumes), own]).index_select(0, order).split(1)

        found, maps = _one_new(self.network, image, mean, positions, joined, new)
        return *tensors_of(found), *maps


def by_engine(
    one_new: Compiled, image: Tensor, mean: Tensor, positions: Tensor, others: Sequence[Maps], new: int
) -> tuple[SweepDistribution, Maps]:
    """`with_one_new` by an engine that was given OneNew."""
    count = len(others) + 1
    order = [row - (row > new) if row != new else count - 1 for row in range(count)]
    places = (torch.tensor(rows, device=image.device) for rows in ([new], order))
    volumes = (torch.cat(maps) for maps in zip(*others, strict=True))
    found = one_new(image, mean, positions, *places, *volumes)
    return SweepDistribution(*found[:5]), found[5:]


def _one_new(
    network: SweepNet,
    image: Tensor,
    mean: Tensor,
    positions: Tensor,
    joined: Callable[[Tensor], Sequence[Tensor]],
    new: int | Tensor,
) -> tuple[SweepDistribution, Maps]:
    """joined(own): the new slice's next map [1, c, h, w] and the others', in the order of the slices."""
    geometry = network.geometry(slice_geometry(positions))
    own_logs = network.measures.logs(image[:, None])  # [1, 1, 9, H/4, W/4]
    logs = torch.cat([*joined(own_logs[0])])[None]
    level = logs.mean(dim=1, keepdim=True)
    own_fine = network.stem.beside(image, mean)  # [1, c, H/2, W/2]
    fine = joined(own_fine)
    maps = [own_logs[0], own_fine]
    x = network.known(own_fine, own_logs - level, 0.5 * level + 2.0)

    def mixed(mix: FoldedFocusMix, x: Tensor) -> Tensor:
        maps.append(x)
        return mix.of_one(joined(x), geometry[0], new)

    x = network.through_levels(x, mixed)
    maps.append(x)
    volume = torch.cat([*joined(x)])
    return network.distribution(fine, volume, logs - level, positions), tuple(maps)
