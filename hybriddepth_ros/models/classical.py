"""Depth from focus without learning: the baseline, and the fallback that needs no weights.

The focus measure is the sum-modified-Laplacian's energy (Nayar and Nakagawa 1994) in three pass bands.
Instead of a parabola through its logarithms, the measured energies of all slices are compared with the curve
that a lens gives (`focus_response`), at every candidate inverse depth; the best candidate is the estimate and
the width of the likelihood its sigma: a flat or two-peaked focus curve is a large sigma. Estimates are then
averaged along surfaces, guided by the all-in-focus image (He et al. 2013), each with the weight of its
inverse variance.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from hybriddepth_ros.models.base import AlignedStack, FocusEstimate
from hybriddepth_ros.models.focus_response import BANDS, BLUR_STEP_PX, energy_response

Floats = npt.NDArray[np.floating[Any]]  # float32 in images

CANDIDATES = 48  # inverse depths at which the likelihood is computed
BEYOND_SWEEP = 0.5  # candidates reach this many slice spacings past both ends of the sweep
GRID_PX = 4  # focus is measured on a grid this coarse: the windows below are wider
WINDOW_SIGMA = 1.5  # Gaussian window of the energies [grid px]
BAND_WEIGHTS = (0.5, 1.0, 1.0)  # the finest band follows the noise and the in-focus blur most
BLOCK_PRODUCTS = 250_000  # of a matrix product: below this BLAS starts no threads to fight over the cores
SNR_CLASSES = 10  # one per factor of 3 in signal over noise, from 0.1 up
LOG_ENERGY_SIGMA = 0.45  # how far real textures stray from the response curve, per band and slice
BLUR_HYPOTHESES = np.geomspace(1.0, 40.0, 20)  # [px/D], tried when the lens is unknown
IN_FOCUS_BLUR_PX = 0.5  # Gaussian sigma of the sharpest that images get, where the lens is known
IN_FOCUS_HYPOTHESES = (0.3, 0.7, 1.2, 1.8)  # [px], tried when the lens is unknown
OPTICS_SAMPLES = 1500  # textured pixels that vote on the optics
GUIDE_RADIUS = 4  # [grid px]
GUIDE_EPSILON = 0.03**2  # an edge is what changes the guide by more than 3 % of its range
UNCOVERED_SIGMA_FACTOR = 2.0

# Sigma's two constants were fitted to rendered stacks with known depth (likelihood, coverage): the width of
# the focus curve is too careful, but at a depth edge the window sees both sides, and part of the step between
# them is in doubt.
SIGMA_SCALE = 0.6
EDGE_SHARE = 0.3


class Classical:
    """The classical model: `model: classical`. Runs on the CPU, whatever the device asked for."""

    def __init__(self, device: str = "auto") -> None:
        self.device = "cpu"

    def __call__(self, stack: AlignedStack) -> FocusEstimate:
        """FocusEstimate at full resolution; sources in the module's text."""
        greys = [np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8) for image in stack.images]
        energies = focus_energies(greys)  # [S, BANDS, h, w]
        noise = noise_floor(energies)
        optics = find_optics(energies, noise, stack.focus_diopters, stack.blur_px_per_diopter)
        diopters, variance = fit_response(energies, noise, stack.focus_diopters, optics)
        full_guide = _sharpest(greys, energies)
        guide = _resize(full_guide, (diopters.shape[0], diopters.shape[1]), cv2.INTER_AREA)
        surface = smooth_along_surfaces(diopters, variance, guide)
        slope, offset, variance = (_resize(image, full_guide.shape) for image in surface)
        sigma = np.sqrt(variance)
        sigma[~stack.covered.all(axis=0)] *= UNCOVERED_SIGMA_FACTOR
        diopters = slope * full_guide + offset
        return FocusEstimate(
            diopters.astype(np.float32, copy=False),
            sigma.astype(np.float32, copy=False),
            optics.blur_px_per_diopter,
        )


