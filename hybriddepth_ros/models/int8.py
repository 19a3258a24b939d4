"""Convolutions and linear layers in int8 on a CPU: weights quantised once, what goes in at every call.

Weights have a scale per output channel, inputs one per tensor, from their least and largest value at that
call: no calibration data is needed. One of the two gets 8 bits and the other 7, because processors without
VNNI add two products in 16 bits, which 8 bits times 8 bits would overflow: in a convolution weights get 7,
for they are spread more evenly than an image's values; in a linear layer the inputs. The arithmetic is
oneDNN's, through the operators of PyTorch's own compiler.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from hybriddepth_ros.errors import ModelError

_CONV_LEVELS = (255, 63)  # the highest of an input (from 0 on), and of a weight (on either side of 0)
_LINEAR_LEVELS = (127, 127)
_LEAST_CHANNELS = 16  # with fewer, quantising costs more than it saves


@dataclass(frozen=True)
class Quantised:
    """value = scale * (data - zero_point); data [B, C, h, w] uint8, channels-last."""

    data: Tensor
    scale: float
    zero_point: int

    def __getitem__(self, samples: slice) -> Quantised:
        return replace(self, data=self.data[samples])


def quantise(x: Tensor) -> Quantised:
    """x [B, C, h, w] with 8 bits between its least and its largest value, and 0 exact."""
    plain = x.permute(0, 2, 3, 1).contiguous()  # PyTorch finds the extremes of channels-last memory slowly
    data, scale, zero_point = _levels(plain, _CONV_LEVELS[0])
    return Quantised(data.permute(0, 3, 1, 2), scale, zero_point)


def _levels(x: Tensor, highest: int) -> tuple[Tensor, float, int]:
    """x as levels 0 .. highest [uint8], the value of one level, and the level of 0."""
    low, high = (float(value) for value in x.aminmax())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ModelError("precision: int8: the network's values are not finite: expected float32")
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / (highest - 0.6)  # room for 0 to be moved to a level
    if scale < torch.finfo(x.dtype).tiny:
        scale = 1.0
    zero_point = round(-low / scale)
    half = torch.tensor(zero_point + 0.5, dtype=x.dtype)  # the conversion cuts off what is behind the point
    levels = torch.add(half, x, alpha=1.0 / scale)
    return levels.to(torch.uint8), scale, zero_point


def _rounded(weight: Tensor, highest: int) -> tuple[Tensor, Tensor]:
    """weight [O, ...] as levels -highest .. highest, and the value of one level for each output [O]."""
    scale = weight.abs().flatten(1).amax(dim=1).clamp(min=torch.finfo(weight.dtype).tiny) / highest
    levels = weight / scale.reshape(-1, *[1] * (weight.ndim - 1))
    return levels.round().to(torch.int8), scale


class Int8Conv2d(nn.Module):
    """An nn.Conv2d in int8; takes and gives float32, or takes what is quantised already."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        _check_available()
        rounded, scale = _rounded(convolution.weight.detach(), _CONV_LEVELS[1])
        self.stride, self.padding = list(convolution.stride), list(map(int, convolution.padding))
        self.register_buffer("scale", scale)
        self.register_buffer("zeros", torch.zeros(len(scale), dtype=torch.int32))
        self.bias = convolution.bias
        self.packed = torch.ops.onednn.qconv_prepack(
            rounded, scale, 1.0, 0, self.stride, self.padding, [1, 1], 1, None
        )

    def forward(self, x: Tensor | Quantised) -> Tensor:
        """[B, outputs, h', w'] float32 of x [B, inputs, h, w]."""
        source = x if isinstance(x, Quantised) else quantise(x)
        result: Tensor = torch.ops.onednn.qconv_pointwise(
            source.data,
            source.scale,
            source.zero_point,
            self.packed,
            self.scale,
            self.zeros,
            self.bias,
            self.stride,
            self.padding,
            [1, 1],
            1,
            1.0,
            0,
            torch.float32,
            "none",
            [],
            "",
        )
        return result

    @staticmethod
    def is_worth_it(convolution: nn.Conv2d) -> bool:
        """Whether this convolution gains: enough channels, and all of them mixed."""
        plain = convolution.groups == 1 and convolution.dilation == (1, 1)
        simple = convolution.padding_mode == "zeros" and not isinstance(convolution.padding, str)
        channels = min(convolution.in_channels, convolution.out_channels)
        return plain and simple and channels >= _LEAST_CHANNELS


class Int8Linear(nn.Module):
    """An nn.Linear in int8; takes and gives float32."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        _check_available()
        rounded, scale = _rounded(linear.weight.detach(), _LINEAR_LEVELS[1])
        self.register_buffer("scale", scale)
        self.register_buffer("zeros", torch.zeros(len(scale), dtype=torch.int32))
        self.bias = linear.bias
        self.packed = torch.ops.onednn.qlinear_prepack(rounded, None)

    def forward(self, x: Tensor) -> Tensor:
        """[..., outputs] of x [..., inputs]."""
        result: Tensor = torch.ops.onednn.qlinear_pointwise(
            *_levels(x.contiguous(), _LINEAR_LEVELS[0]),
            self.packed,
            self.scale,
            self.zeros,
            self.bias,
            1.0,
            0,
            torch.float32,
            "none",
            [],
            "",
        )
        return result


def _check_available() -> None:
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.onednn, "qconv_pointwise"):
        raise ModelError(
            "precision: int8 needs a PyTorch built with oneDNN, this one is not: expected float32"
        )
