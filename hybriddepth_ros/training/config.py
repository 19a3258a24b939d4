"""A training's config: a YAML file, checked key by key, and kept with the training."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from hybriddepth_ros.errors import OutputError, ParameterError
from hybriddepth_ros.parameters import from_mapping, nearest_name
from hybriddepth_ros.training.sweepnet_settings import SweepNetTraining

SETTINGS = {"sweepnet": SweepNetTraining}
RECORD = "training.yaml"
# What may be changed between one start and the next: how long, and how it is run.
MAY_CHANGE = ("steps", "workers", "validation_batches")


@dataclass(frozen=True)
class TrainingConfig:
    """What is trained, and with which settings."""

    model: str
    settings: SweepNetTraining


def read_config(path: Path) -> TrainingConfig:
    """ParameterError names what is wrong with the file, an unknown key with the nearest known one."""
    try:
        values = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise ParameterError(f"{path}: expected a training config: {error.strerror}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise ParameterError(f"{path}: expected YAML{f' at line {mark.line + 1}' if mark else ''}") from None
    if not isinstance(values, dict):
        raise ParameterError(f"{path}: expected keys and values, at least model")
    model = values.pop("model", None)
    if model not in SETTINGS:
        known = ", ".join(SETTINGS)
        hint = nearest_name(str(model), SETTINGS)
        raise ParameterError(f"{path}: model: expected one of {known}, got {model!r}{hint}")
    return TrainingConfig(model, from_mapping(SETTINGS[model], values, where=str(path)))


def keep_record(folder: Path, config: TrainingConfig) -> None:
    """Write down what the folder's training is made with; ParameterError if it was begun otherwise."""
    record = folder / RECORD
    now: dict[str, Any] = {"model": config.model, **asdict(config.settings)}
    if record.exists():
        try:
            before = yaml.safe_load(record.read_bytes())
        except (OSError, yaml.YAMLError) as error:
            raise ParameterError(f"{record}: expected the settings of a training: {error}") from None
        for key, value in now.items():
            if key not in MAY_CHANGE and before.get(key) != value:
                raise ParameterError(
                    f"{key}: {folder} holds a training with {before.get(key)!r}, not {value!r};"
                    " give another --out"
                )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        record.write_text(yaml.safe_dump(now, sort_keys=False), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"--out {folder}: expected a writable folder ({error.strerror})") from None
