"""The exported networks in ONNX Runtime: PyTorch's results, for any batch, number of slices and size."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from hybriddepth_ros.errors import ModelError
from hybriddepth_ros.models import CrossDepth, HybridDepth
from hybriddepth_ros.models.engines import OPSET
from hybriddepth_ros.models.onnx_export import METADATA_PREFIX, OUTPUTS, metadata, to_onnx
from hybriddepth_ros.models.weights_config import WeightsConfig
from tests.models.conftest import made_stack, with_plain_prior

onnx = pytest.importorskip("onnx")  # both come with `make setup`
onnxruntime = pytest.importorskip("onnxruntime")

# As docs/published_models.md holds the networks to the published ones: absolute, and relative to size.
BOUNDS = {
    "depth": (5e-4, 0.0),
    "relative": (5e-5, 0.0),
    "focus_depth": (5e-5, 0.0),
    "focus_std": (2e-5, 1e-4),
}
METRES = WeightsConfig(
    "nyu",
    "hybriddepth",
    focus_unit="metres",
    depth_range=(0.02, 10.0),
    invert_depth=True,
    sigma_scale=2.5,
    licence="GPL-3.0",
    source="NYUBest5-DFV-Trained.ckpt",
    source_sha256="ab" * 32,
    sha256="cd" * 32,
)
PAGE = Path(__file__).resolve().parents[2] / "docs" / "published_models.md"


class Exported(NamedTuple):
    """A network's ONNX file, its ONNX Runtime session, and a function that runs it on tensors."""

    file: Path
    session: Any
    run: Callable[..., dict[str, torch.Tensor]]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Any, WeightsConfig], Exported]:
    def export(network: Any, config: WeightsConfig) -> Exported:
        file = tmp_path_factory.mktemp("onnx") / "network.onnx"
        model = to_onnx(network, config)
        onnx.checker.check_model(model)
        assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", OPSET)]
        file.write_bytes(model.SerializeToString())
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]

        def run(*inputs: torch.Tensor) -> dict[str, torch.Tensor]:
            fed = {put.name: value.numpy() for put, value in zip(session.get_inputs(), inputs, strict=True)}
            return dict(zip(names, map(torch.from_numpy, session.run(None, fed)), strict=True))

        return Exported(file, session, run)

    return export


@pytest.fixture(scope="module")
def hybriddepth_onnx(exported: Any, hybriddepth: HybridDepth) -> Exported:
    return exported(hybriddepth, METRES)


@pytest.fixture(scope="module")
def crossdepth_onnx(exported: Any, crossdepth: CrossDepth) -> Exported:
    return exported(crossdepth, replace(METRES, model="crossdepth", depth_range=(0.02, 0.5)))


@pytest.fixture(scope="module")
def relative_onnx(exported: Any, hybriddepth: HybridDepth) -> Exported:
    return exported(
        hybriddepth.relative_depth, WeightsConfig("small", "depth_anything", licence="Apache-2.0")
    )


@pytest.fixture(scope="module")
def plain_onnx(exported: Any, hybriddepth: HybridDepth) -> tuple[HybridDepth, Exported]:
    """HybridDepth as for DDFF12 (slices falling, relative depth as it is), without the prior's seconds."""
    network = with_plain_prior(hybriddepth)
    network._modules["focal_volume"] = _with(hybriddepth.focal_volume, slice_order="falling")
    network.invert_depth = False
    return network, exported(network, METRES)


def _with(module: torch.nn.Module, **attributes: Any) -> torch.nn.Module:
    copied = object.__new__(type(module))
    copied.__dict__ = {**module.__dict__, **attributes}
    return copied


def made_inputs(batch: int, slices: int, height: int, width: int) -> tuple[torch.Tensor, ...]:
    """An image, a stack, and focus distances in no order."""
    generator = torch.Generator().manual_seed(height)
    rgb = torch.rand(batch, 3, height, width, generator=generator)
    focus = 0.3 + 2.0 * torch.rand(batch, slices, generator=generator)
    return rgb, made_stack(batch, slices, height, width), focus


