"""Weights on this machine: imported, fetched, listed, verified and loaded.

A set of weights is two files in the weights folder: `<name>.safetensors` with the tensors under their
published names, and `<name>.yaml`, a WeightsConfig, with what they do not say. Reading either runs no code.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from hybriddepth_ros.errors import WeightsError
from hybriddepth_ros.models.download import Downloaded, Limits, Progress, download
from hybriddepth_ros.models.weights_catalogue import (
    CATALOGUE,
    Published,
    by_file,
    by_name,
)
from hybriddepth_ros.models.weights_config import (
    WeightsConfig,
    read_config,
    weights_folder,
    write_config,
    write_yaml,
)
from hybriddepth_ros.models.weights_recognition import describe, plain_names
from hybriddepth_ros.parameters import nearest_name

if TYPE_CHECKING:
    from torch import Tensor

RECORD = "fetched.yaml"  # what each fetched file was when it first came
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

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
    elif "/" not in weights and (where / f"{weights}.yaml").is_file():
        config, file = read_config(where / f"{weights}.yaml"), where / f"{weights}.safetensors"
    elif path.suffix == ".safetensors" and path.with_suffix(".yaml").is_file():
        config, file = read_config(path.with_suffix(".yaml")), path
    elif path.is_file():
        return _read_as_it_is(path, model, folder)
    else:
        raise _not_found(weights, where)
    if model is not None and config.model != model:
        raise _of_another_model(config, model)
    return config, _checked_tensors(config, file)


def verify(name: str, folder: str | Path | None = None) -> WeightsConfig:
    """Check config, hash and that the network takes all tensors of installed weights, else WeightsError."""
    config = read_config(_entry(name, folder))
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


# ---- import


def import_checkpoint(
    path: str | Path,
    name: str | None = None,
    model: str | None = None,
    focus_unit: str | None = None,
    invert_depth: bool | None = None,
    variant: str | None = None,
    folder: str | Path | None = None,
    replace_existing: bool = False,
) -> WeightsConfig:
    """Install a checkpoint: a published Lightning file, a state dict, or safetensors.

    What is not given follows from the name of a published file, else from the names of its tensors; the
    focus unit must be given for a file that is not published. variant: which Depth Anything, e.g. v2-small.
    """
    from hybriddepth_ros.models.checkpoint_files import sha256_of

    path = Path(path).expanduser()
    if not path.is_file():
        raise WeightsError(
            f"{path}: expected a file with weights, found {'a folder' if path.is_dir() else 'nothing'}"
        )
    source_sha256 = sha256_of(path)
    published = _recognise(path, source_sha256, folder)
    given = {"model": model, "focus_unit": focus_unit, "invert_depth": invert_depth, "variant": variant}
    return _install(path, name, published, given, source_sha256, "", folder, replace_existing)


def _install(
    path: Path,
    name: str | None,
    published: Published | None,
    given: Mapping[str, Any],
    source_sha256: str,
    revision: str,
    folder: str | Path | None,
    replace_existing: bool,
) -> WeightsConfig:
    from hybriddepth_ros.models.checkpoint_files import read_checkpoint, sha256_of, write_safetensors

    name = name or (published.name if published else _name_from(path))
    if not _NAME.fullmatch(name) or f"{name}.yaml" == RECORD:
        raise WeightsError(f"name {name!r}: expected letters, digits, '.', '_' and '-', no sign first")
    target = weights_folder(folder) / f"{name}.safetensors"
    if target.with_suffix(".yaml").exists() and not replace_existing:
        raise WeightsError(f"{name}: weights of this name are installed already in {target.parent}")
    tensors = plain_names(read_checkpoint(path))
    config = describe(path, name, tensors, published, given)
    config = replace(config, source_sha256=source_sha256, revision=revision)
    check_tensors(config, tensors)
    write_safetensors(target, tensors, {"name": name, "model": config.model, "source": config.source})
    config = replace(config, sha256=sha256_of(target))
    write_config(config, folder)
    return config


def _recognise(path: Path, source_sha256: str, folder: str | Path | None) -> Published | None:
    """Which published file this is, by its hash where that is known, else by its name."""
    hashes = known_hashes(folder)
    by_hash = next((CATALOGUE[name] for name, known in hashes.items() if known == source_sha256), None)
    named = by_file(path.name)
    if named is not None and by_hash is not None and named != by_hash:
        raise WeightsError(f"{path}: renamed: by its SHA-256 it is {by_hash.file} ({by_hash.name})")
    if named is not None and by_hash is None and hashes.get(named.name):
        raise WeightsError(
            f"{path}: not the published file of this name: its SHA-256 is {source_sha256},"
            f" expected {hashes[named.name]}"
        )
    return by_hash or named


def _name_from(path: Path) -> str:
    return re.sub(r"[^a-z0-9._-]+", "-", path.stem.lower()).strip("-._") or "weights"


# ---- fetch


def fetch(
    name: str,
    folder: str | Path | None = None,
    limits: Limits | None = None,
    progress: Progress | None = None,
    replace_existing: bool = False,
) -> WeightsConfig:
    """Download published weights and install them; as they are, if they are installed and whole.

    The SHA-256 must be the stated one, else that of the first fetch, which is recorded.
    """
    published = published_entry(name)
    target = weights_folder(folder)
    if (target / f"{published.name}.yaml").exists() and not replace_existing:
        return verify(published.name, folder)
    file = target / "downloads" / published.name / published.file
    try:
        came = download(published.url, file, limits, progress)
        expected = known_hashes(folder).get(published.name) or came.stated_sha256
        if expected and came.sha256 != expected:
            raise WeightsError(
                f"{published.url}: not the file that it was: SHA-256 {came.sha256}, expected {expected}"
            )
        revision = came.revision or published.revision
        config = _install(file, None, published, {}, came.sha256, revision, folder, replace_existing=True)
        _record(published, came, revision, folder)
        return config
    finally:
        file.unlink(missing_ok=True)
        for empty in (file.parent, file.parent.parent):
            _remove_if_empty(empty)


def published_entry(name: str) -> Published:
    """The catalogue's entry; WeightsError with the nearest name for one that is not there."""
    published = by_name(name)
    if published is None:
        known = ", ".join(CATALOGUE)
        raise WeightsError(
            f"unknown weights {name!r}, expected one of {known}{nearest_name(name, CATALOGUE)}"
        )
    return published


