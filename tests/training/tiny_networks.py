"""The papers' networks with a prior that is small enough for tests, as a command: `python FILE train ...`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from hybriddepth_ros.models import relative_depth
from hybriddepth_ros.models.checkpoint_files import sha256_of, write_safetensors
from hybriddepth_ros.models.published import published_tensors
from hybriddepth_ros.models.weights import build_network
from hybriddepth_ros.models.weights_config import WeightsConfig, write_config

TINY = relative_depth.Variant(12, 4, 2, (4, 4, 8, 8), 8, taps=(1, 2, 3, 4))
SIDE = 56  # px: four patches


def make_tiny(
    set_item: Callable[[Any, str, Any], None], set_attribute: Callable[[Any, str, Any], None]
) -> None:
    """Every v1-small is tiny from here on; the arguments are a monkeypatch's setitem and setattr, say."""
    set_item(relative_depth.VARIANTS, "v1-small", TINY)
    set_attribute(relative_depth, "INPUT_SIZE", SIDE)


def install(folder: Path, config: WeightsConfig, seed: int = 0) -> str:
    """Random weights as if installed in `folder`; their file."""
    torch.manual_seed(seed)
    network = build_network(config)
    prior = network if config.model == "depth_anything" else network.relative_depth
    last = prior.network.head.conv3
    nn.init.constant_(last.bias, 3.0)  # relative depth is above 0
    path = folder / f"{config.name}.safetensors"
    write_safetensors(path, published_tensors(network.published_layout()), {"name": config.name})
    write_config(replace(config, sha256=sha256_of(path)), folder)
    return str(path)


def main() -> int:
    """`hybriddepth`, with tiny networks."""
    from hybriddepth_ros.cli import main as hybriddepth

    make_tiny(lambda mapping, key, value: mapping.update({key: value}), setattr)
    return hybriddepth()


if __name__ == "__main__":
    np.seterr(all="raise")
    sys.exit(main())
