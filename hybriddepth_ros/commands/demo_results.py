"""What the demo writes of its recording: depth.png, report.html, summary.json, and the lines it prints."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hybriddepth_ros.commands.distance_table import distance_table
from hybriddepth_ros.commands.output import OutputFolder
from hybriddepth_ros.commands.versions import versions
from hybriddepth_ros.errors import HybridDepthError
from hybriddepth_ros.evaluation.metrics import Score, relative_error
from hybriddepth_ros.evaluation.recording import Example, RecordingScore, score_recording
from hybriddepth_ros.pictures import (
    Panel,
    depth_panel,
    depth_scale,
    draw_error_by_distance,
    draw_panels,
    error_panel,
    sigma_panel,
    sigma_scale,
)
from hybriddepth_ros.report import Figure, Picture, Report, Table, number, percent, render_report

if TYPE_CHECKING:
    from hybriddepth_ros.ros.bag import TopicCount


def write_results(
    folder: OutputFolder,
    bag: Path,
    counts: dict[str, TopicCount],
    lost: dict[str, int],
    settings: dict[str, Any],
) -> list[str]:
    """Scores the bag and stages the files; returns what to print.

    counts: topic -> what became of its messages; lost: cause -> count in the graph.
    """
    result = score_recording(bag)
    if result.example is None:
        raise HybridDepthError(
            f"{bag}: expected more than two depth images with a ground truth of the same stamp, found "
            f"{result.stacks - result.without_truth}; a longer --seconds may help"
        )
    summary = summarise(result, bag, counts, lost, settings)
    picture = draw_example(result.example, settings["model"])
    folder.write_bytes("depth.png", picture)
    folder.write_text("report.html", render_report(make_report(result, summary, picture)))
    folder.write_json("summary.json", summary)
    score = result.score
    age = summary["latency_ms"]["reference_slice_to_receipt"]
    return [
        f"depth       {result.stacks} images, {result.depth_rate_hz:.1f} Hz, "
        f"from {result.slice_rate_hz:.1f} slices/s",
        f"latency     {age['p50']:.0f} ms (p50), {age['p95']:.0f} ms (p95), from exposure to receipt",
        f"error       {percent(score.median_relative_error, 2)} (median of |error| / truth), "
        f"AbsRel {score.metrics['abs_rel']:.4f}, {result.evaluated} images",
        f"sigma       covers {percent(score.coverage[1.0])} (68.3 % if calibrated), "
        f"two sigma {percent(score.coverage[2.0])} (95.4 %)",
        f"estimated   {percent(score.valid_share)} of the pixels",
    ]


def summarise(
    result: RecordingScore,
    bag: Path,
    counts: dict[str, TopicCount],
    lost: dict[str, int],
    settings: dict[str, Any],
) -> dict[str, Any]:
    """What summary.json says: metres, milliseconds, Hz, shares."""
    score = result.score
    return {
        **settings,
        "stacks": {
            "recorded": result.stacks,
            "evaluated": result.evaluated,
            "without_ground_truth": result.without_truth,
        },
        "rates_hz": {"slices": result.slice_rate_hz, "depth": result.depth_rate_hz},
        "latency_ms": {
            "reference_slice_to_receipt": _percentiles(result.age_of_reference_ms),
            "newest_slice_to_receipt": _percentiles(result.age_of_newest_slice_ms),
        },
        "error": {"median_relative": score.median_relative_error, **score.metrics},
        "sigma_coverage": {f"{factor:g}_sigma": share for factor, share in score.coverage.items()},
        "valid_share": score.valid_share,
        "by_distance": [asdict(one) for one in score.bins],
        "dropped": lost,
        "bag": {
            "path": bag.name,
            "bytes": sum(file.stat().st_size for file in bag.iterdir()),
            "messages": {topic: asdict(count) for topic, count in counts.items()},
        },
        "versions": versions(),
    }


def _percentiles(values_ms: np.ndarray[Any, np.dtype[np.float64]]) -> dict[str, float]:
    names = {"p50": 50, "p95": 95, "max": 100}
    return {
        name: float(np.percentile(values_ms, q)) if values_ms.size else float("nan")
        for name, q in names.items()
    }


def draw_example(example: Example, model: str) -> bytes:
    """Scene, depth, truth, sigma and error of one stack; what can be compared shares its colours."""
    scale, uncertainty = depth_scale(example.depth, example.truth), sigma_scale(example.sigma)
    error = relative_error(example.depth, example.truth)
    panels = [
        Panel("all in focus, from the stack", example.scene),
        depth_panel(f"depth ({model})", example.depth, scale),
        depth_panel("ground truth", example.truth, scale),
        sigma_panel("1 sigma, as estimated", example.sigma, uncertainty),
        error_panel("error / truth: blue = too near, red = too far", error),
        sigma_panel("|error|", np.abs(example.depth - example.truth), uncertainty),
    ]
    return draw_panels(panels, columns=3, width_in=4.6)


def make_report(result: RecordingScore, summary: dict[str, Any], picture: bytes) -> Report:
    """The numbers that matter first, then the pictures, then the tables."""
    score, latency = result.score, summary["latency_ms"]["reference_slice_to_receipt"]
    figures = [
        Figure(
            "median relative error", percent(score.median_relative_error, 2), f"{result.evaluated} stacks"
        ),
        Figure("estimated pixels", percent(score.valid_share), "the others say so: NaN"),
        Figure("within 1 sigma", percent(score.coverage[1.0]), "68.3 % if calibrated"),
        Figure("within 2 sigma", percent(score.coverage[2.0]), "95.4 % if calibrated"),
        Figure(
            "depth images",
            number(result.depth_rate_hz, 1, "Hz"),
            f"{number(result.slice_rate_hz, 1)} slices/s",
        ),
        Figure(
            "latency",
            number(latency["p50"], 0, "ms"),
            f"p95 {number(latency['p95'], 0, 'ms')}, exposure to receipt",
        ),
    ]
    return Report(
        title="Depth from a focus sweep, over ROS 2",
        lead="A simulated camera swept its focus; slices travelled over DDS to the depth node; every topic "
        "was recorded, and each depth image was compared with the ground truth of the same stamp.",
        figures=figures,
        pictures=[
            Picture("The stack with the median error", picture, "Grey hatching: no estimate."),
            Picture(
                "Error over distance",
                draw_error_by_distance(score.bins),
                "Left: where 68 % of the errors lie, against the sigma that the estimate came with. "
                "Right: how much was estimated, and how much of that lies within one sigma.",
            ),
        ],
        tables=[
            _error_table(score),
            distance_table([("", one) for one in score.bins], ("coverage",)),
            _topic_table(summary),
            _loss_table(summary),
        ],
        footer=["  ".join(f"{name} {version}" for name, version in summary["versions"].items())],
    )


def _error_table(score: Score) -> Table:
    units = {"mse": "m²", "rmse": "m", "sq_rel": "m"}
    rows = [(name, number(value, 4, units.get(name, ""))) for name, value in score.metrics.items()]
    return Table("Measures", ("measure", "mean over images"), rows)


def _topic_table(summary: dict[str, Any]) -> Table:
    rows = [
        (topic, *(str(count[key]) for key in ("written", "received", "dropped", "lost")))
        for topic, count in summary["bag"]["messages"].items()
    ]
    size = number(summary["bag"]["bytes"] / 1e6, 0, "MB")
    return Table(
        "The bag",
        ("topic", "written", "received", "dropped", "lost"),
        rows,
        f"{size}. Dropped: the recorder's queue was full. Lost: on the way, as DDS tells it.",
    )


def _loss_table(summary: dict[str, Any]) -> Table:
    rows = [(cause, str(count)) for cause, count in summary["dropped"].items()] or [("nothing", "0")]
    return Table("Dropped in the graph", ("cause", "count"), rows)
