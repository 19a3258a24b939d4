"""`hybriddepth weights export`: a file that says what it is, or one line and no file."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Outcome
from tests.published_weights import make_weights

pytest.importorskip("onnx")
RunCli = Callable[..., Outcome]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights folder with Depth Anything, the smallest of the networks, filled with made weights."""
    import torch

    from hybriddepth_ros.models.relative_depth import RelativeDepth
    from hybriddepth_ros.models.weights_import import import_checkpoint

    folder = tmp_path_factory.mktemp("weights")
    with torch.device("meta"):
        shapes = RelativeDepth("v1-small").published_layout().shapes
    torch.save(make_weights(shapes, "depth_anything."), folder / "depth_anything_vits14.pth")
    import_checkpoint(folder / "depth_anything_vits14.pth", "small", folder=folder)
    return folder


def files_under(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*")}


def refused(outcome: Outcome, *said: str) -> None:
    assert outcome.code == 2
    assert len(outcome.err.strip().splitlines()) == 1, outcome.err
    for words in said:
        assert words in outcome.err


def test_installed_weights_become_a_file_that_runs(run_cli: RunCli, folder: Path, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    import numpy as np

    file = tmp_path / "made" / "network.onnx"
    outcome = run_cli("weights", "export", "small", "--format", "onnx", "--out", file, "--folder", folder)
    assert outcome.code == 0, outcome.err
    assert str(file) in outcome.out and "MB" in outcome.out and "opset" in outcome.out
    assert files_under(tmp_path) == {"made", "network.onnx"}
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    said = session.get_modelmeta().custom_metadata_map
    assert said["hybriddepth.name"] == "small" and len(said["hybriddepth.source_sha256"]) == 64
    (relative,) = session.run(None, {"rgb": np.full((1, 3, 40, 30), 0.5, np.float32)})
    assert relative.shape == (1, 1, 40, 30)


@pytest.mark.parametrize("given", ["small", "small.safetensors"])
def test_the_file_is_named_after_the_weights(
    run_cli: RunCli, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    from onnx import ModelProto

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("hybriddepth_ros.models.onnx_export.to_onnx", lambda *_: ModelProto())
    name = folder / given if "." in given else given
    assert run_cli("weights", "export", name, "--folder", folder).code == 0
    assert files_under(tmp_path) == {"small.onnx"}


def test_another_format_is_refused(run_cli: RunCli, folder: Path) -> None:
    outcome = run_cli("weights", "export", "small", "--format", "tensorrt", "--folder", folder)
    refused(outcome, "--format tensorrt", "expected onnx")


def test_weights_that_are_not_there_are_refused(run_cli: RunCli, folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "made" / "network.onnx"
    outcome = run_cli("weights", "export", "smal", "--folder", folder, "--out", file)
    refused(outcome, "smal", str(folder), "small")
    assert files_under(tmp_path) == set()
    refused(run_cli("weights", "export", "", "--folder", folder, "--out", file), "weights")


def test_a_file_that_does_not_say_its_unit_must_be_imported_first(
    run_cli: RunCli, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine.pth").write_bytes((folder / "depth_anything_vits14.pth").read_bytes() + b"\0")
    outcome = run_cli("weights", "export", tmp_path / "mine.pth", "--folder", folder)
    refused(outcome, "mine.pth", "weights import")


@pytest.mark.parametrize("out", ["there", "file/network.onnx"])
def test_a_place_that_cannot_be_written_is_refused_before_the_work(
    run_cli: RunCli, folder: Path, tmp_path: Path, out: str
) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "file").write_text("in the way")
    outcome = run_cli("weights", "export", "small", "--out", tmp_path / out, "--folder", folder)
    refused(outcome, "--out", str((tmp_path / out).parent), "expected")
    assert "exporting" not in outcome.out
    assert files_under(tmp_path) == {"there", "file"}


def test_a_missing_package_is_named_with_the_command_that_brings_it(
    run_cli: RunCli, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    outcome = run_cli("weights", "export", "small", "--out", tmp_path / "network.onnx", "--folder", folder)
    refused(outcome, "pip install onnx")


@pytest.mark.parametrize(
    ("error", "code", "out"),
    [
        (RuntimeError("no such operator"), 2, "network.onnx"),
        (KeyboardInterrupt(), 130, "made/network.onnx"),
    ],
)
def test_an_export_that_fails_leaves_what_was_there(
    run_cli: RunCli,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    code: int,
    out: str,
) -> None:
    import torch

    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(torch.onnx, "export", fail)
    (tmp_path / "network.onnx").write_text("yesterday's")
    outcome = run_cli("weights", "export", "small", "--out", tmp_path / out, "--folder", folder)
    assert outcome.code == code
    assert len(outcome.err.strip().splitlines()) == (1 if code == 2 else 0), outcome.err
    assert files_under(tmp_path) == {"network.onnx"}
    assert (tmp_path / "network.onnx").read_text() == "yesterday's"


def test_a_full_disk_leaves_what_was_there(
    run_cli: RunCli, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from onnx import ModelProto

    def write(path: Path, data: bytes) -> int:
        path.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("hybriddepth_ros.models.onnx_export.to_onnx", lambda *_: ModelProto())
    monkeypatch.setattr(Path, "write_bytes", write)
    outcome = run_cli("weights", "export", "small", "--out", tmp_path / "network.onnx", "--folder", folder)
    refused(outcome, "network.onnx", "No space left")
    assert files_under(tmp_path) == set()
