"""Other engines give PyTorch's numbers; what cannot be is refused in one line."""

from __future__ import annotations

import importlib.util
import logging
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hybriddepth_ros.errors import ModelError
from hybriddepth_ros.estimator import EstimatorOptions, load_estimator
from hybriddepth_ros.models import (
    AlignedStack,
    CrossDepth,
    FocusEstimate,
    HybridDepth,
    RollingStack,
    SlicePlace,
    check_choice,
    for_inference,
)
from hybriddepth_ros.models.engine_choice import chosen_engine
from hybriddepth_ros.models.engines import Compiled, CompiledMethod, require_engine
from hybriddepth_ros.models.sweepnet_estimator import SweepNetEstimator
from tests.stacks import defocused_stack

FOCI = np.linspace(0.4, 2.8, 5).astype(np.float32)
DIOPTERS_BOUND, SIGMA_BOUND = 2e-5, 1e-4  # 1/m, and of sigma itself


def engine(name: str, package: str) -> Any:
    missing = importlib.util.find_spec(package) is None
    return pytest.param(name, marks=pytest.mark.skipif(missing, reason=f"{package} is not installed"))


BY_FILE = [engine("onnx", "onnxruntime"), engine("openvino", "openvino")]


@pytest.fixture(scope="module")
def stack() -> AlignedStack:
    return made_stack(96, 128)


def made_stack(height: int, width: int) -> AlignedStack:
    surface = np.linspace(0.6, 2.4, height, dtype=np.float32)[:, None].repeat(width, 1)
    images = np.stack(list(defocused_stack(surface, FOCI, 8.0, (height, width))))
    return AlignedStack(images, np.ones((5, height, width), np.bool_), FOCI, 8.0)


@pytest.fixture(scope="module")
def by_torch() -> SweepNetEstimator:
    return SweepNetEstimator("cpu")


def assert_alike(found: FocusEstimate, expected: FocusEstimate) -> None:
    np.testing.assert_allclose(found.diopters, expected.diopters, rtol=0.0, atol=DIOPTERS_BOUND)
    np.testing.assert_allclose(found.sigma_diopters, expected.sigma_diopters, rtol=SIGMA_BOUND)


# ---- the same numbers


@pytest.mark.parametrize("name", BY_FILE)
def test_sweepnet_finds_what_it_finds_in_pytorch(
    name: str, stack: AlignedStack, by_torch: SweepNetEstimator, caplog: pytest.LogCaptureFixture
) -> None:
    model = SweepNetEstimator("cpu", engine=name)
    with caplog.at_level(logging.WARNING):
        assert_alike(model(stack), by_torch(stack))
        assert not caplog.records
        other = made_stack(64, 96)  # another size
        assert_alike(model(other), by_torch(other))
    assert [record.message for record in caplog.records] == [
        f"engine {name}: making sweepnet ready for 1x5x3x64x96, 1x5"
    ]
    assert_alike(model(stack), by_torch(stack))
    assert len(caplog.records) == 1  # the first size is kept


@pytest.mark.parametrize("name", BY_FILE)
def test_one_graph_serves_whichever_slice_is_new(
    name: str, stack: AlignedStack, by_torch: SweepNetEstimator
) -> None:
    model = SweepNetEstimator("cpu", engine=name)
    for found, expected in zip(updates(model, stack), updates(by_torch, stack), strict=True):
        assert_alike(found, expected)


def updates(model: SweepNetEstimator, stack: AlignedStack) -> Iterator[FocusEstimate]:
    """Of the whole stack, then of one slice after another, whose images have changed."""
    rolling = model.rolling()
    still = np.eye(3)
    places = [SlicePlace(row, image, still, 0.0) for row, image in enumerate(stack.images)]
    yield rolling(rolling_stack(stack, places))
    images = stack.images.copy()
    for key, row in enumerate((0, 3, 4, 1), start=5):
        images[row] = images[row][:, ::-1]
        places[row] = SlicePlace(key, images[row], still, 0.0)
        changed = AlignedStack(images.copy(), stack.covered, FOCI, 8.0)
        yield rolling(rolling_stack(changed, places))


def rolling_stack(stack: AlignedStack, places: list[SlicePlace]) -> RollingStack:
    return RollingStack(tuple(places), stack.covered, FOCI, 8.0, 0, lambda: stack)


@pytest.mark.parametrize("name", BY_FILE)
def test_hybriddepth_finds_what_it_finds_in_pytorch(name: str, hybriddepth: HybridDepth) -> None:
    inputs = drawn_inputs(5, 64, 96)
    expected, found = hybriddepth(*inputs), for_inference(hybriddepth, engine=name)(*inputs)
    for output, absolute in {"depth": 5e-4, "relative": 5e-5, "focus_depth": 5e-5}.items():
        torch.testing.assert_close(getattr(found, output), getattr(expected, output), rtol=0.0, atol=absolute)


def test_of_crossdepth_all_but_its_fusion_is_the_engines(crossdepth: CrossDepth) -> None:
    pytest.importorskip("onnxruntime")
    ready = for_inference(crossdepth, engine="onnx")
    assert isinstance(ready.relative_depth.predict, CompiledMethod)
    assert isinstance(ready.focal_volume.cost, CompiledMethod)
    assert not isinstance(ready.depth_fusion.unclamped, CompiledMethod)  # type: ignore[union-attr]


