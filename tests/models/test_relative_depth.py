"""Depth Anything by itself."""

from __future__ import annotations

import pytest
import torch

from hybriddepth_ros.errors import ModelError
from hybriddepth_ros.models import HybridDepth
from hybriddepth_ros.models.relative_depth import RelativeDepth
from tests.published_weights import load_fixture


def test_eager_attention_gives_the_published_relative_depth_too(hybriddepth: HybridDepth) -> None:
    stored = load_fixture("net_5x224x224")
    network = hybriddepth.relative_depth.network
    network.backbone.set_attn_implementation("eager")
    relative = hybriddepth.relative_depth(stored["rgb"])
    network.backbone.set_attn_implementation("sdpa")
    torch.testing.assert_close(relative, stored["rel_raw"], rtol=0.0, atol=5e-5)


def test_the_attention_asked_for_is_the_attention_used() -> None:
    with torch.device("meta"):
        for attention in ("sdpa", "eager"):
            layer = RelativeDepth(attention=attention).network.backbone.encoder.layer[0]
            assert layer.attention.config._attn_implementation == attention


def test_query_key_and_value_are_the_thirds_of_the_published_tensor(hybriddepth: HybridDepth) -> None:
    relative_depth = hybriddepth.relative_depth
    attention = relative_depth.network.backbone.encoder.layer[3].attention
    for end in ("weight", "bias"):
        joined = relative_depth.published_layout().targets[f"pretrained.blocks.3.attn.qkv.{end}"]
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        assert [t.data_ptr() for t in joined] == [getattr(p, end).data_ptr() for p in projections]


def test_unknown_variants_and_attentions_are_refused() -> None:
    with pytest.raises(ModelError, match=r"unknown variant 'v3-tiny', expected v1-small, .*v2-large"):
        RelativeDepth("v3-tiny")
    with pytest.raises(ModelError, match="attention must be sdpa or eager, got 'flash'"):
        RelativeDepth(attention="flash")


def test_without_transformers_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(ModelError, match="needs the Python package transformers"):
        RelativeDepth()
