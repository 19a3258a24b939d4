"""CrossDepth (Yan, Gongye): focus and prior, fused by self- and cross-attention between two token grids.

What the authors published and what their paper describes differ. `CrossAttentionFusion` is the published
network; `PaperCrossAttentionFusion` is the paper's. Attributes of the first carry the names of its
checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybriddepth_ros.errors import ModelError
from hybriddepth_ros.models.focal_volume import FocalVolume
from hybriddepth_ros.models.hybriddepth import invert
from hybriddepth_ros.models.inputs import check_inputs, fill_missing, pad_to_multiple
from hybriddepth_ros.models.published import PublishedLayout, load_published, without_part_prefix
from hybriddepth_ros.models.relative_depth import RelativeDepth

PATCH = 4  # pixels per token and axis
WIDTH = 32
HEADS = 4
HIDDEN = 128  # of the feed-forward networks
BLOCKS = 2
DEPTH_RANGE = (0.02, 0.5)  # suits the disparities of DDFF12, for which it was published
TRAINED_GRID = (56, 56)  # tokens of a 224 x 224 crop, on which the authors trained


@dataclass(frozen=True)
class CrossDepthOutput:
    """Every stage's result; all [B, 1, H, W] unless said, lengths in the unit of the focus distances.

    depth: the answer; relative: the prior, inverse depth of unknown scale and shift, large = near;
    relative_used: what was fused, `relative` or its inverse; focus_depth, focus_std, focus_probability
    [B, N, H, W]: from the focal stack.
    """

    depth: Tensor
    relative: Tensor
    relative_used: Tensor
    focus_depth: Tensor
    focus_std: Tensor
    focus_probability: Tensor


class CrossDepth(nn.Module):
    """The prior and the focal volume of HybridDepth, fused by attention.

    invert_depth, slice_order, relative, guard_relative: as for HybridDepth. fusion: `published`, or `paper`
    for the network as the paper describes it, of which no weights exist. depth_range: bounds of the result.

    As in the published training, prior and focal volume are frozen: in evaluation mode, without gradients.
    """

    def __init__(
        self,
        invert_depth: bool = False,
        *,
        fusion: str = "published",
        depth_range: tuple[float, float] = DEPTH_RANGE,
        slice_order: str = "rising",
        relative: str = "v1-small",
        guard_relative: bool = True,
    ) -> None:
        super().__init__()
        if fusion not in ("published", "paper"):
            raise ModelError(f"fusion: expected published or paper, got {fusion!r}")
        self.invert_depth = invert_depth
        self.guard_relative = guard_relative
        self.relative_depth = RelativeDepth(relative).requires_grad_(False)
        self.focal_volume = FocalVolume(slice_order).requires_grad_(False)
        network = CrossAttentionFusion if fusion == "published" else PaperCrossAttentionFusion
        self.depth_fusion = network(depth_range)

    def forward(self, rgb: Tensor, stack: Tensor, focus_distances: Tensor) -> CrossDepthOutput:
        """Depth of rgb [B, 3, H, W] 0..1, normalised stack [B, N, 3, H, W] and focus_distances [B, N]."""
        check_inputs(rgb, stack, focus_distances)
        relative = self.relative_depth(fill_missing(rgb, dim=(2, 3)))
        focus = self.focal_volume(stack, focus_distances)
        relative_used = invert(relative, self.guard_relative) if self.invert_depth else relative
        return CrossDepthOutput(
            depth=self.depth_fusion(focus.depth, relative_used, focus.std),
            relative=relative,
            relative_used=relative_used,
            focus_depth=focus.depth,
            focus_std=focus.std,
            focus_probability=focus.probability,
        )

    def train(self, mode: bool = True) -> CrossDepth:
        """As nn.Module's, but the frozen parts stay in evaluation mode."""
        super().train(mode)
        self.relative_depth.eval()
        self.focal_volume.eval()
        return self

    def published_layout(self) -> PublishedLayout:
        """The 731 published names (prior `v1-small`, fusion `published`) and what takes them."""
        return (
            self.relative_depth.published_layout().under("depth_anything.")
            | self.focal_volume.published_layout().under("DFF_model.")
            | PublishedLayout.of(self.depth_fusion).under("depth_fusion.")
        )

    def load_published(self, state_dict: Mapping[str, Any]) -> None:
        """Take a published checkpoint; WeightsError if any name is missing, unknown or of another shape."""
        load_published(self.published_layout(), state_dict, "CrossDepth")


