"""`hybriddepth weights` and the models that need them: one line for what is wrong, and a whole round."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hybriddepth_ros.models.weights_catalogue import CATALOGUE
from hybriddepth_ros.models.weights_config import WeightsConfig, write_config
from tests.cli.conftest import Outcome
from tests.file_server import FileServer, file_server, point_hub_at
from tests.published_weights import make_weights, published_shapes

RunCli = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def weights_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "weights"
    monkeypatch.setenv("HYBRIDDEPTH_WEIGHTS", str(folder))
    return folder


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """A hub on this machine, to this process and to those that it starts."""
    import huggingface_hub

    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    with file_server() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        point_hub_at(running.url, tmp_path / "hub" / "hub", monkeypatch)
        yield running
    huggingface_hub.close_session()


def started(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    """The command line in a process of its own."""
    command = [sys.executable, "-m", "hybriddepth_ros", *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env={**os.environ, **environment})


def outcome_of(process: subprocess.Popen[str]) -> Outcome:
    out, err = process.communicate(timeout=120)
    return Outcome(process.returncode, out, err)


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


def test_list_says_the_licence_of_what_is_installed(run_cli: RunCli) -> None:
    write_config(WeightsConfig("mine", "hybriddepth", focus_unit="diopters"))
    (line,) = (line for line in run_cli("weights", "list").out.splitlines() if line.startswith("  mine "))
    assert line.endswith("sigma not calibrated, licence unknown")


def test_a_file_that_is_no_checkpoint_is_refused(run_cli: RunCli, tmp_path: Path) -> None:
    (tmp_path / "bad.ckpt").write_bytes(b"no checkpoint")
    refused(run_cli("weights", "import", tmp_path / "bad.ckpt"), "bad.ckpt", "expected a PyTorch checkpoint")


def test_a_name_that_is_none_is_refused(run_cli: RunCli) -> None:
    refused(run_cli("weights", "fetch", "hybriddepth-nyu6"), "hybriddepth-nyu6", "hybriddepth-nyu5")
    refused(run_cli("weights", "verify", "absent"), "absent")


def test_a_model_without_weights_says_how_to_get_them(run_cli: RunCli, stack: Path, tmp_path: Path) -> None:
    outcome = run_cli("depth", stack, "--model", "hybriddepth", "--out", tmp_path / "out")
    refused(outcome, "hybriddepth", "weights fetch", "weights import")


@pytest.mark.slow
def test_a_published_checkpoint_is_imported_verified_and_run(
    run_cli: RunCli, stack: Path, tmp_path: Path, weights_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Under its published name by import; under another as it is, and a warning says what is assumed."""
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
    (installed,) = weights_folder.glob("*.safetensors")
    assert run_cli("weights", "verify").code == 0
    outcome = run_cli("depth", stack, "--model", "hybriddepth", "--out", tmp_path / "out")
    assert outcome.code == 0, outcome.err
    depth = np.load(tmp_path / "out" / "depth.npy")
    assert depth.shape == (240, 320) and caplog.text == ""

    mine = tmp_path / "epoch=3-step=100.ckpt"
    (tmp_path / "NYUBest5-DFV-Trained.ckpt").rename(mine)
    outcome = run_cli("depth", stack, "--model", "hybriddepth", "--weights", mine, "--out", tmp_path / "mine")
    assert outcome.code == 0, outcome.err
    for said in (mine.name, "in metres", f"weights import {mine} --focus-unit"):
        assert said in caplog.text
    np.testing.assert_array_equal(np.load(tmp_path / "mine" / "depth.npy"), depth)  # it is in metres

    with installed.open("r+b") as file:
        file.seek(-1000, os.SEEK_END)
        byte = file.read(1)[0]
        file.seek(-1000, os.SEEK_END)
        file.write(bytes([byte ^ 1]))
    refused(run_cli("weights", "verify"), installed.name, "changed since it was installed")


@pytest.mark.slow
def test_fetched_weights_are_shown_with_their_licence_checked_and_installed(
    run_cli: RunCli, server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real network, whose published file is 99 MB, filled by the rule of the fixtures."""
    import torch

    from hybriddepth_ros.models.relative_depth import RelativeDepth

    with torch.device("meta"):
        shapes = RelativeDepth("v1-small").published_layout().shapes
    torch.save(make_weights(shapes, "depth_anything."), tmp_path / "made.bin")
    body = (tmp_path / "made.bin").read_bytes()
    digest = hashlib.sha256(body).hexdigest()
    name = "depth-anything-v1-small"
    entry = replace(CATALOGUE[name], sha256=digest)
    monkeypatch.setitem(CATALOGUE, name, entry)
    server.serve_hub(entry, body)

    outcome = run_cli("weights", "fetch", name)
    assert outcome.code == 0, outcome.err
    first, second, *_ = outcome.out.splitlines()
    assert first.startswith("licence     Apache-2.0") and second.endswith(f"{server.url}/{path_of(name)}")
    assert digest in outcome.out and outcome.err == ""
    assert run_cli("weights", "verify", name).out.startswith(f"whole       {name}: depth_anything")

    again = run_cli("weights", "fetch", name)
    assert again.code == 0 and again.out.splitlines()[-1].startswith(f"whole       {name}")
    assert len(server.gets()) == 1
    listed, fetchable = run_cli("weights", "list").out.split("fetchable")
    assert f"{name}  " in listed and f"{name} " not in fetchable


def path_of(name: str) -> str:
    entry = CATALOGUE[name]
    return f"{entry.repository}/resolve/{entry.revision}/{entry.file}"


def test_non_commercial_weights_are_called_so_before_anything_is_fetched(
    run_cli: RunCli, server: FileServer
) -> None:
    outcome = run_cli("weights", "fetch", "depth-anything-v2-base")
    assert outcome.out.startswith("licence     CC-BY-NC-4.0: NON-COMMERCIAL use only\n")
    refused(outcome, "depth_anything_v2_vitb.pth", "404")


def test_the_mirror_and_the_offline_switch_of_the_hub_are_heeded(server: FileServer) -> None:
    for environment, name in (({}, "404"), ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE")):
        outcome = outcome_of(started("weights", "fetch", "depth-anything-v1-small", **environment))
        refused(outcome, server.url, name)
        assert "Traceback" not in outcome.out
    assert len(server.asked) == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_fetch_that_is_stopped_leaves_nothing_behind(
    server: FileServer, weights_folder: Path, number: signal.Signals, code: int
) -> None:
    name = "depth-anything-v1-small"
    server.serve_hub(CATALOGUE[name], b"", x_linked_etag='"none"', x_linked_size="100000")
    path = f"/{path_of(name)}"
    server.files[path] = replace(server.files[path], body=bytes(1000), announced=100_000, stalls=True)
    process = started("weights", "fetch", name)
    waited_until = time.monotonic() + 60.0
    while not list(weights_folder.glob(".fetch-*/*.part")) or not server.gets():
        assert process.poll() is None and time.monotonic() < waited_until
        time.sleep(0.05)
    process.send_signal(number)
    outcome = outcome_of(process)
    assert (outcome.code, outcome.err) == (code, "")
    assert list(weights_folder.iterdir()) == []
