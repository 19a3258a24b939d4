"""What a user may give the papers' networks: no crash, and no estimate that only looks like one."""

from __future__ import annotations

import sys
import weakref
from typing import Any

import numpy as np
import pytest
import torch

from hybriddepth_ros import EstimatorOptions, FocalSlice, FocalStack
from hybriddepth_ros.errors import ModelError, RegistrationError, WeightsError
from hybriddepth_ros.models import HybridDepth, load_model
from hybriddepth_ros.models import published_estimator as published
from hybriddepth_ros.models.published_estimator import HybridDepthEstimator
from tests import stacks
from tests.models.conftest import with_plain_prior
from tests.published_estimators import FOCUS, METRES, StandIn, estimator_of, noise_stack, pipeline_of


def blank_stack(level: int, noise: float, texture: int = 0) -> FocalStack:
    """Five slices that show nothing: one grey level with a sensor's noise; `texture` [levels] is added."""
    random = np.random.default_rng(7)
    pattern = texture * ((np.indices((96, 128)) // 12).sum(axis=0) % 2)[..., None]
    shown = [level + pattern + random.normal(0.0, noise, (96, 128, 3)) for _ in FOCUS]
    images = [np.rint(image).clip(0, 255).astype(np.uint8) for image in shown]
    slices = (FocalSlice(image, float(f)) for image, f in zip(images, FOCUS, strict=True))
    return FocalStack(tuple(slices), name="constant")


@pytest.mark.parametrize(("level", "noise"), [(0, 0.0), (255, 0.0), (128, 0.0), (128, 2.0)])
def test_a_constant_image_has_no_estimate(level: int, noise: float) -> None:
    """Not even of a network that is sure: what it answers then comes from its training alone."""
    stack = blank_stack(level, noise)
    estimate = pipeline_of(estimator_of(METRES, StandIn()))(stack)
    assert np.isnan(estimate.depth).all() and np.isnan(estimate.sigma).all()
    with pytest.raises(RegistrationError, match="expected 2 or more slices to register"):
        pipeline_of(estimator_of(METRES, StandIn()), EstimatorOptions())(stack)


def test_a_faint_texture_is_no_constant_image() -> None:
    estimate = pipeline_of(estimator_of(METRES, StandIn()))(blank_stack(128, 2.0, texture=4))
    assert np.isfinite(estimate.depth).all()


def test_the_real_network_survives_a_constant_image(hybriddepth: HybridDepth) -> None:
    estimate = pipeline_of(estimator_of(METRES, with_plain_prior(hybriddepth)))(blank_stack(128, 0.0))
    assert np.isnan(estimate.depth).all() and np.isnan(estimate.sigma).all()


def test_images_under_32_px_and_two_slices_are_enough(hybriddepth: HybridDepth) -> None:
    model = estimator_of(METRES, with_plain_prior(hybriddepth))
    for height, width in ((20, 24), (31, 70), (4, 5), (1, 1)):
        stack = noise_stack(FOCUS[1:3], (height, width))
        slices = tuple(FocalSlice(i, float(f)) for i, f in zip(stack.images, FOCUS[1:3], strict=True))
        estimate = pipeline_of(model)(FocalStack(slices))
        assert estimate.depth.shape == estimate.sigma.shape == (height, width)
        np.testing.assert_array_equal(np.isnan(estimate.depth), np.isnan(estimate.sigma))


class ConstantPrior(torch.nn.Module):
    """A relative depth without any structure."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, rgb: torch.Tensor) -> torch.Tensor:
        return torch.full_like(rgb[:, :1], self.value)


@pytest.mark.parametrize("value", [2.0, 0.0, -1.0])
def test_relative_depth_that_cannot_be_aligned_gives_no_estimate(
    hybriddepth: HybridDepth, value: float
) -> None:
    """Least squares has no solution then: as published, everything ends at the lower bound."""
    network = with_plain_prior(hybriddepth)
    network._modules["relative_depth"] = ConstantPrior(value)
    images = stacks.defocused_stack(1.0, FOCUS, 8.0, (64, 64))
    slices = tuple(FocalSlice(i, float(f)) for i, f in zip(images, FOCUS, strict=True))
    estimate = pipeline_of(estimator_of(METRES, network))(FocalStack(slices))
    assert np.isnan(estimate.depth).all() and np.isnan(estimate.sigma).all()
    assert estimate.all_in_focus.any()


class Exhausted(torch.nn.Module):
    """Takes memory, then fails as PyTorch does when there is no more."""

    def __init__(self, kind: type[RuntimeError], text: str) -> None:
        super().__init__()
        self.kind, self.text = kind, text
        self.taken: Any = None

    def forward(self, rgb: torch.Tensor, *_: torch.Tensor) -> Any:
        taken = rgb + 1.0
        self.taken = weakref.ref(taken)
        raise self.kind(self.text)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (torch.OutOfMemoryError, "CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has 1 GiB in all."),
        (RuntimeError, "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9"),
        (RuntimeError, "CUDA error: out of memory"),
        (RuntimeError, "cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    ],
    ids=["cuda", "cpu", "driver", "cudnn"],
)
def test_out_of_memory_is_one_line_with_the_sizes_and_what_was_taken_is_given_back(
    kind: type[RuntimeError], text: str
) -> None:
    network = Exhausted(kind, text)
    with pytest.raises(ModelError) as raised:
        estimator_of(METRES, network)(noise_stack())
    message = str(raised.value)
    assert "hybriddepth on cpu: out of memory for 5 slices of 16x12 px" in message and "\n" not in message
    # An exception holds the frames it came through, and they their tensors: the ModelError may not hold it.
    assert network.taken() is None


def test_any_other_error_of_the_network_is_not_taken_for_a_lack_of_memory() -> None:
    with pytest.raises(RuntimeError, match="sizes do not match"):
        estimator_of(METRES, Exhausted(RuntimeError, "sizes do not match"))(noise_stack())


def test_weights_that_lack_a_tensor_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the network says does not tell which file."""
    monkeypatch.setattr(published, "load_weights", lambda *_: (METRES, {"a": torch.ones(1)}))
    monkeypatch.setattr(published, "build_network", lambda _: HybridDepth())
    with (
        torch.device("meta"),
        pytest.raises(WeightsError, match=r"^metres: weights for HybridDepth: 1140 missing"),
    ):
        HybridDepthEstimator("cpu", "metres")


def test_without_pytorch_the_model_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "hybriddepth_ros.models.published_estimator")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(
        ModelError, match=r"^model: hybriddepth needs a Python package that is not here: .*torch"
    ):
        load_model("hybriddepth")
