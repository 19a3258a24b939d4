"""From rendered light to 8-bit slices, on the scene's device: what a camera and its processing do to them."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hybriddepth_ros.errors import ParameterError
from hybriddepth_ros.simulation.limits import require_within
from hybriddepth_ros.simulation.sensor import FULL_WELL_ELECTRONS, READ_NOISE_ELECTRONS, encode_srgb


@dataclass(frozen=True)
class Exposure:
    """How a stack is exposed and processed.

    gain [-]: of all slices; gain_jitter [-]: relative standard deviation of the gain between slices.
    full_well_electrons, read_noise_electrons [e-]: shot noise and read noise, without which both are None.
    gamma [-]: the encoding is light^(1 / gamma); None is that of sRGB.
    sharpening [-]: how much of the encoded image's difference to its blur (Gaussian, sigma 1 px) is added.
    jpeg_quality: 1 to 100; None does not compress. OpenCV does it, so the slices pass through the CPU.
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
    gain = torch.randn(len(linear), 1, 1, 1, generator=generator, device=linear.device)
    light = linear * (exposure.gain * (1.0 + exposure.gain_jitter * gain)).clamp(min=0.0)
    full_well, read_noise = exposure.full_well_electrons, exposure.read_noise_electrons
    if full_well is not None and read_noise is not None:
        # The normal limit of the Poisson law, as in `develop`.
        variance = light / full_well + (read_noise / full_well) ** 2
        noise = torch.randn(light.shape, generator=generator, device=light.device)
        light = light + variance.sqrt_() * noise
    light = light.clamp(0.0, 1.0)
    encoded = encode_srgb(light) if exposure.gamma is None else light ** (1.0 / exposure.gamma)
    if exposure.sharpening:
        encoded = encoded + exposure.sharpening * (encoded - _gaussian_blur(encoded))
    stack = (encoded * 255.0).round_().clamp_(0.0, 255.0).to(torch.uint8)
    return stack if exposure.jpeg_quality is None else _through_jpeg(stack, int(exposure.jpeg_quality))


def _gaussian_blur(images: Tensor, sigma_px: float = 1.0, reach: int = 3) -> Tensor:
    """images [N, 3, H, W], blurred with replicated borders."""
    at = torch.arange(-reach, reach + 1, device=images.device)
    kernel = torch.exp(-0.5 * (at / sigma_px) ** 2)
    kernel = (kernel / kernel.sum()).to(images)
    flat = F.pad(images.flatten(0, 1)[:, None], (reach,) * 4, mode="replicate")
    blurred = F.conv2d(F.conv2d(flat, kernel[None, None, None]), kernel[None, None, :, None])
    return blurred.view(images.shape)


def _through_jpeg(stack: Tensor, quality: int) -> Tensor:
    slices = []
    for image in stack.permute(0, 2, 3, 1).flip(-1).cpu().numpy():  # OpenCV has blue first
        _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
        slices.append(np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8))
    return torch.from_numpy(np.stack(slices)).to(stack.device).flip(-1).permute(0, 3, 1, 2).contiguous()
