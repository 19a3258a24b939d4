"""What is said of a set of weights beside its tensors: the `<name>.yaml` in the weights folder."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from hybriddepth_ros.errors import WeightsError
from hybriddepth_ros.parameters import nearest_name
from hybriddepth_ros.yaml_files import write_whole

FOLDER_VARIABLE = "HYBRIDDEPTH_WEIGHTS"
MODELS = ("hybriddepth", "crossdepth", "depth_anything")
FOCUS_UNITS = ("metres", "disparity", "diopters")
_NORMALISATIONS = ("none", "imagenet")
_INPUT_MULTIPLE = 32  # px: of both networks
_VARIANT = re.compile(r"v[12]-(small|base|large)")
_HEADER = "# Weights of hybriddepth_ros; docs/weights.md says what each entry means.\n"


@dataclass(frozen=True)
class WeightsConfig:
    """What a checkpoint does not say itself.

    focus_unit: of focus distances and results, "" for depth_anything. disparity_metres: disparity times depth
    [m], where that is the unit. slice_order: of the focus distances in training, `rising` or `falling`.
    depth_range: in focus_unit; results are not below the first number, and metres of focus beyond the second
    count as the second. invert_depth: see HybridDepth. stack_normalisation, rgb_normalisation: of the inputs.
    longest_side: to what larger images are reduced [px]; published weights were trained on 640 x 480 or less.
    input_multiple: to what the network pads their sides [px], always 32. sigma_scale: standard deviations of
    the error per unit of the network's spread; 1 = not calibrated. sha256: of the safetensors file.
    """

    name: str
    model: str
    variant: str = "v1-small"
    focus_unit: str = ""
    disparity_metres: float = 0.0
    slice_order: str = "rising"
    depth_range: tuple[float, float] = (0.0, math.inf)
    invert_depth: bool = False
    stack_normalisation: str = "imagenet"
    rgb_normalisation: str = "none"
    input_multiple: int = _INPUT_MULTIPLE
    longest_side: int = 640
    sigma_scale: float = 1.0
    licence: str = "unknown"
    source: str = ""
    source_sha256: str = ""
    revision: str = ""
    sha256: str = ""

    def __post_init__(self) -> None:
        units = FOCUS_UNITS if self.model != "depth_anything" else ("",)
        for key, value, expected in (
            ("model", self.model, MODELS),
            ("focus_unit", self.focus_unit, units),
            ("slice_order", self.slice_order, ("rising", "falling")),
            ("stack_normalisation", self.stack_normalisation, _NORMALISATIONS),
            ("rgb_normalisation", self.rgb_normalisation, _NORMALISATIONS),
        ):
            if value not in expected:
                raise WeightsError(f"{self.name}: {key}: expected {' or '.join(expected)}, got {value!r}")
        if not _VARIANT.fullmatch(self.variant):
            raise WeightsError(
                f"{self.name}: variant: expected v1- or v2- and small, base or large, got {self.variant!r}"
            )
        if self.input_multiple != _INPUT_MULTIPLE:
            raise WeightsError(
                f"{self.name}: input_multiple: expected {_INPUT_MULTIPLE}, got {self.input_multiple}"
            )
        low, high = self.depth_range
        if not 0.0 <= low < high:
            raise WeightsError(
                f"{self.name}: depth_range: expected two rising numbers, got {low:g} and {high:g}"
            )
        if self.focus_unit == "metres" and high == math.inf:  # a focus at infinity counts as the far end
            raise WeightsError(f"{self.name}: depth_range: expected an end below infinity, in metres")
        if not 0.0 < self.sigma_scale < math.inf:
            raise WeightsError(
                f"{self.name}: sigma_scale: expected a number above 0, got {self.sigma_scale:g}"
            )
        if self.focus_unit == "disparity" and not 0.0 < self.disparity_metres < math.inf:
            raise WeightsError(
                f"{self.name}: disparity_metres: expected depth times disparity [m],"
                f" got {self.disparity_metres:g}"
            )

    @property
    def calibrated(self) -> bool:
        """Whether sigma_scale was measured."""
        return self.sigma_scale != 1.0

    @property
    def identity(self) -> str:
        """Name and content: of all that is said here, the tensors' SHA-256 among it."""
        content = json.dumps(asdict(self), sort_keys=True)
        return identity(self.name, hashlib.sha256(content.encode()).hexdigest())


def identity(name: str, sha256: str) -> str:
    """`name@1f2e3d4c5b6a`: tells weights of one name apart by what they hold."""
    return f"{name}@{sha256[:12]}"


def weights_folder(folder: str | Path | None = None) -> Path:
    """Where weights lie: the option, else $HYBRIDDEPTH_WEIGHTS, else the user's cache folder."""
    chosen = folder or os.environ.get(FOLDER_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "hybriddepth_ros" / "weights"


def read_config(path: Path) -> WeightsConfig:
    """The WeightsConfig in a file; WeightsError names file, entry and what was expected."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise WeightsError(f"{path}: expected the config of weights: {error.strerror}") from None
    except (yaml.YAMLError, ValueError, RecursionError):  # a date in no calendar, brackets without end
        raise WeightsError(f"{path}: expected the config of weights as YAML") from None
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path}: expected the config of weights, got {type(content).__name__}")
    known = {field.name: field for field in fields(WeightsConfig)}
    values: dict[str, Any] = {}
    for key, value in content.items():
        if key not in known:
            raise WeightsError(f"{path}: unknown entry {key!r}{nearest_name(str(key), known)}")
        values[key] = _typed(path, key, str(known[key].type), value)
    for key in ("name", "model"):
        if key not in values:
            raise WeightsError(f"{path}: expected {key}, which is missing")
    config = WeightsConfig(**values)
    if config.name != path.stem:
        raise WeightsError(f"{path}: renamed: it is the config of {config.name}")
    return config


def write_config(config: WeightsConfig, folder: str | Path | None = None) -> None:
    """Write the config beside its tensors, or replace it, e.g. with a measured sigma_scale."""
    content = asdict(config) | {"depth_range": list(config.depth_range)}
    write_yaml(weights_folder(folder) / f"{config.name}.yaml", content, _HEADER)


def _typed(path: Path, key: str, kind: str, value: Any) -> Any:
    checks: dict[str, Callable[[Any], bool]] = {
        "str": lambda v: isinstance(v, str),
        "bool": lambda v: isinstance(v, bool),
        "int": lambda v: isinstance(v, int) and not isinstance(v, bool) and v > 0,
        "float": _is_number,
        "tuple[float, float]": lambda v: isinstance(v, list) and len(v) == 2 and all(map(_is_number, v)),
    }
    if not checks[kind](value):
        wanted = {"tuple[float, float]": "two numbers", "int": "a whole number", "float": "a number"}
        raise WeightsError(f"{path}: {key}: expected {wanted.get(kind, kind)}, got {value!r}")
    return tuple(map(float, value)) if isinstance(value, list) else value


def _is_number(value: Any) -> bool:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    try:
        return not math.isnan(float(value))
    except OverflowError:
        return False


def write_yaml(path: Path, content: Mapping[str, Any], header: str) -> None:
    """Write a YAML file; it appears under its name when it is whole."""
    try:
        write_whole(path, header + yaml.safe_dump(dict(content), sort_keys=False))
    except OSError as error:
        raise WeightsError(f"{path}: expected a place that can be written: {error.strerror}") from None
