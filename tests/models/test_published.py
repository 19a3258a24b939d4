"""Checkpoints load by their published names: all of them, and no others."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys

import pytest
import torch

from hybriddepth_ros.errors import WeightsError
from hybriddepth_ros.models import CrossAttentionFusion, CrossDepth, HybridDepth
from hybriddepth_ros.models.published import PublishedLayout, load_published
from hybriddepth_ros.models.relative_depth import RelativeDepth
from tests.conftest import shared_path
from tests.published_weights import make_weight, make_weights, published_shapes

UNUSED = {
    "DFF_model.feature_extraction.encoder.fc.weight",
    "DFF_model.feature_extraction.encoder.fc.bias",
    "ScaleMapLearner.scratch.refinenet4.resConfUnit1.conv1.weight",
    "ScaleMapLearner.scratch.refinenet4.resConfUnit1.conv1.bias",
    "ScaleMapLearner.scratch.refinenet4.resConfUnit1.conv2.weight",
    "ScaleMapLearner.scratch.refinenet4.resConfUnit1.conv2.bias",
}


def layout_of(*sizes: int) -> PublishedLayout:
    """A layout of small tensors `a`, `b`, ... of the given lengths, and an unused entry."""
    return PublishedLayout(
        {"abcdef"[i]: (torch.zeros(size),) for i, size in enumerate(sizes)}, {"spare": (1,)}
    )


@pytest.mark.parametrize(
    ("names", "checksums"),
    [
        ("state_dict_keys.json", "weights_checksums.json"),
        ("crossdepth_state_dict_keys.json", "crossdepth_state_dict_keys.json"),
    ],
)
def test_the_made_weights_are_those_of_the_fixtures(names: str, checksums: str) -> None:
    stored = json.loads(shared_path(f"fixtures/{checksums}").read_text())
    stored = stored.get("checksums", stored)
    shapes = published_shapes(names)
    assert set(stored) == set(shapes)
    for name, expected in stored.items():
        if shapes[name] and max(shapes[name]) > 1000 and len(shapes[name]) > 1:
            continue  # the twenty largest take most of the time and follow the same rule
        tensor = make_weight(name, shapes[name]).numpy()
        assert hashlib.sha1(tensor.tobytes()).hexdigest() == expected["sha1"], name


def test_all_1140_published_names_are_taken_or_known_to_be_unused(hybriddepth: HybridDepth) -> None:
    layout = hybriddepth.published_layout()
    published = {name: tuple(shape) for name, shape in published_shapes("state_dict_keys.json").items()}
    assert layout.shapes == published and len(published) == 1140
    assert set(layout.unused) == UNUSED


def test_crossdepth_takes_all_731_of_its_names(crossdepth: CrossDepth) -> None:
    kept = published_shapes("state_dict_keys.json") | published_shapes("crossdepth_state_dict_keys.json")
    published = {n: tuple(s) for n, s in kept.items() if not n.startswith("ScaleMapLearner.")}
    assert crossdepth.published_layout().shapes == published and len(published) == 731


def test_every_parameter_and_buffer_is_filled_by_exactly_one_published_entry(
    hybriddepth: HybridDepth,
) -> None:
    filled = [t.data_ptr() for tensors in hybriddepth.published_layout().targets.values() for t in tensors]
    ours = [t.data_ptr() for t in hybriddepth.state_dict().values()]
    assert sorted(filled) == sorted(ours)


def test_names_load_with_and_without_prefix_and_inside_a_lightning_file() -> None:
    weights = {"a": torch.ones(2), "b": torch.ones(3), "spare": torch.ones(1)}
    prefixed = {f"model.{name}": value for name, value in weights.items()}
    lightning = {"state_dict": prefixed, "epoch": 3, "pytorch-lightning_version": "2.2"}
    for state_dict in (weights, prefixed, lightning):
        layout = layout_of(2, 3)
        load_published(layout, state_dict, "a model")
        assert all(bool((tensors[0] == 1).all()) for tensors in layout.targets.values())


@pytest.mark.parametrize("removed", ["a", "b", "spare"])
def test_a_missing_name_is_refused_and_named_and_nothing_changes(removed: str) -> None:
    weights = {"a": torch.ones(2), "b": torch.ones(3), "spare": torch.ones(1)}
    del weights[removed]
    layout = layout_of(2, 3)
    with pytest.raises(WeightsError, match=rf"a model: 1 missing: {removed}$"):
        load_published(layout, weights, "a model")
    assert all(bool((tensors[0] == 0).all()) for tensors in layout.targets.values())


def test_unexpected_misshapen_and_infinite_entries_are_refused_in_one_line() -> None:
    weights = {
        "a": torch.ones(2, 1),
        "b": torch.full((3,), torch.inf),
        "spare": torch.ones(1),
        "model.c": torch.ones(1),
    }
    with pytest.raises(WeightsError) as raised:
        load_published(layout_of(2, 3), weights, "a model")
    message = str(raised.value)
    assert "1 unexpected: model.c" in message
    assert "1 of another shape: a [2, 1], expected [2]" in message
    assert "1 not finite: b" in message
    assert "\n" not in message


def test_numbers_of_another_kind_are_refused_and_endless_ones_not_counted() -> None:
    weights = {"a": torch.ones(2, dtype=torch.int64), "b": torch.tensor([1.0, 1e300, 1.0]).double()}
    weights |= {"spare": torch.ones(1)}
    weights["b"][1] = 1e300  # finite, but not as float32
    with pytest.raises(WeightsError, match=r"1 of another kind: a torch.int64; 1 not finite: b"):
        load_published(layout_of(2, 3), weights, "a model")
    weights["a"] = torch.ones(1).expand(1 << 40)  # would take days to look at
    with pytest.raises(WeightsError, match="1 of another shape"):
        load_published(layout_of(2, 3), weights, "a model")


def test_a_long_list_of_mistakes_is_cut_short() -> None:
    with pytest.raises(WeightsError, match=r"7 missing: a, b, c, d and 3 more$"):
        load_published(layout_of(1, 1, 1, 1, 1, 1), {}, "a model")


@pytest.mark.parametrize("state_dict", [{"state_dict": [1, 2]}, {"a": 1.0}, {"state_dict": {"a": "text"}}])
def test_what_is_no_state_dict_is_refused(state_dict: dict[str, object]) -> None:
    with pytest.raises(WeightsError, match="expected a state dict"):
        load_published(layout_of(1), state_dict, "a model")


def test_one_models_checkpoint_does_not_load_into_the_other(
    hybriddepth: HybridDepth, crossdepth: CrossDepth
) -> None:
    empty = {name: torch.empty(shape) for name, shape in hybriddepth.published_layout().shapes.items()}
    with pytest.raises(WeightsError, match=r"80 missing: depth_fusion.*489 unexpected: ScaleMapLearner"):
        crossdepth.load_published(empty)


def test_parts_load_by_themselves_under_any_of_their_names() -> None:
    fusion = CrossAttentionFusion()
    weights = make_weights({name: tuple(t.shape) for name, t in fusion.state_dict().items()}, "depth_fusion.")
    for prefix in ("", "depth_fusion.", "model.depth_fusion."):
        fusion.load_published({prefix + name: value for name, value in weights.items()})
    with pytest.raises(WeightsError, match="missing: embed_d"):
        fusion.load_published({})


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize(
    ("size", "blocks", "width"), [("small", 12, 384), ("base", 12, 768), ("large", 24, 1024)]
)
def test_every_size_of_depth_anything_has_the_published_names(
    version: str, size: str, blocks: int, width: int
) -> None:
    with torch.device("meta"):
        shapes = RelativeDepth(f"{version}-{size}").published_layout().shapes
    assert len(shapes) == 239 + (blocks - 12) * 14
    assert shapes[f"pretrained.blocks.{blocks - 1}.attn.qkv.weight"] == (3 * width, width)
    assert shapes["depth_head.projects.2.weight"][1] == width
    assert all(name.startswith(("pretrained.", "depth_head.")) for name in shapes)


def test_importing_the_packages_brings_neither_torch_nor_transformers() -> None:
    code = (
        "import sys, hybriddepth_ros.models, hybriddepth_ros.simulation, hybriddepth_ros.evaluation.metrics;"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules;"
        "from hybriddepth_ros.models import HybridDepth, CrossDepth, CrossAttentionFusion;"
        "from hybriddepth_ros.simulation import published_defocus;"
        "assert 'torch' in sys.modules and 'transformers' not in sys.modules"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr


def test_an_unknown_name_of_the_package_is_an_attribute_error() -> None:
    import hybriddepth_ros.models
    import hybriddepth_ros.simulation

    for package in (hybriddepth_ros.models, hybriddepth_ros.simulation):
        with pytest.raises(AttributeError, match="Nonsense"):
            _ = package.Nonsense