def drawn_inputs(slices: int, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(height)
    rgb = torch.rand(1, 3, height, width, generator=generator)
    stack = torch.rand(1, slices, 3, height, width, generator=generator)
    return rgb, stack, torch.linspace(0.4, 2.5, slices)[None]


class Small(nn.Module):
    """Two inputs, two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(2, 3, 3)

    def forward(self, image: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
        found: Tensor = self.layer(image).relu()
        return found, found.index_select(2, row)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs g++")
def test_compile_gives_pytorchs_numbers_for_every_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    module = Small()
    compiled = Compiled(module, "compile", "cpu", "small")
    with torch.inference_mode():
        for size in (8, 9, 8):
            inputs = torch.rand(1, 2, size, size), torch.tensor([1, 3])
            for found, expected in zip(compiled(*inputs), module(*inputs), strict=True):
                torch.testing.assert_close(found, expected)


def test_warming_up_makes_the_whole_stacks_graph_and_the_updates(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    made: list[str] = []
    real = Compiled._make

    def counted(self: Compiled, tensors: Any) -> Any:
        made.append(self._what)
        return real(self, tensors)

    monkeypatch.setattr(Compiled, "_make", counted)
    estimator = load_estimator("sweepnet", "cpu", EstimatorOptions(), engine="onnx")
    estimator.warm_up(128, 96)
    assert made == ["sweepnet"]
    estimator.warm_up(128, 96, rolling=True)
    assert made == ["sweepnet", "sweepnet's update"]


# ---- what cannot be


@pytest.mark.parametrize(
    ("name", "device", "module", "said"),
    [
        (
            "onnx",
            "cpu",
            "onnxruntime",
            "engine: onnx needs the Python package onnxruntime: pip install onnxruntime",
        ),
        (
            "openvino",
            "cpu",
            "openvino",
            "engine: openvino needs the Python package openvino: pip install openvino",
        ),
        (
            "tensorrt",
            "cuda",
            "onnxruntime",
            "engine: tensorrt needs the Python package onnxruntime: pip install onnxruntime-gpu",
        ),
    ],
)
def test_a_missing_package_is_named_with_its_command(
    name: str, device: str, module: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ModelError) as refused:
        require_engine(name, device)
    assert str(refused.value) == said
    if device == "cpu":
        with pytest.raises(ModelError, match=f"pip install {module}$"):
            load_estimator("sweepnet", "cpu", engine=name)
        with pytest.raises(ModelError, match=f"pip install {module}$"):  # before it looks for weights
            load_estimator("hybriddepth", "cpu", engine=name)


def test_a_missing_compiler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(
        ModelError, match="engine: compile needs a C\\+\\+ compiler, no-such-compiler is not here"
    ):
        load_estimator("sweepnet", "cpu", engine="compile")


def test_an_onnx_runtime_without_the_gpus_provider_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    for name, provider in (("tensorrt", "TensorrtExecutionProvider"), ("onnx", "CUDAExecutionProvider")):
        with pytest.raises(
            ModelError, match=f"{name} on cuda:1 needs ONNX Runtime's {provider}.*onnxruntime-gpu$"
        ):
            require_engine(name, "cuda:1")


def test_an_engine_that_fails_says_so_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")

    def fail(*_: Any, **__: Any) -> None:
        raise Exception("first line\nsecond line")

    monkeypatch.setattr(onnxruntime, "InferenceSession", fail)
    compiled = Compiled(Small(), "onnx", "cpu", "small")
    with pytest.raises(ModelError, match=r"^engine: onnx cannot run small: first line second line$"):
        compiled(torch.rand(1, 2, 8, 8), torch.tensor([0]))


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        (("sweepnet", "cpu", "float32", "tflite"), "engine: expected one of auto, torch, .*, got 'tflite'"),
        (
            ("classical", "cpu", "float32", "onnx"),
            "engine: classical is no network and takes auto only, got 'onnx'",
        ),
        (("classical", "auto", "float32", "torch"), "engine: classical is no network"),
        (("sweepnet", "cpu", "float32", "tensorrt"), "engine: on cpu expected .*openvino, got 'tensorrt'"),
        (
            ("hybriddepth", "cpu", "int8", "onnx"),
            "engine: onnx computes in float32 only, got precision 'int8'",
        ),
        (("crossdepth", "auto", "float16", "compile"), "engine: compile computes in float32 only"),
    ],
)
def test_what_does_not_go_together_is_refused(choice: tuple[str, str, str, str], said: str) -> None:
    model, device, precision, name = choice
    with pytest.raises(ModelError, match=said):
        check_choice(model, device, "", precision, name)


def test_a_choice_is_checked_without_networks_and_engines() -> None:
    code = (
        "import sys; from hybriddepth_ros.models import check_choice;"
        "check_choice('sweepnet', 'cpu', '', 'float32', 'onnx');"
        "check_choice('hybriddepth', 'auto', '', 'float32', 'tensorrt');"
        "check_choice('hybriddepth', 'cpu', '', 'int8', 'torch');"
        "sys.exit(bool({'torch', 'onnxruntime', 'openvino'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_auto_is_the_fastest_whose_package_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    present = {"openvino"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name if name in present else None)
    assert chosen_engine("auto", "hybriddepth", "cpu", "float32") == "openvino"
    assert chosen_engine("auto", "hybriddepth", "cpu", "int8") == "torch"
    assert chosen_engine("auto", "hybriddepth", "cuda", "float32") == "torch"
    assert chosen_engine("auto", "sweepnet", "cpu", "float32") == "torch"
    present.clear()
    assert chosen_engine("auto", "hybriddepth", "cpu", "float32") == "torch"
    assert chosen_engine("onnx", "hybriddepth", "cpu", "float32") == "onnx"
