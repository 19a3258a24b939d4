"""sweepnet for one new slice at a time: what it made of the other slices is kept, and moved with them.

Slices talk to one another at every resolution, so that nothing is a slice's own for good. What a kept slice
says there is what it said when it was new: of a scene that stands still it is what it would say now.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybriddepth_ros.models.base import AlignedStack, FocusEstimate, RollingStack, SlicePlace
from hybriddepth_ros.models.engines import Compiled
from hybriddepth_ros.models.sweepnet import SweepDistribution, SweepNet
from hybriddepth_ros.models.sweepnet_features import slice_geometry
from hybriddepth_ros.models.sweepnet_inference import FoldedFocusMix, PreparedSweep, tensors_of

Maps = tuple[Tensor, ...]  # of a slice, [1, c, h, w] each: what SweepNet.forward keeps of it
Floats = npt.NDArray[np.float32]

UNMOVED_PX = 0.25  # what moved by less is not moved in memory: an eighth of the finest map's pixel


@dataclass(frozen=True)
class _SliceState:
    """maps: of a slice, [1, c, h, w] each, in the frame where they were made; transform [3, 3]: pixel of it
    -> pixel of the slice.
    """

    maps: Maps
    transform: npt.NDArray[np.float64]


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
        self._states: dict[int, _SliceState] = {}
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
            place.key: _SliceState(tuple(each[row : row + 1] for each in kept), place.transform)
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
            None if row == new else _moved(states[place.key], place.transform, (size[1], size[0]), to_full)
            for row, place in enumerate(places)
        ]
        found, maps = self._estimator.with_one_new(
            stack[:, 0], stack[:, 1], positions, [row for row in rows if row is not None], new
        )
        states[places[new].key] = _SliceState(maps, places[new].transform)
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


def _moved(
    state: _SliceState, transform: npt.NDArray[np.float64], size: tuple[int, int], to_full: float
) -> Maps:
    """A slice's maps as they lie in another frame; transform [3, 3]: pixel of that frame -> of the slice.

    size: (W, H) of what the network saw, whose pixels are to_full pixels of the image wide.
    """
    motion = np.linalg.inv(state.transform) @ transform  # pixel of the new frame -> of the one they are in
    scale = np.diag([to_full, to_full, 1.0])
    motion = np.linalg.inv(scale) @ motion @ scale
    width, height = size
    corners = np.array([[0, 0, 1], [width, 0, 1], [width, height, 1], [0, height, 1]], np.float64).T
    ends = motion @ corners
    if np.abs(ends[:2] / ends[2] - corners[:2]).max() < UNMOVED_PX:
        return state.maps
    return tuple(_resampled(each, motion, size) for each in state.maps)


def _resampled(image: Tensor, motion: npt.NDArray[np.float64], size: tuple[int, int]) -> Tensor:
    """image [1, c, h, w] in another frame; motion [3, 3]: pixel of that frame -> pixel of the old one, of an
    image of size (W, H) that the map's cells cover.

    On a CPU by OpenCV, which takes all channels of a pixel at once: three times as fast as grid_sample.
    """
    height, width = image.shape[2:]
    if image.device.type != "cpu":
        grid = _grid(motion, (height, width), size).to(image.device, image.dtype)
        there = F.grid_sample(image, grid, padding_mode="border", align_corners=False)
        return there.contiguous(memory_format=_layout(image))
    step = np.array([size[0] / width, size[1] / height])
    to_pixel = np.diag([*step, 1.0])
    to_pixel[:2, 2] = 0.5 * step - 0.5
    of_cells = np.linalg.inv(to_pixel) @ motion @ to_pixel
    cells = image[0].permute(1, 2, 0).contiguous().numpy()  # [h, w, c]
    flags, border = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, cv2.BORDER_REPLICATE
    moved = cv2.warpPerspective(cells, of_cells, (width, height), flags=flags, borderMode=border)
    there = torch.from_numpy(moved).permute(2, 0, 1)[None]
    return there.contiguous(memory_format=_layout(image))


def _layout(image: Tensor) -> torch.memory_format:
    last = image.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


def _grid(motion: npt.NDArray[np.float64], shape: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """[1, h, w, 2]: where each cell of the new frame lies in the old one, -1..1 from edge to edge."""
    height, width = shape
    step_x, step_y = size[0] / width, size[1] / height
    x = (np.arange(width) + 0.5) * step_x - 0.5
    y = (np.arange(height) + 0.5) * step_y - 0.5
    row_x = motion[:, 0, None] * x  # [3, w]
    row_y = motion[:, 1, None] * y + motion[:, 2, None]  # [3, h]
    there = row_y[:, :, None] + row_x[:, None, :]  # [3, h, w]
    places = there[:2] / there[2]
    normal = np.stack([(2.0 * places[0] + 1.0) / size[0] - 1.0, (2.0 * places[1] + 1.0) / size[1] - 1.0], -1)
    return torch.from_numpy(normal[None].astype(np.float32))
