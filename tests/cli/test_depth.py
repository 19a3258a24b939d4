"""`hybriddepth depth`: what it writes, and that it writes all or nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from hybriddepth_ros.commands import depth_results
from hybriddepth_ros.commands.depth import FILES
from tests.cli.conftest import FOCUS_M, Outcome

RunCli = Callable[..., Outcome]


def test_every_file_is_written_and_agrees_with_the_summary(
    run_cli: RunCli, stack: Path, tmp_path: Path
) -> None:
    out = tmp_path / "deep" / "out"
    outcome = run_cli("depth", stack, "--out", out)
    assert outcome.code == 0 and outcome.err == ""
    assert sorted(p.name for p in out.iterdir()) == sorted(FILES)
    depth, sigma = np.load(out / "depth.npy"), np.load(out / "sigma.npy")
    assert depth.dtype == sigma.dtype == np.float32 and depth.shape == sigma.shape == (240, 320)
    assert np.array_equal(np.isnan(depth), np.isnan(sigma))
    summary = json.loads((out / "summary.json").read_text())
    assert summary["valid_share"] == pytest.approx(np.isfinite(depth).mean(), abs=1e-5)
    assert summary["depth_percentiles_m"]["50"] == pytest.approx(np.nanmedian(depth), rel=1e-4)
    assert [s["focus_distance_m"] for s in summary["slices"]] == pytest.approx(FOCUS_M, rel=1e-5)
    assert summary["camera"]["source"].startswith("guessed") and "--fov-deg" in outcome.out
    points = (out / "points.ply").read_bytes().split(b"end_header\n")[0]
    assert f"element vertex {np.isfinite(depth).sum()}".encode() in points
    aif = cv2.imread(str(out / "aif.png"))
    assert aif is not None and aif.shape == (240, 320, 3)


def test_residuals_before_and_after_are_shown_for_each_slice(
    run_cli: RunCli, stack: Path, tmp_path: Path
) -> None:
    outcome = run_cli("depth", stack, "--out", tmp_path / "out")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    for slice_ in summary["slices"]:
        row = next(r for r in outcome.out.splitlines() if f"{slice_['focus_distance_m']:.2f} m" in r)
        assert f"{slice_['residual_before_px']:.2f} px" in row
        assert f"{slice_['residual_after_px']:.2f} px" in row
        assert ("dropped" in row) == (not slice_["used"])


def test_the_field_of_view_changes_the_cloud_only(run_cli: RunCli, stack: Path, tmp_path: Path) -> None:
    run_cli("depth", stack, "--out", tmp_path / "wide", "--fov-deg", "90")
    run_cli("depth", stack, "--out", tmp_path / "usual")
    cameras = [json.loads((tmp_path / n / "summary.json").read_text())["camera"] for n in ("wide", "usual")]
    assert cameras[0]["fx"] == pytest.approx(160.0)
    assert cameras[1]["fx"] == pytest.approx(160.0 / np.tan(np.radians(32.5)), rel=1e-5)
    assert np.array_equal(
        np.load(tmp_path / "wide" / "depth.npy"), np.load(tmp_path / "usual" / "depth.npy"), equal_nan=True
    )


def test_results_are_replaced_and_other_files_stay(run_cli: RunCli, stack: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    (tmp_path / "out" / "depth.npy").write_bytes(b"old")
    assert run_cli("depth", stack, "--out", tmp_path / "out").code == 0
    assert np.load(tmp_path / "out" / "depth.npy").shape == (240, 320)
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_run_leaves_what_was_there(
    run_cli: RunCli,
    stack: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: type[BaseException],
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "depth.npy").write_bytes(b"old")

    def fail(*_: object) -> None:
        raise kind

    monkeypatch.setattr(depth_results, "write_ply", fail)
    if kind is KeyboardInterrupt:
        outcome = run_cli("depth", stack, "--out", tmp_path / "out")
        assert (outcome.code, outcome.err.strip()) == (130, "")
    else:
        with pytest.raises(RuntimeError):
            run_cli("depth", stack, "--out", tmp_path / "out")
    assert [(p.name, p.read_bytes()) for p in (tmp_path / "out").iterdir()] == [("depth.npy", b"old")]


def test_without_out_the_results_go_below_the_current_folder(
    run_cli: RunCli, stack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_cli("depth", stack).code == 0
    assert (tmp_path / "out" / "stack" / "depth.npy").is_file()


def test_estimator_options_reach_the_estimator(run_cli: RunCli, stack: Path, tmp_path: Path) -> None:
    assert run_cli("depth", stack, "--out", tmp_path / "out", "-p", "max_depth:=0.7").code == 0
    depth = np.load(tmp_path / "out" / "depth.npy")
    assert np.isfinite(depth).any() and np.nanmax(depth) <= 0.7


def test_where_the_limits_on_sigma_leave_nothing_they_are_named_with_their_pixels(
    run_cli: RunCli, stack: Path, tmp_path: Path
) -> None:
    limits = ("-p", "max_sigma_diopters:=0.001", "-p", "max_relative_sigma:=0.1")
    outcome = run_cli("depth", stack, "--out", tmp_path / "out", *limits)
    assert outcome.code == 0 and np.isnan(np.load(tmp_path / "out" / "depth.npy")).all()
    removed = json.loads((tmp_path / "out" / "summary.json").read_text())["removed_px"]
    assert removed["max_sigma_diopters"]["limit"] == 0.001
    assert 0 < removed["max_relative_sigma"]["pixels"] < removed["max_sigma_diopters"]["pixels"] <= 320 * 240
    for name, limit in (("max_sigma_diopters", "0.001 1/m"), ("max_relative_sigma", "0.1")):
        assert f"{name}, {limit}: removed {removed[name]['pixels']} of 76800 pixels" in outcome.out
    assert "-p max_sigma_diopters:=" in outcome.out and "in metres" not in outcome.out


def test_where_other_limits_leave_nothing_the_focus_distances_are_in_doubt(
    run_cli: RunCli, stack: Path, tmp_path: Path
) -> None:
    outcome = run_cli("depth", stack, "--out", tmp_path / "out", "-p", "max_depth:=0.1")
    assert "Are the focus distances in metres" in outcome.out and "max_sigma_diopters" not in outcome.out
