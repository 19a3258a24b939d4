"""The papers' networks in the plain schedule of their description: the yardstick of the benchmarks.

Every layer is PyTorch's own, in the order of the description: 3-D convolutions for the focus volume, batch
normalisations beside their convolutions, images in PyTorch's default memory layout, each resize before the
projection that follows it. Weights and results are those of `hybriddepth_ros.models`.
"""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybriddepth_ros.models import CrossDepth, HybridDepth
from hybriddepth_ros.models.feature_pyramid import pool_counts
from hybriddepth_ros.models.focal_volume import FocalVolume
from hybriddepth_ros.models.scale_refinement import Fusion, ScaleRefinement

Network = TypeVar("Network", HybridDepth, CrossDepth)


def plain(network: Network) -> Network:
    """A copy of a network, with its weights, in the plain schedule."""
    copied = copy.deepcopy(network)
    copied.focal_volume = _with_weights_of(
        network.focal_volume, PlainFocalVolume(network.focal_volume.slice_order)
    )
    if isinstance(copied, HybridDepth) and isinstance(network, HybridDepth):
        copied.scale_refinement = _with_weights_of(network.scale_refinement, PlainScaleRefinement())
    return copied.eval().requires_grad_(False)


def _with_weights_of(source: nn.Module, target: nn.Module) -> Any:
    target.load_state_dict(source.state_dict())
    return target


class PlainFocalVolume(FocalVolume):
    """DFV with its volume as [B, C, N, h, w]."""

    def __init__(self, slice_order: str) -> None:
        super().__init__(slice_order)
        for name, decoder in (
            ("decoder6", PlainDecoder(128, 128, pooling=True)),
            ("decoder5", PlainDecoder(64 + 64, 64, pooling=True)),
            ("decoder4", PlainDecoder(32 + 32, 32, pooling=False)),
            ("decoder3", PlainDecoder(16 + 16, 32, pooling=False, last=True)),
        ):
            setattr(self, name, decoder)

    def cost(self, stack: Tensor) -> Tensor:
        """Focus score [B, N, H/4, W/4] of stack [B, N, 3, H, W]."""
        batch, slices = stack.shape[:2]
        volumes = []
        for features in self.feature_extraction(stack.flatten(0, 1)):
            f = features.unflatten(0, (batch, slices)).transpose(1, 2)  # [B, C, N, h, w]
            volumes.append(torch.cat([f[:, :, :-1] - f[:, :, 1:], f[:, :, -1:]], dim=2))
        v3, v4, v5, v6 = volumes
        decoders: tuple[Any, ...] = (self.decoder6, self.decoder5, self.decoder4, self.decoder3)
        x = decoders[0](v6)
        for coarser, decoder, finer in zip(decoders, decoders[1:], (v5, v4, v3), strict=False):
            x = decoder(torch.cat([coarser.up(x), finer], dim=1))
        score: Tensor = decoders[-1].classify(x)
        return score.squeeze(1)


class PlainDecoder(nn.Module):
    """VolumeDecoder of 3-D layers."""

    def __init__(self, inputs: int, channels: int, pooling: bool, last: bool = False) -> None:
        super().__init__()
        self.convs = nn.Sequential(PlainUnit(inputs, channels), PlainUnit(channels, channels))
        self.pool_convs = nn.ModuleList(conv3d(channels, channels, 1) for _ in range(4 if pooling else 0))
        if not last:
            self.up = nn.Sequential(
                nn.Upsample(scale_factor=(1.0, 2.0, 2.0), mode="trilinear", align_corners=False),
                conv3d(channels, channels // 2, 3),
                nn.ReLU(),
            )
        self.classify = nn.Sequential(
            conv3d(channels, channels, 3), nn.ReLU(), nn.Sequential(nn.Conv3d(channels, 1, 3, padding=1))
        )

    def forward(self, volume: Tensor) -> Tensor:
        """[B, C, N, h, w] of volume [B, inputs, N, h, w]."""
        x: Tensor = self.convs(volume)
        if not self.pool_convs:
            return x
        size = x.shape[-3:]
        total = torch.zeros_like(x)
        for path, count in zip(self.pool_convs, pool_counts(min(size)), strict=True):
            pooled = path(F.avg_pool3d(x, [axis // count for axis in size]))
            total = total + F.interpolate(pooled, size, mode="trilinear", align_corners=False)
        return F.relu(0.5 * (x + 0.25 * total))


class PlainUnit(nn.Module):
    """ResidualUnit of 3-D layers."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = conv3d(inputs, outputs, 3)
        self.conv2 = conv3d(outputs, outputs, 3)
        self.downsample = PlainShortcut(inputs, outputs) if inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        """[B, outputs, N, h, w] of x [B, inputs, N, h, w]."""
        shortcut = x if self.downsample is None else self.downsample(x)
        return F.relu(self.conv2(F.relu(self.conv1(x))) + shortcut)


class PlainShortcut(nn.Module):
    """PointwiseShortcut over [B, C, N, h * w]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """[B, outputs, N, h, w] of x [B, inputs, N, h, w]."""
        return self.bn(self.conv1(x.flatten(3))).unflatten(3, x.shape[3:])


def conv3d(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    """3-D convolution and batch normalisation."""
    return nn.Sequential(
        nn.Conv3d(inputs, outputs, kernel, padding=kernel // 2, bias=False), nn.BatchNorm3d(outputs)
    )


class PlainScaleRefinement(ScaleRefinement):
    """The refinement network, default layout, resizing before each projection."""

    def __init__(self) -> None:
        super().__init__()
        for name, channels, outputs in (
            ("refinenet4", 512, 256),
            ("refinenet3", 256, 128),
            ("refinenet2", 128, 64),
            ("refinenet1", 64, 64),
        ):
            setattr(self.scratch, name, PlainFusion(channels, outputs, coarsest=channels == 512))

    def correction(self, maps: Tensor) -> Tensor:
        """What is added to 1 [B, 1, H, W], of maps [B, 3, H, W]."""
        result: Tensor = self.scratch(*self.pretrained(self.first(maps)))
        return result


class PlainFusion(Fusion):
    """A fusion that resizes before it projects."""

    def forward(self, level: Tensor, coarser: Tensor | None = None) -> Tensor:
        """[B, outputs, 2h, 2w] of level, coarser [B, C, h, w]."""
        if self.resConfUnit1 is not None:
            level = self.resConfUnit1(level)
        x = self.resConfUnit2(level if coarser is None else level + coarser)
        x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=True)
        return self.out_conv(x)
