"""Weights for the published networks, made from parameter names alone: no checkpoint can be shipped.

Every value in `shared/fixtures` was computed with networks filled this way. Each tensor is drawn by itself,
with a seed made of its name; gains keep every stage in a range where mistakes show.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

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


def make_weights(shapes: Mapping[str, Sequence[int]], prefix: str = "") -> dict[str, Tensor]:
    """The tensors of a network or of the part of one whose published names begin with `prefix`."""
    return {name: make_weight(prefix + name, shape) for name, shape in shapes.items()}


def write_checkpoint(path: Path, weights: Mapping[str, Tensor]) -> Path:
    """`weights`, named without `model.`, in a Lightning file as the authors publish them."""
    content = {
        "state_dict": {f"model.{name}": value for name, value in weights.items()},
        "epoch": 3,
        "global_step": 100,
        "pytorch-lightning_version": "2.0.0",
        "loops": {},
    }
    torch.save(content, path)
    return path


def published_shapes(file: str) -> dict[str, list[int]]:
    """Names, without `model.`, and shapes of a published checkpoint, as `shared/fixtures` lists them."""
    stored = json.loads(shared_path(f"fixtures/{file}").read_text())["shapes"]
    return {name.removeprefix("model."): shape for name, shape in stored.items()}


def load_fixture(name: str) -> dict[str, Tensor]:
    """The arrays of a fixture as tensors; half-precision inputs as the float32 that they stand for."""
    with np.load(shared_path(f"fixtures/{name}.npz")) as arrays:
        kept = {key: array for key, array in arrays.items() if array.dtype.kind in "bfi"}
    return {
        key: torch.from_numpy(np.asarray(array.astype(np.float32) if array.dtype == np.float16 else array))
        for key, array in kept.items()
    }
