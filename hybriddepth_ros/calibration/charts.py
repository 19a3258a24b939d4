"""Charts of a calibration: what was measured, the model through it, and what is left."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hybriddepth_ros.calibration.aperture import ApertureResult
from hybriddepth_ros.calibration.board import BoardSpec
from hybriddepth_ros.calibration.breathing import BreathingResult
from hybriddepth_ros.calibration.focus_table import FocusTableResult
from hybriddepth_ros.calibration.intrinsics import IntrinsicsResult
from hybriddepth_ros.calibration.latency import LatencyResult, expected_progress
from hybriddepth_ros.calibration.sweeps import CameraAt, MeasuredSweep
from hybriddepth_ros.cameras.calibration import CameraCalibration
from hybriddepth_ros.chart_style import COLOURS, chart_figure, label_axis
from hybriddepth_ros.pictures import png

_GREY = "#8c959f"
_WIDTH_IN, _HEIGHT_IN = 4.6, 3.6  # of one chart
_RISING, _FALLING = COLOURS[0], COLOURS[1]


def draw_views(result: IntrinsicsResult) -> bytes:
    """PNG: where in the image the board's corners lay, their reprojection errors, and those by view."""
    figure, (cover, errors, views) = chart_figure(3, _WIDTH_IN, _HEIGHT_IN)
    points = np.concatenate([corners.points for corners in result.corners])
    residuals = np.concatenate(result.residuals)
    size = np.linalg.norm(residuals, axis=1)
    dots = cover.scatter(*points.T, c=size, s=5, cmap="viridis", vmax=float(np.percentile(size, 98)))
    cover.set_xlim(0, result.camera.width)
    cover.set_ylim(result.camera.height, 0)
    cover.set_aspect("equal")
    figure.colorbar(dots, ax=cover, shrink=0.7, label="error [px]")
    label_axis(cover, "x [px]", "y [px]")
    errors.scatter(*residuals.T, s=4, color=_RISING, alpha=0.4)
    errors.axhline(0, color=_GREY, lw=0.6)
    errors.axvline(0, color=_GREY, lw=0.6)
    errors.set_aspect("equal", adjustable="datalim")
    label_axis(errors, "reprojection error in x [px]", "in y [px]")
    views.bar(range(len(result.view_rms_px)), result.view_rms_px, color=_RISING)
    label_axis(views, "view", "rms error [px]")
    return png(figure)


def draw_step(result: LatencyResult) -> bytes:
    """PNG: progress of the move over the time since the command, and the even move that fits."""
    figure, (axis,) = chart_figure(1, 7.0, _HEIGHT_IN)
    response = result.response
    end = max(2.0 * result.short_ms, 60.0)
    shown = (response.time_ms > -0.4 * end) & (response.time_ms < end)
    axis.plot(response.time_ms[shown], response.progress[shown], ".", color=_RISING, label="frames")
    t = np.linspace(-0.4 * end, end, 600)
    model = expected_progress(t, response.exposure_ms, result.dead_ms, result.short_ms)
    axis.plot(t, model, color=_FALLING, lw=1.2, label="even move, seen by this exposure")
    for time, text in ((result.dead_ms, "moves"), (result.short_ms, "rests")):
        axis.axvline(time, color=_GREY, lw=0.8, ls=":")
        axis.annotate(f"{text}: {time:.1f} ms", (time, 0.5), rotation=90, fontsize=8, ha="right", va="center")
    label_axis(axis, "middle of the exposure after the command [ms]", "progress of the move", legend=True)
    return png(figure)


