"""Per-pixel correction of the global scale: the refinement network of HybridDepth.

The layout is that of MiDaS's small model: an EfficientNet-Lite3 and a decoder that fuses from coarse to fine.
Attributes carry the names of the published checkpoints.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybriddepth_ros.models.efficientnet import EfficientNetLite3
from hybriddepth_ros.models.inputs import pad_to_multiple
from hybriddepth_ros.models.published import PublishedLayout, load_published, without_part_prefix

GRID = 32  # the coarsest features are this many times smaller than the image


class ScaleRefinement(nn.Module):
    """A factor per pixel from globally aligned depth, its ratio to the depth from focus, and its std."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(inplace=True))
        self.pretrained = EfficientNetLite3()
        self.scratch = FusionDecoder()

    def forward(self, global_depth: Tensor, scale_map: Tensor, focus_std: Tensor) -> Tensor:
        """Refined scales [B, 1, H, W], >= 0; each input [B, 1, H, W]."""
        height, width = global_depth.shape[-2:]
        x = pad_to_multiple(torch.cat([global_depth, scale_map, focus_std], dim=1), GRID)  # [B, 3, H', W']
        return F.relu(1.0 + self.correction(x)[..., :height, :width])

    def correction(self, maps: Tensor) -> Tensor:
        """The network alone: what is added to 1 [B, 1, H, W], of maps [B, 3, H, W], sides multiples of 32."""
        x = maps.contiguous(memory_format=torch.channels_last)  # faster on CPU and GPU
        result: Tensor = self.scratch(*self.pretrained(self.first(x)))
        return result

    def published_layout(self) -> PublishedLayout:
        """The published names. The coarsest fusion has one input: its first unit is carried for nothing."""
        unit = "scratch.refinenet4.resConfUnit1."
        unused: dict[str, tuple[int, ...]] = {}
        for conv in ("conv1", "conv2"):
            unused |= {f"{unit}{conv}.weight": (512, 512, 3, 3), f"{unit}{conv}.bias": (512,)}
        return PublishedLayout.of(self, unused)

    def load_published(self, state_dict: dict[str, Any]) -> None:
        """Take the weights of the refinement network by themselves (with or without `ScaleMapLearner.`)."""
        entries = without_part_prefix(state_dict, "ScaleMapLearner.")
        load_published(self.published_layout(), entries, "the refinement network")


class FusionDecoder(nn.Module):
    """From four levels of features to one map at full resolution."""

    def __init__(self) -> None:
        super().__init__()
        self.layer1_rn = nn.Conv2d(32, 64, 3, padding=1, bias=False)
        self.layer2_rn = nn.Conv2d(48, 128, 3, padding=1, bias=False)
        self.layer3_rn = nn.Conv2d(136, 256, 3, padding=1, bias=False)
        self.layer4_rn = nn.Conv2d(384, 512, 3, padding=1, bias=False)
        self.refinenet4 = Fusion(512, 256, coarsest=True)
        self.refinenet3 = Fusion(256, 128)
        self.refinenet2 = Fusion(128, 64)
        self.refinenet1 = Fusion(64, 64)
        self.output_conv = OutputHead()

    def forward(self, level1: Tensor, level2: Tensor, level3: Tensor, level4: Tensor) -> Tensor:
        """[B, 1, 4h, 4w] of level1 [B, 32, h, w], level2 [B, 48, h/2, w/2], and so on."""
        x = self.refinenet4(self.layer4_rn(level4))
        x = self.refinenet3(self.layer3_rn(level3), x)
        x = self.refinenet2(self.layer2_rn(level2), x)
        x = self.refinenet1(self.layer1_rn(level1), x)
        result: Tensor = self.output_conv(x)
        return result


class Fusion(nn.Module):
    """Add a level to what comes from the coarser ones, refine, and double the resolution."""

    def __init__(self, channels: int, outputs: int, coarsest: bool = False) -> None:
        super().__init__()
        self.resConfUnit1 = None if coarsest else PreactivatedUnit(channels)
        self.resConfUnit2 = PreactivatedUnit(channels)
        self.out_conv = nn.Conv2d(channels, outputs, 1)

    def forward(self, level: Tensor, coarser: Tensor | None = None) -> Tensor:
        """[B, outputs, 2h, 2w] of level, coarser [B, C, h, w]."""
        if self.resConfUnit1 is not None:
            level = self.resConfUnit1(level)
        x = self.resConfUnit2(level if coarser is None else level + coarser)
        # Projecting before resizing gives the same (both are linear, the weights of a resize sum to 1) at a
        # quarter of the work.
        x = self.out_conv(x)
        return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=True)


class PreactivatedUnit(nn.Module):
    """x + conv(ReLU(conv(ReLU(x))))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] of x [B, C, h, w]."""
        return x + self.conv2(F.relu(self.conv1(F.relu(x)), inplace=True))


class OutputHead(nn.Module):
    """The last convolutions, on either side of the last doubling."""

    def __init__(self) -> None:
        super().__init__()
        self.output_conv = nn.Sequential(
            nn.Conv2d(64, 32, 3, padding=1),
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
            nn.Conv2d(32, 32, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(32, 1, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, 1, 2h, 2w] of x [B, 64, h, w]."""
        result: Tensor = self.output_conv(x)
        return result
