"""The pieces of `hybriddepth bench` at tiny sizes: names, shape of the JSON, page and plot."""

from __future__ import annotations

import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest

from hybriddepth_ros.bench import measuring
from hybriddepth_ros.bench.estimators import (
    STAGES,
    cost_rows,
    difference_percent,
    scaling_cases,
    scaling_row,
)
from hybriddepth_ros.bench.report import chart, markdown, print_table, soak_markdown
from hybriddepth_ros.bench.rows import Row, against, document
from hybriddepth_ros.bench.scenes import FARTHEST, NEAREST, endless, lens_of, made_slices
from hybriddepth_ros.estimator import load_estimator
from hybriddepth_ros.focal_stack import FocalStack

SIZE = (160, 120)


@pytest.mark.parametrize(
    ("row", "met"),
    [
        (against("a", 30.0, "ms", 100.0, "<= 0.35"), True),
        (against("a", 40.0, "ms", 100.0, "<= 0.35"), False),
        (against("a", 30.0, "Hz", 10.0, ">= 25", "value"), True),
        (Row("a", 24.0, "Hz", target=">= 25"), False),
        (Row("a", 24.0, "Hz"), None),
    ],
)
def test_a_target_is_met_by_what_it_is_of(row: Row, met: bool | None) -> None:
    assert row.met is met


def test_the_made_slope_is_estimated_where_it_is() -> None:
    slices = made_slices(320, 240, 5)[:5]
    estimate = load_estimator("classical", "cpu")(FocalStack(tuple(slices), lens=lens_of(320)))
    truth = 1.0 / np.linspace(FARTHEST, NEAREST, 240)
    middle = np.s_[40:200]
    error = np.abs(np.nanmedian(estimate.depth, axis=1)[middle] / truth[middle] - 1.0)
    assert np.nanmedian(error) < 0.05


def test_slices_go_on_for_ever_with_rising_stamps_and_whole_sweeps() -> None:
    slices = made_slices(64, 48, 4)
    assert len(slices) % 4 == 0
    coming = endless(slices)
    taken = [next(coming) for _ in range(len(slices) + 3)]
    stamps = [one.stamp_ns for one in taken]
    assert np.all(np.diff(stamps) > 0)
    foci = [one.focus_diopters for one in taken]
    assert foci[: len(slices)] == [foci[n % 4] for n in range(len(slices))]


def test_rows_of_classical_have_their_names_and_a_baseline() -> None:
    rows = cost_rows("classical", updates=4, stacks=2, size=SIZE, count=3)
    stages = [f"stage_{stage}" for stage in STAGES]
    assert [row.name for row in rows] == ["rolling_classical_slice_cost", *stages, "all_in_focus"]
    assert rows[0].baseline and rows[0].ratio == pytest.approx(rows[0].value / rows[0].baseline)
    assert all(row.value > 0.0 and row.unit == "ms" for row in rows)
    scaling = scaling_row(*SIZE, 3, 3, 1)
    assert scaling.name == "scaling_160x120_3" and scaling.baseline


def test_of_a_still_scene_the_difference_is_small_but_is_one() -> None:
    percent = difference_percent("classical", made_slices(320, 240, 5, still=True), 5)
    assert 0.0 <= percent < 2.0


def test_scaling_covers_the_resolutions_and_the_slices() -> None:
    cases = scaling_cases(quick=False)
    assert {case[:2] for case in cases if case[2] == 5} == {(320, 240), (640, 480), (960, 720), (1280, 960)}
    assert {case[2] for case in cases if case[:2] == (640, 480)} == {2, 5, 9, 16}
    assert set(scaling_cases(quick=True)) < set(cases)


@pytest.fixture
def rows() -> list[Row]:
    return [
        against("rolling_classical_slice_cost", 30.0, "ms", 100.0, "<= 0.35"),
        Row("latency_p95", 70.0, "ms", target="<= 60"),
        *(against(f"scaling_{w}x{h}_{n}", 10.0 * n, "ms", 30.0 * n) for w, h, n in scaling_cases(False)),
    ]


