"""Training the papers' networks, small but whole: learnt, killed and resumed, its weights, its command."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hybriddepth_ros.models.weights import load_weights
from hybriddepth_ros.training.published_settings import CrossDepthTraining, HybridDepthTraining
from tests.training.conftest import tiny_settings

pytest.importorskip("lightning")
from hybriddepth_ros.training.published_training import train_published

TRAININGS = {"hybriddepth": HybridDepthTraining, "crossdepth": CrossDepthTraining}


@pytest.mark.parametrize("model", TRAININGS)
def test_a_training_changes_what_it_trains_and_nothing_else(
    model: str, tiny_prior: None, start_weights: Path, rooms: Path, tmp_path: Path
) -> None:
    settings = tiny_settings(TRAININGS[model], rooms, start_weights, ema_decay=0.5)
    path = train_published(settings, tmp_path, precision="32-true", quiet=True)
    assert path == tmp_path / f"{model}.safetensors"
    config, tensors = load_weights(str(path), model)
    assert config.focus_unit == "metres" and config.invert_depth and config.depth_range == (0.02, 10.0)
    before = load_weights(settings.init_from, "hybriddepth")[1]
    frozen = [name for name in tensors if name.startswith(("depth_anything.", "DFF_model."))]
    assert len(frozen) > 400
    for name in frozen:
        if not name.startswith("DFF_model.feature_extraction.encoder.fc."):  # which nothing reads
            assert torch.equal(tensors[name], before[name]), name
    if model == "hybriddepth":
        name = "ScaleMapLearner.scratch.output_conv.output_conv.4.weight"
        assert not torch.equal(tensors[name], before[name])
    rows = (tmp_path / "log" / "version_0" / "metrics.csv").read_text()
    for column in ("val_abs_rel", "val_rmse", "val_delta1", "val_loss"):
        assert column in rows.splitlines()[0]
