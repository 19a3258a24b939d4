"""`hybriddepth weights` and the models that need them: one line for what is wrong, and a whole round."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import Outcome
from tests.published_weights import make_weights, published_shapes

RunCli = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def weights_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "weights"
    monkeypatch.setenv("HYBRIDDEPTH_WEIGHTS", str(folder))
    return folder


def refused(outcome: Outcome, *names: str) -> None:
    assert outcome.code == 2
    assert len(outcome.err.strip().splitlines()) == 1, outcome.err
    for name in names:
        assert name in outcome.err


def test_list_says_what_can_be_fetched(run_cli: RunCli, weights_folder: Path) -> None:
    outcome = run_cli("weights", "list")
    assert outcome.code == 0
    assert str(weights_folder) in outcome.out
    assert "hybriddepth-nyu5" in outcome.out and "NON-COMMERCIAL" in outcome.out


def test_a_file_that_is_no_checkpoint_is_refused(run_cli: RunCli, tmp_path: Path) -> None:
    (tmp_path / "bad.ckpt").write_bytes(b"no checkpoint")
    refused(run_cli("weights", "import", tmp_path / "bad.ckpt"), "bad.ckpt", "expected a PyTorch checkpoint")


def test_a_name_that_is_none_is_refused(run_cli: RunCli) -> None:
    refused(run_cli("weights", "fetch", "hybriddepth-nyu6"), "hybriddepth-nyu6", "hybriddepth-nyu5")
    refused(run_cli("weights", "verify", "absent"), "absent")


def test_a_model_without_weights_says_how_to_get_them(run_cli: RunCli, stack: Path, tmp_path: Path) -> None:
    outcome = run_cli("depth", stack, "--model", "hybriddepth", "--out", tmp_path / "out")
    refused(outcome, "hybriddepth", "weights fetch", "weights import")


def test_a_published_checkpoint_is_imported_verified_and_run(
    run_cli: RunCli, stack: Path, tmp_path: Path, weights_folder: Path
) -> None:
    import torch

    shapes = published_shapes("state_dict_keys.json")
    checkpoint = {
        "state_dict": {f"model.{name}": value for name, value in make_weights(shapes).items()},
        "epoch": 3,
        "global_step": 100,
        "pytorch-lightning_version": "2.0.0",
        "loops": {},
    }
    torch.save(checkpoint, tmp_path / "NYUBest5-DFV-Trained.ckpt")
    outcome = run_cli("weights", "import", tmp_path / "NYUBest5-DFV-Trained.ckpt")
    assert outcome.code == 0, outcome.err
    assert len(list(weights_folder.glob("*.safetensors"))) == 1
    assert run_cli("weights", "verify").code == 0
    outcome = run_cli("depth", stack, "--model", "hybriddepth", "--out", tmp_path / "out")
    assert outcome.code == 0, outcome.err
    assert np.load(tmp_path / "out" / "depth.npy").shape == (240, 320)
