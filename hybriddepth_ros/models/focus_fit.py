"""Which inverse depth explains the focus measure of all slices and bands best, and how sharply.

The measured energies are compared with the curve that a lens gives (`focus_response`) at every candidate
inverse depth; the best candidate is the estimate and the width of the likelihood its variance: a flat or
two-peaked focus curve is a large variance, and so is a curve that still rises where the candidates end.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from hybriddepth_ros.image_files import to_grey
from hybriddepth_ros.models.base import AlignedStack
from hybriddepth_ros.models.focus_measure import FocusMeasure, measure_focus
from hybriddepth_ros.models.focus_response import BANDS, BLUR_STEP_PX, energy_response

Floats = npt.NDArray[np.floating[Any]]

CANDIDATES_PER_SPACING = (
    10  # inverse depths at which the likelihood is computed, per mean spacing of the slices
)
BEYOND_SWEEP = 1.5  # candidates reach this many spacings past both ends of the sweep, but not beyond infinity
BAND_WEIGHTS = (0.5, 1.0, 1.0)  # the finest band follows the noise and the in-focus blur most
BLOCK_PRODUCTS = 250_000  # of a matrix product: below this BLAS starts no threads to fight over the cores
BLOCK_PARTS = 3  # products of a block, which stays in the processor's cache
SNR_CLASSES = 10  # one per factor of 3 in signal over noise, from 0.1 up
LOG_ENERGY_SIGMA = 0.45  # how far real textures stray from the response curve, per band and slice
BLUR_HYPOTHESES = np.geomspace(1.0, 40.0, 20)  # [px/D], tried when the lens is unknown
IN_FOCUS_BLUR_PX = 0.5  # Gaussian sigma of the sharpest that images get, where the lens is known
IN_FOCUS_HYPOTHESES = (0.3, 0.5, 0.7, 1.0, 1.3, 1.6, 2.0)  # [px], tried when the lens is unknown
# A softer image and a stronger lens explain a stack nearly alike: what is usual decides. [px], and cost per
# square of the logarithm; chosen on stacks of known lenses, which it brings from 22 % off at worst to 13 %.
USUAL_IN_FOCUS_BLUR_PX, UNUSUAL_COST = 0.8, 0.6
OUTSIDE_COST = 2.0  # -2 ln of the prior per spacing outside the sweep: it was chosen for what is to be seen
CUT_OFF_VARIANCE = 0.15  # of the range, times the likelihood in its last candidate
OPTICS_SAMPLES = 1500  # textured pixels that vote on the optics


@dataclass(frozen=True)
class StackOptics:
    """blur_px_per_diopter: blur-disc diameter [px] per diopter of defocus; in_focus_blur_px: Gaussian sigma
    at best focus.
    """

    blur_px_per_diopter: float
    in_focus_blur_px: float


def blur_of(stack: AlignedStack) -> float:
    """Blur per diopter [px m]: the lens's where it is known, else what fits the stack."""
    if stack.blur_px_per_diopter:
        return stack.blur_px_per_diopter
    measure = measure_focus([to_grey(image) for image in stack.images])
    return find_optics(measure, stack.focus_diopters, None).blur_px_per_diopter


def find_optics(
    measure: FocusMeasure,
    focus_diopters: npt.NDArray[np.float32],
    blur_px_per_diopter: float | None,
) -> StackOptics:
    """The lens where it is known, else the optics under which the stack's energies fit the response curve
    best.
    """
    if blur_px_per_diopter:
        return StackOptics(blur_px_per_diopter, IN_FOCUS_BLUR_PX)
    start = StackOptics(6.0, IN_FOCUS_BLUR_PX)
    energies, noise = measure.energies, measure.noise
    rows, columns = np.nonzero(energies[:, 1].max(axis=0) > 10.0 * noise[1])
    if len(rows) < 50:
        return start
    chosen = np.linspace(0, len(rows) - 1, min(len(rows), OPTICS_SAMPLES)).astype(int)
    sample = energies[:, :, rows[chosen], columns[chosen]][..., None]  # [S, BANDS, P, 1]
    observed = _observed(sample, noise)

    def misfit(optics: StackOptics) -> float:
        blocks = _costs(observed, _templates(tuple(map(float, focus_diopters)), optics))
        lowest = np.concatenate([cost.min(axis=1) for _, cost in blocks])
        return float(np.minimum(lowest + observed.power, 30.0).mean())

    count = len(BLUR_HYPOTHESES)
    best, at = (math.inf, start), int(np.abs(BLUR_HYPOTHESES - start.blur_px_per_diopter).argmin())
    for in_focus in IN_FOCUS_HYPOTHESES:

        @cache
        def at_blur(index: int, in_focus: float = in_focus) -> float:
            return misfit(StackOptics(float(BLUR_HYPOTHESES[index]), in_focus))

        if in_focus == IN_FOCUS_HYPOTHESES[0]:
            at = min(range(count), key=at_blur)
        else:  # near the one before
            while (better := min((at, max(at - 1, 0), min(at + 1, count - 1)), key=at_blur)) != at:
                at = better
        unusual = UNUSUAL_COST * math.log(in_focus / USUAL_IN_FOCUS_BLUR_PX) ** 2
        near = [at_blur(index) for index in (at - 1, at, at + 1) if 0 <= index < count]
        found = StackOptics(_between_hypotheses(at, near), in_focus)
        best = min(best, (at_blur(at) + unusual, found), key=lambda pair: pair[0])
    return best[1]


