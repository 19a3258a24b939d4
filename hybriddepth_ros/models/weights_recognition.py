"""What a checkpoint is: by the name of a published file, and by the names and shapes of its tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybriddepth_ros.errors import WeightsError
from hybriddepth_ros.models.weights_catalogue import (
    CATALOGUE,
    DDFF12_DISPARITY_METRES,
    Published,
    by_file,
)
from hybriddepth_ros.models.weights_config import FOCUS_UNITS, MODELS, WeightsConfig
from hybriddepth_ros.models.weights_record import known_hashes

if TYPE_CHECKING:
    from torch import Tensor

# What follows from the unit, where nobody says otherwise; the published training sets are the source.
BY_UNIT: dict[str, dict[str, Any]] = {
    "metres": {"slice_order": "rising", "depth_range": (0.02, 10.0), "invert_depth": True},
    "disparity": {
        "slice_order": "falling",
        "depth_range": (0.02, 0.5),
        "invert_depth": False,
        "disparity_metres": DDFF12_DISPARITY_METRES,
    },
    "diopters": {"slice_order": "rising", "depth_range": (0.02, 10.0), "invert_depth": False},
}
# The first names that only this model's checkpoint has.
_MARKS = {"ScaleMapLearner.": "hybriddepth", "depth_fusion.": "crossdepth", "depth_head.": "depth_anything"}
_WIDTHS = {384: "small", 768: "base", 1024: "large"}


def recognise(path: Path, sha256: str, folder: str | Path | None) -> Published | None:
    """Which published file this is, by its hash where that is known, else by its name."""
    hashes = known_hashes(folder)
    by_hash = next((CATALOGUE[name] for name, known in hashes.items() if known == sha256), None)
    named = by_file(path.name)
    if named is not None and by_hash is not None and named != by_hash:
        raise WeightsError(f"{path}: renamed: by its SHA-256 it is {by_hash.file} ({by_hash.name})")
    if named is not None and by_hash is None and hashes.get(named.name):
        raise WeightsError(
            f"{path}: not the published file of this name: its SHA-256 is {sha256},"
            f" expected {hashes[named.name]}"
        )
    return by_hash or named


def describe(
    path: Path,
    name: str,
    tensors: Mapping[str, Tensor],
    published: Published | None,
    given: Mapping[str, Any],
) -> WeightsConfig:
    """The config of a checkpoint: from what is given, else from its published name, else from its tensors."""
    settings: dict[str, Any] = dict(published.settings) if published else {}
    told = {key: value for key, value in given.items() if value is not None}
    held = _model_of(path, tensors)
    claimed = told.get("model") or settings.get("model") or held
    if claimed not in MODELS:
        raise WeightsError(f"model: expected one of {', '.join(MODELS)}, got {claimed!r}")
    if claimed != held:
        by = "said" if "model" in told else "named"
        raise WeightsError(f"{path}: renamed or wrong: {by} to be of {claimed}, its tensors are of {held}")
    if held == "depth_anything":
        told.pop("focus_unit", None)
        settings["variant"] = _variant_of(path, tensors, told.pop("variant", None) or settings.get("variant"))
        return WeightsConfig(name, held, **_without_model(settings), **_origin(path, published))
    unit = told.get("focus_unit") or settings.get("focus_unit")
    if unit is None:
        raise WeightsError(
            f"{path}: its name is not that of a published file: say the unit of its focus distances"
            f" (--focus-unit {', '.join(FOCUS_UNITS)})"
        )
    if unit not in FOCUS_UNITS:
        raise WeightsError(f"focus unit: expected {', '.join(FOCUS_UNITS)}, got {unit!r}")
    if unit != settings.get("focus_unit"):
        settings = dict(BY_UNIT[unit])
    return WeightsConfig(
        name, held, **_without_model(settings | told | {"focus_unit": unit}), **_origin(path, published)
    )


def _origin(path: Path, published: Published | None) -> dict[str, Any]:
    if published is None:
        return {"source": path.name}
    return {"source": published.url or path.name, "licence": published.licence}


def _without_model(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key != "model"}


def _model_of(path: Path, tensors: Mapping[str, Tensor]) -> str:
    models = {model for mark, model in _MARKS.items() if any(name.startswith(mark) for name in tensors)}
    if len(models) != 1:
        shown = ", ".join(sorted(tensors)[:3])
        raise WeightsError(f"{path}: expected weights of {', '.join(MODELS)}; its tensors are {shown} ...")
    return models.pop()


def _variant_of(path: Path, tensors: Mapping[str, Tensor], said: str | None) -> str:
    """Which Depth Anything: the size is in the tensors, the version in the file's name only."""
    token = tensors.get("pretrained.cls_token")
    size = _WIDTHS.get(token.shape[-1]) if token is not None and token.ndim else None
    version = re.search(r"depth_anything_(v2_)?vit[sbl]", path.name)
    found = said or (f"{'v2' if version[1] else 'v1'}-{size}" if version and size else None)
    if found is None:
        raise WeightsError(
            f"{path}: its name does not say which Depth Anything it is: say v1-... or v2-{size}"
        )
    if size and not found.endswith(f"-{size}"):
        raise WeightsError(
            f"{path}: renamed or wrong: expected Depth Anything {found}, its tensors are of {size}"
        )
    return found


def plain_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names without the Lightning module's `model.`, and Depth Anything's without its own."""
    for prefix in ("model.", "depth_anything."):
        if tensors and all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors
