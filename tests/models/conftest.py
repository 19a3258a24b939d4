"""The published networks, filled with made weights: made once, because that takes seconds."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from hybriddepth_ros.models import CrossAttentionFusion, CrossDepth, HybridDepth
from hybriddepth_ros.models.focal_volume import FocalVolume, FocusDepth
from hybriddepth_ros.models.hybriddepth import HybridDepthOutput
from tests.published_weights import load_fixture, make_weights

NETWORK_FIXTURES = ("net_b2_5x96x128", "net_5x224x224", "net_5x256x320")


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(scope="session")
def hybriddepth() -> HybridDepth:
    """HybridDepth as published for metres. Tests that change an attribute put it back (monkeypatch)."""
    model = HybridDepth(invert_depth=True).eval()
    model.load_published(make_weights(model.published_layout().shapes))
    return model


@pytest.fixture(scope="session")
def crossdepth(hybriddepth: HybridDepth) -> CrossDepth:
    """CrossDepth as published, for metres; prior and focal volume are those of `hybriddepth`."""
    model = CrossDepth(invert_depth=True).eval()
    model.relative_depth, model.focal_volume = hybriddepth.relative_depth, hybriddepth.focal_volume
    model.depth_fusion.load_state_dict(filled_fusion().state_dict())
    return model


@pytest.fixture(scope="session")
def fusion() -> CrossAttentionFusion:
    """The fusion of CrossDepth by itself."""
    return filled_fusion()


@pytest.fixture
def focal_volume(hybriddepth: HybridDepth) -> FocalVolume:
    """DFV by itself."""
    return hybriddepth.focal_volume


def filled_fusion() -> CrossAttentionFusion:
    model = CrossAttentionFusion().eval()
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    model.load_published(make_weights(shapes, "depth_fusion."))
    return model


@dataclass(frozen=True)
class PublishedRun:
    """A network fixture, and what our model makes of its inputs with invert_depth true and false."""

    name: str
    stored: dict[str, torch.Tensor]
    outputs: dict[bool, HybridDepthOutput]


@pytest.fixture(scope="session", params=NETWORK_FIXTURES)
def published_run(request: pytest.FixtureRequest, hybriddepth: HybridDepth) -> PublishedRun:
    stored = load_fixture(request.param)
    inputs = (stored["rgb"], stored["stack"], stored["focus_dist"])
    with torch.no_grad():
        metres = hybriddepth(*inputs)
        hybriddepth.invert_depth = False
        focus = FocusDepth(metres.focus_depth, metres.focus_std, metres.focus_probability)
        disparity = hybriddepth.fuse(metres.relative, focus)
    hybriddepth.invert_depth = True
    return PublishedRun(request.param, stored, {True: metres, False: disparity})


class PlainPrior(torch.nn.Module):
    """A stand-in for the relative depth, which takes seconds per image: bright is near."""

    def forward(self, rgb: torch.Tensor) -> torch.Tensor:
        return 1.0 + rgb.mean(dim=1, keepdim=True)


def with_plain_prior(model: torch.nn.Module) -> Any:
    """The same model (weights shared) but for its relative depth."""
    copied = copy.copy(model)
    copied._modules = {**model._modules, "relative_depth": PlainPrior()}
    return copied


def made_stack(batch: int, slices: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    """A normalised stack [B, N, 3, H, W] of noise whose sharpness changes from slice to slice."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(batch, 3, height, width, generator=generator)
    blurred = [noise]
    for _ in range(slices - 1):
        blurred.append(torch.nn.functional.avg_pool2d(blurred[-1], 3, stride=1, padding=1))
    return torch.stack(blurred, dim=1)
