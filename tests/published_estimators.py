"""The papers' networks as depth models, around a network that stands in: loading a real one takes seconds."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hybriddepth_ros import EstimatorOptions, load_estimator
from hybriddepth_ros.estimator import DepthEstimator
from hybriddepth_ros.models import AlignedStack
from hybriddepth_ros.models.published_estimator import (
    CrossDepthEstimator,
    HybridDepthEstimator,
    PublishedEstimator,
)
from hybriddepth_ros.models.weights_config import WeightsConfig

METRES = WeightsConfig(
    "metres", "hybriddepth", focus_unit="metres", depth_range=(0.02, 10.0), invert_depth=True
)
DISPARITY = WeightsConfig(
    "disparity",
    "hybriddepth",
    focus_unit="disparity",
    disparity_metres=0.14,
    slice_order="falling",
    depth_range=(0.02, 0.28),
)
DIOPTERS = WeightsConfig(
    "diopters",
    "hybriddepth",
    focus_unit="diopters",
    depth_range=(0.02, 10.0),
    rgb_normalisation="imagenet",
)
CROSS = replace(METRES, name="cross", model="crossdepth")
EVERYTHING = EstimatorOptions(
    register=False, max_depth=1000.0, min_depth=0.01, max_sigma_diopters=10.0, max_relative_sigma=10.0
)
FOCUS = np.array([0.0, 0.5, 1.0, 1.5, 2.0], np.float32)  # 1/m; the first at infinity


class StandIn(torch.nn.Module):
    """Keeps what it is given and answers the same depth and std everywhere, or as two images [h, w]."""

    def __init__(self, depth: Any = 1.0, std: Any = 0.1) -> None:
        super().__init__()
        self.depth, self.std = depth, std
        self.rgb = self.stack = self.focus = torch.empty(0)

    def forward(self, rgb: torch.Tensor, stack: torch.Tensor, focus_distances: torch.Tensor) -> Any:
        self.rgb, self.stack, self.focus = rgb, stack, focus_distances
        size = stack.shape[-2:]

        def image(value: Any) -> torch.Tensor:
            return torch.as_tensor(np.array(np.broadcast_to(value, size), np.float32))[None, None]

        return SimpleNamespace(depth=image(self.depth), focus_std=image(self.std))


def estimator_of(config: WeightsConfig, network: torch.nn.Module) -> PublishedEstimator:
    """An estimator around a network that is there already: loading is tested elsewhere, and takes seconds."""
    kind = CrossDepthEstimator if config.model == "crossdepth" else HybridDepthEstimator
    made = object.__new__(kind)
    made.device, made.config, made.weights, made.network = "cpu", config, config.name, network
    return made


def pipeline_of(model: PublishedEstimator, options: EstimatorOptions = EVERYTHING) -> DepthEstimator:
    """The whole estimator around this model."""
    made = load_estimator("classical", options=options)
    made._model = model
    return made


def noise_stack(
    focus: npt.NDArray[np.float32] = FOCUS, shape: tuple[int, int] = (12, 16), seed: int = 0
) -> AlignedStack:
    """Slices of noise, each in a brightness of its own, of a known lens."""
    random = np.random.default_rng(seed)
    images = random.integers(0, 40, (len(focus), *shape, 3), np.uint8)
    images += 40 * np.arange(len(focus), dtype=np.uint8)[:, None, None, None]
    return AlignedStack(images, np.ones(images.shape[:3], np.bool_), focus, blur_px_per_diopter=8.0)
