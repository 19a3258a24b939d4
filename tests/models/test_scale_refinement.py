"""EfficientNet-Lite3, the fusion decoder, and both together."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from hybriddepth_ros.models import HybridDepth
from hybriddepth_ros.models.efficientnet import EfficientNetLite3, SameConv2d
from hybriddepth_ros.models.scale_refinement import Fusion, ScaleRefinement
from tests.models.conftest import NETWORK_FIXTURES
from tests.published_weights import load_fixture


@pytest.mark.parametrize("name", NETWORK_FIXTURES)
@pytest.mark.parametrize("mode", ["inv1", "inv0"])
def test_published_refinement_of_the_stored_inputs(hybriddepth: HybridDepth, name: str, mode: str) -> None:
    stored = load_fixture(name)
    refined = hybriddepth.scale_refinement(
        stored[f"{mode}_global_depth"], stored[f"{mode}_scale_map"], stored["dff_std"]
    )
    torch.testing.assert_close(refined, stored[f"{mode}_refined_scales"], rtol=0.0, atol=5e-5)


def test_the_encoder_has_the_published_size_and_levels() -> None:
    encoder = EfficientNetLite3().eval()
    assert sum(p.numel() for p in encoder.parameters()) == 6_422_016
    shapes = [tuple(level.shape) for level in encoder(torch.rand(1, 3, 64, 96))]
    assert shapes == [(1, 32, 16, 24), (1, 48, 8, 12), (1, 136, 4, 6), (1, 384, 2, 3)]


@pytest.mark.parametrize("size", [8, 9, 10, 11])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2)])
def test_same_padding_puts_the_odd_pixel_right_and_below(size: int, kernel: int, stride: int) -> None:
    conv = SameConv2d(2, 4, kernel, stride=stride)
    x = torch.rand(1, 2, size, size)
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    before, after = total // 2, total - total // 2
    expected = F.conv2d(F.pad(x, (before, after, before, after)), conv.weight, stride=stride)
    assert expected.shape[-1] == -(-size // stride)
    torch.testing.assert_close(conv(x), expected)


def test_projecting_before_resizing_changes_nothing() -> None:
    fusion = Fusion(8, 4).eval()
    level, coarser = torch.randn(2, 1, 8, 6, 10)
    assert fusion.resConfUnit1 is not None
    refined = fusion.resConfUnit2(fusion.resConfUnit1(level) + coarser)
    resized = F.interpolate(refined, scale_factor=2.0, mode="bilinear", align_corners=True)
    torch.testing.assert_close(fusion(level, coarser), fusion.out_conv(resized), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(70, 100), (33, 32), (10, 50)])
def test_any_size_is_padded_by_reflection_and_cropped(
    hybriddepth: HybridDepth, height: int, width: int
) -> None:
    refinement: ScaleRefinement = hybriddepth.scale_refinement
    maps = [0.5 + torch.rand(2, 1, height, width) for _ in range(3)]
    padded = [
        F.pad(m, (0, -width % 32, 0, -height % 32), mode="reflect") if height > 22 else None for m in maps
    ]
    refined = refinement(*maps)
    assert refined.shape == (2, 1, height, width) and bool(torch.isfinite(refined).all())
    assert float(refined.min()) >= 0.0
    if height > 22:
        torch.testing.assert_close(refined, refinement(*padded)[..., :height, :width])
