"""`hybriddepth weights import`: a checkpoint becomes a safetensors file and a config."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from hybriddepth_ros.errors import WeightsError
from hybriddepth_ros.models.weights import check_tensors
from hybriddepth_ros.models.weights_catalogue import CATALOGUE, Published
from hybriddepth_ros.models.weights_config import WeightsConfig, weights_folder, write_config
from hybriddepth_ros.models.weights_recognition import describe, plain_names, recognise
from hybriddepth_ros.models.weights_record import RECORD

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


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
    published = recognise(path, source_sha256, folder)
    given = {"model": model, "focus_unit": focus_unit, "invert_depth": invert_depth, "variant": variant}
    name = name or (published.name if published else _name_from(path))
    if name in CATALOGUE and (published is None or published.name != name):
        raise WeightsError(
            f"name {name}: that of a published file, which {path} is not known to be: expected another --name"
        )
    return install(path, name, published, given, source_sha256, folder, replace_existing)


def install(
    path: Path,
    name: str,
    published: Published | None,
    given: Mapping[str, Any],
    source_sha256: str,
    folder: str | Path | None,
    replace_existing: bool,
) -> WeightsConfig:
    """Write tensors and config of a checkpoint that the network takes; else WeightsError, and no file."""
    from hybriddepth_ros.models.checkpoint_files import read_checkpoint, sha256_of, write_safetensors

    if not _NAME.fullmatch(name) or f"{name}.yaml" == RECORD:
        raise WeightsError(f"name {name!r}: expected letters, digits, '.', '_' and '-', no sign first")
    target = weights_folder(folder) / f"{name}.safetensors"
    if target.exists() and target.samefile(path):
        raise WeightsError(f"{path}: lies where it would be written to: expected a file elsewhere, or --name")
    existing = target.exists() or target.with_suffix(".yaml").exists()
    if existing and not replace_existing:
        raise WeightsError(
            f"{name}: weights of this name are installed already in {target.parent}; --replace replaces them"
        )
    tensors = plain_names(read_checkpoint(path))
    config = describe(path, name, tensors, published, given)
    for key in ("focus_unit", "invert_depth"):
        if config.model == "depth_anything" and given.get(key) is not None:
            raise WeightsError(
                f"{path}: these are weights of depth_anything, which has no {key.replace('_', ' ')}: expected"
                f" none, got {given[key]!r}"
            )
    revision = published.revision if published else ""
    config = replace(config, source_sha256=source_sha256, revision=revision)
    check_tensors(config, tensors)
    with _stage(target.parent) as stage:
        # one entry: several are written in random order, and the same import shall make the same file
        write_safetensors(stage / target.name, tensors, {"name": name})
        config = replace(config, sha256=sha256_of(stage / target.name))
        write_config(config, stage)
        for file in (target, target.with_suffix(".yaml")):
            os.replace(stage / file.name, file)
    return config


@contextlib.contextmanager
def _stage(folder: Path) -> Iterator[Path]:
    """A place for files that are to appear in `folder` together, whole, or not at all."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".import-", dir=folder) as place:
            yield Path(place)
    except OSError as error:
        raise WeightsError(f"{folder}: expected a place that can be written: {error.strerror}") from None


def _name_from(path: Path) -> str:
    return re.sub(r"[^a-z0-9._-]+", "-", path.stem.lower()).strip("-._") or "weights"
