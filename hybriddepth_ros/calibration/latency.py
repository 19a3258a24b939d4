"""How long the lens takes to move, and a frame to arrive: the step response of sharpness.

The lens is sent to and fro on one flank of the sharpness curve, each time at another phase of the frame
clock, so that slow frames sample a fast movement densely. Sharpness is turned into progress of the move by
what it is at positions in between, at rest. Long moves take longer: the lens is also sent to that flank from
the far end of its range, and what the rest of the range adds follows from the two distances.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hybriddepth_ros.calibration.curves import fit_peak
from hybriddepth_ros.calibration.rig import ASSUMED_SETTLE_MS, Operator, Placement, Rig
from hybriddepth_ros.calibration.sharpness import central_region, region_sharpness, sharpness_products
from hybriddepth_ros.cameras.source import RawFrame
from hybriddepth_ros.errors import CalibrationError

Values = npt.NDArray[np.float64]

_AT_M = 0.36  # near one end of a focus that begins at infinity, so that the long move is nearly the longest
_PHASES = 12  # of the frame clock, for each direction
_POSITIONS = 9  # at rest, between the ends of the step
_ON_THE_WAY = 16  # at rest, from the end of the range to the flank
_FLANK = (0.5, 1.7)  # the step, in widths from the peak
_LEAST_CONTRAST = 1.3  # between the sharpness at the ends of the step
_WITHIN_EXPOSURE = 16  # moments at which the moving lens is looked at


@dataclass(frozen=True)
class StepResponse:
    """Frames after steps of the lens.

    time_ms [N]: middle of the exposure since the command; progress [N]: 0 = where it was, 1 = where it was
    sent; exposure_ms: from first to last light of a frame; delivery_ms [M]: from a frame's stamp
    (mid-exposure) to its arrival; distance: of the step, in actuator units.
    """

    time_ms: Values
    progress: Values
    exposure_ms: float
    delivery_ms: Values
    distance: float


@dataclass(frozen=True)
class WayAtRest:
    """What a lens at rest shows at positions on the way of a move.

    share [P]: of the way, rising from 0 to 1; products [P, P]: mean product of the gradients of two of the
    images, noise taken out, as `sharpness_products` tells them; noise: what it adds to the sharpness of one.
    """

    share: Values
    products: Values
    noise: float

    def level(self, weights: Values) -> Values:
        """Root of the sharpness [N] of frames that are means of the images by weights [N, P].

        Images that differ in blur lose contrast when they are averaged, and so do those that are magnified
        differently: it is less than the mean of their contrasts.
        """
        energy = np.einsum("np,pq,nq->n", weights, self.products, weights)
        return np.asarray(np.sqrt(np.maximum(energy, 0.0) + self.noise))


@dataclass(frozen=True)
class LongResponse:
    """Frames after moves from the far end of the range, of which only the arrival is seen well.

    time_ms [N], exposure_ms as in StepResponse; level [N]: root of the sharpness; at_rest: the way as it is
    seen with the lens at rest; distance: of the move, full_distance: of the whole range, in actuator units.
    """

    time_ms: Values
    level: Values
    exposure_ms: float
    at_rest: WayAtRest
    distance: float
    full_distance: float


@dataclass(frozen=True)
class LatencyResult:
    """dead_ms: from the command to the first movement; settle_ms: to standing still after a move over the
    whole range; short_ms, long_ms: after the two moves that were measured; 1 sigma of the first two;
    latency_ms: from a frame's stamp to its arrival; rms: of the fit to the short step's progress (ratio)."""

    response: StepResponse
    long_response: LongResponse
    dead_ms: float
    settle_ms: float
    short_ms: float
    long_ms: float
    dead_sigma_ms: float
    settle_sigma_ms: float
    latency_ms: float
    rms: float


@dataclass(frozen=True)
class Move:
    """An even move that fits frames: its dead time and its end [ms] after the command, 1 sigma each; rms."""

    dead_ms: float
    settle_ms: float
    dead_sigma_ms: float
    settle_sigma_ms: float
    rms: float


def capture_step_response(rig: Rig, operator: Operator) -> tuple[StepResponse, LongResponse]:
    """Moves of the lens before a still target; CalibrationError where its sharpness hardly changes."""
    text = f"Stand the board about {_AT_M:g} m away; neither it nor the camera may move."
    operator.place(Placement(text, _AT_M), rig.live_sharpness)
    sweep = rig.sweep()
    x = np.array([shot.actuator for shot in sweep.shots])
    region = central_region((sweep.shots[0].image.shape[1], sweep.shots[0].image.shape[0]))
    y = np.array([region_sharpness(shot.image, region) for shot in sweep.shots])
    rising = np.array([shot.approach > 0 for shot in sweep.shots])
    peak = fit_peak(x[rising], y[rising], float(y.min()))
    if peak is None:
        raise CalibrationError(
            "latency: expected the target's sharpness to peak within the range of the lens: move it"
        )
    low, high = rig.position_range
    side = 1.0 if high - peak.position > peak.position - low else -1.0
    near, outer = (float(np.clip(peak.position + side * share * peak.width, low, high)) for share in _FLANK)
    positions = np.linspace(min(near, outer), max(near, outer), _POSITIONS)

    def at_rest(wanted: Values, approach: int) -> Values:
        return np.array(
            [(s.actuator, region_sharpness(s.image, region)) for s in rig.shots(wanted, approach)]
        )

    levels = {approach: at_rest(positions, approach) for approach in (1, -1)}
    rig.shot(positions[0], -1)
    short = _short_steps(rig, region, (float(positions[0]), float(positions[-1])), levels)
    far = high if side > 0 else low
    # Dense by the flank, where the sharpness begins to grow.
    way = outer + (far - outer) * np.linspace(1.0, 0.0, _ON_THE_WAY, endpoint=False) ** 2
    return short, _long_moves(rig, region, np.concatenate([way, positions]), (far, near))


def _short_steps(
    rig: Rig, region: Values, ends: tuple[float, float], at_rest: dict[int, Values]
) -> StepResponse:
    times: list[Values] = []
    progress: list[Values] = []
    delivery: list[float] = []
    exposures: list[float] = []
    for step in range(2 * _PHASES):
        approach = 1 if step % 2 == 0 else -1
        target = ends[1] if approach > 0 else ends[0]
        seen, frames, commanded_ns, delivered = _move(rig, region, target, (step // 2) / _PHASES)
        delivery += delivered
        times.append(_times_ms(frames, commanded_ns))
        exposures += _exposures_ms(frames)
        progress.append(progress_of(seen, at_rest[approach], times[-1], exposures[-1]))
    return StepResponse(
        np.concatenate(times),
        np.concatenate(progress),
        float(np.median(exposures)),
        np.array(delivery),
        ends[1] - ends[0],
    )


def _long_moves(rig: Rig, region: Values, positions: Values, ends: tuple[float, float]) -> LongResponse:
    """From the first of `ends` to the second; positions [P]: on the way, where it is looked at before."""
    at_rest = _way_at_rest(rig, region, positions, ends)
    times: list[Values] = []
    seen: list[Values] = []
    exposures: list[float] = []
    for phase in range(_PHASES):
        rig.command(ends[0])
        rig.wait(1e-3 * ASSUMED_SETTLE_MS)
        levels, frames, commanded_ns, _ = _move(rig, region, ends[1], phase / _PHASES)
        times.append(_times_ms(frames, commanded_ns))
        seen.append(levels)
        exposures += _exposures_ms(frames)
    low, high = rig.position_range
    return LongResponse(
        np.concatenate(times),
        np.sqrt(np.concatenate(seen)),
        float(np.median(exposures)),
        at_rest,
        abs(ends[1] - ends[0]),
        high - low,
    )


def _way_at_rest(rig: Rig, region: Values, positions: Values, ends: tuple[float, float]) -> WayAtRest:
    shots = rig.shots(positions, 1 if ends[1] > ends[0] else -1)
    again, _ = rig.read()
    (first, cross), (_, second) = sharpness_products([shots[-1].image, again], region)
    share = (np.array([shot.actuator for shot in shots]) - ends[0]) / (ends[1] - ends[0])
    noise = max(0.0, float(0.5 * (first + second) - cross))
    products = sharpness_products([shot.image for shot in shots], region)
    return WayAtRest(share, products - noise * np.eye(len(shots)), noise)


def _move(
    rig: Rig, region: Values, target: float, phase: float
) -> tuple[Values, list[RawFrame], int, list[float]]:
    """A command at a phase of the frame clock (ratio): sharpness of the frames about it, the frames, when it
    was given [ns], and how long the frames were under way [ms]. The first frame precedes it."""
    read = [rig.read()]
    rig.wait(phase / rig.source.frame_rate_hz)
    commanded_ns = rig.command(target)
    delivery = []
    while 1e-6 * (read[-1][1].stamp_ns - commanded_ns) <= ASSUMED_SETTLE_MS:
        read.append(rig.read())
        delivery.append(1e-6 * (rig.source.clock.now_ns() - read[-1][1].stamp_ns))
    seen = np.array([region_sharpness(image, region) for image, _ in read])
    return seen, [frame for _, frame in read], commanded_ns, delivery


def _times_ms(frames: list[RawFrame], commanded_ns: int) -> Values:
    return np.array([1e-6 * (frame.stamp_ns - commanded_ns) for frame in frames])


def _exposures_ms(frames: list[RawFrame]) -> list[float]:
    return [1e-6 * (frame.exposure_end_ns - frame.exposure_start_ns) for frame in frames]


def progress_of(seen: Values, at_rest: Values, times_ms: Values, exposure_ms: float) -> Values:
    """Progress [N] of a move by the sharpness [N] of its frames, of which the first was read before it.

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
    before[0] = True  # whatever its stamp says: it was there when the command was given
    after = times_ms > 0.75 * ASSUMED_SETTLE_MS
    where = np.interp(seen if not falls else -seen, level, position)
    began, arrived = (
        float(np.median(where[chosen])) if chosen.any() else np.nan for chosen in (before, after)
    )
    if not np.isfinite(began - arrived) or began == arrived:
        raise CalibrationError("latency: expected frames before and after each step that differ, got none")
    return np.asarray((where - began) / (arrived - began))


