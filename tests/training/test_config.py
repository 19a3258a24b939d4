"""A training's config and the record that its folder keeps."""

from pathlib import Path

import pytest

from hybriddepth_ros.errors import ParameterError
from hybriddepth_ros.training.config import CHECKPOINTS, TrainingConfig, keep_record, read_config
from hybriddepth_ros.training.sweepnet_settings import SweepNetTraining

SHIPPED = sorted((Path(__file__).parents[2] / "config/training").glob("*.yaml"))


def written(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_config_can_be_read(path: Path) -> None:
    assert read_config(path).settings.steps > 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "model: sweepnet\nlearning_rat: 1e-3\n",
            "unknown parameter 'learning_rat'; did you mean learning_rate",
        ),
        ("model: sweepnett\n", "model: expected one of sweepnet.*did you mean sweepnet"),
        ("steps: 3\n", "model: expected one of sweepnet"),
        ("model: sweepnet\nsteps: many\n", "steps: expected a number, got 'many'"),
        ("model: sweepnet\ncrop_px: 100\n", "crop_px: expected a multiple of 32"),
        ("model: sweepnet\nbatch_size: 9\npool_stacks: 8\n", "pool_stacks: expected at least batch_size"),
        ("- 1\n", "expected keys and values"),
        ("model: [\n", "expected YAML at line"),
    ],
)
def test_a_wrong_config_is_named_with_what_was_expected(tmp_path: Path, text: str, said: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ParameterError, match=said) as refusal:
        read_config(path)
    assert "\n" not in str(refusal.value)


def test_a_missing_config_is_named(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match=r"nowhere\.yaml: expected a training config"):
        read_config(tmp_path / "nowhere.yaml")


def test_a_folder_goes_on_with_its_own_settings_only(tmp_path: Path) -> None:
    keep_record(tmp_path, TrainingConfig("sweepnet", SweepNetTraining(seed=1, steps=100)))
    (tmp_path / CHECKPOINTS).mkdir()
    (tmp_path / CHECKPOINTS / "epoch00000.ckpt").touch()
    keep_record(tmp_path, TrainingConfig("sweepnet", SweepNetTraining(seed=1, steps=200)))  # longer: fine
    with pytest.raises(ParameterError, match=r"seed: .* holds a training with 1, not 2"):
        keep_record(tmp_path, TrainingConfig("sweepnet", SweepNetTraining(seed=2, steps=200)))


def test_a_start_that_left_no_checkpoint_settles_nothing(tmp_path: Path) -> None:
    keep_record(tmp_path, TrainingConfig("sweepnet", SweepNetTraining(init_from="misspelt")))
    keep_record(tmp_path, TrainingConfig("sweepnet", SweepNetTraining(init_from="right")))
