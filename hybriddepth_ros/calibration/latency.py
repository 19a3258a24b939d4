"""How long the lens takes to move, and a frame to arrive: the step response of sharpness.

The lens is sent to and fro on one flank of the sharpness curve, each time at another phase of the frame
clock, so that slow frames sample a fast movement densely. Sharpness is turned into progress of the move by
what it is at positions in between, at rest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hybriddepth_ros.calibration.curves import fit_peak
from hybriddepth_ros.calibration.rig import ASSUMED_SETTLE_MS, Operator, Placement, Rig
from hybriddepth_ros.calibration.sharpness import central_region, sharpness
from hybriddepth_ros.errors import CalibrationError

Values = npt.NDArray[np.float64]

_PHASES = 12  # of the frame clock, for each direction
_POSITIONS = 9  # at rest, between the ends of the step
_FLANK = (0.5, 1.7)  # the step, in widths from the peak
_LEAST_CONTRAST = 1.3  # between the sharpness at the ends of the step


@dataclass(frozen=True)
class StepResponse:
    """Frames after steps of the lens.

    time_ms [N]: middle of the exposure since the command; progress [N]: 0 = where it was, 1 = where it was
    sent; exposure_ms: from first to last light of a frame; delivery_ms [M]: from a frame's stamp
    (mid-exposure) to its arrival.
    """

    time_ms: Values
    progress: Values
    exposure_ms: float
    delivery_ms: Values


@dataclass(frozen=True)
class LatencyResult:
    """dead_ms, settle_ms: from the command to the first movement and to standing still, 1 sigma each;
    latency_ms: from a frame's stamp to its arrival; rms: of the fit to the progress (ratio)."""

    response: StepResponse
    dead_ms: float
    settle_ms: float
    dead_sigma_ms: float
    settle_sigma_ms: float
    latency_ms: float
    rms: float


def capture_step_response(rig: Rig, operator: Operator) -> StepResponse:
    """Steps of the lens before a still target; CalibrationError where its sharpness hardly changes."""
    operator.place(
        Placement("Stand the board about 0.5 m away; neither it nor the camera may move.", 0.5),
        rig.live_sharpness,
    )
    sweep = rig.sweep()
    x = np.array([shot.actuator for shot in sweep.shots])
    region = central_region((sweep.shots[0].image.shape[1], sweep.shots[0].image.shape[0]))
    y = np.array([sharpness(shot.image, region) for shot in sweep.shots])
    rising = np.array([shot.approach > 0 for shot in sweep.shots])
    peak = fit_peak(x[rising], y[rising], float(y.min()))
    if peak is None:
        raise CalibrationError(
            "latency: expected the target's sharpness to peak within the range of the lens: move it"
        )
    low, high = rig.position_range
    side = 1.0 if high - peak.position > peak.position - low else -1.0
    ends = np.clip([peak.position + side * share * peak.width for share in _FLANK], low, high)
    positions = np.linspace(float(ends.min()), float(ends.max()), _POSITIONS)
    at_rest = {
        approach: np.array([(s.actuator, sharpness(s.image, region)) for s in rig.shots(positions, approach)])
        for approach in (1, -1)
    }
    rig.shot(positions[0], -1)
    return _steps(rig, region, (float(positions[0]), float(positions[-1])), at_rest)


