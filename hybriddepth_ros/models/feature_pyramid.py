"""Features of one image on four levels: the first half of DFV (Yang, Huang, Zhou, CVPR 2022).

Attributes carry the names of the published checkpoints.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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
