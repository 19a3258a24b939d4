"""`hybriddepth train`: what is wrong with the command, its config or its folder is said in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from hybriddepth_ros.cli import main
from hybriddepth_ros.errors import ParameterError
from hybriddepth_ros.training.config import CHECKPOINTS, RECORD, TrainingConfig, is_first_process, keep_record
from hybriddepth_ros.training.published_settings import CrossDepthTraining
from hybriddepth_ros.training.sweepnet_settings import SweepNetTraining

CROSS = {"model": "crossdepth", "data": "nowhere", "init_from": "nothing"}


def refusal(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["train", *arguments]) == 2
    said = capsys.readouterr().err.strip()
    assert "\n" not in said and "Traceback" not in said and len(said) < 400, said
    return said


def begin(folder: Path) -> None:
    """A training that left a checkpoint."""
    (folder / CHECKPOINTS).mkdir(parents=True)
    (folder / CHECKPOINTS / "epoch00000.ckpt").touch()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--devices", "abc"], "--devices abc: expected auto or a whole number from 1 up"),
        (["--devices", "0"], "--devices 0: expected auto or a whole number from 1 up"),
        (["--devices", "-1"], "--devices -1: expected auto or a whole number from 1 up"),
        (["--precision", "foo"], "--precision foo: expected one of auto, 32-true, bf16-mixed, 16-mixed"),
        (["--nodes", "0"], "--nodes"),
    ],
)
def test_a_wrong_option_is_named(
    options: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(CROSS))
    out = tmp_path / "out"
    assert expected in refusal([str(path), "--out", str(out), *options], capsys)
    assert not out.exists()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"model": ["crossdepth"]}, "model: expected one of sweepnet, hybriddepth, crossdepth, got ['crossd"),
        ({"model": {"name": "crossdepth"}}, "model: expected one of sweepnet, hybriddepth, crossdepth, got"),
        ({"data": ""}, "data: expected the folder or file of a data set, got none"),
        ({"init_from": ""}, "init_from: expected weights for what is not trained"),
        ({"crop_width_px": 100}, "crop_width_px: expected a multiple of 32, got 100"),
        ({"depth_range": [2.0]}, "depth_range: expected two rising numbers, got [2.0]"),
        ({"focus_unit": "feet"}, "focus_unit: expected one of metres, disparity, diopters, got 'feet'"),
        ({"optimizer": "adam"}, "unknown parameter 'optimizer'; did you mean optimiser?"),
        ({"encoder_from": "x"}, "unknown parameter 'encoder_from'"),  # which hybriddepth has
        ({}, "weights nothing: neither installed in"),
    ],
)
def test_a_wrong_key_is_named(
    changes: dict[str, object], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(CROSS | changes))
    assert expected in refusal([str(path), "--out", str(tmp_path / "out")], capsys)


@pytest.mark.parametrize("content", [b"", b"model: [", b"- 1\n", b"\xff\xfe\x00"])
def test_a_record_that_cannot_be_read_is_named(
    content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "config.yaml", tmp_path / "out"
    path.write_text(yaml.safe_dump(CROSS))
    begin(out)
    (out / RECORD).write_bytes(content)
    said = refusal([str(path), "--out", str(out)], capsys)
    assert f"{out / RECORD}: expected the settings of a training" in said
    assert (out / RECORD).read_bytes() == content


def test_a_record_with_lists_is_found_again(tmp_path: Path) -> None:
    begin(tmp_path)
    settings = CrossDepthTraining(data="d", init_from="w", depth_range=(0.02, 0.5), learning_rate=1e-5)
    keep_record(tmp_path, TrainingConfig("crossdepth", settings))
    keep_record(tmp_path, TrainingConfig("crossdepth", settings))
    assert sorted(path.name for path in tmp_path.iterdir()) == [CHECKPOINTS, RECORD]
    other = CrossDepthTraining(data="d", init_from="w", depth_range=(0.02, 0.28), learning_rate=1e-5)
    with pytest.raises(ParameterError, match=r"depth_range: .* holds a training with \[0.02, 0.5\]"):
        keep_record(tmp_path, TrainingConfig("crossdepth", other))


@pytest.mark.parametrize("name", ["LOCAL_RANK", "NODE_RANK", "RANK", "SLURM_PROCID"])
def test_only_the_first_process_writes_the_record(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TrainingConfig("sweepnet", SweepNetTraining())
    monkeypatch.setenv(name, "1")
    assert not is_first_process()
    keep_record(tmp_path, config)
    assert not (tmp_path / RECORD).exists()
    monkeypatch.setenv(name, "0")
    keep_record(tmp_path, config)
    assert (tmp_path / RECORD).exists()
