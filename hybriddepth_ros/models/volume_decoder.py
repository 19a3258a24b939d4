"""The decoders of DFV: convolutions across pixels and slices, from coarse to fine.

A focus volume is held as its slices in a batch, [B * N, C, h, w], and convolutions over it are made of 2-D
ones. The sums are the same, and on a CPU they take a fraction of the time of PyTorch's 3-D convolution.
Attributes carry the names of the published checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybriddepth_ros.models.engines import in_graph
from hybriddepth_ros.models.feature_pyramid import pool_counts

Convolution = Callable[[Any], Tensor]


class VolumeDecoder(nn.Module):
    """Two residual units, pyramid pooling over slices and pixels, a score per slice, and a way up.

    The three ways out are separate, because each is needed only sometimes: forward gives the volume,
    `upsampled` takes it to the next finer decoder, `classified` to the score.
    """

    def __init__(self, inputs: int, channels: int, pooling: bool, last: bool = False) -> None:
        super().__init__()
        self.convs = nn.Sequential(ResidualUnit(inputs, channels), ResidualUnit(channels, channels))
        paths = 4 if pooling else 0
        self.pool_convs = nn.ModuleList(VolumeConvNorm(channels, channels, 1) for _ in range(paths))
        self.up = (
            nn.Sequential(nn.Identity(), VolumeConvNorm(channels, channels // 2, 3)) if not last else None
        )
        self.classify = nn.Sequential(
            VolumeConvNorm(channels, channels, 3),
            nn.ReLU(),
            nn.Sequential(VolumeConv(channels, 1, 3, bias=True)),
        )

    def forward(self, volume: Tensor, slices: int) -> Tensor:
        """[B * N, C, h, w] of volume [B * N, inputs, h, w]."""
        for unit in self.convs:
            volume = unit(volume, slices)
        if not self.pool_convs:
            return volume
        x = as_volume(volume, slices)
        size = x.shape[-3:]
        total = torch.zeros_like(x)
        for path, count in zip(self.pool_convs, pool_counts(min(size)), strict=True):
            pooled = F.avg_pool3d(x, [axis // count for axis in size])
            mixed = path(as_batch(pooled), pooled.shape[2])
            total += F.interpolate(
                as_volume(mixed, pooled.shape[2]), size, mode="trilinear", align_corners=False
            )
        return F.relu(0.5 * (volume + 0.25 * as_batch(total)), inplace=True)

    def upsampled(self, volume: Tensor, slices: int) -> Tensor:
        """[B * N, C / 2, 2h, 2w] of volume [B * N, C, h, w]."""
        assert self.up is not None
        doubled = F.interpolate(volume, scale_factor=2.0, mode="bilinear", align_corners=False)
        return F.relu(self.up[1](doubled, slices), inplace=True)

    def classified(self, volume: Tensor, slices: int) -> Tensor:
        """Score of each slice [B, N, h, w] of volume [B * N, C, h, w]."""
        hidden = F.relu(self.classify[0](volume, slices), inplace=True)
        (last,) = self.classify[2].children()
        score: Tensor = last(hidden, slices)
        return score.unflatten(0, (-1, slices)).squeeze(2)


class ResidualUnit(nn.Module):
    """Two 3x3x3 convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = VolumeConvNorm(inputs, outputs, 3)
        self.conv2 = VolumeConvNorm(outputs, outputs, 3)
        self.downsample = PointwiseShortcut(inputs, outputs) if inputs != outputs else None

    def forward(self, volume: Tensor, slices: int) -> Tensor:
        """[B * N, outputs, h, w] of volume [B * N, inputs, h, w]."""
        shortcut = volume if self.downsample is None else self.downsample(volume)
        x = F.relu(self.conv1(volume, slices), inplace=True)
        return F.relu(self.conv2(x, slices) + shortcut, inplace=True)


class PointwiseShortcut(nn.Module):
    """A convolution over channels alone; published as a 2-D one."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, volume: Tensor) -> Tensor:
        """[B * N, outputs, h, w] of volume [B * N, inputs, h, w]."""
        result: Tensor = self.bn(self.conv1(volume))
        return result


class VolumeConv(nn.Conv3d):
    """Convolution over slices and pixels, stride 1, zeros outside, of kernel 1 or 3; weight [O, C, k, k, k].

    Each of the three slices that a result sees is a 2-D convolution, so that the zeros beyond either end cost
    nothing.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, bias: bool = False) -> None:
        super().__init__(inputs, outputs, kernel, padding=kernel // 2, bias=bias)

    def forward(self, volume: Tensor, slices: int) -> Tensor:  # type: ignore[override]
        """[B * N, outputs, h, w] of volume [B * N, inputs, h, w], N = slices."""
        before, here, after = self.kernels()
        return over_slices(
            volume,
            slices,
            lambda x: F.conv2d(x, here, self.bias, padding="same"),
            None if before is None else lambda x: F.conv2d(x, before, padding="same"),
            None if after is None else lambda x: F.conv2d(x, after, padding="same"),
        )

    def kernels(self) -> tuple[Tensor | None, Tensor, Tensor | None]:
        """For the slice before, the slice itself and the slice after; each [O, C, k, k]."""
        if self.kernel_size[0] == 1:
            return None, self.weight[:, :, 0], None
        before, here, after = self.weight.unbind(2)
        return before, here, after


def over_slices(
    source: Any, slices: int, here: Convolution, before: Convolution | None, after: Convolution | None
) -> Tensor:
    """Each slice through `here`, plus the slice before it and the one after it through theirs.

    source [B * N, C, h, w]: a tensor, or what the convolutions take for one and can be cut like one.
    """
    result = here(source)
    if before is None or after is None or slices == 1:
        return result
    if in_graph():
        samples = zip(source.split(slices), result.split(slices), strict=True)
        return torch.cat([_with_neighbours(one, sums, before, after) for one, sums in samples])
    for start in range(0, len(result), slices):  # neighbours are neighbours within a sample only
        one, sums = source[start : start + slices], result[start : start + slices]
        sums[1:] += before(one[:-1])
        sums[:-1] += after(one[1:])
    return result


def _with_neighbours(one: Tensor, sums: Tensor, before: Convolution, after: Convolution) -> Tensor:
    nothing = torch.zeros_like(sums[:1])
    return sums + torch.cat([nothing, before(one[:-1])]) + torch.cat([after(one[1:]), nothing])


class VolumeConvNorm(nn.Sequential):
    """VolumeConv and batch normalisation, over a batch of slices: the statistics are those of the volume."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__(VolumeConv(inputs, outputs, kernel), nn.BatchNorm2d(outputs))

    def forward(self, volume: Tensor, slices: int) -> Tensor:  # type: ignore[override]
        """[B * N, outputs, h, w] of volume [B * N, inputs, h, w]."""
        convolution, norm = self
        result: Tensor = norm(convolution(volume, slices))
        return result


def as_volume(batch: Tensor, slices: int) -> Tensor:
    """[B, C, N, h, w] of [B * N, C, h, w], a view."""
    return batch.unflatten(0, (-1, slices)).transpose(1, 2)


def as_batch(volume: Tensor) -> Tensor:
    """[B * N, C, h, w] of [B, C, N, h, w]."""
    return volume.transpose(1, 2).flatten(0, 1)
