"""The networks as a training of theirs begins: parts that stay as they are, and the part that learns."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from hybriddepth_ros import __version__
from hybriddepth_ros.errors import ParameterError, WeightsError
from hybriddepth_ros.models.checkpoint_files import read_checkpoint
from hybriddepth_ros.models.crossdepth import (
    CrossAttentionFusion,
    CrossDepth,
    PaperCrossAttentionFusion,
)
from hybriddepth_ros.models.hybriddepth import HybridDepth
from hybriddepth_ros.models.published import LIGHTNING_PREFIX
from hybriddepth_ros.models.scale_refinement import ScaleRefinement
from hybriddepth_ros.models.weights import build_network, load_weights
from hybriddepth_ros.models.weights_config import WeightsConfig
from hybriddepth_ros.models.weights_recognition import BY_UNIT
from hybriddepth_ros.training.published_settings import HybridDepthTraining, PublishedTraining

Network = HybridDepth | CrossDepth

# Where the published names of each part begin.
PRIOR, FOCUS = "depth_anything.", "DFF_model."
TRAINED = {"hybriddepth": "ScaleMapLearner.", "crossdepth": "depth_fusion."}

# EfficientNet-Lite3 in `timm`, and here; its head is not needed.
_ENCODER = {
    "conv_stem.": "layer1.0.",
    "bn1.": "layer1.1.",
    "blocks.0.": "layer1.3.",
    "blocks.1.": "layer1.4.",
    "blocks.2.": "layer2.0.",
    "blocks.3.": "layer3.0.",
    "blocks.4.": "layer3.1.",
    "blocks.5.": "layer4.0.",
    "blocks.6.": "layer4.1.",
}
_ENCODER_HEAD = ("conv_head.", "bn2.", "classifier.")


def starting_network(settings: PublishedTraining) -> tuple[Network, WeightsConfig]:
    """The network with its first weights, and what the trained weights will say of themselves."""
    whole_config: WeightsConfig | None = None
    tensors: Mapping[str, Tensor] = {}
    if settings.init_from:
        whole_config, tensors = load_weights(settings.init_from, None)
        if whole_config.model not in TRAINED:
            raise ParameterError(
                f"init_from: expected weights of {' or '.join(TRAINED)}, got those of {whole_config.model}"
            )
    prior, focus = _part(tensors, PRIOR), _part(tensors, FOCUS)
    prior_config, prior_source, focus_source = whole_config, "init_from", "init_from"
    if settings.prior_from:
        prior_config, prior = load_weights(settings.prior_from, "depth_anything")
        prior_source = "prior_from"
    if settings.focus_from:
        focus, focus_source = _focus_of(Path(settings.focus_from).expanduser()), "focus_from"
    assert prior_config is not None  # the settings ask for one or the other
    config = _config(settings, prior_config.variant, whole_config)

    torch.manual_seed(settings.seed)
    network: Network = build_network(config)
    _load(network.relative_depth, prior, prior_source)
    _load(network.focal_volume, focus, focus_source)
    if whole_config is not None and whole_config.model == settings.model and not settings.fresh:
        _load(trained_part(network), _part(tensors, TRAINED[settings.model]), "init_from")
    elif isinstance(network, HybridDepth):
        assert isinstance(settings, HybridDepthTraining)
        initialise(network.scale_refinement, settings.encoder_from)
    else:
        start_within_range(network.depth_fusion)
    return network, config


def trained_part(network: Network) -> nn.Module:
    """What learns; all else is frozen."""
    return network.scale_refinement if isinstance(network, HybridDepth) else network.depth_fusion


def start_within_range(fusion: CrossAttentionFusion | PaperCrossAttentionFusion) -> None:
    """First results near the middle of the range of inverse or metric depth, not outside it.

    A pixel at a bound has no gradient. Drawn as PyTorch draws convolutions, a network may begin with every
    pixel at one, and then learns nothing.
    """
    low, high = fusion.depth_range
    last = next(layer for layer in reversed(fusion.decoder) if isinstance(layer, nn.Conv2d))
    assert last.bias is not None
    with torch.no_grad():
        last.weight.mul_(0.1)
        last.bias.fill_((max(low, 1e-3 * high) * high) ** 0.5)


def initialise(refinement: ScaleRefinement, encoder_from: str) -> None:
    """The published start: the first convolution drawn by its fan-in, the encoder from ImageNet if given."""
    first = refinement.first[0]
    assert isinstance(first, nn.Conv2d) and first.bias is not None
    nn.init.normal_(first.weight, std=(2.0 / (9 * 3)) ** 0.5)
    nn.init.zeros_(first.bias)
    if not encoder_from:
        return
    path = Path(encoder_from).expanduser()
    found: dict[str, Tensor] = {}
    for name, tensor in read_checkpoint(path).items():
        stage = next((theirs for theirs in _ENCODER if name.startswith(theirs)), None)
        if stage is not None:
            found[_ENCODER[stage] + name.removeprefix(stage)] = tensor
        elif not name.startswith(_ENCODER_HEAD):
            raise WeightsError(f"encoder_from: {path}: expected tf_efficientnet_lite3, not with {name}")
    own = refinement.pretrained.state_dict()
    fitting = {name for name, tensor in found.items() if name in own and tensor.shape == own[name].shape}
    # Files from before PyTorch counted its batches lack the counters.
    missing = [n for n in own if n not in fitting and not n.endswith("num_batches_tracked")]
    if missing or len(fitting) != len(found):
        raise WeightsError(
            f"encoder_from: {path}: expected tf_efficientnet_lite3, not another width or depth"
        )
    refinement.pretrained.load_state_dict(found, strict=False)


def _config(settings: PublishedTraining, variant: str, whole: WeightsConfig | None) -> WeightsConfig:
    """Slices in the order that the frozen focus network knows: near to far, if its weights say no other."""
    by_unit = dict(BY_UNIT[settings.focus_unit])
    near_first = whole is None or (whole.slice_order == "rising") == (whole.focus_unit == "metres")
    rising = near_first == (settings.focus_unit == "metres")
    by_unit["slice_order"] = "rising" if rising else "falling"
    if settings.depth_range:
        by_unit["depth_range"] = (settings.depth_range[0], settings.depth_range[1])
    return WeightsConfig(
        settings.model,
        settings.model,
        variant,
        settings.focus_unit,
        rgb_normalisation=whole.rgb_normalisation if whole else "none",
        licence=whole.licence if whole else "unknown",
        source=f"trained by hybriddepth_ros {__version__} on {Path(settings.data).name}",
        **by_unit,
    )


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def _focus_of(path: Path) -> dict[str, Tensor]:
    """A checkpoint of DFV alone. Its authors' have `module.` before each name, and entries of a loss."""
    tensors = read_checkpoint(path)
    for prefix in (LIGHTNING_PREFIX, "module.", FOCUS):
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return {name: tensor for name, tensor in tensors.items() if "disp" not in name}


def _load(part: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    try:
        part.load_published(dict(tensors))  # type: ignore[operator]
    except WeightsError as error:
        raise WeightsError(f"{source}: {error}") from None
