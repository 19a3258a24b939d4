"""With which weights a training of the papers' networks begins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from hybriddepth_ros.errors import HybridDepthError, ParameterError, WeightsError
from hybriddepth_ros.models.checkpoint_files import write_safetensors
from hybriddepth_ros.models.crossdepth import CrossDepth
from hybriddepth_ros.models.efficientnet import EfficientNetLite3
from hybriddepth_ros.models.hybriddepth import HybridDepth
from hybriddepth_ros.models.weights import load_weights
from hybriddepth_ros.models.weights_config import WeightsConfig
from hybriddepth_ros.training.published_settings import CrossDepthTraining, HybridDepthTraining
from hybriddepth_ros.training.published_start import starting_network
from tests.training import tiny_networks

pytestmark = pytest.mark.usefixtures("tiny_prior")


def settings(kind: type[Any], **changes: Any) -> Any:
    return kind(**{"data": "here", **changes})


@pytest.fixture
def start(start_weights: Path) -> str:
    return str(start_weights / "hybriddepth.safetensors")


def test_everything_comes_from_weights_of_the_same_model_unless_it_is_to_be_fresh(start: str) -> None:
    tensors = load_weights(start, None)[1]
    network, config = starting_network(settings(HybridDepthTraining, init_from=start))
    assert isinstance(network, HybridDepth)
    assert (config.focus_unit, config.slice_order, config.invert_depth) == ("metres", "rising", True)
    wanted = tensors["ScaleMapLearner.scratch.layer1_rn.weight"]
    assert torch.equal(network.scale_refinement.scratch.layer1_rn.weight, wanted)
    assert not any(parameter.requires_grad for parameter in network.focal_volume.parameters())

    fresh, _ = starting_network(settings(HybridDepthTraining, init_from=start, fresh=True))
    assert isinstance(fresh, HybridDepth)
    assert not torch.equal(fresh.scale_refinement.scratch.layer1_rn.weight, wanted)
    same = "DFF_model.decoder3.classify.2.0.weight"
    assert torch.equal(fresh.focal_volume.decoder3.state_dict()["classify.2.0.weight"], tensors[same])
    first = fresh.scale_refinement.first[0]
    assert isinstance(first, nn.Conv2d) and not first.bias.any()  # type: ignore[union-attr]


def test_crossdepth_takes_the_frozen_parts_of_hybriddepth_and_a_seed_draws_the_rest(start: str) -> None:
    one, config = starting_network(settings(CrossDepthTraining, init_from=start))
    again, _ = starting_network(settings(CrossDepthTraining, init_from=start))
    other, _ = starting_network(settings(CrossDepthTraining, init_from=start, seed=2))
    assert isinstance(one, CrossDepth) and config.model == "crossdepth"
    weights = [network.depth_fusion.decoder[1].weight for network in (one, again, other)]  # type: ignore[union-attr]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize(
    ("unit", "order", "invert"),
    [("metres", "rising", True), ("disparity", "falling", False), ("diopters", "falling", False)],
)
def test_slices_stay_near_to_far_in_every_unit(start: str, unit: str, order: str, invert: bool) -> None:
    config = starting_network(settings(CrossDepthTraining, init_from=start, focus_unit=unit))[1]
    assert (config.slice_order, config.invert_depth) == (order, invert)
    narrow = settings(CrossDepthTraining, init_from=start, focus_unit=unit, depth_range=(0.1, 3.0))
    assert starting_network(narrow)[1].depth_range == (0.1, 3.0)


def test_prior_and_focus_may_come_from_files_of_their_own(start: str, tmp_path: Path) -> None:
    prior = tiny_networks.install(tmp_path, WeightsConfig("prior", "depth_anything"), seed=5)
    tensors = load_weights(start, None)[1]
    focus = {
        "module." + name.removeprefix("DFF_model."): 0.5 * tensor if tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
        if name.startswith("DFF_model.")
    }
    focus["module.disp_reg.disp"] = torch.zeros(3)
    torch.save({"state_dict": focus}, tmp_path / "DFV.tar")
    network, _ = starting_network(
        settings(CrossDepthTraining, prior_from=prior, focus_from=str(tmp_path / "DFV.tar"))
    )
    cost = network.focal_volume.state_dict()["decoder3.classify.2.0.weight"]
    assert torch.equal(cost, 0.5 * tensors["DFF_model.decoder3.classify.2.0.weight"])
    token = load_weights(prior, None)[1]["pretrained.cls_token"]
    assert torch.equal(network.relative_depth.network.backbone.embeddings.cls_token, token)
    assert not torch.equal(token, tensors["depth_anything.pretrained.cls_token"])


def imagenet_file(path: Path, **changes: torch.Tensor) -> str:
    """An EfficientNet-Lite3 as `timm` names it."""
    theirs = {
        "layer1.0": "conv_stem",
        "layer1.1": "bn1",
        "layer1.3": "blocks.0",
        "layer1.4": "blocks.1",
        "layer2.0": "blocks.2",
        "layer3.0": "blocks.3",
        "layer3.1": "blocks.4",
        "layer4.0": "blocks.5",
        "layer4.1": "blocks.6",
    }
    torch.manual_seed(7)
    state = EfficientNetLite3().state_dict()
    tensors = {theirs[name[:8]] + name[8:]: tensor for name, tensor in state.items()}
    tensors |= {
        "conv_head.weight": torch.ones(1),
        "bn2.bias": torch.ones(1),
        "classifier.bias": torch.ones(1),
    }
    write_safetensors(path, tensors | changes, {})
    return str(path)


def test_the_encoder_may_begin_with_imagenet_weights(start: str, tmp_path: Path) -> None:
    file = imagenet_file(tmp_path / "lite3.safetensors")
    wanted = settings(HybridDepthTraining, init_from=start, fresh=True, encoder_from=file)
    network = starting_network(wanted)[0]
    torch.manual_seed(7)
    expected = EfficientNetLite3().state_dict()
    assert isinstance(network, HybridDepth)
    for name, tensor in network.scale_refinement.pretrained.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


def test_weights_that_do_not_fit_are_refused_in_one_line(start: str, tmp_path: Path) -> None:
    prior = tiny_networks.install(tmp_path, WeightsConfig("prior", "depth_anything"))

    def refusal(kind: type[Any], **changes: Any) -> str:
        with pytest.raises(HybridDepthError) as caught:
            starting_network(settings(kind, **changes))
        said = str(caught.value)
        assert "\n" not in said and len(said) < 600
        assert isinstance(caught.value, (ParameterError, WeightsError))
        return said

    said = refusal(CrossDepthTraining, init_from=prior)
    assert said == "init_from: expected weights of hybriddepth or crossdepth, got those of depth_anything"
    assert "expected weights of depth_anything" in refusal(
        CrossDepthTraining, init_from=start, prior_from=start
    )
    wrong = imagenet_file(tmp_path / "other.safetensors", **{"conv_stem.weight": torch.ones(16, 3, 3, 3)})
    said = refusal(HybridDepthTraining, init_from=start, fresh=True, encoder_from=wrong)
    assert "other.safetensors: expected tf_efficientnet_lite3, not another width" in said
    strange = imagenet_file(tmp_path / "strange.safetensors", **{"stages.0.weight": torch.ones(1)})
    said = refusal(HybridDepthTraining, init_from=start, fresh=True, encoder_from=strange)
    assert "not with stages.0.weight" in said
    torch.save({"state_dict": {"decoder3.convs.0.weight": torch.ones(2)}}, tmp_path / "dfv.tar")
    said = refusal(CrossDepthTraining, init_from=start, focus_from=str(tmp_path / "dfv.tar"))
    assert said.startswith("focus_from: weights for DFV: ")
    missing = refusal(CrossDepthTraining, init_from=start, focus_from=str(tmp_path / "nothing.tar"))
    assert "nothing.tar: expected a file with weights, found nothing there" in missing


def test_weights_of_other_widths_are_refused_in_one_line(
    start_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(
        tiny_networks.relative_depth.VARIANTS,
        "v1-small",
        tiny_networks.relative_depth.Variant(24, 4, 2, (4, 4, 8, 8), 8, taps=(1, 2, 3, 4)),
    )
    file = str(start_weights / "hybriddepth.safetensors")
    with pytest.raises(WeightsError, match=r"init_from: weights for Depth Anything: .* of another shape"):
        starting_network(settings(HybridDepthTraining, init_from=file))
