"""What JPEG makes of an image, on the image's device: all of it but the entropy coding, which loses nothing.

Baseline JPEG as cameras and libjpeg write it (ITU-T T.81, JFIF): YCbCr, colour at half the resolution, the
example tables of annex K scaled by the quality.
"""

from __future__ import annotations

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

_BLOCK = 8
_LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMINANCE = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)
_RED, _BLUE = 0.299, 0.114  # of luminance


def through_jpeg(images: Tensor, quality: Tensor) -> Tensor:
    """uint8 [N, 3, H, W], RGB: images [N, 3, H, W], decoded again; quality [N] 1..100, as libjpeg has it."""
    height, width = images.shape[-2:]
    padding = (0, -width % (2 * _BLOCK), 0, -height % (2 * _BLOCK))
    red, green, blue = F.pad(images.float(), padding, mode="replicate").unbind(dim=1)
    luminance = _RED * red + (1.0 - _RED - _BLUE) * green + _BLUE * blue
    color = torch.stack(
        [(blue - luminance) / (2.0 - 2.0 * _BLUE), (red - luminance) / (2.0 - 2.0 * _RED)], dim=1
    )
    light = _quantised(luminance[:, None] - 128.0, _scaled(_LUMINANCE, quality)) + 128.0
    color = _quantised(F.avg_pool2d(color, 2), _scaled(_CHROMINANCE, quality))
    color = F.interpolate(color.clamp(-128.0, 127.0), scale_factor=2.0, mode="bilinear")
    light = light[:, 0].clamp(0.0, 255.0)
    blue = light + (2.0 - 2.0 * _BLUE) * color[:, 0]
    red = light + (2.0 - 2.0 * _RED) * color[:, 1]
    green = (light - _RED * red - _BLUE * blue) / (1.0 - _RED - _BLUE)
    decoded = torch.stack([red, green, blue], dim=1).round_().clamp_(0.0, 255.0)
    return decoded[..., :height, :width].to(torch.uint8)


def _quantised(planes: Tensor, table: Tensor) -> Tensor:
    """planes [N, C, H, W], every block of 8x8 rounded to multiples of table [N, 8, 8] in frequency."""
    count, channels, height, width = planes.shape
    cosines = _cosines().to(planes)
    blocks = planes.view(count, channels, height // _BLOCK, _BLOCK, width // _BLOCK, _BLOCK).transpose(3, 4)
    steps = table[:, None, None, None]
    levels = ((cosines @ blocks @ cosines.T) / steps).round()
    return (cosines.T @ (levels * steps) @ cosines).transpose(3, 4).reshape(planes.shape)


def _scaled(table: tuple[tuple[int, ...], ...], quality: Tensor) -> Tensor:
    """[N, 8, 8] of a table of quality 50."""
    percent = torch.where(quality < 50, (5000.0 / quality).floor(), 200.0 - 2.0 * quality)[:, None, None]
    steps = ((torch.tensor(table, device=quality.device) * percent + 50.0) / 100.0).floor()
    return steps.clamp(1.0, 255.0)


@functools.cache
def _cosines() -> Tensor:
    """The orthonormal DCT-II of 8 samples, a row per frequency."""
    at = torch.arange(_BLOCK)
    rows = torch.cos((2 * at[None] + 1) * at[:, None] * (math.pi / (2 * _BLOCK))) * math.sqrt(2.0 / _BLOCK)
    rows[0] /= math.sqrt(2.0)
    return rows