def expected_progress(time_ms: Values, exposure_ms: float, dead_ms: float, settle_ms: float) -> Values:
    """Of an even move from dead_ms to settle_ms after the command, averaged over exposures about time_ms."""
    duration = max(settle_ms - dead_ms, 1e-6)

    def integral(t: Values) -> Values:  # of the progress, up to t [ms]
        inside = np.clip(t - dead_ms, 0.0, duration)
        return np.asarray(0.5 * inside**2 / duration + np.maximum(t - settle_ms, 0.0))

    half = 0.5 * max(exposure_ms, 1e-3)
    return np.asarray((integral(time_ms + half) - integral(time_ms - half)) / (2.0 * half))


def expected_level(response: LongResponse, dead_ms: float, settle_ms: float) -> Values:
    """Level [N] of an even move's frames, each a mean of what the lens shows at rest on the way."""
    moments = response.exposure_ms * ((np.arange(_WITHIN_EXPOSURE) + 0.5) / _WITHIN_EXPOSURE - 0.5)
    times = response.time_ms[:, None] + moments
    way = np.clip((times - dead_ms) / max(settle_ms - dead_ms, 1e-6), 0.0, 1.0)
    share = response.at_rest.share
    place = np.interp(way, share, np.arange(len(share)))
    before = np.minimum(place.astype(int), len(share) - 2)
    frame = len(share) * np.arange(len(way))[:, None]
    weights = np.zeros(len(way) * len(share))
    for image, part in ((before, before + 1 - place), (before + 1, place - before)):
        weights += np.bincount((frame + image).ravel(), part.ravel(), len(weights))
    return response.at_rest.level(weights.reshape(len(way), len(share)) / _WITHIN_EXPOSURE)


