"""Where to focus next, given where the scene is and how well each distance is known. Needs no ROS.

A surface at inverse depth D shows in a slice focused at f with the blur c = k |D - f| [px], k the lens's blur
per diopter, and in band b its focus energy is a e_b(c), where e_b(c) is the share of what it is in focus
(`energy_response`) and the texture's strength a is unknown. Depth from focus fits the logarithms
L_b = log(a e_b(c) + 2), in units of the noise. Real textures stray from that curve by LOG_ENERGY_SIGMA, alike
in slices whose blur is alike: their strays are taken to be correlated by

    R_ff' = (1 - n) exp(-(k (f - f') / ALIKE_PX)^2 / 2), R_ff = 1, n the share that is noise of the image.

With the slopes g_b = dL_b/dD and r_b = dL_b/d(log a) in the slices F and the bands' weights w_b, the Fisher
information about D that is left when a is unknown is

    I(D; F) = sum over b of w_b / LOG_ENERGY_SIGMA^2 (g_b' R^-1 g_b - (g_b' R^-1 r_b)^2 / (r_b' R^-1 r_b))

[1/D^2], at a = SIGNAL_OVER_NOISE. A slice in focus has g = 0, one that is blurred into the noise g = r = 0.
Slices a few pixels of blur away count, most where there is one on each side, as g then differs in sign, and
two at nearly one focus count as one. The foci are those for which the expected variance over the scene, sum
over bins of weight / (I0 + I), is least; I0 is what is known without a slice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from hybriddepth_ros.errors import ParameterError
from hybriddepth_ros.models.focus_fit import BAND_WEIGHTS, IN_FOCUS_BLUR_PX, LOG_ENERGY_SIGMA
from hybriddepth_ros.models.focus_response import BLUR_STEP_PX, energy_response

Floats = npt.NDArray[np.floating[Any]]

DEMAND_BINS = 64
MOST_DEMAND_BINS = 4096  # that a message may bring
MOST_PIXELS = 20_000  # of an estimate that are looked at
SIGNAL_OVER_NOISE = 30.0  # of focus energy in a textured pixel
ALIKE_PX = 3.0  # of blur between slices, about which textures stray from the curve alike
NOISE_SHARE = 0.1  # of the strays' variance, that no two slices share
SIGMA_CLASSES = 8  # by which the histogram is smeared
HIGHEST_NEED = 4.0  # times the median: no pixel counts more, as what has no texture stays uncertain
SCENE_SHARE = 0.98  # of the weight, that the foci lie about
MOST_ROUNDS = 8  # of moving each slice to where it is worth most
CANDIDATES_PER_BLUR_PX = 2.0
FEWEST_CANDIDATES, MOST_CANDIDATES = 33, 129


@dataclass(frozen=True)
class FocusDemand:
    """Where focus is wanted: weight [B] >= 0 of the scene at inverse depths `diopters` [B] 1/m, rising.

    A weight is a number of pixels times how uncertain each is; only ratios between bins matter.
    """

    diopters: Floats
    weight: Floats

    def __post_init__(self) -> None:
        """ParameterError for what cannot be a demand: it may have come from anywhere."""
        diopters, weight = self.diopters, self.weight
        if diopters.ndim != 1 or diopters.shape != weight.shape or not 1 <= len(diopters) <= MOST_DEMAND_BINS:
            raise ParameterError(
                f"focus demand: expected 1 to {MOST_DEMAND_BINS} bins with a weight each,"
                f" got {list(diopters.shape)} and {list(weight.shape)}"
            )
        if not (np.isfinite(diopters).all() and (np.diff(diopters) > 0.0).all()):
            raise ParameterError("focus demand: expected finite, rising inverse depths")
        if not (np.isfinite(weight).all() and (weight >= 0.0).all() and weight.sum() > 0.0):
            raise ParameterError("focus demand: expected finite weights of 0 or more, not all 0")


def demand_of(depth: Floats, sigma: Floats, bins: int = DEMAND_BINS) -> FocusDemand | None:
    """The demand of an estimate: depth and sigma [H, W] m, NaN = no estimate; None where there is none.

    Each pixel weighs its sigma_D = sigma / depth^2, up to HIGHEST_NEED times the median, and is spread over
    the inverse depths that it may be at.
    """
    step = max(int(np.sqrt(depth.size / MOST_PIXELS)), 1)
    z, sigma_z = (image[::step, ::step].astype(np.float64).ravel() for image in (depth, sigma))
    known = np.isfinite(z) & np.isfinite(sigma_z) & (z > 0.0) & (sigma_z > 0.0)
    if not known.any():
        return None
    diopters, sigma_diopters = 1.0 / z[known], sigma_z[known] / z[known] ** 2
    need = np.minimum(sigma_diopters, HIGHEST_NEED * np.median(sigma_diopters))
    reach = 2.0 * need.max()
    low, high = max(diopters.min() - reach, 0.0), diopters.max() + reach  # nothing lies beyond infinity
    edges = np.linspace(low, high, bins + 1)
    centres = 0.5 * (edges[1:] + edges[:-1])
    limits = np.quantile(need, np.linspace(0.0, 1.0, SIGMA_CLASSES + 1))
    of_class = np.clip(np.searchsorted(limits, need, side="right") - 1, 0, SIGMA_CLASSES - 1)
    weight = np.zeros(bins)
    for k in np.unique(of_class):
        members = of_class == k
        counts, _ = np.histogram(diopters[members], edges, weights=need[members])
        weight += _smeared(counts, centres, float(need[members].mean()))
    return FocusDemand(centres, weight)


def _smeared(counts: Floats, centres: Floats, sigma: float) -> Floats:
    """counts [B] spread by a Gaussian of this sigma [1/m], their sum unchanged."""
    kernel = np.exp(-0.5 * ((centres[:, None] - centres[None, :]) / sigma) ** 2)
    spread: Floats = (kernel / kernel.sum(axis=0)) @ counts
    return spread


def information(diopters: Floats, focus_diopters: Floats, blur_px_per_diopter: float) -> Floats:
    """I(D; F) [B] 1/D^2 of the module's text: for D = diopters [B] and the slices' foci F [S], 1/m."""
    slopes, strengths = _slopes(diopters, focus_diopters, blur_px_per_diopter)  # [S, B, BANDS] both
    inverse = np.linalg.inv(_correlation(focus_diopters, focus_diopters, blur_px_per_diopter))
    gg, gr, rr = (
        np.einsum("sbk,st,tbk->bk", one, inverse, other)
        for one, other in ((slopes, slopes), (slopes, strengths), (strengths, strengths))
    )
    return _left(gg, gr, rr).sum(axis=1)


def _left(gg: Floats, gr: Floats, rr: Floats) -> Floats:
    """What is known of D when the strength is not; nothing where no slice shows the texture."""
    left: Floats = np.maximum(gg - gr * gr / np.maximum(rr, 1e-12), 0.0)
    return left


def _slopes(diopters: Floats, focus_diopters: Floats, blur_px_per_diopter: float) -> tuple[Floats, Floats]:
    """sqrt(w_b) / LOG_ENERGY_SIGMA times g_b [1/D] and times r_b, both [S, B, BANDS]."""
    blur, slope, strength = _response_slopes()
    defocus = diopters[None, :] - focus_diopters[:, None]
    signed = np.sign(defocus) * blur_px_per_diopter
    at = np.abs(defocus) * blur_px_per_diopter
    return (
        np.stack([signed * np.interp(at, blur, band) for band in slope.T], axis=-1),
        np.stack([np.interp(at, blur, band) for band in strength.T], axis=-1),
    )


@cache
def _response_slopes() -> tuple[Floats, Floats, Floats]:
    """(blur [C] px, weighted dL/dc [C, BANDS] 1/px, weighted dL/d(log a) [C, BANDS])."""
    blur, energy = energy_response(IN_FOCUS_BLUR_PX)
    scale = np.sqrt(BAND_WEIGHTS) / LOG_ENERGY_SIGMA
    signal = SIGNAL_OVER_NOISE * energy
    slope = np.gradient(np.log(signal + 2.0), BLUR_STEP_PX, axis=0)
    slope[0] = slope[-1] = 0.0  # symmetric about focus; nothing is left beyond the last
    return blur, scale * slope, scale * signal / (signal + 2.0)


def _correlation(one: Floats, other: Floats, blur_px_per_diopter: float) -> Floats:
    """R [S, T] of slices at the foci `one` [S] with those at `other` [T]; equal foci are the same slice."""
    apart = one[:, None] - other[None, :]
    alike = (1.0 - NOISE_SHARE) * np.exp(-0.5 * (apart * blur_px_per_diopter / ALIKE_PX) ** 2)
    return np.where(apart == 0.0, 1.0, alike)


def candidate_foci(low: float, high: float, blur_px_per_diopter: float) -> tuple[float, ...]:
    """Foci [1/m] to choose from, even over what the lens reaches, finer than its depth of field."""
    wanted = (high - low) * blur_px_per_diopter * CANDIDATES_PER_BLUR_PX
    count = int(np.clip(np.ceil(wanted) + 1, FEWEST_CANDIDATES, MOST_CANDIDATES))
    return tuple(float(focus) for focus in np.linspace(low, high, count))


def plan_foci(
    demand: FocusDemand, candidates: Sequence[float], count: int, blur_px_per_diopter: float
) -> tuple[float, ...]:
    """`count` of the candidate foci [1/m], distinct and rising, of the least expected sigma of the scene.

    Candidates must rise. The first and the last of them that are chosen lie about SCENE_SHARE of the weight
    where the candidates reach so far. Greedy, then each slice in turn moves to where it is worth most.
    """
    foci = np.asarray(candidates, np.float64)
    if not 2 <= count <= len(foci):
        raise ParameterError(f"count: expected 2 to {len(foci)} slices, as there are candidates, got {count}")
    search = _Search(demand, foci, blur_px_per_diopter)
    chosen = [search.first, search.last]
    while len(chosen) < count:
        chosen.append(search.best_beside(chosen))
    for _ in range(MOST_ROUNDS):
        before = sorted(chosen)
        for place in range(count):
            others = chosen[:place] + chosen[place + 1 :]
            chosen[place] = search.best_beside(others, chosen[place])
        if sorted(chosen) == before:
            break
    return tuple(float(foci[index]) for index in sorted(chosen))


class _Search:
    """What each candidate adds to slices that are there: I(D; F) by the inverse of a bordered matrix."""

    def __init__(self, demand: FocusDemand, foci: Floats, blur_px_per_diopter: float) -> None:
        self._weight = demand.weight / demand.weight.sum()
        self._slopes, self._strengths = _slopes(demand.diopters, foci, blur_px_per_diopter)  # [C, B, BANDS]
        self._alike = _correlation(foci, foci, blur_px_per_diopter)  # [C, C]
        # Without a slice a surface is known to lie somewhere within reach.
        self._known_before = 12.0 / (foci[-1] - foci[0]) ** 2
        far, near = _middle_of(demand)
        self.first = max(int(np.searchsorted(foci, far, side="right")) - 1, 0)
        self.last = min(int(np.searchsorted(foci, near, side="left")), len(foci) - 1)
        if self.first == self.last:  # the scene is one candidate, or beyond them all
            self.first, self.last = max(self.first - 1, 0), min(self.last + 1, len(foci) - 1)

    def best_beside(self, others: Sequence[int], at_present: int | None = None) -> int:
        """The candidate that is worth most beside these; `at_present` unless another is better."""
        chosen = list(others)
        cost = (self._weight / (self._known_before + self._informed(chosen))).sum(axis=1)
        cost[chosen] = np.inf
        if min(chosen) > self.first:
            cost[self.first + 1 :] = np.inf
        if max(chosen) < self.last:
            cost[: self.last] = np.inf
        best = int(cost.argmin())
        if at_present is not None and cost[at_present] <= cost[best] * (1.0 + 1e-9):
            return at_present
        return best

    def _informed(self, chosen: list[int]) -> Floats:
        """I(D; F) [C, B] with each candidate beside the chosen."""
        inverse = np.linalg.inv(self._alike[np.ix_(chosen, chosen)])
        told = self._alike[:, chosen] @ inverse  # [C, S]: how much of a candidate these tell already
        new = np.maximum(1.0 - (told * self._alike[:, chosen]).sum(axis=1), NOISE_SHARE)[:, None]
        count = len(self._alike)
        slopes, strengths = self._slopes.reshape(count, -1), self._strengths.reshape(count, -1)
        g, r = slopes[chosen], strengths[chosen]  # [S, B * BANDS]
        g_rest, r_rest = slopes - told @ g, strengths - told @ r  # [C, B * BANDS]
        gg = (g * (inverse @ g)).sum(axis=0) + g_rest * g_rest / new
        gr = (g * (inverse @ r)).sum(axis=0) + g_rest * r_rest / new
        rr = (r * (inverse @ r)).sum(axis=0) + r_rest * r_rest / new
        return np.asarray(_left(gg, gr, rr).reshape(self._slopes.shape).sum(axis=2))


def _middle_of(demand: FocusDemand) -> tuple[float, float]:
    """(far, near) [1/m]: the ends of the bins between which SCENE_SHARE of the weight lies."""
    share = np.cumsum(demand.weight) / demand.weight.sum()
    outside = 0.5 * (1.0 - SCENE_SHARE)
    far, near = np.searchsorted(share, (outside, 1.0 - outside))
    return float(demand.diopters[far]), float(demand.diopters[min(int(near), len(share) - 1)])
