"""EfficientNet-Lite3 (Tan and Le 2019; the "lite" variants of 2020), TensorFlow flavour, without its head.

Attributes carry the names of the published HybridDepth checkpoints, which number the stages by resolution.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

EXPANSION = 6  # hidden over input channels of an inverted residual


class EfficientNetLite3(nn.Module):
    """Features at 1/4 (32 channels), 1/8 (48), 1/16 (136) and 1/32 (384)."""

    def __init__(self) -> None:
        super().__init__()
        self.layer1 = nn.Sequential(
            SameConv2d(3, 32, 3, stride=2),
            batch_norm(32),
            nn.ReLU6(inplace=True),
            nn.Sequential(DepthwiseSeparable(32, 24)),
            stage(24, 32, blocks=3, kernel=3, stride=2),
        )
        self.layer2 = nn.Sequential(stage(32, 48, blocks=3, kernel=5, stride=2))
        self.layer3 = nn.Sequential(
            stage(48, 96, blocks=5, kernel=3, stride=2), stage(96, 136, blocks=5, kernel=5, stride=1)
        )
        self.layer4 = nn.Sequential(
            stage(136, 232, blocks=6, kernel=5, stride=2), stage(232, 384, blocks=1, kernel=3, stride=1)
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The four features, finest first, of images [B, 3, H, W]."""
        level1 = self.layer1(images)
        level2 = self.layer2(level1)
        level3 = self.layer3(level2)
        return level1, level2, level3, self.layer4(level3)


class SameConv2d(nn.Conv2d):
    """TensorFlow's SAME padding: what ceil(size / stride) outputs need, the odd pixel right and below."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride=stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, outputs, ceil(h / stride), ceil(w / stride)] of x [B, inputs, h, w]."""
        vertical, horizontal = (
            max((-(-size // self.stride[0]) - 1) * self.stride[0] + self.kernel_size[0] - size, 0)
            for size in x.shape[-2:]
        )
        if vertical % 2 or horizontal % 2:
            left, top = horizontal // 2, vertical // 2
            x = F.pad(x, (left, horizontal - left, top, vertical - top))
            return F.conv2d(x, self.weight, self.bias, self.stride, 0, groups=self.groups)
        # Even padding is the convolution's own, without a padded copy.
        padding = (vertical // 2, horizontal // 2)
        return F.conv2d(x, self.weight, self.bias, self.stride, padding, groups=self.groups)


class DepthwiseSeparable(nn.Module):
    """3x3 per channel, then 1x1 across; linear at the end."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv_dw = SameConv2d(inputs, inputs, 3, groups=inputs)
        self.bn1 = batch_norm(inputs)
        self.conv_pw = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.bn2 = batch_norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """[B, outputs, h, w] of x [B, inputs, h, w]."""
        x = F.relu6(self.bn1(self.conv_dw(x)), inplace=True)
        result: Tensor = self.bn2(self.conv_pw(x))
        return result


class InvertedResidual(nn.Module):
    """Expand 1x1, filter per channel, project 1x1; a shortcut where shapes allow it."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        hidden = EXPANSION * inputs
        self.shortcut = stride == 1 and inputs == outputs
        self.conv_pw = nn.Conv2d(inputs, hidden, 1, bias=False)
        self.bn1 = batch_norm(hidden)
        self.conv_dw = SameConv2d(hidden, hidden, kernel, stride=stride, groups=hidden)
        self.bn2 = batch_norm(hidden)
        self.conv_pwl = nn.Conv2d(hidden, outputs, 1, bias=False)
        self.bn3 = batch_norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """[B, outputs, h / stride, w / stride] of x [B, inputs, h, w]."""
        hidden = F.relu6(self.bn1(self.conv_pw(x)), inplace=True)
        hidden = F.relu6(self.bn2(self.conv_dw(hidden)), inplace=True)
        result: Tensor = self.bn3(self.conv_pwl(hidden))
        return result + x if self.shortcut else result


def stage(inputs: int, outputs: int, blocks: int, kernel: int, stride: int) -> nn.Sequential:
    """Inverted residuals, of which the first changes channels and resolution."""
    first = InvertedResidual(inputs, outputs, kernel, stride)
    return nn.Sequential(first, *(InvertedResidual(outputs, outputs, kernel, 1) for _ in range(blocks - 1)))


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """With TensorFlow's epsilon, not PyTorch's."""
    return nn.BatchNorm2d(channels, eps=1e-3)