def _between_hypotheses(best: int, misfits: list[float]) -> float:
    """The blur [px/D] at the bottom of the parabola through the least misfit and its two neighbours."""
    if len(misfits) < 3:
        return float(BLUR_HYPOTHESES[best])
    below, least, above = misfits
    offset = 0.5 * (below - above) / max(below - 2.0 * least + above, 1e-12)
    ratio = BLUR_HYPOTHESES[1] / BLUR_HYPOTHESES[0]
    return float(BLUR_HYPOTHESES[best] * ratio**offset)


def fit_response(
    measure: FocusMeasure, focus_diopters: npt.NDArray[np.float32], optics: StackOptics
) -> tuple[Floats, Floats]:
    """Inverse depth [h, w] 1/m and its variance [h, w] 1/m^2."""
    height, width = measure.energies.shape[2:]
    freedom = max((measure.energies.shape[0] - 1) * BANDS - 1, 1)
    templates = _templates(tuple(map(float, focus_diopters)), optics)
    observed = _observed(measure.energies, measure.noise)
    fitted = np.empty((2, height * width), np.float32)
    fitted[:, observed.order] = _peaks(observed, templates, freedom)
    diopters, variance = fitted.reshape(2, height, width)
    return diopters, variance


def _peaks(observed: _Observed, templates: _Templates, freedom: int) -> tuple[Floats, Floats]:
    """The best candidate [P], refined between its neighbours, and the likelihood's variance about it [P]."""
    candidates, outside_cost = templates.candidates, templates.outside_cost
    count, last = len(observed.power), len(candidates) - 1
    best = np.empty(count, np.intp)
    lowest, far_end, near_end = np.empty((3, count), np.float32)  # of cost; of likelihood, at both ends
    around, moments = np.empty((2, count, 3), np.float32)  # costs about the best; 0th to 2nd of likelihood
    powers = np.stack([np.ones_like(candidates), candidates, candidates**2], axis=1)
    for rows, cost in _costs(observed, templates):  # nothing here that can be done for all at once
        at = cost.argmin(axis=1)
        first = np.arange(len(cost)) * len(candidates)
        least = cost.ravel()[first + at]
        inner = first + np.minimum(np.maximum(at, 1), last - 1)
        for column, step in enumerate((-1, 0, 1)):
            around[rows, column] = cost.ravel()[inner + step]
        # By the reduced chi-square, where that is more than 1.
        chi_square = np.maximum((least + observed.power[rows]) / np.float32(freedom), np.float32(1.0))
        cost -= least[:, None]
        cost *= (np.float32(-0.5) / chi_square)[:, None]
        likelihood = np.exp(cost, out=cost)
        np.matmul(likelihood, powers, out=moments[rows])
        best[rows], lowest[rows] = at, least
        far_end[rows], near_end[rows] = likelihood[:, 0], likelihood[:, -1]

    # Between candidates by a parabola; at the ends of the range there is none.
    left, middle, right = around.T
    curvature = np.maximum(left - 2.0 * middle + right, np.float32(1e-6))
    offset = np.clip(0.5 * (left - right) / curvature, -0.5, 0.5)
    offset[(best == 0) | (best == last)] = 0.0
    step = candidates[1] - candidates[0]
    diopters = candidates[best] + offset * step

    total, mean, square = moments[:, 0], moments[:, 1] / moments[:, 0], moments[:, 2] / moments[:, 0]
    variance = square - 2.0 * diopters * mean + diopters**2
    # A likelihood that has not fallen where the candidates end goes on beyond them, unless they end at
    # infinity. What the prior took off is put back for this: it prefers the sweep, but proves nothing.
    ends = near_end * np.exp(np.float32(0.5 * outside_cost[-1]))
    if candidates[0] > step:
        ends = ends + far_end * np.exp(np.float32(0.5 * outside_cost[0]))
    cut_off = np.minimum(ends / total, np.float32(1.0))
    variance += cut_off * np.float32(CUT_OFF_VARIANCE) * (candidates[-1] - candidates[0]) ** 2
    return diopters, np.maximum(variance, (0.3 * step) ** 2)  # no finer than the candidates


