"""CrossDepth: equal to the published fusion, with memory that grows as the image does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from hybriddepth_ros.errors import ModelError
from hybriddepth_ros.models import CrossAttentionFusion, CrossDepth
from hybriddepth_ros.models.crossdepth import Attention, PaperCrossAttentionFusion
from tests.models.conftest import NETWORK_FIXTURES, made_stack, with_plain_prior
from tests.published_weights import load_fixture

REPOSITORY = Path(__file__).resolve().parents[2]
FOCUS = torch.tensor([[0.35, 0.5, 0.9, 1.33, 2.21]])


@pytest.mark.parametrize("name", NETWORK_FIXTURES)
@pytest.mark.parametrize("mode", ["inv1", "inv0"])
def test_published_fusion(fusion: CrossAttentionFusion, name: str, mode: str) -> None:
    network, stored = load_fixture(name), load_fixture(name.replace("net_", "crossdepth_"))
    relative = network["inv1_rel_used" if mode == "inv1" else "rel_raw"]
    maps = (network["dff_pred"], relative, network["dff_std"])
    unclamped = fusion.unclamped(*maps)
    torch.testing.assert_close(unclamped, stored[f"{mode}_unclamped"], rtol=0.0, atol=2e-5)
    depth = unclamped.clamp(*fusion.depth_range)
    torch.testing.assert_close(depth, stored[f"{mode}_depth"], rtol=0.0, atol=2e-5)
    assert bool(((unclamped < 0.02) | (unclamped > 0.5)).any())  # so that the clamp is tested


@pytest.mark.parametrize("mode", ["inv1", "inv0"])
def test_published_tokens_after_every_block(fusion: CrossAttentionFusion, mode: str) -> None:
    network, stored = load_fixture("net_b2_5x96x128"), load_fixture("crossdepth_b2_5x96x128")
    relative = network["inv1_rel_used" if mode == "inv1" else "rel_raw"]
    stages = fusion.tokens(network["dff_pred"], relative, network["dff_std"])
    for stage, branches in zip(("embed", "block0", "block1"), stages, strict=True):
        for branch, tokens in zip("dr", branches, strict=True):
            expected = stored[f"{mode}_tok_{branch}_{stage}"]
            torch.testing.assert_close(tokens, expected, rtol=0.0, atol=5e-5)


def test_the_whole_model_is_its_parts_in_a_row(crossdepth: CrossDepth) -> None:
    stored = {name: tensor[:1] for name, tensor in load_fixture("net_b2_5x96x128").items()}
    expected = {
        name: tensor[:1] for name, tensor in load_fixture("crossdepth_b2_5x96x128").items() if tensor.ndim
    }
    out = crossdepth(stored["rgb"], stored["stack"], stored["focus_dist"])
    torch.testing.assert_close(out.depth, expected["inv1_depth"], rtol=1e-4, atol=2e-4)
    torch.testing.assert_close(out.relative, stored["rel_raw"], rtol=0.0, atol=5e-5)
    torch.testing.assert_close(out.relative_used, stored["inv1_rel_used"], rtol=0.0, atol=2e-5)
    torch.testing.assert_close(out.focus_depth, stored["dff_pred"], rtol=0.0, atol=5e-5)
    torch.testing.assert_close(out.focus_std, stored["dff_std"], rtol=1e-4, atol=2e-5)
    torch.testing.assert_close(out.focus_probability, stored["dff_prob"], rtol=1e-4, atol=2e-5)


def test_a_batch_of_four_runs_and_each_sample_stands_for_itself(crossdepth: CrossDepth) -> None:
    model = with_plain_prior(crossdepth)
    stack, rgb = made_stack(4, 3, 64, 64), torch.rand(4, 3, 64, 64)
    focus = FOCUS[:, :3].expand(4, 3)
    together = model(rgb, stack, focus)
    alone = model(rgb[2:3], stack[2:3], focus[2:3])
    torch.testing.assert_close(together.depth[2:3], alone.depth, rtol=1e-4, atol=1e-4)


def test_missing_pixels_and_constant_images_give_finite_depth(crossdepth: CrossDepth) -> None:
    rgb, stack = torch.full((2, 3, 64, 64), 0.5), torch.zeros(2, 5, 3, 64, 64)
    rgb[0, :, 20, 20] = float("nan")
    stack[0, 2, :, 30:34, 10] = float("nan")
    out = with_plain_prior(crossdepth)(rgb, stack, FOCUS.expand(2, 5))
    for name in ("depth", "relative", "focus_depth", "focus_std"):
        assert bool(torch.isfinite(getattr(out, name)).all()), name
    assert float(out.focus_std[1].median()) > 0.1 * float(FOCUS.max() - FOCUS.min())  # nothing to see


@pytest.mark.parametrize("value", [0.0, -1.0, 1e-30])
def test_relative_depth_that_has_no_inverse_counts_as_zero(crossdepth: CrossDepth, value: float) -> None:
    model = with_plain_prior(crossdepth)
    prior = model._modules["relative_depth"]
    prior.register_forward_hook(lambda _, __, relative: relative[..., :8].fill_(value) is None or relative)
    out = model(torch.rand(1, 3, 64, 64), made_stack(1, 3, 64, 64), FOCUS[:, :3])
    assert bool((out.relative[..., :8] == value).all())
    assert bool((out.relative_used[..., :8] == 0.0).all()) and bool((out.relative_used[..., 8:] > 0.0).all())
    assert bool(torch.isfinite(out.depth).all())


def test_attention_is_that_of_the_full_matrix() -> None:
    attention = Attention()
    x, other = torch.randn(2, 50, 32), torch.randn(2, 70, 32)
    wq, wk, wv = attention.in_proj_weight.chunk(3)
    bq, bk, bv = attention.in_proj_bias.chunk(3)
    heads = []
    for head in range(4):
        channels = slice(8 * head, 8 * head + 8)
        q, k, v = (
            F.linear(t, w, b)[..., channels] for t, w, b in ((x, wq, bq), (other, wk, bk), (other, wv, bv))
        )
        heads.append((q @ k.transpose(1, 2) / 8**0.5).softmax(dim=-1) @ v)
    expected = attention.out_proj(torch.cat(heads, dim=-1))
    torch.testing.assert_close(attention(x, other), expected)


@pytest.mark.parametrize(("height", "width"), [(50, 70), (7, 3), (64, 66)])
def test_any_size_comes_back_in_full(fusion: CrossAttentionFusion, height: int, width: int) -> None:
    maps = [0.5 + torch.rand(2, 1, height, width) for _ in range(3)]
    depth = fusion(*maps)
    assert depth.shape == (2, 1, height, width)
    assert bool(((depth >= 0.02) & (depth <= 0.5)).all())


@pytest.mark.parametrize(("height", "width"), [(50, 70), (7, 9)])
def test_padding_inside_is_padding_outside_by_reflection(
    fusion: CrossAttentionFusion, height: int, width: int
) -> None:
    maps = [0.5 + torch.rand(1, 1, height, width) for _ in range(3)]
    outside = [F.pad(m, (0, -width % 4, 0, -height % 4), mode="reflect") for m in maps]
    expected = fusion.unclamped(*outside)[..., :height, :width]
    torch.testing.assert_close(fusion.unclamped(*maps), expected)


def test_the_range_is_a_parameter() -> None:
    metres = CrossAttentionFusion(depth_range=(0.1, 10.0))
    torch.nn.init.constant_(metres.decoder[3].bias, 100.0)  # type: ignore[arg-type, union-attr]
    assert float(metres(*[torch.rand(1, 1, 16, 16) for _ in range(3)]).max()) == 10.0


def test_maps_that_do_not_fit_are_refused(fusion: CrossAttentionFusion) -> None:
    one = torch.rand(1, 1, 16, 16)
    with pytest.raises(ModelError, match=r"relative: expected \[1, 1, 16, 16\] like focus_depth"):
        fusion(one, torch.rand(1, 1, 16, 20), one)
    with pytest.raises(ModelError, match=r"focus_depth: expected \[B, 1, H, W\], got \[16, 16\]"):
        fusion(one[0, 0], one, one)


def test_an_unknown_fusion_is_refused() -> None:
    with torch.device("meta"), pytest.raises(ModelError, match="fusion: expected published or paper"):
        CrossDepth(fusion="dense")


def test_the_papers_fusion_learns_and_knows_positions() -> None:
    torch.manual_seed(0)
    network = PaperCrossAttentionFusion(depth_range=(-10.0, 10.0))
    maps = [torch.ones(1, 1, 36, 50) for _ in range(3)]
    with torch.enable_grad():
        depth = network(*maps)
        depth.square().sum().backward()
    assert depth.shape == (1, 1, 36, 50)
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in network.parameters())
    interior = depth[..., 8:-8, 8:-8].detach()
    assert float(interior.std()) > 0.0  # of a constant input the published network makes a constant interior


def test_without_positions_the_published_fusion_is_constant_on_constant_maps(
    fusion: CrossAttentionFusion,
) -> None:
    interior = fusion.unclamped(*[torch.ones(1, 1, 36, 48) for _ in range(3)])[..., 8:-8, 8:-8]
    assert float(interior.std()) < 1e-6


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_hold_an_attention_matrix() -> None:
    command = [sys.executable, "benchmarks/crossdepth_memory.py", "--one", "240", "320"]
    finished = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    peak, before, _ = (float(word) for word in finished.stdout.split())
    assert peak - before < 150.0  # MB; one dense attention over these 4,800 tokens takes 370
