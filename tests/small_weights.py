"""Weights of a network small enough for tests: the catalogue, the files and the checks are the real ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from hybriddepth_ros.models import weights
from hybriddepth_ros.models.published import PublishedLayout, load_published
from hybriddepth_ros.models.weights_config import WeightsConfig

# The names by which the model is told, with shapes of our own.
SHAPES: dict[str, dict[str, tuple[int, ...]]] = {
    "hybriddepth": {"ScaleMapLearner.w": (2, 3), "DFF_model.w": (5,)},
    "crossdepth": {"depth_fusion.w": (2, 3), "DFF_model.w": (5,)},
    "depth_anything": {"depth_head.w": (2, 3), "pretrained.cls_token": (1, 1, 384)},
}


class SmallNetwork(torch.nn.Module):
    """Takes weights as the real networks do: by name and shape, all of them, finite."""

    def __init__(self, config: WeightsConfig) -> None:
        super().__init__()
        self.config = config
        shapes = SHAPES[config.model]
        self.layout = PublishedLayout({name: (torch.zeros(shape),) for name, shape in shapes.items()})

    def load_published(self, state_dict: Mapping[str, Any]) -> None:
        load_published(self.layout, state_dict, self.config.model)


@pytest.fixture
def small_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every set of weights is for a SmallNetwork."""
    monkeypatch.setattr(weights, "build_network", SmallNetwork)


def small_tensors(model: str = "hybriddepth", value: float = 1.0) -> dict[str, Tensor]:
    return {name: torch.full(shape, value) for name, shape in SHAPES[model].items()}
