"""From rendered light to 8-bit slices, on the scene's device: what a camera and its processing do to them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from hybriddepth_ros.errors import ParameterError
from hybriddepth_ros.simulation.jpeg import through_jpeg
from hybriddepth_ros.simulation.limits import require_within
from hybriddepth_ros.simulation.sensor import FULL_WELL_ELECTRONS, READ_NOISE_ELECTRONS, encode_srgb


@dataclass(frozen=True)
class Exposure:
    """How a stack is exposed and processed.

    gain [-]: of all slices; gain_jitter [-]: relative standard deviation of the gain between slices.
    full_well_electrons, read_noise_electrons [e-]: shot noise and read noise, without which both are None.
    gamma [-]: the encoding is light^(1 / gamma); None is that of sRGB.
    sharpening [-]: how much of the encoded image's difference to its blur (Gaussian, sigma 1 px) is added.
    jpeg_quality: 1 to 100; None does not compress.
    """

    gain: float = 1.0
    gain_jitter: float = 0.0
    full_well_electrons: float | None = FULL_WELL_ELECTRONS
    read_noise_electrons: float | None = READ_NOISE_ELECTRONS
    gamma: float | None = None
    sharpening: float = 0.0
    jpeg_quality: int | None = None

    def __post_init__(self) -> None:
        require_within("gain", self.gain, 0.0, 100.0)
        require_within("gain_jitter", self.gain_jitter, 0.0, 0.5)
        if (self.full_well_electrons is None) != (self.read_noise_electrons is None):
            raise ParameterError("full_well_electrons, read_noise_electrons: expected both or neither")
        if self.full_well_electrons is not None and self.read_noise_electrons is not None:
            require_within("full_well_electrons", self.full_well_electrons, 10.0, 1e7)
            require_within("read_noise_electrons", self.read_noise_electrons, 0.0, 1e4)
        if self.gamma is not None:
            require_within("gamma", self.gamma, 1.0, 4.0)
        require_within("sharpening", self.sharpening, 0.0, 4.0)
        if self.jpeg_quality is not None:
            require_within("jpeg_quality", self.jpeg_quality, 1, 100)


@torch.no_grad()
def develop_stack(linear: Tensor, exposure: Exposure, generator: torch.Generator) -> Tensor:
    """uint8 [N, 3, H, W] of linear light [N, 3, H, W]; `generator` is on the same device."""
    return develop_stacks(linear[None], [exposure], generator)[0]


@torch.no_grad()
def develop_stacks(linear: Tensor, exposures: Sequence[Exposure], generator: torch.Generator) -> Tensor:
    """uint8 [B, N, 3, H, W] of linear light [B, N, 3, H, W], each stack with its own of B exposures."""

    def of_stacks(values: Iterable[float]) -> Tensor:
        """[B, 1, 1, 1, 1]"""
        return torch.tensor(list(values), dtype=torch.float32).to(linear.device)[:, None, None, None, None]

    jitter = torch.randn(*linear.shape[:2], 1, 1, 1, generator=generator, device=linear.device)
    gain = of_stacks(e.gain for e in exposures)
    light = linear * (gain * (1.0 + of_stacks(e.gain_jitter for e in exposures) * jitter)).clamp(min=0.0)
    if any(e.full_well_electrons for e in exposures):
        # The normal limit of the Poisson law, as in `develop`.
        shot = of_stacks(1.0 / (e.full_well_electrons or math.inf) for e in exposures)
        read = of_stacks((e.read_noise_electrons or 0.0) for e in exposures) * shot
        noise = torch.randn(light.shape, generator=generator, device=light.device)
        light = light + (light * shot + read**2).sqrt_() * noise
    light = light.clamp_(0.0, 1.0)
    encoded = light ** of_stacks(1.0 / (e.gamma or 1.0) for e in exposures)
    srgb = [index for index, exposure in enumerate(exposures) if exposure.gamma is None]
    if srgb:
        encoded[srgb] = encode_srgb(light[srgb])
    if any(e.sharpening for e in exposures):
        sharpening = of_stacks(e.sharpening for e in exposures)
        encoded = encoded + sharpening * (encoded - gaussian_blur(encoded, sigma_px=1.0, reach=3))
    stacks = (encoded * 255.0).round_().clamp_(0.0, 255.0).to(torch.uint8)
    compressed = [index for index, exposure in enumerate(exposures) if exposure.jpeg_quality]
    if compressed:
        quality = of_stacks(e.jpeg_quality for e in exposures if e.jpeg_quality).flatten()
        slices = stacks[compressed].flatten(0, 1)
        decoded = through_jpeg(slices, quality.repeat_interleave(stacks.shape[1]))
        stacks[compressed] = decoded.unflatten(0, (len(compressed), -1))
    return stacks


def gaussian_blur(images: Tensor, sigma_px: float, reach: int) -> Tensor:
    """images [..., H, W], blurred with replicated borders by a kernel of 2 reach + 1 pixels."""
    at = torch.arange(-reach, reach + 1, device=images.device)
    kernel = torch.exp(-0.5 * (at / sigma_px) ** 2)
    kernel = (kernel / kernel.sum()).to(images)
    flat = F.pad(images.flatten(0, -3)[:, None], (reach,) * 4, mode="replicate")
    blurred = F.conv2d(F.conv2d(flat, kernel[None, None, None]), kernel[None, None, :, None])
    return blurred.view(images.shape)
