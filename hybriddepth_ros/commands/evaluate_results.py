"""What `hybriddepth evaluate` writes and prints of what it found."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hybriddepth_ros.commands.distance_table import distance_table
from hybriddepth_ros.commands.evaluate_run import Outcome
from hybriddepth_ros.commands.output import OutputFolder
from hybriddepth_ros.commands.versions import versions
from hybriddepth_ros.evaluation.charts import (
    draw_by_distance,
    draw_by_texture,
    draw_frame,
    draw_reliability,
    draw_sparsification,
)
from hybriddepth_ros.evaluation.runner import Failure
from hybriddepth_ros.evaluation.scoring import DISPARITY_MEASURES, MEASURES
from hybriddepth_ros.evaluation.summary import ModelSummary, summarise
from hybriddepth_ros.evaluation.uncertainty import NOMINAL
from hybriddepth_ros.report import NO_VALUE, Figure, Picture, Report, Table, number, percent, render_report

FILES = ("metrics.json", "metrics.csv", "report.html")
ORACLE = (
    "Focus distances: ORACLE. They were chosen from each frame's ground truth, so that the stack gives its "
    "depth range away, as in the published figures. No camera can know them."
)
NO_ORACLE = "Focus distances: not oracle. They are the camera's or the protocol's, chosen without the truth."

# label, measure, digits, unit, factor: the columns of the table of models
_Column = tuple[str, str, int, str, float]
_COLUMNS: tuple[_Column, ...] = (
    ("AbsRel", "abs_rel", 4, "", 1.0),
    ("RMSE", "rmse", 3, "m", 1.0),
    ("δ1", "delta1", 1, "%", 100.0),
    ("MAE", "diopter_mae", 4, "1/m", 1.0),
    ("AbsRel at edges", "boundary_abs_rel", 4, "", 1.0),
    ("changed by zoom", "zoom_abs_rel", 1, "%", 100.0),
    ("within 1 sigma", "coverage_1_sigma", 1, "%", 100.0),
    ("within 2 sigma", "coverage_2_sigma", 1, "%", 100.0),
    ("NLL", "nll_gaussian", 2, "", 1.0),
    ("AUSE", "ause_abs_rel", 4, "", 1.0),
    ("estimated", "valid_share", 1, "%", 100.0),
    ("time", "runtime_ms", 0, "ms", 1.0),
)


def write_results(folder: OutputFolder, outcome: Outcome) -> list[ModelSummary]:
    """Stages the three files; the numbers first, so that a full disk costs the pictures."""
    scored = [result for result in outcome.results if result.frames]
    summaries = summarise(scored)
    folder.write_json("metrics.json", document(outcome, summaries))
    folder.write_text("metrics.csv", table_csv(outcome))
    folder.write_text("report.html", render_report(make_report(outcome, summaries)))
    return summaries


def document(outcome: Outcome, summaries: Sequence[ModelSummary]) -> dict[str, Any]:
    """metrics.json: metres, 1/m, shares; no path, and of this machine its device and runtimes only."""
    evaluation = outcome.evaluation
    return {
        "source": evaluation.source.name,
        "oracle_focus": evaluation.oracle,
        "frames": outcome.frames,
        "models": [
            {
                "label": summary.label,
                "settings": summary.settings,
                "frames": summary.frames,
                "means": summary.means,
                "by_distance": [asdict(one) for one in summary.distances],
                "by_texture": [asdict(one) for one in summary.textures],
                "reliability": {"nominal": NOMINAL, "found": summary.reliability},
                "sparsification": {
                    name: {
                        "removed": curve.fractions,
                        "by_sigma": curve.by_sigma,
                        "by_error": curve.by_error,
                    }
                    for name, curve in summary.sparsification.items()
                },
            }
            for summary in summaries
        ],
        "per_frame": [
            {"model": result.label, "frame": frame.name, **frame.score.measures}
            for result in outcome.results
            for frame in result.frames.values()
        ],
        "failures": [
            {"model": failure.label, "frame": failure.frame, "reason": _failure_reason(failure, outcome)}
            for failure in outcome.failures
        ],
        "versions": versions(),
    }


def table_csv(outcome: Outcome) -> str:
    """metrics.csv: a row per model and frame; empty where a measure does not exist."""
    rows = [(result.label, frame) for result in outcome.results for frame in result.frames.values()]
    measures = [name for name in MEASURES if any(name in frame.score.measures for _, frame in rows)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["model", "frame", *measures])
    for label, frame in rows:
        values = [frame.score.measures.get(name, math.nan) for name in measures]
        writer.writerow([label, frame.name, *(f"{v:.6g}" if math.isfinite(v) else "" for v in values)])
    return text.getvalue()


def make_report(outcome: Outcome, summaries: Sequence[ModelSummary]) -> Report:
    """The table of models first, then curves, then pictures of frames, then what failed."""
    evaluation = outcome.evaluation
    best = min(summaries, key=lambda s: s.means["abs_rel"] if math.isfinite(s.means["abs_rel"]) else math.inf)
    mode = {
        "offline": "Every stack went through the estimator.",
        "recorded": "The depth that the bag recorded was scored; no model ran.",
        "live": "The bag's slices were replayed into the depth node, and what it published was scored.",
    }[evaluation.request.mode]
    figures = [
        Figure("frames", str(outcome.frames), f"{len(outcome.failures)} results missing"),
        Figure("focus distances", "oracle" if evaluation.oracle else "not oracle", "see above"),
        Figure("smallest AbsRel", number(best.means["abs_rel"], 4), best.label),
        Figure("its 1 sigma covers", percent(best.means["coverage_1_sigma"]), "68.3 % if calibrated"),
    ]
    return Report(
        title=f"Evaluation: {evaluation.source.name}",
        lead=f"{mode} {ORACLE if evaluation.oracle else NO_ORACLE}",
        figures=figures,
        summary=_model_tables(summaries),
        pictures=[*_charts(summaries), *_frames(outcome)],
        tables=[_distance_table(summaries), *_failure_tables(outcome)],
        footer=["  ".join(f"{name} {version}" for name, version in versions().items())],
    )


def _model_tables(summaries: Sequence[ModelSummary]) -> list[Table]:
    columns = _columns(summaries)
    rows = [(s.label, str(s.frames), *_cells(s, columns)) for s in summaries]
    tables = [
        Table(
            "Models",
            ("model", "frames", *(column[0] for column in columns)),
            rows,
            "Means over frames. MAE: mean error in diopters. At edges: within 5 px of a jump in the true "
            "depth. AUSE: area between the sparsification curves, 0 if sigma knows where the errors are. "
            "Calibrated is 68.3 % and 95.4 %. NLL: of a Gaussian, in ln 1/m.",
        )
    ]
    if any("disparity_rmse" in s.means for s in summaries):
        names = [name for name in DISPARITY_MEASURES if name not in ("disparity_mse", "disparity_sq_rel")]
        rows = [(s.label, *(number(s.means.get(n, math.nan), 4) for n in names)) for s in summaries]
        headings = ("model", *(name.removeprefix("disparity_") for name in names))
        tables.append(Table("In disparity, as published", headings, rows))
    return tables


def _columns(summaries: Sequence[ModelSummary]) -> list[_Column]:
    """Without the measures that nobody asked for."""
    return [column for column in _COLUMNS if any(column[1] in s.means for s in summaries)]


def _cells(summary: ModelSummary, columns: Sequence[_Column]) -> list[str]:
    return [
        number(factor * summary.means.get(measure, math.nan), digits, unit)
        for _, measure, digits, unit, factor in columns
    ]


def _charts(summaries: Sequence[ModelSummary]) -> list[Picture]:
    return [
        Picture(
            "Error over distance",
            draw_by_distance(summaries),
            "Left: an error and a sigma that lie on each other fit. Right: dotted, what is calibrated.",
        ),
        Picture(
            "Error over texture",
            draw_by_texture(summaries),
            "Texture: standard deviation of the grey levels in 9x9 pixels of the sharpest slice. Each bin "
            "holds as many pixels.",
        ),
        Picture(
            "Is sigma as large as the errors are?",
            draw_reliability(summaries),
            "Below the dotted line sigma is too small, above it too large.",
        ),
        Picture(
            "Does sigma know where the errors are?",
            draw_sparsification(summaries),
            "The least certain pixels are taken away first; dashed: those with the largest errors are.",
        ),
    ]


def _frames(outcome: Outcome) -> list[Picture]:
    pictures = []
    for index in outcome.pictured:
        there = [(r.label, r.frames[index]) for r in outcome.results if index in r.frames]
        drawn = [(label, frame.thumbnails) for label, frame in there if frame.thumbnails is not None]
        if drawn:
            errors = ", ".join(f"{label} {number(f.score.measures['abs_rel'], 4)}" for label, f in there)
            pictures.append(
                Picture(
                    f"Frame {there[0][1].name}",
                    draw_frame([(label, t) for label, t in drawn if t is not None]),
                    f"AbsRel: {errors}. Grey hatching: no estimate, or no truth.",
                )
            )
    return pictures


def _distance_table(summaries: Sequence[ModelSummary]) -> Table:
    bins = [(f"{summary.label}: ", one) for summary in summaries for one in summary.distances]
    return distance_table(bins, ("coverage", "coverage_2_sigma"))


def _failure_tables(outcome: Outcome) -> list[Table]:
    if not outcome.failures:
        return []
    rows = [(f.frame, f.label, _failure_reason(f, outcome)) for f in outcome.failures]
    return [Table("Skipped frames", ("frame", "model", "reason"), rows)]


def _failure_reason(failure: Failure, outcome: Outcome) -> str:
    evaluation = outcome.evaluation
    return without_path(failure.reason, evaluation.request.source, evaluation.source.name)


def without_path(reason: str, source: Path, name: str) -> str:
    """Files by their place in the source, itself by its name: results tell nothing of where that lies.

    A relative path may be a word, or a full stop: by itself it is one only where it begins the reason.
    """
    for path in (source, source.resolve()):
        place = rf"(?<![\w./-]){re.escape(str(path))}"
        start = "" if path.is_absolute() else "^"
        reason = re.sub(f"{place}/", "", reason)
        reason = re.sub(rf"{start}{place}(?![\w./-])", lambda _: name, reason)
    return " ".join(reason.split())


def print_summary(outcome: Outcome, summaries: Sequence[ModelSummary], out: Path, elapsed_s: float) -> None:
    """The table of models, and where the rest is."""
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table as RichTable

    evaluation = outcome.evaluation
    measured = _columns(summaries)
    models = [(summary.label, str(summary.frames), *_cells(summary, measured)) for summary in summaries]
    missing = [result.label for result in outcome.results if not result.frames]
    models += [(label, "0", *([NO_VALUE] * len(measured))) for label in missing]
    title = f"{evaluation.source.name}: {outcome.frames} frames"
    table = RichTable(box=SIMPLE, title=title, title_justify="left")
    table.add_column("")
    for label, *_ in models:
        table.add_column(label, justify="right")
    headings = ("frames", *(column[0] for column in measured))
    for heading, row in zip(headings, zip(*(model[1:] for model in models), strict=True), strict=True):
        table.add_row(heading, *row)
    Console(highlight=False).print(table)
    print(ORACLE if evaluation.oracle else NO_ORACLE)
    for cause, count in getattr(evaluation.source, "dropped", {}).items():
        print(f"passed over: {cause}: {count}")
    if outcome.failures:
        print(f"skipped     {len(outcome.failures)} results, see {out / 'report.html'}")
    print(f"written to {out} in {elapsed_s:.0f} s: {' '.join(FILES)}")