class CrossAttentionFusion(nn.Module):
    """The published fusion: positions enter through the grid alone, and both branches query each other.

    depth_range: bounds of the result. A pixel at a bound has no gradient, so a fresh network whose results
    start outside does not learn: pass the range of your unit.
    """

    def __init__(self, depth_range: tuple[float, float] = DEPTH_RANGE) -> None:
        super().__init__()
        self.depth_range = depth_range
        self.embed_d = PatchEmbedding()
        self.embed_rgb = PatchEmbedding()
        self.blocks = nn.ModuleList(MutualAttentionBlock() for _ in range(BLOCKS))
        self.decoder = nn.Sequential(
            nn.Upsample(scale_factor=PATCH, mode="bilinear", align_corners=False),
            nn.Conv2d(2 * WIDTH, 2 * WIDTH, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(2 * WIDTH, 1, 3, padding=1),
            nn.AvgPool2d(3, stride=1, padding=1),  # by 9 at the rim too, which pulls it towards 0
        )

    def forward(self, focus_depth: Tensor, relative: Tensor, focus_std: Tensor) -> Tensor:
        """Depth [B, 1, H, W] within `depth_range`; each input [B, 1, H, W], sides of any length."""
        low, high = self.depth_range
        return self.unclamped(focus_depth, relative, focus_std).clamp(low, high)

    def unclamped(self, focus_depth: Tensor, relative: Tensor, focus_std: Tensor) -> Tensor:
        """What `forward` clamps [B, 1, H, W]."""
        check_maps(focus_depth, relative, focus_std)
        height, width = focus_depth.shape[-2:]
        maps = [pad_to_multiple(image, PATCH) for image in (focus_depth, relative, focus_std)]
        d, r = self.tokens(*maps)[-1]
        grid = (maps[0].shape[-2] // PATCH, maps[0].shape[-1] // PATCH)
        features = torch.cat([as_grid(d, grid), as_grid(r, grid)], dim=1)  # [B, 64, H'/4, W'/4]
        depth: Tensor = self.decoder(features)
        return depth[..., :height, :width]

    def tokens(self, focus_depth: Tensor, relative: Tensor, focus_std: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Tokens of the focus and of the prior [B, T, 32]: embedded, then after each block."""
        d = self.embed_d(torch.cat([focus_depth, focus_std], dim=1))
        r = self.embed_rgb(torch.cat([relative, focus_std], dim=1))
        stages = [(d, r)]
        for block in self.blocks:
            stages.append(block(*stages[-1]))
        return stages

    def load_published(self, state_dict: Mapping[str, Any]) -> None:
        """Take the weights of the fusion by itself (names with or without `depth_fusion.`)."""
        entries = without_part_prefix(state_dict, "depth_fusion.")
        load_published(PublishedLayout.of(self), entries, "CrossAttentionFusion")


class PaperCrossAttentionFusion(nn.Module):
    """The fusion as the paper describes it; where it is silent, as published.

    Unlike the published network it has learned positions in each branch, attention across in one direction
    (the prior asks, the focus answers), and a feed-forward network over both branches before the decoder.
    """

    def __init__(self, depth_range: tuple[float, float] = DEPTH_RANGE) -> None:
        super().__init__()
        self.depth_range = depth_range
        self.embed_focus = PatchEmbedding()
        self.embed_prior = PatchEmbedding()
        self.focus_positions = nn.Parameter(0.02 * torch.randn(1, WIDTH, *TRAINED_GRID))
        self.prior_positions = nn.Parameter(0.02 * torch.randn(1, WIDTH, *TRAINED_GRID))
        self.focus_self = nn.ModuleList(EncoderLayer() for _ in range(BLOCKS))
        self.prior_self = nn.ModuleList(EncoderLayer() for _ in range(BLOCKS))
        self.prior_cross = nn.ModuleList(CrossAttention() for _ in range(BLOCKS))
        self.shared = nn.Sequential(
            nn.Linear(2 * WIDTH, HIDDEN), nn.ReLU(inplace=True), nn.Linear(HIDDEN, 2 * WIDTH)
        )
        self.decoder = nn.Sequential(
            nn.Upsample(scale_factor=PATCH, mode="bilinear", align_corners=False),
            nn.Conv2d(2 * WIDTH, WIDTH, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(WIDTH, 1, 3, padding=1),
        )

    def forward(self, focus_depth: Tensor, relative: Tensor, focus_std: Tensor) -> Tensor:
        """Depth [B, 1, H, W] within `depth_range`; each input [B, 1, H, W], sides of any length."""
        check_maps(focus_depth, relative, focus_std)
        height, width = focus_depth.shape[-2:]
        focus, prior, std = (pad_to_multiple(m, PATCH) for m in (focus_depth, relative, focus_std))
        grid = (focus.shape[-2] // PATCH, focus.shape[-1] // PATCH)
        d = self.embed_focus(torch.cat([focus, std], dim=1)) + positions(self.focus_positions, grid)
        r = self.embed_prior(torch.cat([prior, std], dim=1)) + positions(self.prior_positions, grid)
        for focus_self, prior_self, cross in zip(
            self.focus_self, self.prior_self, self.prior_cross, strict=True
        ):
            d = focus_self(d)
            r = cross(prior_self(r), d)
        both = torch.cat([d, r], dim=-1)  # [B, T, 64]
        depth: Tensor = self.decoder(as_grid(both + self.shared(both), grid))
        low, high = self.depth_range
        return depth[..., :height, :width].clamp(low, high)


class PatchEmbedding(nn.Module):
    """One token per 4x4 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Conv2d(2, WIDTH, PATCH, stride=PATCH)

    def forward(self, maps: Tensor) -> Tensor:
        """Tokens [B, T, 32], row by row, of maps [B, 2, H, W]."""
        return self.proj(maps).flatten(2).transpose(1, 2)


class MutualAttentionBlock(nn.Module):
    """Each branch attends to itself; the focus then to the prior, and the prior to the updated focus."""

    def __init__(self) -> None:
        super().__init__()
        self.self_d = EncoderLayer()
        self.self_rgb = EncoderLayer()
        self.cross_d = CrossAttention()
        self.cross_rgb = CrossAttention()

    def forward(self, d: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
        """New tokens of both branches, of d, r [B, T, 32]."""
        d, r = self.self_d(d), self.self_rgb(r)
        d = self.cross_d(d, r)
        return d, self.cross_rgb(r, d)


class EncoderLayer(nn.Module):
    """Self-attention and a feed-forward network, each normalised after its residual."""

    def __init__(self) -> None:
        super().__init__()
        self.attn = Attention()
        self.norm1 = nn.LayerNorm(WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, HIDDEN), nn.ReLU(inplace=True), nn.Linear(HIDDEN, WIDTH))
        self.norm2 = nn.LayerNorm(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, 32] of x [B, T, 32]."""
        x = self.norm1(x + self.attn(x, x))
        result: Tensor = self.norm2(x + self.mlp(x))
        return result


class CrossAttention(nn.Module):
    """Attention to the other branch, normalised after its residual; no feed-forward network."""

    def __init__(self) -> None:
        super().__init__()
        self.attn = Attention()
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        """[B, T, 32] of x, other [B, T, 32]."""
        result: Tensor = self.norm(x + self.attn(x, other))
        return result


class Attention(nn.Module):
    """Multi-head attention that never stores its T x T matrix: 5.9 GB at 480 x 640, where T is 19,200."""

    def __init__(self) -> None:
        super().__init__()
        self.in_proj_weight = nn.Parameter(torch.empty(3 * WIDTH, WIDTH))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * WIDTH))
        self.out_proj = nn.Linear(WIDTH, WIDTH)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        """What x [B, T, 32] asks of other [B, U, 32]: [B, T, 32]."""
        wq, wkv = self.in_proj_weight.split((WIDTH, 2 * WIDTH))
        bq, bkv = self.in_proj_bias.split((WIDTH, 2 * WIDTH))
        query = F.linear(x, wq, bq)
        key, value = F.linear(other, wkv, bkv).chunk(2, dim=-1)
        q, k, v = (t.unflatten(-1, (HEADS, -1)).transpose(1, 2) for t in (query, key, value))  # [B, 4, T, 8]
        if x.device.type == "cpu":  # PyTorch takes 22 % less time for 16 channels than for 8
            q, k, v = (F.pad(head, (0, head.shape[-1])) for head in (q, k, v))
        attended = F.scaled_dot_product_attention(q, k, v, scale=(WIDTH // HEADS) ** -0.5)
        result: Tensor = self.out_proj(attended[..., : WIDTH // HEADS].transpose(1, 2).flatten(2))
        return result


def check_maps(focus_depth: Tensor, relative: Tensor, focus_std: Tensor) -> None:
    """ModelError unless all three are [B, 1, H, W]."""
    shape = focus_depth.shape
    if len(shape) != 4 or shape[1] != 1 or 0 in shape:
        raise ModelError(f"focus_depth: expected [B, 1, H, W], got {list(shape)}")
    for name, image in (("relative", relative), ("focus_std", focus_std)):
        if image.shape != shape:
            raise ModelError(f"{name}: expected {list(shape)} like focus_depth, got {list(image.shape)}")


def as_grid(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """[B, C, *grid] of tokens [B, T, C]."""
    return tokens.transpose(1, 2).unflatten(2, grid)


def positions(trained: Tensor, grid: tuple[int, int]) -> Tensor:
    """Learned positions [1, T, C] for a grid, interpolated from those of the trained grid [1, C, h, w]."""
    if trained.shape[-2:] != grid:
        trained = F.interpolate(trained, grid, mode="bicubic", align_corners=False)
    return trained.flatten(2).transpose(1, 2)
