"""`hybriddepth evaluate` on stacks with a truth: what it writes, goes on from, refuses and survives."""

from __future__ import annotations

import csv
import json
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hybriddepth_ros.commands.evaluate_results import without_path
from hybriddepth_ros.estimator import DepthEstimator
from hybriddepth_ros.evaluation.stack_folder import StackFolder
from hybriddepth_ros.models.sweepnet import SweepNet
from hybriddepth_ros.models.sweepnet_weights import SweepNetWeights, save_sweepnet
from tests.cli.conftest import Outcome, write_stack

RunCli = Callable[..., Outcome]
FILES = {"metrics.json", "metrics.csv", "report.html", "results"}


@pytest.fixture
def stacks(tmp_path: Path) -> Path:
    """Two stacks with their truth, half of it at 0.5 m and half at 1.6 m."""
    folder = tmp_path / "stacks"
    folder.mkdir()
    truth = np.full((240, 320), 0.5, np.float32)
    truth[:, 160:] = 1.6
    for name in ("a", "b"):
        np.save(write_stack(folder / name) / "depth.npy", truth)
    return folder


def test_numbers_rows_and_report_agree(run_cli: RunCli, stacks: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    outcome = run_cli(
        "evaluate",
        stacks,
        "--out",
        out,
        "--slices",
        "2",
        "--slices",
        "3",
        "--pictures",
        "1",
        "--model",
        "classical",
    )
    assert outcome.code == 0, outcome.err
    assert {p.name for p in out.iterdir()} == FILES
    document = json.loads((out / "metrics.json").read_text())
    assert [model["label"] for model in document["models"]] == ["classical n=2", "classical n=3"]
    rows = list(csv.DictReader((out / "metrics.csv").open()))
    assert [(row["model"], row["frame"]) for row in rows] == [
        (label, name) for label in ("classical n=2", "classical n=3") for name in ("a", "b")
    ]
    for model in document["models"]:
        own = [float(row["abs_rel"]) for row in rows if row["model"] == model["label"]]
        assert model["means"]["abs_rel"] == pytest.approx(np.mean(own), rel=1e-4)
        assert len(model["reliability"]["found"]) == len(model["reliability"]["nominal"]) == 19
    assert 0.0 < document["models"][1]["means"]["abs_rel"] < 0.3
    page = (out / "report.html").read_text()
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert len(sources) == 5 and all(s.startswith("data:image/png;base64,") for s in sources)
    assert "not oracle" in page and "not oracle" in outcome.out and document["oracle_focus"] is False
    for text in (page, (out / "metrics.json").read_text()):
        assert str(tmp_path) not in text  # the results go to other machines
    for label in ("classical n=2", "classical n=3"):
        assert label in outcome.out and label in page


def test_the_same_command_goes_on_and_other_settings_are_refused(
    run_cli: RunCli, stacks: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = ("evaluate", stacks, "--out", out, "--pictures", "0", "--model", "classical")
    assert run_cli(*arguments, "--frames", "1").code == 0
    kept = out / "results" / "classical" / "000000.npz"
    made = kept.stat().st_mtime_ns
    assert run_cli(*arguments).code == 0  # more frames are no other settings
    assert kept.stat().st_mtime_ns == made and (kept.parent / "000001.npz").exists()
    outcome = run_cli(*arguments, "-p", "max_depth:=5")
    assert outcome.code == 2 and len(outcome.err.splitlines()) == 1
    assert "--no-resume" in outcome.err and "estimator.max_depth: 20.0 there, 5.0 now" in outcome.err
    assert kept.stat().st_mtime_ns == made
    assert run_cli(*arguments, "-p", "max_depth:=5", "--no-resume").code == 0
    assert kept.stat().st_mtime_ns > made


def test_another_folder_of_the_same_name_is_refused(run_cli: RunCli, stacks: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "out", tmp_path / "other" / stacks.name
    shutil.copytree(stacks, other)
    arguments = ("--out", out, "--pictures", "0")
    assert run_cli("evaluate", stacks, *arguments).code == 0
    outcome = run_cli("evaluate", other, *arguments)
    assert outcome.code == 2 and len(outcome.err.splitlines()) == 1
    assert f'path: "{stacks}" there, "{other}" now' in outcome.err
    (tmp_path / "link").symlink_to(stacks)
    assert run_cli("evaluate", tmp_path / "link", *arguments).code == 0
    for name in ("metrics.json", "report.html"):
        assert str(tmp_path) not in (out / name).read_text()


def test_another_device_or_reading_is_refused(
    run_cli: RunCli, stacks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    arguments = ("evaluate", stacks, "--out", out, "--pictures", "0", "--frames", "1")
    assert run_cli(*arguments).code == 0
    (model,) = json.loads((out / "metrics.json").read_text())["models"]
    assert model["settings"]["device"] == "cpu"
    with monkeypatch.context() as changed:
        changed.setattr(DepthEstimator, "device", "cuda:1")
        outcome = run_cli(*arguments)
    assert outcome.code == 2 and 'device: "cpu" there, "cuda" now' in outcome.err
    monkeypatch.setattr(StackFolder, "options", {"confidence": True}, raising=False)
    assert "reader.confidence: null there, true now" in run_cli(*arguments).err


def test_other_weights_under_the_same_name_are_refused(run_cli: RunCli, stacks: Path, tmp_path: Path) -> None:
    file, out = tmp_path / "mine.safetensors", tmp_path / "out"
    arguments = ("evaluate", stacks, "--out", out, "--model", f"sweepnet:{file}", "--frames", "1")
    for seed in (0, 1):
        torch.manual_seed(seed)
        save_sweepnet(file, SweepNetWeights(SweepNet().eval()))
        outcome = run_cli(*arguments)
        if seed == 0:
            assert outcome.code == 0, outcome.err
            (model,) = json.loads((out / "metrics.json").read_text())["models"]
            assert model["label"] == "sweepnet:mine"
            assert re.fullmatch("mine@[0-9a-f]{12}", model["settings"]["weights"])
    assert outcome.code == 2 and len(outcome.err.splitlines()) == 1
    assert 'weights: "mine@' in outcome.err and "--no-resume" in outcome.err


def test_a_bad_frame_is_one_line_and_in_the_report(run_cli: RunCli, stacks: Path, tmp_path: Path) -> None:
    (stacks / "a" / "image_1_0.8.png").write_bytes(b"no image")
    outcome = run_cli("evaluate", stacks, "--out", tmp_path / "out", "--model", "classical")
    assert outcome.code == 0
    (line,) = outcome.err.splitlines()
    assert line.startswith("skipped a (classical): ") and "image_1_0.8.png" in line
    document = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert [failure["frame"] for failure in document["failures"]] == ["a"]
    assert str(tmp_path) not in document["failures"][0]["reason"]
    assert "image_1_0.8.png" in (tmp_path / "out" / "report.html").read_text()
    shutil.copy(stacks / "a" / "image_1_0.8.png", stacks / "b" / "image_1_0.8.png")
    outcome = run_cli("evaluate", stacks, "--out", tmp_path / "none")
    assert outcome.code == 2 and "none of 2 frames" in outcome.err.splitlines()[-1]


@pytest.mark.parametrize("source", [".", "..", "a", "stacks"])
def test_a_source_by_a_short_path_leaves_the_reasons_words_alone(
    run_cli: RunCli, stacks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    (tmp_path / "a").symlink_to(stacks)
    monkeypatch.chdir({".": stacks, "..": stacks / "b"}.get(source, tmp_path))
    (stacks / "a" / "image_1_0.8.png").write_bytes(b"no image")
    run_cli("evaluate", source, "--out", tmp_path / "out", "--pictures", "0")
    (failure,) = json.loads((tmp_path / "out" / "metrics.json").read_text())["failures"]
    assert failure["reason"].startswith("a/image_1_0.8.png: ")
    plain = run_cli("evaluate", stacks, "--out", tmp_path / "plain", "--pictures", "0")
    assert plain.code == 0
    assert json.loads((tmp_path / "plain" / "metrics.json").read_text())["failures"] == [failure]


words = st.text("ab. -", min_size=1, max_size=3)


@given(before=words, after=words, place=st.sampled_from([".", "a", "ab", "a/b", "..", "../a"]))
def test_only_files_in_the_source_and_the_source_itself_are_renamed(
    before: str, after: str, place: str
) -> None:
    source = Path(place)
    said = f"{before}: expected {after}, not a.b or b/a".split()
    if before.split()[:1] not in ([place], [f"{place}:"]):
        assert without_path(" ".join(said), source, "data") == " ".join(said)
    for where in (source, source.resolve()):
        assert without_path(f"{where}: expected {after}", source, "data") == " ".join(
            f"data: expected {after}".split()
        )
    for file in (f"{place}/x.png", source.resolve() / "x.png"):
        assert without_path(f"1: ({file}) was a", source, "data") == "1: (x.png) was a"
    sibling = f"{source.resolve()}-2/x.png: expected none"
    assert without_path(sibling, source, "data") == sibling


BAD: dict[str, tuple[list[str], tuple[str, ...]]] = {
    "unknown model": (["--model", "clasical"], ("--model", "clasical", "classical")),
    "a model twice": (["--model", "classical", "--model", "classical"], ("--model", "2 times")),
    "weights of one name": (
        ["--model", "sweepnet:a/best.safetensors", "--model", "sweepnet:b/best.safetensors"],
        ("--model", "different names", "a/best.safetensors and b/best.safetensors"),
    ),
    "weights for a model without": (["--model", "classical:nyu"], ("classical takes no weights",)),
    "missing weights": (["--model", "hybriddepth:nowhere"], ("nowhere",)),
    "one slice": (["--slices", "1"], ("--slices",)),
    "recorded without a bag": (["--recorded"], ("--recorded", "expected a bag")),
    "live without a bag": (["--live"], ("--live", "expected a bag")),
    "both": (["--live", "--recorded"], ("--live", "--recorded")),
    "unknown protocol": (["--protocol", "nowhere.yaml"], ("nowhere.yaml",)),
    "protocol for given stacks": (["--protocol", "rooms"], ("protocol",)),
    "unknown kind": (["--kind", "stak"], ("stak", "stack")),
    "bad namespace": (["--namespace", "my cam"], ("--namespace", "my cam")),
    "bad precision": (["--precision", "int7"], ("--precision", "int7", "int8")),
    "unknown estimator option": (["-p", "max_dept:=3"], ("max_dept", "max_depth")),
}


@pytest.mark.parametrize(("options", "names"), BAD.values(), ids=BAD)
def test_what_cannot_be_is_refused_in_one_line(
    run_cli: RunCli, stacks: Path, tmp_path: Path, options: list[str], names: tuple[str, ...]
) -> None:
    outcome = run_cli("evaluate", stacks, "--out", tmp_path / "out", *options)
    assert outcome.code == 2 and len(outcome.err.splitlines()) == 1, outcome
    for name in names:
        assert name in outcome.err
    assert not (tmp_path / "out").exists()


def test_a_source_that_is_nothing_or_nothing_known_is_refused(run_cli: RunCli, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("nowhere", "empty"):
        outcome = run_cli("evaluate", tmp_path / name, "--out", tmp_path / "out")
        assert outcome.code == 2 and len(outcome.err.splitlines()) == 1 and name in outcome.err


@pytest.mark.parametrize("suffix", ["", ".mcap", ".h5"])
def test_a_source_whose_name_is_too_long_is_nothing(run_cli: RunCli, tmp_path: Path, suffix: str) -> None:
    outcome = run_cli("evaluate", "a" * 5000 + suffix, "--out", tmp_path / "out")
    assert outcome.code == 2 and len(outcome.err.splitlines()) == 1 and "found nothing" in outcome.err


def test_a_folder_for_results_whose_name_is_too_long_is_refused(
    run_cli: RunCli, stacks: Path, tmp_path: Path
) -> None:
    outcome = run_cli("evaluate", stacks, "--out", tmp_path / ("a" * 300) / "b")
    assert outcome.code == 2 and len(outcome.err.splitlines()) == 1
    assert "expected a writable folder (File name too long)" in outcome.err


LIMITED = """
import resource, sys
from hybriddepth_ros.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
sys.exit(main(sys.argv[2:]))
"""


def test_a_disk_that_is_full_at_the_report_is_one_line_and_costs_no_result(
    run_cli: RunCli, stacks: Path, tmp_path: Path
) -> None:
    """A limit between the size of the results and that of the report stands for the full disk."""
    out = tmp_path / "out"
    arguments = ["evaluate", str(stacks), "--out", str(out), "--model", "classical"]
    assert run_cli(*arguments).code == 0
    results = sorted((out / "results" / "classical").glob("*.npz"))
    largest, report = max(p.stat().st_size for p in results), (out / "report.html").stat().st_size
    assert largest < report
    made = [p.stat().st_mtime_ns for p in results]
    old = (out / "report.html").read_bytes()
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str((largest + report) // 2), *arguments],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert "report.html cannot be written" in done.stderr
    assert [p.stat().st_mtime_ns for p in results] == made
    assert (out / "report.html").read_bytes() == old
    assert {p.name for p in out.iterdir()} == FILES
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
