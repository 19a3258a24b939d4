"""Depth from a focal stack: DFV, the deep differential focus volume (Yang, Huang, Zhou, CVPR 2022).

The four-level variant on differences of neighbouring slices. Attributes carry the names of the published
checkpoints.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybriddepth_ros.errors import ModelError
from hybriddepth_ros.models.inputs import check_stack, fill_missing, pad_to_multiple
from hybriddepth_ros.models.published import PublishedLayout, load_published, without_part_prefix

GRID = 32  # the coarsest features are this many times smaller than the image
LEAST_SIZE = 64  # pyramid pooling halves the coarsest features once more
SLICE_ORDERS = ("rising", "falling", "given")


@dataclass(frozen=True)
class FocusDepth:
    """What the focus alone says, in the unit of the focus distances.

    depth, std [B, 1, H, W]: mean and spread of probability [B, N, H, W] over the focus distances, the slices
    in the caller's order. The spread measures how undecided the network is; it is no error bar.
    """

    depth: Tensor
    std: Tensor
    probability: Tensor


class FocalVolume(nn.Module):
    """DFV for any number of slices from 2 up, at any focus distances and image size.

    slice_order: the order of the focus distances that the weights were trained with, into which slices are
    sorted (the volume is made of differences between neighbours): `rising`, as the published NYU and
    ARKitScenes weights have it (metres, near to far) and the phone data (diopters); `falling` for DDFF12
    (disparity, near to far); `given` leaves them, as the published code does.
    """

    def __init__(self, slice_order: str = "rising") -> None:
        super().__init__()
        if slice_order not in SLICE_ORDERS:
            raise ModelError(f"slice_order: expected {', '.join(SLICE_ORDERS)}, got {slice_order!r}")
        self.slice_order = slice_order
        self.feature_extraction = FeaturePyramid()
        self.decoder6 = VolumeDecoder(128, 128, pooling=True)
        self.decoder5 = VolumeDecoder(64 + 64, 64, pooling=True)
        self.decoder4 = VolumeDecoder(32 + 32, 32, pooling=False)
        self.decoder3 = VolumeDecoder(16 + 16, 32, pooling=False, last=True)

    def forward(self, stack: Tensor, focus_distances: Tensor) -> FocusDepth:
        """FocusDepth of stack [B, N, 3, H, W], ImageNet-normalised, at focus_distances [B, N].

        A pixel that is not finite in some slice is filled from the others, and its std is half the range of
        the focus distances: the most there can be.
        """
        check_stack(stack, focus_distances)
        height, width = stack.shape[-2:]
        filled = fill_missing(stack, dim=1)
        order = self._order(focus_distances)  # [B, N]
        ordered = torch.take_along_dim(filled, order[:, :, None, None, None], dim=1)
        focus = torch.take_along_dim(focus_distances, order, dim=1)

        padded = pad_to_multiple(ordered, GRID, LEAST_SIZE)
        cost = self.cost(padded)  # [B, N, H'/4, W'/4]
        cost = F.interpolate(cost, padded.shape[-2:], mode="bilinear", align_corners=False)
        depth, std, probability = regress(cost[..., :height, :width], focus)

        if filled is not stack:
            incomplete = ~torch.isfinite(stack).all(dim=2).all(dim=1, keepdim=True)  # [B, 1, H, W]
            most = 0.5 * (focus.amax(dim=1) - focus.amin(dim=1))  # [B]
            std = torch.where(incomplete, most[:, None, None, None], std)
        back = order.argsort(dim=1)[:, :, None, None]
        return FocusDepth(depth, std, torch.take_along_dim(probability, back, dim=1))

    def cost(self, stack: Tensor) -> Tensor:
        """Focus score [B, N, H/4, W/4], large = in focus; of stack [B, N, 3, H, W], sides multiples of 32."""
        return self.decoder3.classified(self._decoded(stack)[-1])

    def training_costs(self, stack: Tensor) -> list[Tensor]:
        """The scores of all four levels, finest first: [B, N, H/k, W/k] for k = 4, 8, 16, 32.

        DFV is trained on all of them: each resized to the image, then `regress`ed.
        """
        decoders = (self.decoder6, self.decoder5, self.decoder4, self.decoder3)
        costs = [decoder.classified(x) for decoder, x in zip(decoders, self._decoded(stack), strict=True)]
        return costs[::-1]

    def _decoded(self, stack: Tensor) -> list[Tensor]:
        """Each decoder's result [B, C, N, h, w], coarsest first."""
        batch, slices = stack.shape[:2]
        levels = self.feature_extraction(stack.flatten(0, 1))  # every slice through the trunk in one pass
        v3, v4, v5, v6 = (slice_differences(f.unflatten(0, (batch, slices))) for f in levels)
        x6 = self.decoder6(v6)
        x5 = self.decoder5(torch.cat([self.decoder6.upsampled(x6), v5], dim=1))
        x4 = self.decoder4(torch.cat([self.decoder5.upsampled(x5), v4], dim=1))
        x3 = self.decoder3(torch.cat([self.decoder4.upsampled(x4), v3], dim=1))
        return [x6, x5, x4, x3]

    def _order(self, focus_distances: Tensor) -> Tensor:
        """Which slice comes when [B, N]."""
        if self.slice_order == "given":
            slices = torch.arange(focus_distances.shape[1], device=focus_distances.device)
            return slices.expand_as(focus_distances)
        return focus_distances.argsort(dim=1, descending=self.slice_order == "falling", stable=True)

    def published_layout(self) -> PublishedLayout:
        """The published names and what takes them; the trunk's ImageNet classifier is carried for nothing."""
        classifier = "feature_extraction.encoder.fc."
        unused = {f"{classifier}weight": (1000, 512), f"{classifier}bias": (1000,)}
        return PublishedLayout.of(self, unused)

    def load_published(self, state_dict: dict[str, Any]) -> None:
        """Take the weights of DFV by themselves (names with or without `DFF_model.`)."""
        load_published(self.published_layout(), without_part_prefix(state_dict, "DFF_model."), "DFV")


