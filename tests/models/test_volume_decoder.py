"""The decoders of DFV: 3-D convolutions made of 2-D ones are PyTorch's 3-D convolutions."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from hybriddepth_ros.models.volume_decoder import VolumeConv, as_batch, as_volume


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize(("batch", "slices"), [(1, 5), (3, 2), (2, 1)])
def test_a_volume_convolution_is_a_3d_convolution(kernel: int, batch: int, slices: int) -> None:
    generator = torch.Generator().manual_seed(0)
    volume = torch.randn(batch, 4, slices, 7, 6, generator=generator)
    convolution = VolumeConv(4, 3, kernel, bias=True)
    expected = F.conv3d(volume, convolution.weight, convolution.bias, padding=kernel // 2)
    result = as_volume(convolution(as_batch(volume), slices), slices)
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)


def test_a_volume_convolution_has_the_gradients_of_a_3d_convolution() -> None:
    with torch.enable_grad():
        volume = torch.randn(2, 4, 3, 6, 5, requires_grad=True)
        convolution = VolumeConv(4, 3, 3)
        seen = (volume, convolution.weight)
        probe = torch.randn(2, 3, 3, 6, 5)
        ours = torch.autograd.grad((as_volume(convolution(as_batch(volume), 3), 3) * probe).sum(), seen)
        theirs = torch.autograd.grad((F.conv3d(volume, convolution.weight, padding=1) * probe).sum(), seen)
    for mine, published in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, published, rtol=1e-4, atol=1e-5)
