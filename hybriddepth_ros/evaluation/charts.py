"""Charts that hold several models beside each other: one colour per model, the same in every chart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hybriddepth_ros.chart_style import COLOURS, chart_figure, label_axis
from hybriddepth_ros.evaluation.metrics import relative_error
from hybriddepth_ros.evaluation.store import Thumbnails
from hybriddepth_ros.evaluation.summary import ModelSummary
from hybriddepth_ros.evaluation.uncertainty import NOMINAL
from hybriddepth_ros.pictures import (
    Panel,
    depth_panel,
    depth_scale,
    draw_panels,
    error_panel,
    error_scale,
    png,
    sigma_panel,
    sigma_scale,
)

_SIZE_IN = (5.2, 3.8)  # of one chart


def draw_frame(models: Sequence[tuple[str, Thumbnails]]) -> bytes:
    """PNG of one frame: scene and truth, then depth, error and sigma per model, on the same scales."""
    first = models[0][1]
    distances = depth_scale(first.truth)
    errors = [relative_error(one.depth, one.truth) for _, one in models]
    error_colours = error_scale(*errors)
    sigma_colours = sigma_scale(*(one.sigma for _, one in models))
    panels: list[Panel | None] = [
        Panel("scene", first.scene),
        depth_panel("ground truth", first.truth, distances, hatched="no truth"),
        None,
    ]
    for (label, one), error in zip(models, errors, strict=True):
        panels += [
            depth_panel(f"{label}: depth", one.depth, distances),
            error_panel("error / truth: blue = too near, red = too far", error, error_colours),
            sigma_panel("1 sigma, as estimated", one.sigma, sigma_colours),
        ]
    return draw_panels(panels, columns=3, width_in=4.2)


def draw_by_distance(models: Sequence[ModelSummary]) -> bytes:
    """PNG: relative error and relative sigma over the true distance, and the coverage there."""
    figure, (error_axis, coverage_axis) = chart_figure(2, *_SIZE_IN)
    for colour, model in _coloured(models):
        bins = model.distances
        centres = [2.0 / (1.0 / b.near + 1.0 / b.far) for b in bins]
        sigma = [100 * b.median_sigma / centre for b, centre in zip(bins, centres, strict=True)]
        error = [100 * b.median_relative for b in bins]
        error_axis.plot(centres, error, "o-", color=colour, ms=4, label=model.label)
        error_axis.plot(centres, sigma, "--", color=colour, lw=1)
        coverage_axis.plot(centres, [100 * b.coverage for b in bins], "o-", color=colour, ms=4)
        coverage_axis.plot(centres, [100 * b.coverage_2_sigma for b in bins], "s--", color=colour, ms=3, lw=1)
    for share in (68.3, 95.4):
        coverage_axis.axhline(share, color="#8c959f", lw=0.8, ls=":")
    label_axis(
        error_axis, "true distance [m]", "median |error| / truth, dashed: sigma / truth [%]", legend=True
    )
    label_axis(coverage_axis, "true distance [m]", "within 1 sigma, dashed: 2 sigma [%]")
    coverage_axis.set_ylim(0, 103)
    error_axis.set_ylim(bottom=0)
    return png(figure)


def draw_by_texture(models: Sequence[ModelSummary]) -> bytes:
    """PNG: relative error and the estimated share over texture."""
    figure, (error_axis, share_axis) = chart_figure(2, *_SIZE_IN)
    for colour, model in _coloured(models):
        centres = [(max(b.low, 0.1) * max(b.high, 0.1)) ** 0.5 for b in model.textures]
        error = [100 * b.median_relative for b in model.textures]
        share = [100 * b.valid_share for b in model.textures]
        error_axis.plot(centres, error, "o-", color=colour, ms=4, label=model.label)
        share_axis.plot(centres, share, "o-", color=colour, ms=4)
    for axis in (error_axis, share_axis):
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter("{x:g}")
    label_axis(error_axis, "texture [grey levels]", "median |error| / truth [%]", legend=True)
    label_axis(share_axis, "texture [grey levels]", "estimated [%]")
    share_axis.set_ylim(0, 103)
    error_axis.set_ylim(bottom=0)
    return png(figure)


def draw_reliability(models: Sequence[ModelSummary]) -> bytes:
    """PNG: the share of pixels within an interval, over the share that a Gaussian would have there."""
    figure, (axis,) = chart_figure(1, *_SIZE_IN)
    nominal = 100 * np.array(NOMINAL)
    axis.plot([0, 100], [0, 100], color="#8c959f", lw=0.8, ls=":")
    for colour, model in _coloured(models):
        axis.plot(nominal, 100 * model.reliability, "o-", color=colour, ms=3, label=model.label)
    label_axis(axis, "nominal [%]", "found [%]", legend=True)
    axis.set_xlim(0, 100)
    axis.set_ylim(0, 100)
    axis.set_aspect("equal")
    return png(figure)


def draw_sparsification(models: Sequence[ModelSummary]) -> bytes:
    """PNG: the error of what is left when the least certain pixels go first, against the oracle's order."""
    figure, axes = chart_figure(2, *_SIZE_IN)
    titles = (("abs_rel", "mean |error| / truth [%]", 100.0), ("rmse", "RMSE [m]", 1.0))
    for axis, (measure, title, factor) in zip(axes, titles, strict=True):
        for colour, model in _coloured(models):
            curves = model.sparsification[measure]
            removed = 100 * curves.fractions
            axis.plot(removed, factor * curves.by_sigma, color=colour, label=model.label)
            axis.plot(removed, factor * curves.by_error, "--", color=colour, lw=1)
        label_axis(axis, "pixels taken away [%]", title, legend=measure == "abs_rel")
        axis.set_ylim(bottom=0)
    return png(figure)


def _coloured(models: Sequence[ModelSummary]) -> list[tuple[str, ModelSummary]]:
    return [(COLOURS[i % len(COLOURS)], model) for i, model in enumerate(models)]
