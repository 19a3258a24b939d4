"""HybridDepth for one new slice at a time: the whole stack's result, at less work."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hybriddepth_ros.bench.scenes import endless, lens_of, made_slices
from hybriddepth_ros.estimator import DepthEstimator
from hybriddepth_ros.focal_stack import FocalSlice, FocalStack
from hybriddepth_ros.models import HybridDepth, for_inference
from hybriddepth_ros.rolling import RollingEstimator
from tests.published_estimators import DIOPTERS, METRES, estimator_of, pipeline_of

WIDTH, HEIGHT, COUNT = 160, 120, 3


class Brightness(nn.Module):
    """Stands in for the prior, which takes a second."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def forward(self, rgb: Tensor) -> Tensor:
        self.asked += 1
        return 1.0 + rgb.mean(dim=1, keepdim=True)

    def predict(self, square: Tensor) -> Tensor:
        return self(square)


@pytest.fixture(scope="module")
def network() -> HybridDepth:
    torch.manual_seed(3)
    made = HybridDepth(invert_depth=True).eval()
    for module in made.modules():  # normalisations that do something
        if isinstance(module, (nn.BatchNorm2d, nn.BatchNorm3d)):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
    made.relative_depth = Brightness()  # type: ignore[assignment]
    return for_inference(made)


@pytest.fixture(params=[METRES, DIOPTERS], ids=["near first", "far first"])
def pipeline(request: pytest.FixtureRequest, network: HybridDepth) -> Iterator[DepthEstimator]:
    network.relative_depth.asked = 0
    yield pipeline_of(estimator_of(request.param, network))


def slices(still: bool) -> list[FocalSlice]:
    coming = endless(made_slices(WIDTH, HEIGHT, COUNT, still=still))
    return [next(coming) for _ in range(3 * COUNT)]


def test_of_a_still_scene_it_says_what_it_says_of_the_whole_stack(pipeline: DepthEstimator) -> None:
    given, rolling = slices(still=True), RollingEstimator(pipeline)
    estimate = [rolling(one, COUNT, lens=lens_of(WIDTH)) for one in given][-1]
    whole = pipeline(FocalStack(tuple(given[-COUNT:]), lens=lens_of(WIDTH)))
    assert estimate is not None and np.isfinite(whole.depth).any()
    assert np.array_equal(np.isfinite(estimate.depth), np.isfinite(whole.depth))
    np.testing.assert_allclose(estimate.depth, whole.depth, rtol=1e-3)
    np.testing.assert_allclose(estimate.sigma, whole.sigma, rtol=1e-2)


def test_a_slice_is_seen_once_and_the_prior_asked_once_a_sweep(
    pipeline: DepthEstimator, network: HybridDepth, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, ...]] = []
    real = network.focal_volume.features
    monkeypatch.setattr(
        network.focal_volume, "features", lambda images: (seen.append(images.shape), real(images))[1]
    )
    rolling = RollingEstimator(pipeline)
    found = [rolling(one, COUNT, lens=lens_of(WIDTH)) for one in slices(still=True)]
    assert sum(estimate is not None for estimate in found) == 2 * COUNT + 1
    assert seen == [(1, 3, 128, 160)] * 3 * COUNT
    assert network.relative_depth.asked == 3


def test_what_was_made_of_a_slice_moves_with_it(network: HybridDepth) -> None:
    """Rolling and whole stack differ by what interpolation costs, not by the camera's motion."""
    pipeline = pipeline_of(estimator_of(METRES, network))
    options = pipeline.options
    pipeline.options = type(options)(**{**vars(options), "register": True})
    given, rolling = slices(still=False), RollingEstimator(pipeline)
    estimates = [rolling(one, COUNT, lens=lens_of(WIDTH)) for one in given]
    assert estimates[-1] is not None
    whole = pipeline(FocalStack(tuple(given[-COUNT:]), lens=lens_of(WIDTH)), COUNT - 1)
    both = np.isfinite(estimates[-1].depth) & np.isfinite(whole.depth)
    assert both.mean() > 0.5
    relative = np.abs(estimates[-1].depth[both] / whole.depth[both] - 1.0)
    assert np.median(relative) < 0.02