def draw_sharpness(
    sweeps: Sequence[MeasuredSweep], table: FocusTableResult, board: BoardSpec, camera_at: CameraAt
) -> bytes:
    """PNG: sharpness over the actuator and over diopters, both directions of approach, and the fits."""
    figure, (by_actuator, by_focus) = chart_figure(2, 6.2, _HEIGHT_IN)
    for number, sweep in enumerate(sweeps):
        colour = COLOURS[number % len(COLOURS)]
        height = sweep.sharpness.max() - sweep.base
        y = (sweep.sharpness - sweep.base) / height
        focus = table.focus(sweep.actuator, sweep.approach)
        diopters = sweep.diopters(board, camera_at)
        for approach, marker in ((1, "o"), (-1, "x")):
            chosen = sweep.approach == approach
            by_actuator.plot(sweep.actuator[chosen], y[chosen], marker, ms=3, color=colour)
            by_focus.plot(focus[chosen], y[chosen], marker, ms=3, color=colour)
        peak = sweep.peak(1, focus)
        if peak is not None:
            x = np.linspace(peak.position - 1.3 * peak.width, peak.position + 1.3 * peak.width, 80)
            by_focus.plot(x, (peak.at(x) - sweep.base) / height, color=colour, lw=1)
        if diopters is not None:
            by_focus.axvline(diopters, color=colour, lw=0.6, ls=":")
    label_axis(by_actuator, "actuator (o rising, x falling)", "sharpness, of its largest")
    label_axis(by_focus, "focus [1/m]; dotted: the target", "sharpness, of its largest")
    return png(figure)


def draw_table(result: FocusTableResult, truth: CameraCalibration | None) -> bytes:
    """PNG: the table through the measured distances, its residuals (and error), and the play."""
    figure, (curve, residuals, play) = chart_figure(3, _WIDTH_IN, _HEIGHT_IN)
    positions = np.linspace(*result.span, 200)
    for approach, colour, text in ((1, _RISING, "rising actuator"), (-1, _FALLING, "falling actuator")):
        curve.plot(positions, result.focus(positions, np.full(200, approach)), color=colour, lw=1, label=text)
    curve.plot(result.actuator, result.diopters, "ko", ms=4, label="measured")
    label_axis(curve, "actuator", "focus [1/m]", legend=True)
    residuals.axhline(0, color=_GREY, lw=0.6)
    residuals.plot(result.diopters, 1e3 * result.residuals, "ko", ms=4, label="measured - fitted")
    if truth is not None and truth.focus_table is not None:
        table = result.table(rising_diopters=True)
        error = [table.diopters(float(a)) - truth.focus_table.diopters(float(a)) for a in positions]
        foci = [table.diopters(float(a)) for a in positions]
        residuals.plot(foci, 1e3 * np.array(error), color=_RISING, lw=1, label="table - truth")
    label_axis(residuals, "focus [1/m]", "difference [0.001 1/m]", legend=True)
    play.plot(result.diopters, result.play_each, "ko", ms=4)
    play.axhline(result.play, color=_RISING, lw=1)
    play.set_ylim(min(0.0, 1.2 * float(np.nanmin(result.play_each))), None)
    label_axis(play, "focus [1/m]", "play [actuator]")
    return png(figure)


def draw_breathing(result: BreathingResult) -> bytes:
    """PNG: size of the image over focus, and what the straight line leaves."""
    figure, (size, left) = chart_figure(2, _WIDTH_IN, _HEIGHT_IN)
    percent = 100.0 * (result.growth - 1.0)
    expected = result.percent_per_diopter * result.focus
    for number in np.unique(result.sweep):
        chosen = result.sweep == number
        colour = COLOURS[int(number) % len(COLOURS)]
        size.plot(result.focus[chosen], percent[chosen], "o", ms=3, color=colour)
        left.plot(result.focus[chosen], (percent - expected)[chosen], "o", ms=3, color=colour)
    x = np.array([0.0, float(result.focus.max())])
    size.plot(x, result.percent_per_diopter * x, color=_GREY, lw=1)
    left.axhline(0, color=_GREY, lw=0.6)
    label_axis(size, "focus [1/m]; a colour per distance of the board", "growth of the image [%]")
    label_axis(left, "focus [1/m]", "measured - fitted [%]")
    return png(figure)


def draw_blur(result: ApertureResult) -> bytes:
    """PNG: width of the blur disc over the defocus."""
    figure, (axis,) = chart_figure(1, 7.0, _HEIGHT_IN)
    for number in np.unique(result.sweep):
        chosen = result.sweep == number
        colour = COLOURS[int(number) % len(COLOURS)]
        axis.plot(result.defocus[chosen], result.diameter[chosen], "o", ms=4, color=colour)
    reach = float(np.abs(result.defocus).max())
    x = np.array([-reach, 0.0, reach])
    axis.plot(x, result.px_per_diopter * np.abs(x), color=_GREY, lw=1)
    label_axis(axis, "focus - target [1/m]; a colour per distance of the board", "blur diameter [px]")
    return png(figure)