def slice_differences(features: Tensor) -> Tensor:
    """The differential volume [B, C, N, h, w] of features [B, N, C, h, w]: each slice less the next, the last
    as it is.
    """
    difference = features[:, :-1] - features[:, 1:]
    return torch.cat([difference, features[:, -1:]], dim=1).transpose(1, 2)


def regress(cost: Tensor, focus_distances: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Depth and std [B, 1, H, W], probability [B, N, H, W], of cost [B, N, H, W]; std carries no gradient."""
    probability = cost.softmax(dim=1)
    focus = focus_distances[:, :, None, None]
    depth = (probability * focus).sum(dim=1, keepdim=True)
    with torch.no_grad():
        std = (probability * (depth - focus) ** 2).sum(dim=1, keepdim=True).sqrt()
    return depth, std, probability


def pool_counts(smallest: int) -> list[int]:
    """Into how many windows each of the four pyramid paths divides an axis this long."""
    most = smallest // 2
    return [1 + i * (most - 1) // 3 for i in range(4)]


class ConvBlock(nn.Module):
    """Convolution, batch normalisation, leaky ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.cbr_unit = nn.Sequential(
            nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
            nn.BatchNorm2d(outputs),
            nn.LeakyReLU(0.1, inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, outputs, h, w] of x [B, inputs, h, w]."""
        result: Tensor = self.cbr_unit(x)
        return result


class FeaturePyramid(nn.Module):
    """ResNet-18, pyramid pooling and a way back up: features of one image at 1/4, 1/8, 1/16 and 1/32."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = ResNet18Trunk()
        self.pyramid_pooling = PyramidPooling(512)
        self.upconv6 = nn.Sequential(nn.Upsample(scale_factor=2), ConvBlock(512, 256, 3))
        self.iconv5 = ConvBlock(512, 256, 3)
        self.upconv5 = nn.Sequential(nn.Upsample(scale_factor=2), ConvBlock(256, 128, 3))
        self.iconv4 = ConvBlock(256, 128, 3)
        self.upconv4 = nn.Sequential(nn.Upsample(scale_factor=2), ConvBlock(128, 64, 3))
        self.iconv3 = ConvBlock(128, 64, 3)
        self.proj6 = ConvBlock(512, 128, 1)
        self.proj5 = ConvBlock(256, 64, 1)
        self.proj4 = ConvBlock(128, 32, 1)
        self.proj3 = ConvBlock(64, 16, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """16 channels at 1/4, 32 at 1/8, 64 at 1/16, 128 at 1/32, of images [B, 3, H, W]."""
        c3, c4, c5, c6 = self.encoder(images)
        p6 = self.pyramid_pooling(c6)
        f5 = self.iconv5(torch.cat([c5, self.upconv6(p6)], dim=1))
        f4 = self.iconv4(torch.cat([c4, self.upconv5(f5)], dim=1))
        f3 = self.iconv3(torch.cat([c3, self.upconv4(f4)], dim=1))
        return self.proj3(f3), self.proj4(f4), self.proj5(f5), self.proj6(p6)


class ResNet18Trunk(nn.Module):
    """ResNet-18 (He et al. 2016) without its classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = nn.Sequential(BasicBlock(64, 64, 1), BasicBlock(64, 64, 1))
        self.layer2 = nn.Sequential(BasicBlock(64, 128, 2), BasicBlock(128, 128, 1))
        self.layer3 = nn.Sequential(BasicBlock(128, 256, 2), BasicBlock(256, 256, 1))
        self.layer4 = nn.Sequential(BasicBlock(256, 512, 2), BasicBlock(512, 512, 1))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """64 channels at 1/4, 128 at 1/8, 256 at 1/16, 512 at 1/32, of images [B, 3, H, W]."""
        c3 = self.layer1(self.maxpool(F.relu(self.bn1(self.conv1(images)), inplace=True)))
        c4 = self.layer2(c3)
        c5 = self.layer3(c4)
        return c3, c4, c5, self.layer4(c5)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = (
            nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs))
            if stride != 1
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, outputs, h / stride, w / stride] of x [B, inputs, h, w]."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(x)) + shortcut, inplace=True)


class PyramidPooling(nn.Module):
    """Averages over ever larger windows, mixed and added back."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.path_module_list = nn.ModuleList(ConvBlock(channels, channels, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] of x [B, C, h, w]; path 0 has the smallest window."""
        height, width = x.shape[-2:]
        total = torch.zeros_like(x)
        for path, count in zip(self.path_module_list, reversed(pool_counts(min(height, width))), strict=True):
            pooled = F.avg_pool2d(x, (height // count, width // count))
            total += F.interpolate(path(pooled), (height, width), mode="bilinear", align_corners=False)
        return F.relu(0.5 * (x + 0.25 * total), inplace=True)


def conv3d(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    """3-D convolution and batch normalisation."""
    return nn.Sequential(
        nn.Conv3d(inputs, outputs, kernel, padding=kernel // 2, bias=False), nn.BatchNorm3d(outputs)
    )


class VolumeDecoder(nn.Module):
    """Two residual units, pyramid pooling over slices and pixels, a score per slice, and a way up.

    The three ways out are separate, because each is needed only sometimes: forward gives the volume,
    `upsampled` takes it to the next finer decoder, `classified` to the score.
    """

    def __init__(self, inputs: int, channels: int, pooling: bool, last: bool = False) -> None:
        super().__init__()
        self.convs = nn.Sequential(ResidualUnit(inputs, channels), ResidualUnit(channels, channels))
        paths = 4 if pooling else 0
        self.pool_convs = nn.ModuleList(conv3d(channels, channels, 1) for _ in range(paths))
        self.up = (
            None
            if last
            else nn.Sequential(
                nn.Upsample(scale_factor=(1.0, 2.0, 2.0), mode="trilinear", align_corners=False),
                conv3d(channels, channels // 2, 3),
                nn.ReLU(inplace=True),
            )
        )
        self.classify = nn.Sequential(
            conv3d(channels, channels, 3),
            nn.ReLU(inplace=True),
            nn.Sequential(nn.Conv3d(channels, 1, 3, padding=1)),
        )

    def forward(self, volume: Tensor) -> Tensor:
        """[B, C, N, h, w] of volume [B, inputs, N, h, w]."""
        x: Tensor = self.convs(volume)
        if not self.pool_convs:
            return x
        size = x.shape[-3:]
        total = torch.zeros_like(x)
        for path, count in zip(self.pool_convs, pool_counts(min(size)), strict=True):
            pooled = F.avg_pool3d(x, [axis // count for axis in size])
            total += F.interpolate(path(pooled), size, mode="trilinear", align_corners=False)
        return F.relu(0.5 * (x + 0.25 * total), inplace=True)

    def upsampled(self, x: Tensor) -> Tensor:
        """[B, C / 2, N, 2h, 2w] of x [B, C, N, h, w]."""
        assert self.up is not None
        result: Tensor = self.up(x)
        return result

    def classified(self, x: Tensor) -> Tensor:
        """Score of each slice [B, N, h, w] of x [B, C, N, h, w]."""
        score: Tensor = self.classify(x)
        return score.squeeze(1)


class ResidualUnit(nn.Module):
    """Two 3x3x3 convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = conv3d(inputs, outputs, 3)
        self.conv2 = conv3d(outputs, outputs, 3)
        self.downsample = PointwiseShortcut(inputs, outputs) if inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        """[B, outputs, N, h, w] of x [B, inputs, N, h, w]."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.conv1(x), inplace=True)
        return F.relu(self.conv2(x) + shortcut, inplace=True)


class PointwiseShortcut(nn.Module):
    """A 1x1x1 convolution, published as a 2-D one over the volume seen as [B, C, N, h * w]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """[B, outputs, N, h, w] of x [B, inputs, N, h, w]."""
        return self.bn(self.conv1(x.flatten(3))).unflatten(3, x.shape[3:])
