"""The papers' networks as depth models: conventions of the weights inside, metres and a sigma out."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hybriddepth_ros import FocalSlice, FocalStack, load_estimator
from hybriddepth_ros.errors import ModelError
from hybriddepth_ros.estimator import to_metres
from hybriddepth_ros.models import AlignedStack, CrossAttentionFusion, published_estimator
from hybriddepth_ros.models.published_units import NO_ESTIMATE_SIGMA
from hybriddepth_ros.models.weights_config import WeightsConfig
from tests import stacks
from tests.published_estimators import (
    CROSS,
    DIOPTERS,
    DISPARITY,
    EVERYTHING,
    FOCUS,
    METRES,
    StandIn,
    estimator_of,
    noise_stack,
    pipeline_of,
)

# -- in


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (METRES, [0.5, 1 / 1.5, 1.0, 2.0, 10.0]),
        (DISPARITY, [0.28, 0.21, 0.14, 0.07, 0.0]),
        (DIOPTERS, [0.0, 0.5, 1.0, 1.5, 2.0]),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_focus_comes_in_unit_and_order_of_the_weights_and_pictures_with_it(
    config: WeightsConfig, expected: list[float]
) -> None:
    network, stack = StandIn(), noise_stack()
    estimator_of(config, network)(stack)
    assert network.focus.shape == (1, 5)
    assert network.focus[0].tolist() == pytest.approx(expected)
    mean, std = (torch.tensor(v)[:, None, None] for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    pictures = torch.from_numpy(stack.images).permute(0, 3, 1, 2) / 255.0
    near_first = config is not DIOPTERS
    in_order = pictures.flip(0) if near_first else pictures
    torch.testing.assert_close(network.stack[0], (in_order - mean) / std)
    first = in_order[:1] if config.rgb_normalisation == "none" else (in_order[:1] - mean) / std
    torch.testing.assert_close(network.rgb, first)


def test_slices_beyond_the_range_of_the_weights_keep_their_order() -> None:
    """In metres they all count as the same distance: sorting by that would leave them as they came."""
    focus = np.array([-0.2, 0.0, 0.05, 1.0], np.float32)
    network, stack = StandIn(), noise_stack(focus)
    estimator_of(METRES, network)(stack)
    assert network.focus[0].tolist() == pytest.approx([1.0, 10.0, 10.0, 10.0])
    brightness = network.stack[0].mean(dim=(1, 2, 3))
    assert bool((brightness.diff() < 0).all())  # as taken: the nearest is the brightest


@pytest.mark.parametrize(
    ("shape", "seen"), [((12, 16), (12, 16)), ((960, 1280), (480, 640)), ((90, 1600), (36, 640))]
)
def test_images_larger_than_in_training_are_reduced_and_the_result_is_as_large_as_they(
    shape: tuple[int, int], seen: tuple[int, int]
) -> None:
    depth = np.ones(seen)
    depth[:, seen[1] // 2 :] = 2.0
    network, stack = StandIn(depth), noise_stack(FOCUS[:2], shape)
    estimate = estimator_of(METRES, network)(stack)
    assert network.stack.shape == (1, 2, 3, *seen) and network.rgb.shape == (1, 3, *seen)
    assert estimate.diopters.shape == estimate.sigma_diopters.shape == shape
    middle, margin = shape[1] // 2, shape[1] // seen[1]
    assert np.allclose(estimate.diopters[:, : middle - margin], 1.0)
    assert np.allclose(estimate.diopters[:, middle + margin :], 0.5)


# -- out


@settings(max_examples=30)
@given(diopters=st.floats(0.55, 1.95), spread=st.floats(0.4, 0.6), scale=st.sampled_from([1.0, 0.5, 3.0]))
@pytest.mark.parametrize("config", [METRES, DISPARITY, DIOPTERS, CROSS], ids=lambda config: config.name)
def test_any_unit_comes_out_in_metres_and_the_spread_with_it(
    config: WeightsConfig, diopters: float, spread: float, scale: float
) -> None:
    """Sigma is the spread in metres to first order: what the depth changes by per unit, times the spread."""

    def metres(value: float) -> float:
        return {"metres": value, "disparity": 0.14 / value, "diopters": 1.0 / value}[config.focus_unit]

    value = {"metres": 1.0 / diopters, "disparity": 0.14 * diopters, "diopters": diopters}[config.focus_unit]
    std = spread * value  # half of the value: more than the sweep leaves open
    config = replace(config, sigma_scale=scale)
    estimate = estimator_of(config, StandIn(value, std))(noise_stack())
    depth, sigma, _ = to_metres(estimate, EVERYTHING)
    assert depth[5, 5] == pytest.approx(1.0 / diopters, rel=1e-5)
    slope = abs(metres(value * 1.001) - metres(value * 0.999)) / (0.002 * value)
    assert sigma[5, 5] == pytest.approx(scale * std * slope, rel=1e-3)


@pytest.mark.parametrize("config", [METRES, DISPARITY, DIOPTERS], ids=lambda config: config.name)
def test_a_softmax_that_picks_one_slice_is_still_unsure_by_its_step(config: WeightsConfig) -> None:
    """Its spread is 0, and sigma would be: but all it says is that the neighbours, 0.5 1/m off, fit worse."""
    value = {"metres": 1.0, "disparity": 0.14, "diopters": 1.0}[config.focus_unit]
    sigma = estimator_of(config, StandIn(value, 0.0))(noise_stack()).sigma_diopters
    assert np.allclose(sigma, 0.5 / np.sqrt(12.0))  # of an error that is spread evenly over one step
    calibrated = replace(config, sigma_scale=0.5)
    assert np.allclose(estimator_of(calibrated, StandIn(value, 0.0))(noise_stack()).sigma_diopters, sigma / 2)


def test_a_step_is_that_of_the_sweep_where_the_depth_lies() -> None:
    focus = np.array([0.2, 0.3, 0.4, 1.4, 2.4], np.float32)
    depth = np.broadcast_to([1 / 0.3, 1 / 1.4], (12, 2)).repeat(8, axis=1)
    sigma = estimator_of(METRES, StandIn(depth, 0.0))(noise_stack(focus)).sigma_diopters
    assert np.allclose(sigma[:, :8], 0.1 / np.sqrt(12.0)) and np.allclose(sigma[:, 8:], 1.0 / np.sqrt(12.0))


def test_outside_the_sweep_sigma_grows_by_the_distance_from_it() -> None:
    focus = np.array([1.0, 1.5, 2.0], np.float32)
    depth = np.repeat([1 / 0.4, 1 / 1.0, 1 / 2.0, 1 / 3.5], 4)
    sigma = estimator_of(METRES, StandIn(depth, 0.0))(noise_stack(focus)).sigma_diopters
    step = 0.5 / np.sqrt(12.0)
    assert sigma[0, ::4].tolist() == pytest.approx([step + 0.6, step, step, step + 1.5], rel=1e-4)


def test_what_is_in_focus_beyond_the_range_of_the_weights_is_not_taken_for_its_end() -> None:
    """Focus at infinity counts as 10 m for these weights, but what is sharp there may be anything farther."""
    focus = np.array([0.0, 0.1, 0.2, 0.3], np.float32)
    near = estimator_of(METRES, StandIn(1 / 0.2, 0.0))(noise_stack(focus)).sigma_diopters[0, 0]
    far = estimator_of(METRES, StandIn(10.0, 0.0))(noise_stack(focus)).sigma_diopters[0, 0]
    assert near == pytest.approx(0.1 / np.sqrt(12.0), rel=1e-4)
    assert far >= 0.1  # infinity is one sigma away


@pytest.mark.parametrize(
    ("config", "value", "known"),
    [
        (METRES, 0.02, False),
        (METRES, 0.021, True),
        (METRES, 12.0, True),  # HybridDepth has no upper bound
        (METRES, float("nan"), False),
        (METRES, float("inf"), False),
        (METRES, -1.0, False),
        (DISPARITY, 0.02, False),
        (CROSS, 0.02, False),
        (CROSS, 10.0, False),
        (CROSS, 9.9, True),
        (replace(DIOPTERS, depth_range=(0.0, 10.0)), 0.0, False),
    ],
)
def test_at_a_bound_of_the_network_there_is_no_estimate(
    config: WeightsConfig, value: float, known: bool
) -> None:
    estimate = estimator_of(config, StandIn(value, 0.1))(noise_stack())
    assert np.isfinite(estimate.diopters).all() and np.isfinite(estimate.sigma_diopters).all()
    assert (estimate.sigma_diopters[5, 5] < NO_ESTIMATE_SIGMA) == known
    if not known:
        assert np.isnan(to_metres(estimate, EVERYTHING)[0]).all()


def test_a_spread_that_is_no_number_is_no_estimate() -> None:
    estimate = estimator_of(METRES, StandIn(1.0, float("nan")))(noise_stack())
    assert (estimate.sigma_diopters >= NO_ESTIMATE_SIGMA).all()


def test_the_rim_that_crossdepth_pulls_towards_zero_has_no_estimate() -> None:
    fusion = CrossAttentionFusion(depth_range=(0.02, 10.0))
    torch.nn.init.zeros_(fusion.decoder[3].weight)  # type: ignore[arg-type, union-attr]
    torch.nn.init.constant_(fusion.decoder[3].bias, 9.0)  # type: ignore[arg-type, union-attr]
    depth_of_nine = fusion(*torch.ones(3, 1, 1, 12, 16))[0, 0]
    assert depth_of_nine[:3, :3].tolist() == [[4.0, 6.0, 6.0], [6.0, 9.0, 9.0], [6.0, 9.0, 9.0]]

    depth, *_ = to_metres(estimator_of(CROSS, StandIn(1.0, 0.1))(noise_stack()), EVERYTHING)
    expected = np.zeros((12, 16), np.bool_)
    expected[1:-1, 1:-1] = True
    np.testing.assert_array_equal(np.isfinite(depth), expected)
    whole, *_ = to_metres(estimator_of(METRES, StandIn(1.0, 0.1))(noise_stack()), EVERYTHING)
    assert np.isfinite(whole).all()


def test_sigma_doubles_where_a_slice_did_not_look() -> None:
    stack = noise_stack()
    stack.covered[2, :, :4] = False
    sigma = estimator_of(METRES, StandIn(1.0, 0.4))(stack).sigma_diopters
    assert np.allclose(sigma[:, :4], 0.8) and np.allclose(sigma[:, 4:], 0.4)


def test_an_unknown_lens_is_found_and_a_known_one_kept() -> None:
    images = stacks.defocused_stack(1.0, FOCUS, 8.0, (96, 128))
    stack = AlignedStack(images, np.ones(images.shape[:3], np.bool_), FOCUS)
    found = estimator_of(METRES, StandIn())(stack).blur_px_per_diopter
    assert found == pytest.approx(8.0, rel=0.3)
    assert estimator_of(METRES, StandIn())(replace(stack, blur_px_per_diopter=5.0)).blur_px_per_diopter == 5.0


# -- order of the slices


class OrderSensitive(torch.nn.Module):
    """Stands in for a network whose answer depends on which slice comes when and which image is `rgb`."""

    def forward(self, rgb: torch.Tensor, stack: torch.Tensor, focus_distances: torch.Tensor) -> Any:
        place = torch.arange(1.0, 1.0 + stack.shape[1])
        weight = (focus_distances * place)[..., None, None, None]
        depth = (
            1.0 + 0.01 * (stack * weight).mean(dim=(1, 2), keepdim=False)[:, None].abs() + 0.1 * rgb[:, :1]
        )
        return SimpleNamespace(depth=depth, focus_std=0.1 * depth)


@given(order=st.permutations(range(5)))
def test_the_order_in_which_slices_come_does_not_matter(order: list[int]) -> None:
    """That the networks sort for themselves too is tested with each; here nothing forgives a mistake."""
    model = pipeline_of(estimator_of(METRES, OrderSensitive()))
    images = noise_stack().images
    straight = tuple(FocalSlice(i, float(f)) for i, f in zip(images, FOCUS, strict=True))
    expected = model(FocalStack(straight))
    mixed = model(FocalStack(tuple(straight[i] for i in order)))
    assert np.isfinite(expected.depth).any()
    np.testing.assert_array_equal(mixed.depth, expected.depth)
    np.testing.assert_array_equal(mixed.sigma, expected.sigma)
    np.testing.assert_array_equal(mixed.all_in_focus, expected.all_in_focus)


@pytest.mark.parametrize("model", ["hybriddepth", "crossdepth"])
def test_precision_and_engine_reach_the_network(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str, str]] = []

    def ready(network: Any, device: str, precision: str, engine: str) -> Any:
        asked.append((device, precision, engine))
        return network

    monkeypatch.setattr(published_estimator, "for_inference", ready)
    monkeypatch.setattr(published_estimator, "load_weights", lambda *_: (METRES, {}))
    monkeypatch.setattr(published_estimator, "build_network", lambda _: Loadable())
    load_estimator(model, "cpu", precision="int8")
    assert load_estimator(model, "cpu", engine="onnx").weights == METRES.identity
    assert asked == [("cpu", "int8", "auto"), ("cpu", "float32", "onnx")]


class Loadable(StandIn):
    def load_published(self, _: Any) -> None:
        """Takes any tensors."""


def test_a_precision_that_cannot_be_is_refused_before_weights_are_read() -> None:
    with pytest.raises(ModelError, match="on cpu expected float32 or int8, got 'bfloat16'"):
        load_estimator("hybriddepth", "cpu", precision="bfloat16")
    with pytest.raises(ModelError, match="classical knows float32 only"):
        load_estimator("classical", precision="int8")
