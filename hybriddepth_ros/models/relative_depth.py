"""Relative depth from one image: Depth Anything (Yang et al. 2024), versions 1 and 2.

The network is that of `transformers`, imported when the first one is made; the authors' checkpoints name its
parameters otherwise, and `published_layout` says how.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from hybriddepth_ros.errors import ModelError
from hybriddepth_ros.models.published import PublishedLayout, load_published, without_part_prefix

INPUT_SIZE = 518  # 37 patches of 14 px: the grid of the trained position embeddings, so none is interpolated


@dataclass(frozen=True)
class Variant:
    """One published size: width and depth of the backbone, channels of the head, blocks that feed it."""

    hidden_size: int
    layers: int
    heads: int
    neck_sizes: tuple[int, int, int, int]
    fusion_size: int
    taps: tuple[int, int, int, int]


_SMALL = (384, 12, 6, (48, 96, 192, 384), 64)
_BASE = (768, 12, 12, (96, 192, 384, 768), 128)
_LARGE = (1024, 24, 16, (256, 512, 1024, 1024), 256)
VARIANTS = {
    "v1-small": Variant(*_SMALL, taps=(9, 10, 11, 12)),
    "v1-base": Variant(*_BASE, taps=(9, 10, 11, 12)),
    "v1-large": Variant(*_LARGE, taps=(21, 22, 23, 24)),
    "v2-small": Variant(*_SMALL, taps=(3, 6, 9, 12)),
    "v2-base": Variant(*_BASE, taps=(3, 6, 9, 12)),
    "v2-large": Variant(*_LARGE, taps=(5, 12, 18, 24)),
}


class RelativeDepth(nn.Module):
    """Depth Anything. variant: a key of VARIANTS; attention: `sdpa` (faster) or `eager`."""

    def __init__(self, variant: str = "v1-small", attention: str = "sdpa") -> None:
        super().__init__()
        if variant not in VARIANTS:
            raise ModelError(f"relative depth: unknown variant {variant!r}, expected {', '.join(VARIANTS)}")
        if attention not in ("sdpa", "eager"):
            raise ModelError(f"relative depth: attention must be sdpa or eager, got {attention!r}")
        self.network = _network(VARIANTS[variant], attention)

    def forward(self, rgb: Tensor) -> Tensor:
        """Inverse depth up to a scale and a shift [B, 1, H, W], large = near; of rgb [B, 3, H, W] 0..1.

        The published pipelines do not normalise the image, and their weights were trained that way. Bicubic
        resizing overshoots: values at or below 0 can occur.
        """
        square = F.interpolate(rgb, (INPUT_SIZE, INPUT_SIZE), mode="bicubic", align_corners=True)
        return F.interpolate(self.predict(square), rgb.shape[-2:], mode="bicubic", align_corners=True)

    def predict(self, square: Tensor) -> Tensor:
        """The network alone: [B, 1, 518, 518] of square [B, 3, 518, 518]."""
        relative: Tensor = self.network(square).predicted_depth
        return relative.unsqueeze(1)

    def published_layout(self) -> PublishedLayout:
        """The authors' names for the parameters, e.g. `pretrained.blocks.0.attn.qkv.weight`."""
        joined: dict[str, tuple[Tensor, ...]] = {}
        state = self.network.state_dict()
        for name in sorted(state, key=_place_in_qkv):  # `qkv` joins the three projections in this order
            published = _published_name(name)
            joined[published] = joined.get(published, ()) + (state[name],)
        return PublishedLayout(joined)

    def load_published(self, state_dict: dict[str, Any]) -> None:
        """Take a checkpoint of Depth Anything by itself (names with or without `depth_anything.`)."""
        entries = without_part_prefix(state_dict, "depth_anything.")
        load_published(self.published_layout(), entries, "Depth Anything")


def _network(variant: Variant, attention: str) -> Any:
    try:
        from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config
    except ImportError as error:
        raise ModelError(f"relative depth needs the Python package transformers: {error}") from error
    backbone = Dinov2Config(
        hidden_size=variant.hidden_size,
        num_hidden_layers=variant.layers,
        num_attention_heads=variant.heads,
        image_size=INPUT_SIZE,
        patch_size=14,
        out_indices=list(variant.taps),
        apply_layernorm=True,
        reshape_hidden_states=False,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        patch_size=14,
        reassemble_hidden_size=variant.hidden_size,
        reassemble_factors=[4, 2, 1, 0.5],
        neck_hidden_sizes=list(variant.neck_sizes),
        fusion_hidden_size=variant.fusion_size,
        head_hidden_size=32,
        head_in_index=-1,
        depth_estimation_type="relative",
        max_depth=1,
    )
    network = DepthAnythingForDepthEstimation(config)
    network.backbone.set_attn_implementation(attention)  # the whole network knows `eager` only
    return network


def _place_in_qkv(name: str) -> int:
    found = re.search(r"\.([qkv])_proj\.", name)
    return "qkv".index(found[1]) if found else 0


_RENAMED = tuple(
    (re.compile(ours), published)
    for ours, published in (
        (r"^backbone\.embeddings\.position_embeddings$", "pretrained.pos_embed"),
        (r"^backbone\.embeddings\.patch_embeddings\.projection", "pretrained.patch_embed.proj"),
        (r"^backbone\.embeddings\.", "pretrained."),
        (r"^backbone\.layernorm", "pretrained.norm"),
        (r"^backbone\.encoder\.layer\.", "pretrained.blocks."),
        (r"\.attention\.[qkv]_proj\.", ".attn.qkv."),
        (r"\.attention\.o_proj\.", ".attn.proj."),
        (r"\.layer_scale(\d)\.lambda1$", r".ls\1.gamma"),
        (r"^neck\.reassemble_stage\.layers\.(\d)\.projection", r"depth_head.projects.\1"),
        (r"^neck\.reassemble_stage\.layers\.(\d)\.resize", r"depth_head.resize_layers.\1"),
        (r"^neck\.convs\.(\d)\.", lambda m: f"depth_head.scratch.layer{int(m[1]) + 1}_rn."),
        (r"^neck\.fusion_stage\.layers\.(\d)\.", lambda m: f"depth_head.scratch.refinenet{4 - int(m[1])}."),
        (r"(refinenet\d)\.projection\.", r"\1.out_conv."),
        (r"\.residual_layer(\d)\.convolution(\d)\.", r".resConfUnit\1.conv\2."),
        (r"^head\.conv1\.", "depth_head.scratch.output_conv1."),
        (r"^head\.conv2\.", "depth_head.scratch.output_conv2.0."),
        (r"^head\.conv3\.", "depth_head.scratch.output_conv2.2."),
    )
)


def _published_name(name: str) -> str:
    for pattern, published in _RENAMED:
        name = pattern.sub(published, name)
    return name
