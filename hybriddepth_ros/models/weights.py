"""Weights on this machine: listed, verified and loaded.

A set of weights is two files in the weights folder: `<name>.safetensors` with the tensors under their
published names, and `<name>.yaml`, a WeightsConfig, with what they do not say. Reading either runs no code.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybriddepth_ros.errors import WeightsError
from hybriddepth_ros.models.weights_catalogue import CATALOGUE, by_name
from hybriddepth_ros.models.weights_config import WeightsConfig, read_config, weights_folder
from hybriddepth_ros.models.weights_recognition import describe, plain_names, recognise
from hybriddepth_ros.models.weights_record import RECORD, known_hashes
from hybriddepth_ros.parameters import nearest_name

if TYPE_CHECKING:
    from torch import Tensor

_log = logging.getLogger(__name__)


# ---- what is there


def list_weights(folder: str | Path | None = None) -> list[WeightsConfig]:
    """All installed weights whose config can be read, by name."""
    found = []
    for path in _config_files(weights_folder(folder)):
        try:
            found.append(read_config(path))
        except WeightsError as error:
            _log.warning("%s", error)
    return found


def installed_names(folder: str | Path | None = None) -> list[str]:
    """The names of all installed weights, whatever their state."""
    return [path.stem for path in _config_files(weights_folder(folder))]


def load_weights(
    weights: str, model: str | None, folder: str | Path | None = None
) -> tuple[WeightsConfig, dict[str, Tensor]]:
    """Config and tensors of `weights`: an installed name or a file; "" = the first installed for `model`.

    model: what they must be of; None = anything, and then nothing is assumed of a file that does not say it.
    """
    where = weights_folder(folder)
    path = Path(weights).expanduser()
    if not weights and model is not None:
        config, file = _first_installed(model, where)
    elif installed := _installed(weights, where):
        config, file = read_config(installed), installed.with_suffix(".safetensors")
    elif path.suffix == ".safetensors" and os.path.isfile(path.with_suffix(".yaml")):
        config, file = read_config(path.with_suffix(".yaml")), path
    elif os.path.isfile(path):
        return _read_as_it_is(path, model, folder)
    else:
        raise _not_found(weights, where)
    if model is not None and config.model != model:
        raise _of_another_model(config, model)
    return config, _checked_tensors(config, file)


def verify(name: str, folder: str | Path | None = None) -> WeightsConfig:
    """Check config, hash and that the network takes all tensors of installed weights, else WeightsError."""
    config = read_config(_entry(name, folder))
    known = known_hashes(folder).get(name, config.source_sha256)
    if config.source_sha256 != known:
        raise WeightsError(
            f"{name}: not the published file of this name: made from one of SHA-256"
            f" {config.source_sha256 or 'unknown'}, expected {known}"
        )
    check_tensors(config, _checked_tensors(config, weights_folder(folder) / f"{name}.safetensors"))
    return config


def check_tensors(config: WeightsConfig, tensors: Mapping[str, Tensor]) -> None:
    """WeightsError unless the network of this config takes exactly these tensors."""
    import torch

    with torch.device("meta"):  # names and shapes are all that is looked at: no memory, no initial values
        network = build_network(config)
    try:
        network.load_published(dict(tensors))
    except WeightsError as error:
        raise WeightsError(f"{config.name}: {error}") from None


def build_network(config: WeightsConfig) -> Any:
    """The network that these weights are for, in evaluation mode, its weights still to be loaded."""
    if config.model == "depth_anything":
        from hybriddepth_ros.models.relative_depth import RelativeDepth

        return RelativeDepth(config.variant).eval()
    options: dict[str, Any] = {"slice_order": config.slice_order, "relative": config.variant}
    if config.model == "crossdepth":
        from hybriddepth_ros.models.crossdepth import CrossDepth

        return CrossDepth(config.invert_depth, depth_range=config.depth_range, **options).eval()
    from hybriddepth_ros.models.hybriddepth import HybridDepth

    return HybridDepth(config.invert_depth, least_depth=config.depth_range[0], **options).eval()


# ---- files


def _installed(weights: str, where: Path) -> Path | None:
    """The config of installed weights; a published name may be written as its authors write it."""
    published = by_name(weights)
    for name in (weights, published.name if published else ""):
        if name and "/" not in name and os.path.isfile(where / f"{name}.yaml"):
            return where / f"{name}.yaml"
    return None


def _first_installed(model: str, where: Path) -> tuple[WeightsConfig, Path]:
    mine = [config for config in list_weights(where) if config.model == model]
    if mine:
        return mine[0], where / f"{mine[0].name}.safetensors"
    fetchable = next((entry.name for entry in CATALOGUE.values() if entry.settings["model"] == model), None)
    how = f"`hybriddepth weights fetch {fetchable}` or " if fetchable else ""
    raise WeightsError(
        f"model {model}: no weights are installed in {where}: {how}`hybriddepth weights import FILE`"
    )


def _not_found(weights: str, where: Path) -> WeightsError:
    if published := by_name(weights):
        how = f"`hybriddepth weights fetch {published.name}`"
        return WeightsError(f"weights {weights}: not installed in {where}: {how}")
    known = installed_names(where)
    have = f" (installed: {', '.join(known)})" if known else ""
    return WeightsError(
        f"weights {weights}: neither installed in {where} nor a file{have}{nearest_name(weights, known)}"
    )


def _of_another_model(config: WeightsConfig, model: str) -> WeightsError:
    return WeightsError(f"weights {config.name}: expected weights of {model}, these are of {config.model}")


def _read_as_it_is(
    path: Path, model: str | None, folder: str | Path | None
) -> tuple[WeightsConfig, dict[str, Tensor]]:
    """A checkpoint that is used without being imported.

    Which unit its focus distances had in training no file says: for a first trial metres are assumed, aloud.
    """
    from hybriddepth_ros.models.checkpoint_files import read_checkpoint, sha256_of

    digest = sha256_of(path)
    published = recognise(path, digest, folder)
    tensors = plain_names(read_checkpoint(path))
    if published is None and model is None:
        raise WeightsError(
            f"{path}: its name is not that of a published file: `hybriddepth weights import` it first,"
            " which asks for what it does not say"
        )
    given = {"focus_unit": "metres"} if published is None else {}
    config = replace(describe(path, path.name, tensors, published, given), source_sha256=digest)
    if model is not None and config.model != model:
        raise _of_another_model(config, model)
    if given:
        low, high = config.depth_range
        _log.warning(
            "weights %s: not imported, and no published file has this name: taken to be for focus distances"
            " in metres, %g to %g; to say so or otherwise: `hybriddepth weights import %s --focus-unit"
            " metres|disparity|diopters`",
            path.name,
            low,
            high,
            path,
        )
    return config, tensors


def _checked_tensors(config: WeightsConfig, path: Path) -> dict[str, Tensor]:
    from hybriddepth_ros.models.checkpoint_files import read_safetensors, sha256_of

    digest = sha256_of(path)
    tensors, metadata = read_safetensors(path)
    if metadata.get("name", config.name) != config.name:
        raise WeightsError(f"{path}: renamed: these are the weights {metadata['name']}")
    if digest != config.sha256:
        raise WeightsError(
            f"{path}: changed since it was installed: SHA-256 {digest}, expected {config.sha256}"
        )
    return tensors


def _config_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.yaml") if path.name != RECORD)


def _entry(name: str, folder: str | Path | None) -> Path:
    path = weights_folder(folder) / f"{name}.yaml"
    if not path.is_file():
        known = installed_names(folder)
        tensors = path.with_suffix(".safetensors")
        reason = f"its config {path.name} is missing" if tensors.exists() else "not installed"
        raise WeightsError(f"{name}: {reason} in {path.parent}{nearest_name(name, known)}")
    return path
