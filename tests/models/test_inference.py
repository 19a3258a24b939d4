"""Networks made ready to run give the numbers of the networks; a reduced precision errs by little."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hybriddepth_ros.bench.plain_networks import plain
from hybriddepth_ros.errors import ModelError
from hybriddepth_ros.models import CrossDepth, HybridDepth
from hybriddepth_ros.models.base import check_precision
from hybriddepth_ros.models.inference import UpsampledConv, fold_batch_norms, for_inference
from hybriddepth_ros.models.int8 import Int8Conv2d, Int8Linear, quantise
from tests.models.conftest import made_stack
from tests.published_weights import load_fixture

BOUNDS = {  # as docs/published_models.md has them for the network itself
    "relative": ("rel_raw", 5e-5),
    "focus_depth": ("dff_pred", 5e-5),
    "focus_std": ("dff_std", 2e-5),
    "focus_probability": ("dff_prob", 2e-5),
    "global_depth": ("inv1_global_depth", 2e-4),
    "scale_map": ("inv1_scale_map", 2e-4),
    "refined_scales": ("inv1_refined_scales", 2e-4),
    "depth": ("inv1_metric_depth", 5e-4),
}


@pytest.fixture(scope="module")
def ready(hybriddepth: HybridDepth) -> HybridDepth:
    return for_inference(hybriddepth)


@pytest.fixture(scope="module")
def ready_int8(hybriddepth: HybridDepth) -> HybridDepth:
    return for_inference(hybriddepth, precision="int8")


@pytest.mark.parametrize("fixture", ["net_b2_5x96x128", "net_5x224x224"])
def test_float32_gives_the_published_values(ready: HybridDepth, fixture: str) -> None:
    stored = load_fixture(fixture)
    out = ready(stored["rgb"], stored["stack"], stored["focus_dist"])
    for name, (published, bound) in BOUNDS.items():
        expected = stored[published].reshape(getattr(out, name).shape)
        torch.testing.assert_close(getattr(out, name), expected, rtol=1e-4, atol=bound)


def test_no_batch_norm_is_left_and_the_network_is_as_it_was(
    hybriddepth: HybridDepth, ready: HybridDepth
) -> None:
    def norms(network: HybridDepth) -> int:
        return sum(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in network.modules())

    assert norms(ready) == 0 and norms(hybriddepth) > 100
    assert len(hybriddepth.published_layout().shapes) == 1140


def test_crossdepth_is_made_ready_too(crossdepth: CrossDepth) -> None:
    inputs = (
        torch.rand(2, 3, 70, 64),
        made_stack(2, 3, 70, 64),
        torch.tensor([[0.5, 0.9, 2.0]]).expand(2, 3),
    )
    torch.testing.assert_close(
        for_inference(crossdepth)(*inputs).depth, crossdepth(*inputs).depth, rtol=1e-4, atol=2e-5
    )


@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 8)])
def test_doubling_and_convolution_in_one(height: int, width: int) -> None:
    x = torch.randn(2, 3, height, width)
    convolution = nn.Conv2d(3, 4, 3, padding=1)
    expected = convolution(nn.Upsample(scale_factor=2)(x))
    torch.testing.assert_close(UpsampledConv(convolution)(x), expected, rtol=1e-5, atol=1e-5)


def test_folding_keeps_the_result() -> None:
    block = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU()).eval()
    for tensor in (block[1].running_mean, block[1].running_var, block[1].weight, block[1].bias):
        nn.init.uniform_(tensor, 0.5, 2.0)
    x = torch.randn(1, 3, 8, 8)
    expected = block(x)
    fold_batch_norms(block)
    assert isinstance(block[1], nn.Identity)
    torch.testing.assert_close(block(x), expected, rtol=1e-5, atol=1e-5)


# ---- int8


def relative_rms(result: Tensor, expected: Tensor) -> float:
    return float((result - expected).pow(2).mean().sqrt() / expected.pow(2).mean().sqrt())


def test_int8_errs_by_percents_where_float32_errs_by_rounding(
    hybriddepth: HybridDepth, ready_int8: HybridDepth
) -> None:
    stored = load_fixture("net_5x224x224")
    inputs = (stored["rgb"], stored["stack"], stored["focus_dist"])
    out, expected = ready_int8(*inputs), hybriddepth(*inputs)
    for name, bound in (("relative", 0.05), ("focus_depth", 0.2), ("depth", 0.15)):
        value = getattr(expected, name)
        of_spread = float((getattr(out, name) - value).pow(2).mean().sqrt() / value.std())
        assert 1e-3 < of_spread < bound, name


def test_int8_does_not_mix_the_samples_of_a_batch(ready_int8: HybridDepth) -> None:
    stack = made_stack(2, 3, 64, 64)
    focus = torch.tensor([[0.5, 0.9, 2.0]]).expand(2, 3)
    stack[1] *= 100.0
    together, alone = ready_int8.focal_volume(stack, focus), ready_int8.focal_volume(stack[:1], focus[:1])
    torch.testing.assert_close(together.depth[:1], alone.depth, rtol=0.0, atol=1e-6)


def test_values_that_int8_has_no_levels_for() -> None:
    layer = Int8Conv2d(nn.Conv2d(16, 16, 3, padding=1, bias=False))
    for nothing in (0.0, 1e-40, -1e-40):
        assert float(layer(torch.full((1, 16, 4, 4), nothing)).abs().max()) < 1e-30
    assert bool(torch.isfinite(layer(torch.full((1, 16, 4, 4), 1e30))).all())
    for value in (float("nan"), float("inf")):
        with pytest.raises(ModelError, match="not finite"):
            layer(torch.full((1, 16, 4, 4), value))


@pytest.mark.parametrize(
    "options",
    [{"dilation": 2}, {"groups": 2}, {"padding": "same"}, {"padding_mode": "reflect"}],
)
def test_a_convolution_that_int8_does_not_do_stays_as_it_is(options: dict[str, Any]) -> None:
    assert Int8Conv2d.is_worth_it(nn.Conv2d(16, 16, 3))
    assert not Int8Conv2d.is_worth_it(nn.Conv2d(16, 16, 3, **options))


@pytest.mark.parametrize("offset", [0.0, -0.7, 3.0])
def test_quantised_values_are_within_half_a_level(offset: float) -> None:
    x = torch.randn(2, 16, 5, 4) + offset
    quantised = quantise(x)
    assert quantised.data.dtype == torch.uint8 and int(quantised.data.max()) > 250
    back = quantised.scale * (quantised.data.float() - quantised.zero_point)
    assert float((back - x).abs().max()) <= 0.51 * quantised.scale
    zero = quantise(torch.zeros(1, 16, 2, 2))
    assert int(zero.data.float().sub(zero.zero_point).abs().max()) == 0


@pytest.mark.parametrize("bias", [True, False])
def test_an_int8_convolution_is_the_convolution_of_its_rounded_operands(bias: bool) -> None:
    convolution = nn.Conv2d(16, 20, 3, padding=1, stride=2, bias=bias)
    x = torch.randn(2, 16, 9, 8) - 0.3
    quantised = quantise(x)
    weight_scale = convolution.weight.abs().amax(dim=(1, 2, 3), keepdim=True) / 63
    rounded = (convolution.weight / weight_scale).round() * weight_scale
    values = quantised.scale * (quantised.data.float() - quantised.zero_point)
    expected = nn.functional.conv2d(values, rounded, convolution.bias, stride=2, padding=1)
    ours = Int8Conv2d(convolution)
    torch.testing.assert_close(ours(x), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours(quantised), ours(x))


@pytest.mark.parametrize("bias", [True, False])
def test_an_int8_linear_layer_errs_by_its_rounding(bias: bool) -> None:
    linear = nn.Linear(64, 48, bias=bias)
    x = torch.randn(2, 5, 64)
    result = Int8Linear(linear)(x)
    assert result.shape == (2, 5, 48)
    assert 1e-4 < relative_rms(result, linear(x)) < 0.03


def test_extreme_operands_do_not_saturate() -> None:
    convolution = nn.Conv2d(64, 16, 3, padding=1, bias=False)
    nn.init.ones_(convolution.weight)
    x = torch.ones(1, 64, 6, 6)
    torch.testing.assert_close(Int8Conv2d(convolution)(x), convolution(x), rtol=0.01, atol=0.0)
    linear = nn.Linear(384, 16, bias=False)
    nn.init.ones_(linear.weight)
    torch.testing.assert_close(
        Int8Linear(linear)(torch.ones(2, 384)), linear(torch.ones(2, 384)), rtol=0.02, atol=0.0
    )


# ---- what cannot be done


@pytest.mark.parametrize(
    ("precision", "device", "named"),
    [
        ("float8", "cpu", "expected one of float32, int8, bfloat16, float16"),
        ("bfloat16", "cpu", "expected float32 or int8"),
        ("int8", "cuda:0", "expected float32 or bfloat16 or float16"),
    ],
)
def test_a_precision_that_the_device_cannot_do_is_refused(precision: str, device: str, named: str) -> None:
    with pytest.raises(ModelError, match=named):
        check_precision(precision, device)


# ---- the yardstick of benchmarks/networks.py


def test_the_plain_schedule_gives_the_same_numbers(hybriddepth: HybridDepth) -> None:
    unhurried = plain(hybriddepth)
    stack, focus = made_stack(2, 3, 96, 64), torch.tensor([[0.5, 0.9, 2.0]]).expand(2, 3)
    expected, result = hybriddepth.focal_volume(stack, focus), unhurried.focal_volume(stack, focus)
    torch.testing.assert_close(result.depth, expected.depth, rtol=1e-4, atol=5e-5)
    maps = tuple(0.5 + torch.rand(1, 1, 64, 96) for _ in range(3))
    torch.testing.assert_close(
        unhurried.scale_refinement(*maps), hybriddepth.scale_refinement(*maps), rtol=1e-4, atol=2e-4
    )
    assert any(isinstance(module, nn.BatchNorm3d) for module in unhurried.modules())


# ---- on a GPU


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(("precision", "bound"), [("float32", 1e-3), ("bfloat16", 0.1), ("float16", 0.02)])
def test_a_gpu_replays_the_depth_of_the_cpu(hybriddepth: HybridDepth, precision: str, bound: float) -> None:
    first, second = (load_fixture(name) for name in ("net_5x224x224", "net_5x256x320"))
    on_gpu = for_inference(hybriddepth, "cuda", precision)
    names = ("relative", "focus_depth", "refined_scales")

    def check(stored: dict[str, Tensor], mirrored: bool) -> Any:
        inputs = [stored["rgb"], stored["stack"], stored["focus_dist"]]
        if mirrored:  # another image of the same size, for the same graph
            inputs[:2] = [image.flip(-1) for image in inputs[:2]]
        expected, result = hybriddepth(*inputs), on_gpu(*(tensor.cuda() for tensor in inputs))
        for name in names:
            value = getattr(expected, name)
            assert float((getattr(result, name).cpu() - value).abs().median() / value.std()) < bound, name
        return result

    kept = check(first, False)
    before = [getattr(kept, name).clone() for name in names]
    check(first, True)
    check(second, False)
    check(first, False)
    assert all(torch.equal(getattr(kept, name), value) for name, value in zip(names, before, strict=True))
    assert on_gpu.focal_volume.cost.can_capture and on_gpu.relative_depth.predict.can_capture