def focus_energies(greys: list[npt.NDArray[np.uint8]]) -> Floats:
    """Windowed energy of the modified Laplacian [S, BANDS, h, w], h = H / GRID_PX, of S images [H, W]."""
    height, width = greys[0].shape
    shape = (max(height // GRID_PX, 1), max(width // GRID_PX, 1))
    energies = np.empty((len(greys), BANDS, *shape), np.float32)
    kernel = np.array([[1.0, -2.0, 1.0]], np.float32)
    for index, grey in enumerate(greys):
        level = grey.astype(np.float32)
        for band in range(BANDS):
            if band:
                level = _resize(level, (max(height >> band, 1), max(width >> band, 1)), cv2.INTER_AREA)
            second_x, second_y = cv2.filter2D(level, -1, kernel), cv2.filter2D(level, -1, kernel.T)
            energy = np.asarray(second_x * second_x + second_y * second_y, np.float32)
            cv2.GaussianBlur(
                _resize(energy, shape, cv2.INTER_AREA), (0, 0), WINDOW_SIGMA, dst=energies[index, band]
            )
    return energies


def noise_floor(energies: Floats) -> Floats:
    """Energy of the noise alone in each band [BANDS]: what the least textured, most blurred places still
    show.
    """
    least = energies.min(axis=0)[:, ::2, ::2].reshape(BANDS, -1)
    return np.maximum(np.percentile(least, 2.0, axis=1), 0.05).astype(np.float32)


@dataclass(frozen=True)
class StackOptics:
    """blur_px_per_diopter: blur-disc diameter [px] per diopter of defocus; in_focus_blur_px: Gaussian sigma
    at best focus.
    """

    blur_px_per_diopter: float
    in_focus_blur_px: float


def find_optics(
    energies: Floats,
    noise: Floats,
    focus_diopters: npt.NDArray[np.float32],
    blur_px_per_diopter: float | None,
) -> StackOptics:
    """The lens where it is known, else the optics under which the stack's energies fit the response curve
    best.
    """
    if blur_px_per_diopter:
        return StackOptics(blur_px_per_diopter, IN_FOCUS_BLUR_PX)
    start = StackOptics(6.0, IN_FOCUS_BLUR_PX)
    rows, columns = np.nonzero(energies[:, 1].max(axis=0) > 10.0 * noise[1])
    if len(rows) < 50:
        return start
    chosen = np.linspace(0, len(rows) - 1, min(len(rows), OPTICS_SAMPLES)).astype(int)
    sample = energies[:, :, rows[chosen], columns[chosen]][..., None]  # [S, BANDS, P, 1]

    def misfit(optics: StackOptics) -> float:
        blocks = _costs(sample, noise, focus_diopters, optics)
        lowest = [np.minimum(cost.min(axis=1) + power, 30.0) for _, cost, power, _ in blocks]
        return float(np.concatenate(lowest).mean())

    def best_blur(optics: StackOptics) -> StackOptics:
        return min((replace(optics, blur_px_per_diopter=float(blur)) for blur in BLUR_HYPOTHESES), key=misfit)

    def best_in_focus(optics: StackOptics) -> StackOptics:
        return min((replace(optics, in_focus_blur_px=blur) for blur in IN_FOCUS_HYPOTHESES), key=misfit)

    return best_blur(best_in_focus(best_blur(start)))


def fit_response(
    energies: Floats, noise: Floats, focus_diopters: npt.NDArray[np.float32], optics: StackOptics
) -> tuple[Floats, Floats]:
    """Inverse depth [h, w] 1/m and its variance [h, w] 1/m^2 from energies [S, BANDS, h, w]."""
    height, width = energies.shape[2:]
    diopters, variance = np.empty((2, height * width), np.float32)
    freedom = max((energies.shape[0] - 1) * BANDS - 1, 1)
    for pixels, cost, power, candidates in _costs(energies, noise, focus_diopters, optics):
        diopters[pixels], variance[pixels] = _peak(cost, power, candidates, freedom)
    return diopters.reshape(height, width), variance.reshape(height, width)


def _peak(cost: Floats, power: Floats, candidates: Floats, freedom: int) -> tuple[Floats, Floats]:
    """The best candidate [P], refined between its neighbours, and the likelihood's variance about it [P].

    cost [P, C] is minus twice the log likelihood less `power` [P].
    """
    rows = np.arange(len(cost))
    best = cost.argmin(axis=1)
    lowest = cost[rows, best]
    # Between candidates by a parabola; at the ends of the range there is none.
    inner = np.clip(best, 1, len(candidates) - 2)
    left, middle, right = cost[rows, inner - 1], cost[rows, inner], cost[rows, inner + 1]
    curvature = np.maximum(left - 2.0 * middle + right, np.float32(1e-6))
    offset = np.where(inner == best, np.clip(0.5 * (left - right) / curvature, -0.5, 0.5), 0.0)
    step = candidates[1] - candidates[0]
    diopters = candidates[best] + offset.astype(np.float32) * step

    misfit = np.maximum((lowest + power) / np.float32(freedom), np.float32(1.0))  # reduced chi-square
    cost -= lowest[:, None]
    cost *= (np.float32(-0.5) / misfit)[:, None]
    likelihood = np.exp(cost, out=cost)
    moments = likelihood @ np.stack([np.ones_like(candidates), candidates, candidates**2], axis=1)
    mean, square = moments[:, 1] / moments[:, 0], moments[:, 2] / moments[:, 0]
    variance = square - 2.0 * diopters * mean + diopters**2
    return diopters, np.maximum(variance, (0.3 * step) ** 2)  # no finer than the candidates


def _costs(
    energies: Floats, noise: Floats, focus_diopters: npt.NDArray[np.float32], optics: StackOptics
) -> Iterator[tuple[npt.NDArray[np.intp], Floats, Floats, Floats]]:
    """Blocks of (pixels [P], cost [P, C], power [P], candidates [C] 1/m) over all pixels of energies.

    cost + power is minus twice the log likelihood of each candidate. The texture's own strength is unknown:
    logarithms are compared after their mean over slices is taken off. With that, the cost is one matrix
    product per class of signal-to-noise ratio; the blocks are small enough to stay in the processor's cache.
    """
    count = energies.shape[0]
    templates, biases, candidates = _templates(tuple(map(float, focus_diopters)), optics)
    logs = np.log(energies + noise[:, None, None])  # [S, BANDS, h, w]
    logs -= logs.mean(axis=0)
    logs *= (np.sqrt(np.array(BAND_WEIGHTS, np.float32)) / np.float32(LOG_ENERGY_SIGMA))[:, None, None]
    features = np.ascontiguousarray(logs.reshape(count * BANDS, -1).T)  # [P, S * BANDS]
    power = np.einsum("ij,ij->i", features, features)
    signal = np.maximum(energies[:, 1].max(axis=0).ravel() / noise[1] - 1.0, 1e-3)
    snr_class = np.clip(np.round(np.log(signal / 0.1) / np.log(3.0)), 0, SNR_CLASSES - 1).astype(np.int8)
    block = max(BLOCK_PRODUCTS // (features.shape[1] * len(candidates)), 1)
    for k in range(SNR_CLASSES):
        members = np.flatnonzero(snr_class == k)
        for start in range(0, len(members), block):
            pixels = members[start : start + block]
            cost = features[pixels] @ templates[k]
            cost += biases[k]
            yield pixels, cost, power[pixels], candidates


@lru_cache(maxsize=256)
def _templates(focus_diopters: tuple[float, ...], optics: StackOptics) -> tuple[Floats, Floats, Floats]:
    """What `_costs` multiplies with, for every candidate inverse depth [C] 1/m.

    Returns (-2 x the expected centred log energies [SNR_CLASSES, S * BANDS, C], their power [SNR_CLASSES, C],
    the candidates [C]).
    """
    focus = np.array(focus_diopters)
    spacing = (focus.max() - focus.min()) / max(len(focus) - 1, 1)
    nearest, farthest = focus.max() + BEYOND_SWEEP * spacing, focus.min() - BEYOND_SWEEP * spacing
    candidates = np.linspace(max(farthest, min(0.0, float(focus.min()))), nearest, CANDIDATES)
    diameters, response = energy_response(optics.in_focus_blur_px)
    defocus_px = np.abs(candidates[None, :] - focus[:, None]) * optics.blur_px_per_diopter
    row = np.clip(defocus_px / BLUR_STEP_PX, 0, len(diameters) - 1.001)
    low = row.astype(int)
    share = (row - low)[..., None]
    energy = response[low] * (1.0 - share) + response[low + 1] * share  # [S, C, BANDS]
    weights = np.sqrt(np.array(BAND_WEIGHTS)) / LOG_ENERGY_SIGMA
    templates = []
    for k in range(SNR_CLASSES):
        signal = 0.1 * 3.0**k
        # The noise counts twice: the image has it, and `_costs` adds it to keep the logarithm tame.
        logs = np.log(energy * signal / energy.max(axis=0, keepdims=True) + 2.0)
        logs -= logs.mean(axis=0, keepdims=True)
        templates.append((logs * weights).transpose(0, 2, 1).reshape(len(focus) * BANDS, CANDIDATES))
    expected = np.stack(templates)
    biases = (expected * expected).sum(axis=1)
    return (-2.0 * expected).astype(np.float32), biases.astype(np.float32), candidates.astype(np.float32)


def _sharpest(greys: list[npt.NDArray[np.uint8]], energies: Floats) -> Floats:
    """A quick all-in-focus grey image [H, W] 0..1, for guiding only."""
    height, width = greys[0].shape
    result = greys[0]
    most = energies[0, 1]
    for grey, energy in zip(greys[1:], energies[1:, 1], strict=True):
        share = energy / (most + energy + np.float32(1e-6))
        share = share * share * share * (share * (6.0 * share - 15.0) + 10.0)  # mostly one or the other
        full_share = _resize(share, (height, width))
        result = np.asarray(cv2.blendLinear(result, grey, 1.0 - full_share, full_share), np.uint8)
        most = np.maximum(most, energy)
    return result * np.float32(1.0 / 255.0)


def smooth_along_surfaces(diopters: Floats, variance: Floats, guide: Floats) -> tuple[Floats, Floats, Floats]:
    """Guided filter with inverse-variance weights: (slope, offset, variance), all [h, w].

    slope * guide + offset is the local linear model, which gives the estimate at any resolution of the guide.
    The errors of neighbours are correlated, so that averaging does not divide the variance; disagreement
    among them adds to it, and so does a depth edge nearby.
    """
    side = 2 * GUIDE_RADIUS + 1

    def mean(image: Floats) -> Floats:
        return np.asarray(cv2.boxFilter(image, -1, (side, side)), np.float32)

    weight = np.float32(1.0) / variance
    total = mean(weight)
    mean_guide = mean(weight * guide) / total
    mean_diopters = mean(weight * diopters) / total
    covariance = mean(weight * guide * diopters) / total - mean_guide * mean_diopters
    guide_variance = np.maximum(mean(weight * guide * guide) / total - mean_guide**2, 0.0)
    slope = covariance / (guide_variance + np.float32(GUIDE_EPSILON))
    offset = mean_diopters - slope * mean_guide
    smoothing = mean(total)
    slope, offset = mean(slope * total) / smoothing, mean(offset * total) / smoothing
    smooth = slope * guide + offset
    scatter = mean(weight * (diopters - smooth) ** 2) / total
    window = np.ones((side, side), np.uint8)
    step = cv2.dilate(smooth, window) - cv2.erode(smooth, window)
    spread = SIGMA_SCALE**2 * (1.0 / total + scatter) + (EDGE_SHARE * step) ** 2
    return slope, offset, np.asarray(spread, np.float32)


def _resize(image: Floats, shape: tuple[int, ...], interpolation: int = cv2.INTER_LINEAR) -> Floats:
    """To [H, W] = shape."""
    return np.asarray(cv2.resize(image, (shape[1], shape[0]), interpolation=interpolation), np.float32)
