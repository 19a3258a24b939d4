"""sweepnet as it runs: the same numbers in half the time."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybriddepth_ros.models.engines import in_graph
from hybriddepth_ros.models.inference import fold_batch_norms
from hybriddepth_ros.models.sweepnet import FocusMix, SweepDistribution, SweepNet, largest_slice
from hybriddepth_ros.models.sweepnet_weights import on_device


@dataclass(frozen=True)
class PreparedSweep:
    """images [N, h, w, 3] 0..255, by `factor` smaller than the stack's; positions [N] px of blur there; blur:
    per diopter in the stack's [px m].
    """

    images: npt.NDArray[np.uint8 | np.float32]
    positions: npt.NDArray[np.float32]
    blur: float
    factor: float


def ready(network: SweepNet, device: str) -> SweepNet:
    """The network, changed in place: normalisations folded away, where convolutions are fastest."""
    for mixes in (network.mix_down, network.mix_up):
        for index, mix in enumerate(mixes):
            if isinstance(mix, FocusMix):
                mixes[index] = FoldedFocusMix(mix)
    fold_batch_norms(network)
    return on_device(network, device)


class WholeSweep(nn.Module):
    """The network for an engine: SweepDistribution's tensors."""

    def __init__(self, network: SweepNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, stack: Tensor, positions: Tensor) -> tuple[Tensor, ...]:
        found: SweepDistribution = self.network(stack, positions)
        return tensors_of(found)


def tensors_of(found: SweepDistribution) -> tuple[Tensor, ...]:
    """All five, in the order that SweepDistribution takes them in: what an engine's graph gives."""
    return found.position, found.scale, found.coarse, found.log_probability, found.spacing


class FoldedFocusMix(nn.Module):
    """A trained FocusMix as matrix products that add up in place.

    What is left of the normalisation, and how much of the mix a slice takes, are in the matrices: they are
    made for every sweep, being small.
    """

    def __init__(self, mix: FocusMix) -> None:
        super().__init__()
        norm = mix.norm
        assert norm.running_mean is not None and norm.running_var is not None
        gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        self.modulation = mix.modulation
        channels = len(gain)
        local = gain[:, None] * mix.local.weight[:, :, 0, 0]
        whole = gain[:, None] * mix.whole.weight[:, :, 0, 0]
        # [c, c] each, to be multiplied from the right.
        self.own, self.before, self.after = (_kept(w.T) for w in local.split(channels, dim=1))
        self.mean, self.largest = (_kept(w.T) for w in whole.split(channels, dim=1))
        self.offset = _kept(norm.bias - norm.running_mean * gain)

    def forward(self, x: Tensor, geometry: Tensor, batch: int) -> Tensor:
        """[B N, c, h, w] of x [B N, c, h, w] and geometry [B, N, 32]."""
        if in_graph() and batch == 1:
            before, after = torch.cat([x[:1], x[:-1]]), torch.cat([x[1:], x[-1:]])
            return self._convolved(x, before, after, x, geometry[0])
        channels, height, width = x.shape[1:]
        pixels = x.permute(0, 2, 3, 1).reshape(batch, len(x) // batch, height * width, channels)
        gain, bias = self.modulation(geometry).to(x.dtype)[:, :, None].chunk(2, dim=3)  # [B, N, 1, c]
        mixed = [self._mixed(*sample) for sample in zip(pixels, gain + 1.0, bias, strict=True)]
        return torch.cat(mixed).view(-1, height, width, channels).permute(0, 3, 1, 2)

    def of_one(self, slices: Sequence[Tensor], geometry: Tensor, index: int | Tensor) -> Tensor:
        """[1, c, h, w]: what `forward` makes of one of N slices [1, c, h, w]; geometry [N, 32].

        index: an int64 tensor [1] for an engine's graph, which is to serve every slice.
        """
        count = len(slices)
        if isinstance(index, Tensor):
            x = torch.cat([*slices])
            near = (index, (index - 1).clamp(min=0), (index + 1).clamp(max=count - 1))
            own, before, after = (x.index_select(0, row) for row in near)
            return self._convolved(own, before, after, x, geometry.index_select(0, index))
        channels, height, width = slices[0].shape[1:]
        pixels = [each.permute(0, 2, 3, 1).reshape(height * width, channels) for each in slices]
        gain, bias = (
            self.modulation(geometry[index : index + 1]).to(pixels[0].dtype).chunk(2, dim=1)
        )  # [1, c]
        gain = gain + 1.0
        mean = pixels[0] + pixels[1]
        for each in pixels[2:]:
            mean.add_(each)
        largest = functools.reduce(torch.maximum, pixels)
        sums = torch.addcmul(bias, self._shared(mean.mul_(1.0 / count), largest), gain)
        rows = (index, max(index - 1, 0), min(index + 1, count - 1))
        for row, matrix in zip(rows, (self.own, self.before, self.after), strict=True):
            sums.addmm_(pixels[row], matrix.to(sums.dtype) * gain)
        mixed = sums.add_(pixels[index]).relu_()
        return mixed.view(1, height, width, channels).permute(0, 3, 1, 2)

    def _convolved(
        self, own: Tensor, before: Tensor, after: Tensor, every: Tensor, geometry: Tensor
    ) -> Tensor:
        """The same in convolutions and nothing in place, as engines like it.

        own and its neighbours [n, c, h, w], of every slice [N, c, h, w]; geometry [n, 32].
        """
        gain, bias = self.modulation(geometry)[:, :, None, None].chunk(2, dim=1)  # [n, c, 1, 1]
        matrices = torch.cat([self.own.T, self.before.T, self.after.T], dim=1)
        shared = torch.cat([self.mean.T, self.largest.T], dim=1)
        about = torch.cat([every.mean(dim=0, keepdim=True), largest_slice(every)[None]], dim=1)
        mixed = F.conv2d(torch.cat([own, before, after], dim=1), matrices[:, :, None, None])
        mixed = mixed + F.conv2d(about, shared[:, :, None, None], self.offset)
        return F.relu(mixed * (gain + 1.0) + bias + own)

    def _shared(self, mean: Tensor, largest: Tensor) -> Tensor:
        """[h w, c] that all slices take of their mean and largest features [h w, c]."""
        kind = mean.dtype
        shared = (mean @ self.mean.to(kind)).add_(self.offset.to(kind))
        return shared.addmm_(largest, self.largest.to(kind))

    def _mixed(self, volume: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
        """[N, h w, c] of volume [N, h w, c], gain and bias [N, 1, c], all of one type."""
        kind = volume.dtype
        sums = torch.addcmul(bias, self._shared(volume.mean(dim=0), largest_slice(volume)), gain)
        sums.baddbmm_(volume, self.own.to(kind) * gain)
        before, after = self.before.to(kind) * gain, self.after.to(kind) * gain
        sums[1:].baddbmm_(volume[:-1], before[1:])
        sums[:1].baddbmm_(volume[:1], before[:1])  # a slice at an end is its own neighbour
        sums[:-1].baddbmm_(volume[1:], after[:-1])
        sums[-1:].baddbmm_(volume[-1:], after[-1:])
        return sums.add_(volume).relu_()


def _kept(values: Tensor) -> nn.Parameter:
    return nn.Parameter(values.detach().contiguous(), requires_grad=False)