def _steps(rig: Rig, region: Values, ends: tuple[float, float], at_rest: dict[int, Values]) -> StepResponse:
    period_s = 1.0 / rig.source.frame_rate_hz
    times: list[Values] = []
    progress: list[Values] = []
    delivery: list[float] = []
    exposures: list[float] = []
    for step in range(2 * _PHASES):
        approach = 1 if step % 2 == 0 else -1
        before = rig.read()  # of the lens at rest
        rig.wait(period_s * (step // 2) / _PHASES)
        commanded_ns = rig.command(ends[1] if approach > 0 else ends[0])
        frames = [before]
        while 1e-6 * (frames[-1][1].stamp_ns - commanded_ns) <= ASSUMED_SETTLE_MS:
            frames.append(rig.read())
            delivery.append(1e-6 * (rig.source.clock.now_ns() - frames[-1][1].stamp_ns))
        seen = np.array([sharpness(image, region) for image, _ in frames])
        begun = np.array([1e-6 * (frame.stamp_ns - commanded_ns) for _, frame in frames])
        exposures += [1e-6 * (frame.exposure_end_ns - frame.exposure_start_ns) for _, frame in frames]
        times.append(begun)
        progress.append(progress_of(seen, at_rest[approach], begun, exposures[-1]))
    return StepResponse(
        np.concatenate(times), np.concatenate(progress), float(np.median(exposures)), np.array(delivery)
    )


def progress_of(seen: Values, at_rest: Values, times_ms: Values, exposure_ms: float) -> Values:
    """Progress [N] of a move by the sharpness [N] of its frames, of which the first precede it.

    times_ms [N]: middle of the exposures since the command; at_rest [P, 2]: (actuator, sharpness) at
    positions on the way, in the order of the move.
    """
    position, level = at_rest[:, 0], at_rest[:, 1]
    falls = level[0] > level[-1]
    level = np.maximum.accumulate(level if not falls else -level)  # noise may have turned it at its end
    if max(abs(level[0]), abs(level[-1])) < _LEAST_CONTRAST * min(abs(level[0]), abs(level[-1])):
        raise CalibrationError(
            "latency: expected the sharpness to change along the step: more light or texture"
        )
    before = times_ms <= -0.5 * exposure_ms
    if not before.any():
        raise CalibrationError(
            "latency: expected a frame that was exposed before the command, found none: the camera's exposure"
            " or readout time is taken for too long"
        )
    where = np.interp(seen if not falls else -seen, level, position)
    arrived = float(np.median(where[times_ms > 0.75 * ASSUMED_SETTLE_MS]))
    began = float(np.median(where[before]))
    return np.asarray((where - began) / (arrived - began))


def expected_progress(time_ms: Values, exposure_ms: float, dead_ms: float, settle_ms: float) -> Values:
    """Of an even move from dead_ms to settle_ms after the command, averaged over exposures about time_ms."""
    duration = max(settle_ms - dead_ms, 1e-6)

    def integral(t: Values) -> Values:  # of the progress, up to t [ms]
        inside = np.clip(t - dead_ms, 0.0, duration)
        return np.asarray(0.5 * inside**2 / duration + np.maximum(t - settle_ms, 0.0))

    half = 0.5 * max(exposure_ms, 1e-3)
    return np.asarray((integral(time_ms + half) - integral(time_ms - half)) / (2.0 * half))


def solve_latency(response: StepResponse) -> LatencyResult:
    """Dead time and settle time of the move that fits best; least squares by ever finer grids."""

    def misfit(dead: float, settle: float) -> float:
        expected = expected_progress(response.time_ms, response.exposure_ms, dead, settle)
        return float(np.abs(response.progress - expected).sum())  # a frame that failed must not decide

    dead, duration, step = 0.0, 0.5 * ASSUMED_SETTLE_MS, 20.0
    grid = [(a, b) for a in np.arange(0.0, 200.0, step) for b in np.arange(1.0, ASSUMED_SETTLE_MS, step)]
    while True:
        dead, duration = min(grid, key=lambda pair: misfit(pair[0], pair[0] + pair[1]))
        if step < 0.05:
            break
        step *= 0.4
        around = step * np.arange(-3, 4)
        grid = [(max(0.0, dead + a), max(0.1, duration + b)) for a in around for b in around]
    settle = dead + duration
    residual = response.progress - expected_progress(response.time_ms, response.exposure_ms, dead, settle)
    slopes = [
        (
            expected_progress(response.time_ms, response.exposure_ms, dead + a, settle + b)
            - expected_progress(response.time_ms, response.exposure_ms, dead - a, settle - b)
        )
        / 0.2
        for a, b in ((0.1, 0.0), (0.0, 0.1))
    ]
    matrix = np.column_stack(slopes)
    covariance = np.linalg.pinv(matrix.T @ matrix) * float((residual**2).mean())
    if settle > 0.9 * ASSUMED_SETTLE_MS:
        raise CalibrationError(
            f"latency: expected the lens to rest within {ASSUMED_SETTLE_MS:g} ms, it did not"
        )
    sigma = np.sqrt(np.diag(covariance))
    return LatencyResult(
        response,
        float(dead),
        float(settle),
        float(sigma[0]),
        float(sigma[1]),
        # A busy reader finds frames late: the early ones tell the camera's own delay.
        float(np.percentile(response.delivery_ms, 20)),
        float(np.sqrt((residual**2).mean())),
    )
