"""Fits that several steps share: the peak of a sharpness curve, and a smooth curve that only rises."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hybriddepth_ros.errors import CalibrationError

Values = npt.NDArray[np.float64]

_ROUNDS = 4  # of choosing the points about the peak
_FEWEST = 6  # points about a peak near the end of the range
_KNOTS = 9
_LEAST_SLOPE = 0.02  # of the mean slope: a focus motor never stands still over part of its range
_SMOOTHNESS = tuple(10.0 ** np.arange(-5.0, 1.5, 0.5))


@dataclass(frozen=True)
class Peak:
    """base + height exp(-(x - position)^2 / (2 width^2)); position_sigma: 1 sigma of the position."""

    position: float
    width: float
    height: float
    base: float
    position_sigma: float

    def at(self, x: Values) -> Values:
        """The curve."""
        return np.asarray(self.base + self.height * np.exp(-0.5 * ((x - self.position) / self.width) ** 2))


def fit_peak(x: Values, y: Values, base: float, share: float = 0.5) -> Peak | None:
    """The Gaussian through the upper part of a peaked curve, from x [N] and y [N]; None = no peak within.

    base: what y falls to far away. Only points above `share` of the height count: further down the curve of a
    disc's blur has longer tails than a Gaussian. Its logarithm is a parabola: weighted least squares.
    """
    order = np.argsort(x)
    x, y = x[order], y[order] - base
    top, peak = int(np.argmax(y)), None
    height = float(y[top])
    if height <= 0:
        return None
    chosen = _run_round(y > share * height, top)
    for _ in range(_ROUNDS):
        if int(chosen.sum()) < 4:
            return peak
        peak = _parabola(x[chosen], y[chosen], base)
        if peak is None or not x[chosen][0] < peak.position < x[chosen][-1]:
            return None
        reach = peak.width * np.sqrt(-2.0 * np.log(share))
        distance = np.abs(x - peak.position)
        # Near an end of the range one flank is cut off, and the other alone would pull the peak to its side.
        even = min(peak.position - x[0], x[-1] - peak.position)
        reach = min(reach, max(even, float(np.sort(distance)[:_FEWEST][-1])))
        chosen = (distance <= reach) & (y > 0.5 * share * height)
    return peak


def _run_round(mask: npt.NDArray[np.bool_], index: int) -> npt.NDArray[np.bool_]:
    """The unbroken run of a mask that holds an index."""
    gaps = np.flatnonzero(~mask)
    first = int(gaps[gaps < index].max()) + 1 if (gaps < index).any() else 0
    last = int(gaps[gaps > index].min()) if (gaps > index).any() else len(mask)
    run = np.zeros_like(mask)
    run[first:last] = True
    return run


def _parabola(x: Values, y: Values, base: float) -> Peak | None:
    middle, scale = float(x.mean()), float(np.ptp(x)) or 1.0
    u = (x - middle) / scale
    matrix = np.column_stack([np.ones_like(u), u, u * u]) * y[:, None]  # log's error is 1 / y of y's
    if np.linalg.matrix_rank(matrix) < 3:
        return None
    target = y * np.log(y)
    (c, b, a), *_ = np.linalg.lstsq(matrix, target, rcond=None)
    if a >= 0:
        return None
    inverse = np.linalg.inv(matrix.T @ matrix)
    freedom = max(1, len(x) - 3)
    variance = float(((matrix @ [c, b, a] - target) ** 2).sum()) / freedom
    gradient = np.array([0.0, -0.5 / a, 0.5 * b / a**2])  # of -b / 2a
    sigma = float(np.sqrt(variance * gradient @ inverse @ gradient))
    return Peak(
        position=middle - scale * 0.5 * b / a,
        width=scale * float(np.sqrt(-0.5 / a)),
        height=float(np.exp(c - 0.25 * b * b / a)),
        base=base,
        position_sigma=scale * sigma,
    )


@dataclass(frozen=True)
class MonotoneCurve:
    """A smooth curve that rises (or falls) everywhere: its slope is linear between knots and never 0.

    knots [K] evenly spaced in x; start: value at the first; slopes [K]. Beyond the knots it goes on straight.
    """

    knots: Values
    start: float
    slopes: Values

    def at(self, x: Values | float) -> Values:
        """Values of the curve."""
        return np.asarray(self.start + _integrals(self.knots, np.asarray(x, np.float64)) @ self.slopes)

    def inverse(self, y: Values | float) -> Values:
        """Where the curve has these values."""
        low, high = self.knots[0], self.knots[-1]
        margin = high - low
        x = np.linspace(low - margin, high + margin, 6001)
        values = self.at(x)
        if values[0] > values[-1]:
            x, values = x[::-1], values[::-1]
        return np.asarray(np.interp(y, values, x))


def fit_monotone(x: Values, y: Values, low: float, high: float) -> MonotoneCurve:
    """The smooth monotone curve over `low`..`high` through x [N], y [N] with noise.

    How smooth is found by leaving one point out at a time. CalibrationError for less than four points.
    """
    if len(x) < 4:
        raise CalibrationError(f"focus_table: expected at least 4 distances that can be used, got {len(x)}")
    rising = np.polyfit(x, y, 1)[0] > 0
    sign = 1.0 if rising else -1.0
    scores = []
    for smoothness in _SMOOTHNESS:
        errors = []
        for left_out in range(len(x)):
            others = np.arange(len(x)) != left_out
            curve = _fit_rising(x[others], sign * y[others], low, high, smoothness)
            errors.append(float(curve.at(x[left_out])) - sign * float(y[left_out]))
        scores.append(float(np.square(errors).mean()))
    # The smoothest that is hardly worse than the best: the measured points are few.
    best = max(s for s, score in zip(_SMOOTHNESS, scores, strict=True) if score <= 1.1 * min(scores) + 1e-12)
    curve = _fit_rising(x, sign * y, low, high, best)
    return MonotoneCurve(curve.knots, sign * curve.start, sign * curve.slopes)


def _fit_rising(x: Values, y: Values, low: float, high: float, smoothness: float) -> MonotoneCurve:
    knots = np.linspace(0.0, 1.0, _KNOTS)
    unit = high - low
    integrals = _integrals(knots, (x - low) / unit)
    least = _LEAST_SLOPE * abs(float(np.ptp(y)))
    bends = np.diff(np.eye(_KNOTS), 2, axis=0)  # change of slope's change from knot to knot
    weight = float(np.sqrt(smoothness * len(x))) * _KNOTS
    matrix = np.block(
        [
            [np.ones((len(x), 1)), -np.ones((len(x), 1)), integrals],
            [np.zeros((len(bends), 2)), weight * bends],
        ]
    )
    target = np.concatenate([y - least * integrals.sum(axis=1), np.zeros(len(bends))])
    solution = nonnegative_least_squares(matrix, target)
    slopes = (solution[2:] + least) / unit
    return MonotoneCurve(low + unit * knots, float(solution[0] - solution[1]), slopes)


def _integrals(knots: Values, x: Values) -> Values:
    """[..., K]: the integral from the first knot to x of each knot's hat function."""
    step = knots[1] - knots[0]
    u = (x[..., None] - knots[:-1]) / step  # [..., K - 1], within each interval 0..1
    inside = np.clip(u, 0.0, 1.0)
    upper = 0.5 * inside**2 * step  # of the hat that rises over the interval
    lower = inside * step - upper
    total = np.zeros((*x.shape, len(knots)))
    total[..., :-1] += lower
    total[..., 1:] += upper
    total[..., 0] += np.minimum(x - knots[0], 0.0)
    total[..., -1] += np.maximum(x - knots[-1], 0.0)
    return total


def nonnegative_least_squares(matrix: Values, target: Values) -> Values:
    """x >= 0 [K] of the least |matrix x - target|. Source: Lawson and Hanson 1974, chapter 23."""
    count = matrix.shape[1]
    x, free = np.zeros(count), np.zeros(count, bool)
    tolerance = 1e-10 * max(1.0, float(np.abs(matrix.T @ target).max()))
    for _ in range(10 * count):
        gradient = np.where(free, -np.inf, matrix.T @ (target - matrix @ x))
        if float(gradient.max()) <= tolerance:
            break
        free[int(gradient.argmax())] = True
        while True:
            trial = np.zeros(count)
            trial[free] = np.linalg.lstsq(matrix[:, free], target, rcond=None)[0]
            below = free & (trial <= 0)
            if not below.any():
                break
            share = float((x[below] / np.maximum(x[below] - trial[below], 1e-300)).min())
            x = x + share * (trial - x)
            free &= x > 1e-14
            x[~free] = 0.0
        x = trial
    return x
