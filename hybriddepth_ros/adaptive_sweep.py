"""Where to focus next, given where the scene is and how well each distance is known. Needs no ROS.

A demand says where: pixels by their inverse depth, each with the weight of its sigma. The next foci span it,
from SPANNED_SHARE of the weight a little outwards, and lie in it at the density (weight per diopter)^DRAW:
even for DRAW = 0, and at 1 with the same weight between any two. Were an estimate's variance to fall with the
square of the spacing about it, then the scene's expected variance, the sum of weight x spacing^2, would be
least at DRAW = 1 / 3 (as the levels of a quantiser: Panter and Dite 1951). What slices tell grows less than
that where they lie close, as textures stray from what is expected alike in slices whose blur is alike: DRAW
is smaller, and was chosen by trial (docs/sweep.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hybriddepth_ros.errors import ParameterError

Floats = npt.NDArray[np.floating[Any]]

DEMAND_BINS = 64
MOST_DEMAND_BINS = 4096  # that a message may bring
MOST_PIXELS = 20_000  # of an estimate that are looked at
SIGMA_CLASSES = 8  # by which the histogram is smeared
HIGHEST_NEED = 4.0  # times the median: no pixel counts more, as what has no texture stays uncertain
SPANNED_SHARE = 0.994  # of the weight: of less the near end, which is estimated too far, is left out
MARGIN_PX = 1.0  # of blur, by which the foci reach farther than that share
LEAST_EXTENT_PX = 6.0  # of blur from the first focus to the last, about a mere wall; 4 to 8 are as good
DRAW = 0.2  # how much the weight draws slices together, 0 to 1
SMOOTHING = 0.35  # of the even spacing: the weight's structure finer than that does not matter
FLOOR = 1e-3  # of the mean weight: what counts where there is none
DENSITY_STEPS = 200
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


def candidate_foci(low: float, high: float, blur_px_per_diopter: float) -> tuple[float, ...]:
    """Foci [1/m] to choose from, even over what the lens reaches, finer than its depth of field."""
    wanted = (high - low) * blur_px_per_diopter * CANDIDATES_PER_BLUR_PX
    count = int(np.clip(np.ceil(wanted) + 1, FEWEST_CANDIDATES, MOST_CANDIDATES))
    return tuple(float(focus) for focus in np.linspace(low, high, count))


def plan_foci(
    demand: FocusDemand, candidates: Sequence[float], count: int, blur_px_per_diopter: float
) -> tuple[float, ...]:
    """`count` of the candidate foci [1/m], distinct and rising, that span the demand (the module's text).

    Candidates must rise. What of the demand lies beyond them is looked at from their end.
    """
    foci = np.asarray(candidates, np.float64)
    if not 2 <= count <= len(foci):
        raise ParameterError(f"count: expected 2 to {len(foci)} slices, as there are candidates, got {count}")
    far, near = _span(demand, float(foci[0]), float(foci[-1]), blur_px_per_diopter)
    return tuple(float(focus) for focus in foci[_nearest_distinct(foci, _drawn(demand, far, near, count))])


def _span(demand: FocusDemand, first: float, last: float, blur_px_per_diopter: float) -> tuple[float, float]:
    """(far, near) [1/m] between which the foci are to lie, both within first to last."""
    share = (np.cumsum(demand.weight) - 0.5 * demand.weight) / demand.weight.sum()
    outside = 0.5 * (1.0 - SPANNED_SHARE)
    ends = np.interp((outside, 1.0 - outside), share, demand.diopters)
    least = min(LEAST_EXTENT_PX / blur_px_per_diopter, last - first)
    margin = max(MARGIN_PX / blur_px_per_diopter, 0.5 * (least - float(ends[1] - ends[0])))
    return (
        float(np.clip(ends[0] - margin, first, last - least)),
        float(np.clip(ends[1] + margin, first + least, last)),
    )


def _drawn(demand: FocusDemand, far: float, near: float, count: int) -> Floats:
    """`count` foci from far to near [1/m], denser where the demand is."""
    edges = np.linspace(far, near, DENSITY_STEPS + 1)
    centres = 0.5 * (edges[1:] + edges[:-1])
    reach = SMOOTHING * (near - far) / (count - 1)
    kernel = np.exp(-0.5 * ((centres[:, None] - demand.diopters[None, :]) / reach) ** 2)
    weight = kernel @ (demand.weight / demand.weight.max())
    density = (weight + FLOOR * max(float(weight.mean()), FLOOR)) ** DRAW
    passed = np.concatenate([[0.0], np.cumsum(density)])
    return np.interp(np.linspace(0.0, passed[-1], count), passed, edges)


def _nearest_distinct(foci: Floats, wanted: Floats) -> npt.NDArray[np.intp]:
    """Which of the rising `foci` [C] lie next to the rising `wanted` [S]; where these would share one, the
    next ones to both sides.
    """
    count = len(wanted)
    middles = 0.5 * (foci[1:] + foci[:-1])
    moved = np.searchsorted(middles, wanted) - np.arange(count)  # may not fall from one to the next
    up, down = np.maximum.accumulate(moved), np.minimum.accumulate(moved[::-1])[::-1]
    chosen: npt.NDArray[np.intp] = np.clip((up + down + 1) // 2, 0, len(foci) - count) + np.arange(count)
    return chosen