@dataclass(frozen=True)
class _Observed:
    """Pixels [P], those of one signal-to-noise class after those of another.

    order [P]: which pixel each is; features [P, S * BANDS + 1]: logarithms of the energies over noise, their
    mean over slices taken off, weighted, and a column of ones; power [P]: sum of the squared logarithms;
    ends [SNR_CLASSES]: where each class ends.
    """

    order: npt.NDArray[np.intp]
    features: Floats
    power: Floats
    ends: list[int]


def _observed(energies: Floats, noise: Floats) -> _Observed:
    """All pixels of energies [S, BANDS, h, w]. The texture's own strength is unknown: hence the mean."""
    logs = np.log(energies + noise[:, None, None])  # [S, BANDS, h, w]
    logs -= logs.mean(axis=0)
    logs *= (np.sqrt(np.array(BAND_WEIGHTS, np.float32)) / np.float32(LOG_ENERGY_SIGMA))[:, None, None]
    signal = np.maximum(energies[:, 1].max(axis=0).ravel() / noise[1] - 1.0, 1e-3)
    snr_class = np.clip(np.round(np.log(signal / 0.1) / np.log(3.0)), 0, SNR_CLASSES - 1).astype(np.int8)
    order = np.argsort(snr_class, kind="stable")
    values = logs.reshape(-1, logs[0, 0].size)  # [S * BANDS, P]
    features = np.ones((len(order), len(values) + 1), np.float32)
    features[:, :-1] = values.T[order]
    power = np.einsum("ij,ij->i", features, features) - np.float32(1.0)
    return _Observed(order, features, power, np.bincount(snr_class, minlength=SNR_CLASSES).cumsum().tolist())


def _costs(observed: _Observed, templates: _Templates) -> Iterator[tuple[slice, Floats]]:
    """Blocks of (rows, cost [rows, C]) over all pixels.

    cost + power is minus twice the log posterior of each candidate: one matrix product per class of
    signal-to-noise ratio; the blocks are small enough to stay in the processor's cache.
    """
    features, candidates = observed.features, templates.products.shape[2]
    part = max(BLOCK_PRODUCTS // (features.shape[1] * candidates), 1)
    block = BLOCK_PARTS * part
    begin = 0
    for products, end in zip(templates.products, observed.ends, strict=True):
        for start in range(begin, end, block):
            rows = slice(start, min(start + block, end))
            cost = np.empty((rows.stop - start, candidates), np.float32)
            for first in range(0, len(cost), part):
                np.matmul(features[rows][first : first + part], products, out=cost[first : first + part])
            yield rows, cost
        begin = end


@dataclass(frozen=True)
class _Templates:
    """What does not depend on the images: candidates [C] 1/m, and for each class of signal-to-noise ratio
    -2 x the expected, centred log energies, and in the last row what is added to their product with the
    measured ones [SNR_CLASSES, S * BANDS + 1, C]. outside_cost [C] is the prior's part of that row.
    """

    candidates: Floats
    products: Floats
    outside_cost: Floats


@lru_cache(maxsize=256)
def _templates(focus_diopters: tuple[float, ...], optics: StackOptics) -> _Templates:
    focus = np.array(focus_diopters)
    spacing = (focus.max() - focus.min()) / max(len(focus) - 1, 1)
    nearest, farthest = focus.max() + BEYOND_SWEEP * spacing, focus.min() - BEYOND_SWEEP * spacing
    farthest = max(farthest, min(0.0, focus.min()))
    count = round((nearest - farthest) / spacing * CANDIDATES_PER_SPACING) + 1
    candidates = np.linspace(farthest, nearest, count)
    diameters, response = energy_response(optics.in_focus_blur_px)
    defocus_px = np.abs(candidates[None, :] - focus[:, None]) * optics.blur_px_per_diopter
    row = np.clip(defocus_px / BLUR_STEP_PX, 0, len(diameters) - 1.001)
    low = row.astype(int)
    share = (row - low)[..., None]
    energy = response[low] * (1.0 - share) + response[low + 1] * share  # [S, C, BANDS]
    weights = np.sqrt(np.array(BAND_WEIGHTS)) / LOG_ENERGY_SIGMA
    expected = np.empty((SNR_CLASSES, len(focus) * BANDS, count))
    for k in range(SNR_CLASSES):
        signal = 0.1 * 3.0**k
        # The noise counts twice: the image has it, and `_costs` adds it to keep the logarithm tame.
        logs = np.log(energy * signal / energy.max(axis=0, keepdims=True) + 2.0)
        logs -= logs.mean(axis=0, keepdims=True)
        expected[k] = (logs * weights).transpose(0, 2, 1).reshape(-1, count)
    outside = np.maximum(candidates - focus.max(), 0.0) + np.maximum(focus.min() - candidates, 0.0)
    outside_cost = OUTSIDE_COST * outside / spacing
    added = (expected * expected).sum(axis=1, keepdims=True) + outside_cost
    products = np.concatenate([-2.0 * expected, added], axis=1)
    return _Templates(*(a.astype(np.float32) for a in (candidates, products, outside_cost)))