def known_hashes(folder: str | Path | None = None) -> dict[str, str]:
    """SHA-256 of each published file, by name: as stated, or as it was when first fetched."""
    recorded = {name: str(entry.get("sha256", "")) for name, entry in _read_record(folder).items()}
    stated = {entry.name: entry.sha256 for entry in CATALOGUE.values() if entry.sha256}
    return {name: digest for name, digest in (recorded | stated).items() if name in CATALOGUE and digest}


def _record(published: Published, came: Downloaded, revision: str, folder: str | Path | None) -> None:
    record = _read_record(folder)
    if published.name in record:
        return
    record[published.name] = {
        "url": published.url,
        "revision": revision,
        "sha256": came.sha256,
        "size": came.size,
        "licence": published.licence,
        "first_fetched": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    header = "# What each file was when it was first fetched; later fetches must bring the same.\n"
    write_yaml(weights_folder(folder) / RECORD, record, header)


def _read_record(folder: str | Path | None) -> dict[str, dict[str, Any]]:
    path = weights_folder(folder) / RECORD
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, yaml.YAMLError, UnicodeDecodeError):
        content = None
    if not isinstance(content, dict) or not all(isinstance(entry, dict) for entry in content.values()):
        raise WeightsError(f"{path}: expected the record of fetched files; it is damaged")
    return content


# ---- files


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
    """A checkpoint that is used without being imported."""
    from hybriddepth_ros.models.checkpoint_files import read_checkpoint, sha256_of

    digest = sha256_of(path)
    published = _recognise(path, digest, folder)
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
        _log.warning(
            "weights %s: taken to be for focus distances in metres, as the file's name does not say;"
            " `hybriddepth weights import --focus-unit` does",
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


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        return
