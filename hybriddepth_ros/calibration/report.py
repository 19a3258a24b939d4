"""The report of a calibration: the numbers, the charts they came from, and the truth where it is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hybriddepth_ros.calibration import charts
from hybriddepth_ros.calibration.board import BoardSpec
from hybriddepth_ros.calibration.session import Results, Session
from hybriddepth_ros.cameras.calibration import CameraCalibration, FocusTable
from hybriddepth_ros.report import Figure, Picture, Report, Table, number


@dataclass(frozen=True)
class Comparison:
    """One number against the truth; `target`: the error that is aimed at, None = none."""

    name: str
    found: float
    truth: float
    error: float
    target: float | None
    unit: str


def compare(found: CameraCalibration, truth: CameraCalibration) -> list[Comparison]:
    """What was found against what is true; errors of intrinsics in percent, others in their unit."""
    rows = []
    for name in ("fx", "fy", "cx", "cy"):
        value, true = getattr(found.camera, name), getattr(truth.camera, name)
        rows.append(Comparison(name, value, true, 100.0 * (value / true - 1.0), 0.5, "%"))
    percent, true_percent = found.breathing_percent_per_diopter, truth.breathing_percent_per_diopter
    rows.append(Comparison("breathing [%/D]", percent, true_percent, percent - true_percent, 0.1, "%/D"))
    for name, target, unit in (
        ("settle_ms", 2.0, "ms"),
        ("latency_ms", 2.0, "ms"),
        ("blur_px_per_diopter", None, "px/D"),
    ):
        value, true = getattr(found, name), getattr(truth, name)
        if value is not None and true is not None:
            rows.append(Comparison(name, value, true, value - true, target, unit))
    for name in ("focus_table", "focus_table_falling"):
        table, true_table = getattr(found, name), getattr(truth, name)
        if table is not None and true_table is not None:
            rows.append(_compare_tables(name, table, true_table))
    return rows


def _compare_tables(name: str, found: FocusTable, truth: FocusTable) -> Comparison:
    """Where they differ most."""
    positions = np.linspace(found.pairs[0][0], found.pairs[-1][0], 256)
    pairs = [(found.diopters(float(a)), truth.diopters(float(a))) for a in positions]
    value, true = max(pairs, key=lambda pair: abs(pair[0] - pair[1]))
    return Comparison(f"{name}, at its worst [1/m]", value, true, value - true, 0.03, "1/m")


def calibration_report(session: Session, source: str, truth: CameraCalibration | None = None) -> Report:
    """Of what the session's steps found."""
    found, results, board = session.calibration, session.results, session.board
    assert found is not None
    summary = []
    if truth is not None:
        rows = [
            [c.name, f"{c.found:.4f}", f"{c.truth:.4f}", f"{c.error:+.4f} {c.unit}", _target(c)]
            for c in compare(found, truth)
        ]
        columns = ("", "found", "truth", "error", "aimed at")
        summary.append(Table("Against the truth of the emulated camera", columns, rows))
    return Report(
        title=f"Calibration of {found.camera_name}",
        lead=(
            f"From {source}, with a board of {board.columns}x{board.rows} squares of"
            f" {1e3 * board.square_m:g} mm. Intrinsics are those of a focus at infinity."
        ),
        figures=_figures(found, results),
        summary=summary,
        pictures=_pictures(session, board, found, truth),
        tables=[_distances(results)] if results.focus_table else [],
    )


def _target(comparison: Comparison) -> str:
    return "" if comparison.target is None else f"{comparison.target:g} {comparison.unit}"