def fit_move(
    seen: Values, expected: Callable[[float, float], Values], known_dead_ms: float | None = None
) -> Move:
    """The move whose `expected`(dead time, end) [N] fits `seen` [N] best, by ever finer grids.

    known_dead_ms: not to be found, and then without error.

    CalibrationError for a lens that does not come to rest in time, or for what is no number.
    """
    if not np.isfinite(seen).all():
        raise CalibrationError("latency: expected the sharpness of every frame, got one that is no number")

    def misfit(dead: float, settle: float) -> float:
        return float(np.abs(seen - expected(dead, settle)).sum())  # a frame that failed must not decide

    dead, duration, step = known_dead_ms or 0.0, 0.5 * ASSUMED_SETTLE_MS, 20.0
    begins = np.arange(0.0, 200.0, step) if known_dead_ms is None else [dead]
    grid = [(a, b) for a in begins for b in np.arange(1.0, ASSUMED_SETTLE_MS, step)]
    while True:
        dead, duration = min(grid, key=lambda pair: misfit(pair[0], pair[0] + pair[1]))
        if step < 0.05:
            break
        step *= 0.4
        around = step * np.arange(-3, 4)
        begins = np.maximum(0.0, dead + around) if known_dead_ms is None else [dead]
        grid = [(a, max(0.1, duration + b)) for a in begins for b in around]
    settle = dead + duration
    if settle > 0.9 * ASSUMED_SETTLE_MS:
        raise CalibrationError(
            f"latency: expected the lens to rest within {ASSUMED_SETTLE_MS:g} ms, it did not"
        )
    changes = ((0.0, 0.1),) if known_dead_ms is not None else ((0.0, 0.1), (0.1, 0.0))
    matrix = np.column_stack(
        [(expected(dead + a, settle + b) - expected(dead - a, settle - b)) / 0.2 for a, b in changes]
    )
    residual = seen - expected(dead, settle)
    covariance = np.linalg.pinv(matrix.T @ matrix) * float((residual**2).mean())
    settle_sigma, dead_sigma = (*np.sqrt(np.diag(covariance)), 0.0)[:2]
    rms = float(np.sqrt((residual**2).mean()))
    return Move(float(dead), float(settle), float(dead_sigma), float(settle_sigma), rms)


