"""Measures of a sigma: whether it is as large as the errors are, and whether it knows where they are large.

All arrays [..., H, W] or [N], depths and sigmas in metres. Only pixels with an estimate, a positive sigma and
a truth count, as `metrics.comparable` says; every value is NaN where there is no such pixel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from hybriddepth_ros.evaluation.metrics import Depth, Mask, comparable, is_depth, with_sigma

Values = npt.NDArray[np.float64]
Distribution = Literal["gaussian", "laplace"]

# Nominal coverages of a reliability diagram, 5 .. 95 %.
NOMINAL: tuple[float, ...] = tuple(round(0.05 * step, 2) for step in range(1, 20))
# Shares of pixels taken away: fifty steps of 2 %, as in Poggi et al., CVPR 2020.
FRACTIONS: Values = np.linspace(0.0, 0.98, 50)


@dataclass(frozen=True)
class Sparsification:
    """Error of the pixels that are left after the share `fractions` [F] has been taken away.

    by_sigma [F]: the least certain went first; by_error [F], the oracle: those with the largest errors did.
    """

    fractions: Values
    by_sigma: Values
    by_error: Values

    @property
    def ause(self) -> float:
        """Area between the two: 0 where sigma puts the pixels in the order of their errors."""
        between = self.by_sigma - self.by_error
        return float(np.sum(0.5 * (between[1:] + between[:-1]) * np.diff(self.fractions)))


def negative_log_likelihood(
    prediction: Depth, sigma: Depth, target: Depth, distribution: Distribution = "gaussian"
) -> float:
    """Mean of -ln p(target), p with this mean and this standard deviation [ln 1/m]; less is better."""
    good = with_sigma(prediction, sigma, target)
    if not good.any():
        return math.nan
    error = np.abs(prediction[good] - target[good]).astype(np.float64)
    spread = sigma[good].astype(np.float64)
    if distribution == "laplace":
        scale = spread / math.sqrt(2.0)  # the variance of a Laplace distribution is 2 scale^2
        return float(np.mean(np.log(2.0 * scale) + error / scale))
    return float(np.mean(0.5 * np.log(2.0 * math.pi * spread**2) + 0.5 * (error / spread) ** 2))


def sparsification(
    prediction: Depth, sigma: Depth, target: Depth, measure: Literal["abs_rel", "rmse"] = "abs_rel"
) -> Sparsification:
    """The curves of one measure. For abs_rel the least certain are those with the largest sigma / depth."""
    good = with_sigma(prediction, sigma, target)
    if not good.any():
        nothing = np.full(FRACTIONS.shape, math.nan)
        return Sparsification(FRACTIONS, nothing, nothing)
    estimate, spread, truth = (a[good].astype(np.float64) for a in (prediction, sigma, target))
    error = np.abs(estimate - truth)
    if measure == "abs_rel":
        return _curves(error / truth, spread / estimate)
    squared = _curves(error**2, spread)
    return Sparsification(FRACTIONS, np.sqrt(squared.by_sigma), np.sqrt(squared.by_error))


def _curves(error: Values, uncertainty: Values) -> Sparsification:
    """Means of `error` [N] over what is left."""
    left = np.maximum(np.ceil((1.0 - FRACTIONS) * error.size - 1e-9).astype(np.int64), 1)
    curves = []
    for order in (uncertainty, error):
        summed = np.cumsum(error[np.argsort(order, kind="stable")])
        curves.append(summed[left - 1] / left)
    return Sparsification(FRACTIONS, *curves)


def reliability(
    prediction: Depth, sigma: Depth, target: Depth, nominal: Sequence[float] = NOMINAL
) -> npt.NDArray[np.float64]:
    """[P] share of pixels within the central interval that a Gaussian fills with the share `nominal` [P]."""
    good = with_sigma(prediction, sigma, target)
    if not good.any():
        return np.full(len(nominal), math.nan)
    in_sigmas = np.abs(prediction[good] - target[good]) / sigma[good]
    limits = [NormalDist().inv_cdf(0.5 + 0.5 * share) for share in nominal]
    return np.array([float(np.mean(in_sigmas <= limit)) for limit in limits])


def diopter_error(prediction: Depth, target: Depth) -> float:
    """Mean |1/prediction - 1/target| [1/m]: what a focus cue is linear in."""
    good = comparable(prediction, target)
    if not good.any():
        return math.nan
    return float(np.mean(np.abs(1.0 / prediction[good].astype(np.float64) - 1.0 / target[good])))


def depth_edges(target: Depth, step: float = 1.1) -> Mask:
    """[H, W] True where a neighbour is farther, or nearer, by this factor; a gap in the truth is no edge."""
    known = is_depth(target)
    logarithm = np.log(np.where(known, target, 1.0)).astype(np.float32)
    edges = np.zeros(target.shape, np.bool_)
    for one, other in ((np.s_[:, 1:], np.s_[:, :-1]), (np.s_[1:], np.s_[:-1])):
        jump = np.abs(logarithm[one] - logarithm[other]) > math.log(step)
        jump &= known[one] & known[other]
        edges[one] |= jump
        edges[other] |= jump
    return edges


def near_edges(target: Depth, distance_px: int = 5, step: float = 1.1) -> Mask:
    """[H, W] True within so many pixels (rows or columns) of a depth edge."""
    kernel = np.ones((2 * distance_px + 1, 2 * distance_px + 1), np.uint8)
    return cv2.dilate(depth_edges(target, step).astype(np.uint8), kernel).astype(np.bool_)


def boundary_errors(
    prediction: Depth, target: Depth, distance_px: int = 5, step: float = 1.1
) -> tuple[float, float]:
    """Mean |error| / truth near depth edges and elsewhere, NaN where there is nothing of the kind."""
    good, near = comparable(prediction, target), near_edges(target, distance_px, step)
    errors = []
    for inside in (good & near, good & ~near):
        relative = np.abs(prediction[inside] - target[inside]) / target[inside]
        errors.append(float(np.mean(relative)) if relative.size else math.nan)
    return errors[0], errors[1]