def _figures(found: CameraCalibration, results: Results) -> list[Figure]:
    camera, table = found.camera, found.focus_table
    figures = [
        Figure("fx, fy", f"{camera.fx:.1f}, {camera.fy:.1f} px", "focused at infinity"),
        Figure("cx, cy", f"{camera.cx:.1f}, {camera.cy:.1f} px", f"{camera.width}x{camera.height} px"),
        Figure(
            "breathing",
            number(found.breathing_percent_per_diopter, 3, "%/D"),
            f"1 sigma {results.breathing.sigma:.3f}" if results.breathing else "",
        ),
    ]
    if table is not None:
        far, near = table.diopter_range
        residual = number(found.residual_diopters, 4, "1/m rms")
        figures.append(Figure("focus", f"{far:.2f} to {near:.2f} 1/m", f"residual {residual}"))
    if found.settle_ms is not None:
        figures.append(Figure("settle time", number(found.settle_ms, 1, "ms"), "from command to rest"))
    if found.latency_ms is not None:
        figures.append(Figure("latency", number(found.latency_ms, 1, "ms"), "mid-exposure to delivery"))
    if found.blur_px_per_diopter is not None:
        sigma = f"1 sigma {results.aperture.sigma:.2f}" if results.aperture else ""
        figures.append(Figure("blur", number(found.blur_px_per_diopter, 2, "px/D"), sigma))
    return figures


def _pictures(
    session: Session, board: BoardSpec, found: CameraCalibration, truth: CameraCalibration | None
) -> list[Picture]:
    results, pictures = session.results, []
    if results.intrinsics:
        views = results.intrinsics
        caption = (
            f"{len(views.corners)} views at {views.focus_diopters:.2f} 1/m, {views.rejected} left out;"
            f" rms {views.rms_px:.3f} px; 1 sigma of fx, fy, cx, cy: "
            + ", ".join(f"{s:.2f}" for s in views.sigma)
            + " px. Corners should cover the image and their errors show no pattern."
        )
        pictures.append(Picture("Views of the board", charts.draw_views(views), caption))
    if results.latency:
        step = results.latency
        caption = (
            f"Dead time {step.dead_ms:.1f} ± {step.dead_sigma_ms:.1f} ms; exposure"
            f" {step.response.exposure_ms:.1f} ms. At rest {step.short_ms:.1f} ms after this step of"
            f" {step.response.distance:.0f} actuator units, {step.long_ms:.1f} ms after one of"
            f" {step.long_response.distance:.0f}, and so {step.settle_ms:.1f} ± {step.settle_sigma_ms:.1f} ms"
            f" after one over the whole range of {step.long_response.full_distance:.0f}."
            " Each frame is one dot; steps at many phases of the frame clock lie over each other."
        )
        pictures.append(Picture("Step response of the lens", charts.draw_step(step), caption))
    if results.focus_table:
        table = results.focus_table
        sharp = charts.draw_sharpness(session.measured, table, board, found.at_focus)
        pictures.append(
            Picture("Sharpness", sharp, "Lines: Gaussians through the upper half of the rising approach.")
        )
        caption = (
            f"Residual {table.rms_diopters:.4f} 1/m rms over {len(table.used)} distances; play"
            f" {table.play:.2f} ± {table.play_sigma:.2f} actuator units."
        )
        pictures.append(Picture("Focus table", charts.draw_table(table, truth), caption))
    if results.breathing:
        caption = (
            f"{results.breathing.percent_per_diopter:.3f} ± {results.breathing.sigma:.3f} % per diopter,"
            " from the corners of the still board."
        )
        pictures.append(Picture("Breathing", charts.draw_breathing(results.breathing), caption))
    if results.aperture:
        caption = (
            f"{results.aperture.px_per_diopter:.2f} ± {results.aperture.sigma:.2f} px per diopter: the disc"
            " that makes of the sharpest image the one out of focus."
        )
        pictures.append(Picture("Blur", charts.draw_blur(results.aperture), caption))
    return pictures


def _distances(results: Results) -> Table:
    table = results.focus_table
    assert table is not None
    rows = [
        [f"sweep {index}", f"{1 / d:.3f}", f"{d:.4f}", f"{a:.2f}", number(p, 2), f"{r:+.4f}"]
        for index, d, a, p, r in zip(
            table.used, table.diopters, table.actuator, table.play_each, table.residuals, strict=True
        )
    ]
    columns = ("", "distance [m]", "[1/m]", "sharpest at [actuator]", "play [actuator]", "residual [1/m]")
    return Table("Distances", columns, rows)
