"""How the image grows with focus: the corners of a still board, seen while the focus moves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from hybriddepth_ros.calibration.board import BoardSpec
from hybriddepth_ros.calibration.focus_table import FocusTableResult, solve_focus_table
from hybriddepth_ros.calibration.sweeps import CameraAt, MeasuredSweep, Values
from hybriddepth_ros.errors import CalibrationError
from hybriddepth_ros.focal_stack import CameraIntrinsics

_ROUNDS = 4
_FEWEST_SHOTS = 8
_OUTLIER = 4.0  # times the residuals' typical size


@dataclass(frozen=True)
class BreathingResult:
    """camera: focused at infinity; percent_per_diopter and its 1 sigma.

    Per shot used [M]: focus [1/m], growth: image size over that at infinity (ratio), sweep: whose it is.
    """

    camera: CameraIntrinsics
    percent_per_diopter: float
    sigma: float
    focus: Values
    growth: Values
    sweep: Values


def solve_breathing(
    sweeps: Sequence[MeasuredSweep],
    board: BoardSpec,
    camera: CameraIntrinsics,
    camera_diopters: float,
    position_range: tuple[float, float],
) -> BreathingResult:
    """From sweeps of a still board, and the camera at one focus (`camera_diopters` [1/m]).

    The distances that place the focus depend on the intrinsics there, so both are found in turns.
    """
    percent, result = 0.0, None
    for _ in range(_ROUNDS):
        at_infinity = at_other_focus(camera, camera_diopters, 0.0, percent)
        table = solve_focus_table(sweeps, board, _camera_at(at_infinity, percent), position_range)
        focus, logs, origin = _growths(sweeps, table)
        percent, sigma, kept, levels = fit_growth(focus, logs, origin)
        result = BreathingResult(
            at_other_focus(camera, camera_diopters, 0.0, percent),
            percent,
            sigma,
            focus[kept],
            np.exp(logs[kept] - levels[kept]),
            origin[kept],
        )
    assert result is not None
    return result


def fit_growth(
    focus: Values, log_size: Values, origin: Values
) -> tuple[float, float, npt.NDArray[np.bool_], Values]:
    """(percent per diopter, its 1 sigma, which were kept [M], each one's log size at infinity [M]).

    log_size [M]: of the image, relative to a size that is common to all of one `origin` [M]; focus [M] 1/m.
    Model: log size = level of the origin + log(1 + slope * focus); Gauss and Newton.
    """
    if len(focus) < _FEWEST_SHOTS or np.ptp(focus) < 0.1:
        raise CalibrationError(
            f"breathing: expected the board's corners in {_FEWEST_SHOTS} images of differing focus or more,"
            f" got {len(focus)}"
        )
    groups = np.unique(origin)
    members = (origin[:, None] == groups[None, :]).astype(np.float64)  # [M, G]
    kept = np.ones(len(focus), bool)
    slope, levels, sigma = 0.0, np.zeros(len(groups)), 0.0
    for _ in range(12):
        matrix = np.column_stack([focus / (1.0 + slope * focus), members])
        residual = log_size - members @ levels - np.log1p(slope * focus)
        step, *_ = np.linalg.lstsq(matrix[kept], residual[kept], rcond=None)
        slope, levels = slope + float(step[0]), levels + step[1:]
        residual = log_size - members @ levels - np.log1p(slope * focus)
        spread = 1.4826 * float(np.median(np.abs(residual[kept])))
        kept = np.abs(residual) <= _OUTLIER * spread + 1e-9
        freedom = max(1, int(kept.sum()) - len(groups) - 1)
        covariance = np.linalg.pinv(matrix[kept].T @ matrix[kept])
        sigma = float(np.sqrt((residual[kept] ** 2).sum() / freedom * covariance[0, 0]))
    return 100.0 * slope, 100.0 * sigma, kept, members @ levels


def at_other_focus(
    camera: CameraIntrinsics, at_diopters: float, wanted_diopters: float, percent_per_diopter: float
) -> CameraIntrinsics:
    """The intrinsics that are known at one focus [1/m], at another."""
    slope = 0.01 * percent_per_diopter
    scale = (1.0 + slope * wanted_diopters) / (1.0 + slope * at_diopters)
    return replace(camera, fx=camera.fx * scale, fy=camera.fy * scale)


def _camera_at(at_infinity: CameraIntrinsics, percent: float) -> CameraAt:
    return lambda focus: at_other_focus(at_infinity, 0.0, focus, percent)


def _growths(sweeps: Sequence[MeasuredSweep], table: FocusTableResult) -> tuple[Values, Values, Values]:
    """(focus [1/m], log of the image's size, number of the sweep) [M] of all shots with corners."""
    columns: list[tuple[Values, Values, Values]] = []
    for number, sweep in enumerate(sweeps):
        actuator, approach, scale = sweep.growths()
        columns.append((table.focus(actuator, approach), np.log(scale), np.full(len(scale), float(number))))
    focus, logs, origin = (np.concatenate(parts) for parts in zip(*columns, strict=True))
    return focus, logs, origin