def assert_equal(results: dict[str, torch.Tensor], expected: Any) -> None:
    assert tuple(results) == OUTPUTS
    for name, result in results.items():
        absolute, relative = BOUNDS[name]
        torch.testing.assert_close(
            result,
            getattr(expected, name),
            rtol=relative,
            atol=absolute,
            msg=lambda said, output=name: f"{output}: {said}",
        )


# ---- equal to PyTorch


def test_hybriddepth_equals_pytorch(hybriddepth_onnx: Exported, hybriddepth: HybridDepth) -> None:
    inputs = made_inputs(1, 5, 75, 101)
    assert_equal(hybriddepth_onnx.run(*inputs), hybriddepth(*inputs))


def test_crossdepth_equals_pytorch(crossdepth_onnx: Exported, crossdepth: CrossDepth) -> None:
    inputs = made_inputs(3, 2, 97, 130)  # 825 tokens: two tiles of the attention, the second not full
    expected = crossdepth(*inputs)
    assert_equal(crossdepth_onnx.run(*inputs), expected)
    inside = (expected.depth > 0.02) & (expected.depth < 0.5)
    assert float(inside.float().mean()) > 0.5  # so that the bounds of its range do not hide a mistake


def test_depth_anything_equals_pytorch(relative_onnx: Exported, hybriddepth: HybridDepth) -> None:
    rgb = made_inputs(1, 2, 33, 70)[0]
    expected = hybriddepth.relative_depth(rgb)
    torch.testing.assert_close(relative_onnx.run(rgb)["relative"], expected, rtol=0.0, atol=5e-5)


@pytest.mark.parametrize(
    "size",
    [
        (1, 2, 64, 64),
        (1, 3, 32, 32),
        (3, 4, 20, 300),
        (4, 5, 64, 96),
        (1, 7, 161, 95),
        (1, 12, 65, 130),
        (1, 6, 200, 290),
        (1, 2, 1, 5),
    ],
)
def test_any_batch_slices_and_size_equal_pytorch(
    plain_onnx: tuple[HybridDepth, Exported], size: tuple[int, int, int, int]
) -> None:
    network, (_, _, run) = plain_onnx
    inputs = made_inputs(*size)
    assert_equal(run(*inputs), network(*inputs))


def test_the_order_of_slices_does_not_matter(plain_onnx: tuple[HybridDepth, Exported]) -> None:
    run = plain_onnx[1].run
    rgb, stack, focus = made_inputs(1, 5, 64, 96)
    order = torch.tensor([3, 0, 4, 2, 1])
    results, shuffled = run(rgb, stack, focus), run(rgb, stack[:, order], focus[:, order])
    torch.testing.assert_close(shuffled, results)


def test_equal_focus_distances_keep_their_order(plain_onnx: tuple[HybridDepth, Exported]) -> None:
    network, (_, _, run) = plain_onnx
    rgb, stack, _ = made_inputs(1, 4, 64, 64)
    focus = torch.tensor([[0.5, 1.0, 0.5, 1.0]])
    assert_equal(run(rgb, stack, focus), network(rgb, stack, focus))


def test_missing_pixels_are_filled_as_in_pytorch(plain_onnx: tuple[HybridDepth, Exported]) -> None:
    network, (_, _, run) = plain_onnx
    rgb, stack, focus = made_inputs(2, 3, 64, 70)
    rgb[0, :, 20, 20] = float("nan")
    stack[0, 1, :, 30:34, 10] = float("nan")
    stack[1, :, 2, 5, 6] = float("inf")
    expected = network(rgb, stack, focus)
    results = run(rgb, stack, focus)
    assert bool(torch.isfinite(results["depth"]).all())
    assert_equal(results, expected)