def solve_latency(response: StepResponse, long: LongResponse) -> LatencyResult:
    """Dead time by the short step; the time of the longest move by both, as it grows with the distance."""
    step = fit_move(
        response.progress,
        lambda dead, settle: expected_progress(response.time_ms, response.exposure_ms, dead, settle),
    )
    # Its beginning is out of sight, and the dead time does not depend on the distance.
    far = fit_move(long.level, lambda dead, settle: expected_level(long, dead, settle), step.dead_ms)
    further = (long.full_distance - long.distance) / max(long.distance - response.distance, 1e-9)
    growth = max(0.0, far.settle_ms - step.settle_ms)
    whole = max(step.settle_ms, far.settle_ms + further * growth)
    if whole > ASSUMED_SETTLE_MS:
        raise CalibrationError(
            f"latency: expected the lens to cross its range within {ASSUMED_SETTLE_MS:g} ms, got {whole:.0f}"
        )
    sigma = float(np.hypot((1.0 + further) * far.settle_sigma_ms, further * step.settle_sigma_ms))
    return LatencyResult(
        response,
        long,
        step.dead_ms,
        whole,
        step.settle_ms,
        far.settle_ms,
        step.dead_sigma_ms,
        sigma,
        # A busy reader finds frames late: the early ones tell the camera's own delay.
        float(np.percentile(response.delivery_ms, 20)),
        step.rms,
    )
