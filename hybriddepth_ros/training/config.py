"""A training's config: a YAML file, checked key by key, and kept with the training."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from hybriddepth_ros.errors import OutputError, ParameterError
from hybriddepth_ros.parameters import from_mapping, nearest_name
from hybriddepth_ros.training.published_settings import CrossDepthTraining, HybridDepthTraining
from hybriddepth_ros.training.sweepnet_settings import SweepNetTraining
from hybriddepth_ros.yaml_files import read_yaml, write_whole

Settings = SweepNetTraining | HybridDepthTraining | CrossDepthTraining

SETTINGS: dict[str, type[Settings]] = {
    "sweepnet": SweepNetTraining,
    "hybriddepth": HybridDepthTraining,
    "crossdepth": CrossDepthTraining,
}
RECORD = "training.yaml"
CHECKPOINTS = "checkpoints"
# What may be changed between one start and the next: how long, and how it is run.
MAY_CHANGE = ("steps", "workers", "validation_batches")


@dataclass(frozen=True)
class TrainingConfig:
    """What is trained, and with which settings."""

    model: str
    settings: Settings


def read_config(path: Path) -> TrainingConfig:
    """ParameterError names what is wrong with the file, an unknown key with the nearest known one."""
    values = read_yaml(path, "a training config")
    if not isinstance(values, dict):
        raise ParameterError(f"{path}: expected keys and values, at least model")
    model = values.pop("model", None)
    if not isinstance(model, str) or model not in SETTINGS:
        known = ", ".join(SETTINGS)
        hint = nearest_name(str(model), SETTINGS)
        raise ParameterError(f"{path}: model: expected one of {known}, got {model!r}{hint}")
    return TrainingConfig(model, from_mapping(SETTINGS[model], values, where=str(path)))


def keep_record(folder: Path, config: TrainingConfig) -> None:
    """Write down what the folder's training is made with; ParameterError if it was begun otherwise.

    It was begun when there is a checkpoint: a start that ended before, at a wrong path say, settles nothing.
    """
    record = folder / RECORD
    text = yaml.safe_dump({"model": config.model, **asdict(config.settings)}, sort_keys=False)
    if record.exists() and any((folder / CHECKPOINTS).glob("*.ckpt")):
        before = _read_record(record)
        for key, value in yaml.safe_load(text).items():
            if key not in MAY_CHANGE and before.get(key) != value:
                raise ParameterError(
                    f"{key}: {folder} holds a training with {before.get(key)!r}, not {value!r};"
                    " give another --out"
                )
    if not is_first_process():
        return
    try:
        write_whole(record, text)
    except OSError as error:
        raise OutputError(f"--out {folder}: expected a writable folder ({error.strerror})") from None


def is_first_process() -> bool:
    """Whether this is the process that writes, of those that train together.

    By the environment that Lightning, torchrun and SLURM start them in: it is known before any of these is.
    """
    ranks = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID")
    return all(os.environ.get(name, "0") == "0" for name in ranks)


def _read_record(record: Path) -> dict[str, Any]:
    try:
        before = yaml.safe_load(record.read_bytes())
    except (OSError, yaml.YAMLError):
        before = None
    if not isinstance(before, dict):
        raise ParameterError(
            f"{record}: expected the settings of a training, could not read them; give another --out"
        )
    return before