def test_a_constant_prior_falls_back_as_in_pytorch(plain_onnx: tuple[HybridDepth, Exported]) -> None:
    network, (_, _, run) = plain_onnx
    rgb, stack, focus = made_inputs(1, 3, 64, 64)
    rgb[:] = 0.5
    expected = network(rgb, stack, focus)
    assert expected.scale.item() == expected.shift.item() == 0.0
    assert_equal(run(rgb, stack, focus), expected)


# ---- what the file says


def test_inputs_and_outputs_say_which_sides_are_free(hybriddepth_onnx: Exported) -> None:
    session = hybriddepth_onnx.session
    assert {put.name: put.shape for put in session.get_inputs()} == {
        "rgb": ["batch", 3, "height", "width"],
        "stack": ["batch", "slices", 3, "height", "width"],
        "focus_distances": ["batch", "slices"],
    }
    assert {put.name: put.shape for put in session.get_outputs()} == {
        name: ["batch", 1, "height", "width"] for name in OUTPUTS
    }


def test_the_metadata_say_what_the_config_says(hybriddepth_onnx: Exported) -> None:
    meta = hybriddepth_onnx.session.get_modelmeta()
    assert meta.producer_name == "hybriddepth_ros"
    said = {key.removeprefix(METADATA_PREFIX): value for key, value in meta.custom_metadata_map.items()}
    assert said == metadata(METRES)
    assert said["model"] == "hybriddepth" and said["focus_unit"] == "metres"
    assert said["slice_order"] == "rising" and json.loads(said["depth_range"]) == [0.02, 10.0]
    assert said["stack_normalisation"] == "imagenet" and said["rgb_normalisation"] == "none"
    assert json.loads(said["sigma_scale"]) == 2.5 and json.loads(said["invert_depth"]) is True
    assert said["licence"] == "GPL-3.0" and said["source_sha256"] == "ab" * 32


def test_the_example_of_the_docs_runs(
    hybriddepth_onnx: Exported,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "hybriddepth-nyu5.onnx").symlink_to(hybriddepth_onnx.file)
    monkeypatch.chdir(tmp_path)
    example = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[1]
    exec(compile(example, str(PAGE), "exec"), {})
    assert capsys.readouterr().out == "(1, 1, 120, 160) metres\n"


def test_depth_anything_says_nothing_of_focus(relative_onnx: Exported) -> None:
    said = relative_onnx.session.get_modelmeta().custom_metadata_map
    assert said["hybriddepth.model"] == "depth_anything" and said["hybriddepth.licence"] == "Apache-2.0"
    assert not any("focus" in key or "slice" in key or "sigma" in key for key in said)


# ---- refused, and left alone


def test_the_network_itself_is_left_as_it_was(plain_onnx: tuple[HybridDepth, Exported]) -> None:
    assert {type(module).__module__ for module in plain_onnx[0].modules()}.isdisjoint({to_onnx.__module__})


@pytest.mark.parametrize("attributes", [{"alignment": "robust"}, {"batch_of_four_defect": True}])
def test_what_cannot_be_recorded_is_refused(hybriddepth: HybridDepth, attributes: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="expected alignment least_squares and no batch_of_four_defect"):
        to_onnx(_with(hybriddepth, **attributes), METRES)  # type: ignore[arg-type]


def test_the_papers_fusion_is_refused() -> None:
    with torch.device("meta"), pytest.raises(ModelError, match="the published fusion"):
        to_onnx(CrossDepth(fusion="paper"), METRES)


def test_a_failure_of_pytorch_is_one_line(hybriddepth: HybridDepth, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("unsupported\noperator")

    monkeypatch.setattr(torch.onnx, "export", fail)
    with pytest.raises(ModelError, match=r"PyTorch \S+ cannot do it: unsupported operator"):
        to_onnx(with_plain_prior(hybriddepth), METRES)