def test_the_document_is_json_of_the_promised_shape(rows: list[Row]) -> None:
    made = json.loads(json.dumps(document(rows, ["rclpy is missing"])))
    assert set(made) == {"machine", "commit", "results", "left_out"}
    assert "cores" in made["machine"] and made["commit"]
    for row in made["results"]:
        assert {"name", "value", "unit", "baseline", "ratio"} <= set(row)
        assert math.isfinite(row["value"])
    assert made["results"][0]["target"] == "<= 0.35" and made["results"][0]["met"] is True


def test_page_and_table_say_which_targets_were_met(
    rows: list[Row], capsys: pytest.CaptureFixture[str]
) -> None:
    made = document(rows, ["rclpy is missing"])
    page = markdown(made, "hybriddepth bench")
    assert "| `rolling_classical_slice_cost` | 30 ms | 100 ms | 0.3 | ratio <= 0.35 | yes |" in page
    assert "| `latency_p95` | 70 ms |  |  | value <= 60 | no |" in page
    for text in (
        made["machine"],
        made["commit"],
        "`hybriddepth bench`",
        "rclpy is missing",
        "benchmarks.png",
    ):
        assert text in page
    print_table(made)
    assert "rclpy is missing" in capsys.readouterr().out


def test_the_page_of_a_soak_has_its_figures_and_its_targets() -> None:
    result = {
        "seconds": 3600.0,
        "rate_hz": 30.0,
        "image": "640x480",
        "subscriber_came": 600,
        "slices_sent": 1000,
        "slices_received": 999,
        "estimates": 700,
        "counted": {"slices not needed": 299},
        "not_counted": 0,
        "memory_mb": 250.4,
        "memory_growth_mb": 1.26,
        "most_growth_mb": 5.0,
    }
    page = soak_markdown(result, "a machine", "abc")
    assert "# 60 minutes of slices" in page and "a machine" in page and "abc" in page
    assert "| slices received | 999 (99.90 %) |  |" in page
    assert "| counted: slices not needed | 299 |  |" in page
    assert "| slices that no counter has | 0 | 0 |" in page
    assert "| growth of memory after the first minute | 1.3 MB | < 5 MB |" in page


def test_the_plot_draws_every_scaling_row(rows: list[Row]) -> None:
    full = cv2.imdecode(np.frombuffer(chart(document(rows, [])), np.uint8), cv2.IMREAD_COLOR)
    fewer = cv2.imdecode(np.frombuffer(chart(document(rows[:-1], [])), np.uint8), cv2.IMREAD_COLOR)
    assert full.shape[1] > 3 * full.shape[0] > 600
    assert full.shape != fewer.shape or np.any(full != fewer)


def test_what_is_not_installed_is_left_out_with_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    real = measuring.importlib.util.find_spec
    absent = {"rclpy", "torch"}
    monkeypatch.setattr(
        measuring.importlib.util, "find_spec", lambda name: None if name in absent else real(name)
    )
    monkeypatch.setattr(measuring, "scaling_cases", lambda quick: [(*SIZE, 3)])
    monkeypatch.setattr(measuring, "cost_rows", lambda model, *_: cost_rows(model, 2, 1, SIZE, 3))
    told: list[str] = []
    found, left_out = measuring.measure(True, told.append)
    assert len(left_out) == 2 and "torch" in left_out[0] and "rclpy" in left_out[1]
    assert found[-1].name == "scaling_160x120_3" and told


def test_the_command_writes_its_files_and_refuses_a_folder_it_cannot_write(
    rows: list[Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hybriddepth_ros.cli import main

    monkeypatch.setattr(measuring, "measure", lambda quick, tell: (rows, []))
    file = tmp_path / "out" / "bench.json"
    assert main(["bench", "--json", str(file), "--docs", str(tmp_path / "docs")]) == 0
    assert json.loads(file.read_text())["results"][0]["name"] == "rolling_classical_slice_cost"
    assert {path.name for path in (tmp_path / "docs").iterdir()} == {"benchmarks.md", "benchmarks.png"}
    (tmp_path / "taken").write_text("")
    assert main(["bench", "--json", str(tmp_path / "taken" / "bench.json")]) == 2
