"""Weights for the published networks, made from parameter names alone: no checkpoint can be shipped.

Every test value in `shared/fixtures` was computed with networks filled this way; `shared/spec/weights.md` has
the rule.
"""

from __future__ import annotations

import functools
import json
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from tests.conftest import shared_path

GAINS = {
    "depth_anything.pretrained.patch_embed.proj.weight": 4.0,
    "depth_anything.depth_head.scratch.output_conv2.2.weight": 0.1,
    "DFF_model.decoder3.classify.2.0.weight": 8.0,
    "ScaleMapLearner.scratch.output_conv.output_conv.4.weight": 0.03,
    "depth_fusion.decoder.3.weight": 0.45,
}
OFFSETS = {"depth_anything.depth_head.scratch.output_conv2.2.bias": 4.5}


def make_weight(name: str, shape: Sequence[int]) -> Tensor:
    """The tensor of one published name (without `model.`)."""
    if name.endswith("num_batches_tracked"):
        return torch.zeros(tuple(shape), dtype=torch.int64)
    random = np.random.RandomState(zlib.crc32(name.encode()))
    if name.endswith("running_var"):
        values = 1.0 + 0.1 * random.random_sample(shape)
    else:
        values = random.standard_normal(shape)
        if name.endswith("running_mean"):
            values *= 0.05
        elif len(shape) == 1 and name.endswith((".weight", ".gamma")):
            values = 1.0 + 0.1 * values
        elif len(shape) == 1:
            values *= 0.02
        elif name.endswith(("pos_embed", "cls_token", "mask_token")):
            values *= 0.05
        else:
            values *= np.sqrt(1.5 / np.prod(shape[1:]))
    values = values * GAINS.get(name, 1.0) + OFFSETS.get(name, 0.0)
    return torch.from_numpy(values.astype(np.float32))


def hybriddepth_shapes() -> dict[str, list[int]]:
    """The 1140 names of a published HybridDepth checkpoint, without `model.`, with their shapes."""
    stored = json.loads(shared_path("fixtures/state_dict_keys.json").read_text())["shapes"]
    return {name.removeprefix("model."): shape for name, shape in stored.items()}


def fusion_shapes() -> dict[str, list[int]]:
    """The 80 names of CrossDepth's fusion network with their shapes."""
    stored = json.loads(shared_path("fixtures/crossdepth_state_dict_keys.json").read_text())["shapes"]
    return dict(stored)


@functools.cache
def hybriddepth_weights() -> Mapping[str, Tensor]:
    """A whole HybridDepth state dict, names without `model.`; made once per process, not to be changed."""
    return {name: make_weight(name, shape) for name, shape in hybriddepth_shapes().items()}


@functools.cache
def fusion_weights() -> Mapping[str, Tensor]:
    """The state dict of CrossDepth's fusion network, names with `depth_fusion.`; not to be changed."""
    return {name: make_weight(name, shape) for name, shape in fusion_shapes().items()}


def crossdepth_weights() -> Mapping[str, Tensor]:
    """A whole CrossDepth state dict: prior, focal volume and fusion."""
    shared = {n: v for n, v in hybriddepth_weights().items() if not n.startswith("ScaleMapLearner.")}
    return shared | dict(fusion_weights())
