"""JPEG without the file: what OpenCV's libjpeg makes of the same image."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from hybriddepth_ros.simulation.jpeg import through_jpeg


def picture(height: int, width: int) -> np.ndarray:
    """[H, W, 3] uint8 with structure at all scales, like a photograph's."""
    rng = np.random.default_rng(3)
    image = np.zeros((height, width, 3), np.float32)
    for scale in (1, 2, 4, 8, 16):
        part = rng.standard_normal((-(-height // scale), -(-width // scale), 3)).astype(np.float32)
        image += scale * cv2.resize(part, (width, height), interpolation=cv2.INTER_CUBIC)
    return (128 + 5 * image).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("quality", [15, 50, 75, 95, 100])
@pytest.mark.parametrize("size", [(48, 64), (37, 51)])
def test_it_is_what_libjpeg_decodes(quality: int, size: tuple[int, int]) -> None:
    image = picture(*size)
    _, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    expected = cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1].astype(int)
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None]
    found = through_jpeg(tensor, torch.tensor([float(quality)]))[0].permute(1, 2, 0).numpy().astype(int)
    lost = np.abs(expected - image).mean()
    # libjpeg computes in integers, and mirrors differently beyond the rim.
    assert np.abs(found - expected).mean() < 0.3 * lost + 0.1
    assert abs(np.abs(found - image).mean() - lost) < 0.1 * lost + 0.05


def test_each_image_has_its_own_quality() -> None:
    image = torch.from_numpy(picture(32, 32)).permute(2, 0, 1)
    low, high = through_jpeg(torch.stack([image, image]), torch.tensor([10.0, 95.0]))
    assert torch.equal(low, through_jpeg(image[None], torch.tensor([10.0]))[0])
    assert float((low.float() - image).abs().mean()) > 2 * float((high.float() - image).abs().mean())
