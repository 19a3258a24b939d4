"""Actuator position <-> diopters: where the sharpness of targets at known distances peaks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hybriddepth_ros.calibration.board import BoardSpec
from hybriddepth_ros.calibration.curves import MonotoneCurve, fit_monotone
from hybriddepth_ros.calibration.sweeps import CameraAt, MeasuredSweep, Values
from hybriddepth_ros.cameras.calibration import FocusTable
from hybriddepth_ros.errors import CalibrationError

LARGEST_RESIDUAL_DIOPTERS = 0.1
_ROUNDS = 3  # peaks are fitted over diopters, which the table gives
_MOST_EXTRAPOLATED_DIOPTERS = 0.25  # the table goes on so far beyond the measured distances
_PAIRS = 33


@dataclass(frozen=True)
class FocusTableResult:
    """curve: diopters over the actuator in the middle of its play.

    play: actuator units between rising and falling approach, and play_sigma; per distance used [N]: diopters
    [1/m], actuator (middle), play_each (NaN where one approach has no peak), residual [1/m]; used: indices of
    the sweeps; span: the actuator range of the table.
    """

    curve: MonotoneCurve
    play: float
    play_sigma: float
    diopters: Values
    actuator: Values
    play_each: Values
    used: tuple[int, ...]
    span: tuple[float, float]

    @property
    def residuals(self) -> Values:
        """Measured less fitted [1/m]."""
        return np.asarray(self.diopters - self.curve.at(self.actuator))

    @property
    def rms_diopters(self) -> float:
        """Of the residuals [1/m]."""
        return float(np.sqrt((self.residuals**2).mean()))

    def focus(self, actuator: Values, approach: Values) -> Values:
        """Diopters [N] at positions approached with rising (1) or falling (-1) actuator."""
        return self.curve.at(actuator - 0.5 * self.play * approach)

    def table(self, rising_diopters: bool) -> FocusTable:
        """Pairs for one direction of approach, counted in diopters."""
        positions = np.linspace(*self.span, _PAIRS)
        grows = float(self.curve.slopes.sum()) > 0
        approach = 1.0 if rising_diopters == grows else -1.0
        foci = self.focus(positions, np.full(_PAIRS, approach))
        return FocusTable(tuple((float(a), float(d)) for a, d in zip(positions, foci, strict=True)))

    @property
    def has_play(self) -> bool:
        """Whether rising and falling differ by more than their measurement's error."""
        return abs(self.play) > 2.0 * self.play_sigma


def solve_focus_table(
    sweeps: Sequence[MeasuredSweep],
    board: BoardSpec,
    camera_at: CameraAt,
    position_range: tuple[float, float],
) -> FocusTableResult:
    """The table through all sweeps that peak within the range.

    CalibrationError for less than four distances, or where the fit misses them by more than 0.1 1/m rms.
    """
    result: FocusTableResult | None = None
    for _ in range(_ROUNDS):
        result = _once(sweeps, board, camera_at, position_range, result)
    assert result is not None
    if result.rms_diopters > LARGEST_RESIDUAL_DIOPTERS:
        raise CalibrationError(
            f"focus_table: expected distances and sharpest positions to agree within"
            f" {LARGEST_RESIDUAL_DIOPTERS:g} 1/m rms, they differ by {result.rms_diopters:.3f}:"
            " was the board's square size, or a typed distance, right?"
        )
    return result


def _once(
    sweeps: Sequence[MeasuredSweep],
    board: BoardSpec,
    camera_at: CameraAt,
    position_range: tuple[float, float],
    former: FocusTableResult | None,
) -> FocusTableResult:
    rows = []
    for index, sweep in enumerate(sweeps):
        diopters = sweep.diopters(board, camera_at)
        peaks = {approach: peak_actuator(sweep, approach, former) for approach in (1, -1)}
        if diopters is not None and (peaks[1] is not None or peaks[-1] is not None):
            rising, falling = (np.nan if peaks[a] is None else peaks[a] for a in (1, -1))
            rows.append((index, diopters, rising, falling))
    if len(rows) < 4:
        raise CalibrationError(
            f"focus_table: expected sharp images at 4 distances or more, got {len(rows)} of {len(sweeps)}"
        )
    table = np.array(rows, np.float64)
    used, targets = table[:, 0], table[:, 1]
    play_each = table[:, 2] - table[:, 3]
    known = play_each[np.isfinite(play_each)]
    play = float(np.median(known)) if len(known) else 0.0
    sigma = float(1.25 * known.std(ddof=1) / np.sqrt(len(known))) if len(known) > 1 else float("inf")
    middle = np.nanmean(table[:, 2:] + 0.5 * play * np.array([-1.0, 1.0]), axis=1)
    low, high = position_range
    curve = fit_monotone(middle, targets, low, high)
    numbers = tuple(int(number) for number in used)
    span = _span(curve, targets, low, high)
    return FocusTableResult(curve, play, sigma, targets, middle, play_each, numbers, span)


def peak_actuator(sweep: MeasuredSweep, approach: int, table: FocusTableResult | None) -> float | None:
    """Where one approach is sharpest, as an actuator position.

    With a table the curve is fitted over diopters, where it is symmetric: blur grows evenly on both sides.
    """
    if table is None:
        peak = sweep.peak(approach)
        return None if peak is None else peak.position
    peak = sweep.peak(approach, table.focus(sweep.actuator, sweep.approach))
    if peak is None:
        return None
    return float(table.curve.inverse(peak.position)) + 0.5 * table.play * approach


def _span(curve: MonotoneCurve, diopters: Values, low: float, high: float) -> tuple[float, float]:
    """The actuator positions that the table covers: not far beyond the measured distances."""
    positions = np.linspace(low, high, 1025)
    foci = curve.at(positions)
    covered = positions[
        (foci >= diopters.min() - _MOST_EXTRAPOLATED_DIOPTERS)
        & (foci <= diopters.max() + _MOST_EXTRAPOLATED_DIOPTERS)
    ]
    return (float(covered[0]), float(covered[-1]))
