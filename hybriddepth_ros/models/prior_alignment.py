"""A relative depth map brought to the scale of a focus estimate, with an honest sigma. All in inverse depth.

    diopters = scale * relative + shift + correction(x, y, relative)

Scale and shift are one robust pair per image. The correction is a random field over a bilateral grid: as
large as the residuals of the pair say, smooth, and 0 where the focus says nothing, so that the global fit is
what it falls back on. Its most likely values are the solution of a small linear system.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from hybriddepth_ros.errors import ModelError, ParameterError
from hybriddepth_ros.models.base import FocusEstimate
from hybriddepth_ros.models.bilateral_grid import (
    Basis,
    Doubles,
    Floats,
    GridShape,
    by_cell,
    slice_grids,
    smoothness,
)

Mask = npt.NDArray[np.bool_]

USABLE_SIGMA = 10.0  # 1/m; an estimate beyond it says nothing
LEAST_SIGMA = 1e-4  # 1/m; no estimate is more certain
# Of the range of the aligned prior. What learned priors are wrong by after the best scale and shift is
# published as 4 to 8 % of depth; a focus estimate that is too cautious must not make one look perfect.
LEAST_FIELD = 0.1
LEAST_MISFIT = 0.015
# Measured on `classical`, 26 scenes: means of its errors over a tenth of the image keep a fifth of their
# variance, which four independent errors would, and means over the whole image keep a few to 30 percent.
CORRELATION = 1.0 / 16.0  # of the longer side: the side of an area over which the errors are one error
COMMON = 0.15  # of the variance: what all errors of an image have in common
SIGNIFICANT = 3.0  # standard deviations that the scale must be above 0
ONE_SIGMA = 0.6827  # of a Gaussian's errors are within one

_GLOBAL_STEPS = (20.0, 10.0, 5.0, 2.5, 2.5, 2.5, 2.5)  # standard deviations, as AlignmentOptions.outlier
_CONSTANT = 1e-6  # of its size: what varies by less is constant in float32
_NOTHING = 1e-9
_MISFIT_SHARE = 0.1  # of the field: the misfit beside it, before it is measured
_CLIP = 2.0  # standard deviations at which a residual's square is cut off before it is averaged
_CLIPPED = 0.9205  # mean of the square of a standard Gaussian, cut off there


@dataclass(frozen=True)
class AlignmentOptions:
    """How far the alignment may leave one scale and shift.

    cells: of the grid over the image, about. levels: its nodes along the prior's value. reach [nodes]: over
    which the correction is correlated. outlier [sigma]: where the weight of a residual has fallen to half
    (Cauchy). rounds: of reweighting. pseudo_count: independent observations that the whole image's misfit is
    worth where the local one is estimated. piecewise: with the correction. weighted: by 1 / sigma^2.
    """

    cells: int = 48
    levels: int = 4
    reach: float = 6.0
    outlier: float = 2.5
    rounds: int = 3
    pseudo_count: float = 2.0
    piecewise: bool = True
    weighted: bool = True

    def __post_init__(self) -> None:
        if self.cells < 1 or self.levels < 2 or self.rounds < 1:
            raise ParameterError(
                "alignment: expected at least 1 cell, 2 levels and 1 round,"
                f" got {self.cells}, {self.levels} and {self.rounds}"
            )


@dataclass(frozen=True)
class AlignedPrior:
    """A prior in the focus estimate's unit; images [H, W] float32 1/m, diopters NaN where there is no prior.

    fit_sigma: what the observations leave open; misfit_sigma: by how much the prior is wrong beside that, as
    the residuals say. The two are independent. scale [1/m per unit of the prior], shift: the global pair.
    """

    diopters: Floats
    fit_sigma: Floats
    misfit_sigma: Floats
    scale: float
    shift: float

    @property
    def sigma_diopters(self) -> Floats:
        """1 sigma of the aligned prior by itself."""
        return np.hypot(self.fit_sigma, self.misfit_sigma)


@dataclass(frozen=True)
class Observations:
    """Weighted means over blocks of pixels, one per block, in any common shape.

    diopters 1/m; relative; variance (1/m)^2, not divided by the pixels of a block, for neighbours err
    together; known: whether anything in the block is usable. count: independent observations per block.
    """

    diopters: Floats
    relative: Floats
    variance: Floats
    known: Mask
    count: float


def align_prior(
    focus: FocusEstimate, relative: Floats, options: AlignmentOptions | None = None
) -> AlignedPrior | None:
    """relative [H, W], any unit, large = near, aligned to the focus estimate.

    None where it cannot be: constant, of the wrong sign, or with too little in focus to tell.
    """
    options = options or AlignmentOptions()
    if relative.shape != focus.diopters.shape:
        expected = list(focus.diopters.shape)
        raise ModelError(f"prior: expected {expected} like the focus estimate, got {list(relative.shape)}")
    relative = np.asarray(relative, np.float32)
    shape = GridShape.for_image((relative.shape[0], relative.shape[1]), options.cells, options.levels)
    seen = observe(focus, relative, shape, options.weighted)
    pair = global_pair(seen)
    if pair is None:
        return None
    scale, shift = pair
    low, high = value_range(seen)
    extent = scale * (high - low)

    def level(image: Floats) -> Floats:
        at = (image - np.float32(low)) * np.float32((shape.levels - 1) / (high - low))
        return np.clip(at, np.float32(0.0), np.float32(shape.levels - 1))

    basis = Basis.of(level(seen.relative), shape)
    residual = seen.diopters - np.float32(scale) * seen.relative - np.float32(shift)
    field = max(field_variance(residual, seen), (LEAST_FIELD * extent) ** 2)
    if options.piecewise:
        correction, fit = solve_correction(basis, residual, seen, field, options)
        residual = residual - basis.gather(correction)
    else:
        correction, fit = np.zeros(shape.count), np.zeros(shape.count)
    fit = fit + common_variance(basis, seen)
    least = (LEAST_MISFIT * extent) ** 2
    misfit = max(misfit_variance(residual[seen.known], seen.variance[seen.known]), least)
    if not options.piecewise:
        misfit = max(misfit, field)
    misfits = local_misfit(basis, residual, seen, basis.gather(fit), misfit, options.pseudo_count)

    known = np.isfinite(relative)
    filled = relative if known.all() else np.where(known, relative, np.float32(low))
    offset, fit_image, misfit_image = slice_grids([correction, fit, misfits], level(filled), shape)
    diopters = np.float32(scale) * relative + (offset + np.float32(shift))
    if not known.all():
        diopters[~known] = np.nan
    return AlignedPrior(diopters, np.sqrt(fit_image), np.sqrt(misfit_image), scale, shift)


def observe(focus: FocusEstimate, relative: Floats, shape: GridShape, weighted: bool = True) -> Observations:
    """Means over blocks, [cells, samples] in the order of the grid, each pixel with the weight 1 / sigma^2.

    Both have the same weights, so that a linear relation between pixels holds between means.
    """
    sigma = np.maximum(focus.sigma_diopters, np.float32(LEAST_SIGMA))
    usable = np.isfinite(focus.diopters) & np.isfinite(relative) & (sigma < USABLE_SIGMA)
    every = bool(usable.all())
    precision = np.reciprocal(np.square(sigma))
    if not every:
        precision = np.where(usable, precision, np.float32(0.0))

    def means(image: Floats) -> Floats:
        small = cv2.resize(image, shape.samples[::-1], interpolation=cv2.INTER_AREA)
        return by_cell(np.asarray(small, np.float32), shape)

    def filled(image: Floats) -> Floats:
        return image if every else np.where(usable, image, np.float32(0.0))

    information = means(precision)
    known = information > 0.01 * USABLE_SIGMA**-2
    weight = precision if weighted else usable.astype(np.float32)
    total = np.where(known, means(weight), np.float32(1.0))
    diopters = np.asarray(means(filled(focus.diopters) * weight) / total, np.float32)
    values = np.asarray(means(filled(relative) * weight) / total, np.float32)
    variance = np.where(known, 1.0 / np.maximum(information, np.float32(_NOTHING)), np.float32(1.0))
    if not weighted and known.any():
        variance = np.full_like(variance, np.median(variance[known]))
    independent = relative.size / (CORRELATION * max(relative.shape)) ** 2
    return Observations(diopters, values, variance, known, independent / known.size)


def value_range(seen: Observations) -> tuple[float, float]:
    """The prior's values between which nearly all observations lie."""
    low, high = np.percentile(seen.relative[seen.known], (1.0, 99.0))
    return float(low), float(high)


def global_pair(seen: Observations) -> tuple[float, float] | None:
    """Scale and shift by reweighted least squares; None unless the scale is surely above 0.

    A residual is an outlier by what sigma and the usual misfit of priors allow, never by its rank: most of an
    image may be one flat wall. Outliers are shed step by step, from none to Cauchy's share of them.
    """
    if int(seen.known.sum()) < 2:
        return None
    low, high = value_range(seen)
    if not high - low > _CONSTANT * max(abs(low), abs(high)):
        return None
    x, y, variance = (a[seen.known].astype(np.float64) for a in (seen.relative, seen.diopters, seen.variance))
    weight = 1.0 / variance
    for outlier in _GLOBAL_STEPS:
        scale, shift = weighted_line(x, y, weight)
        residual = y - scale * x - shift
        usual = (LEAST_FIELD * scale * (high - low)) ** 2
        total = variance + max(misfit_variance(residual, variance), usual)
        weight = 1.0 / (total * (1.0 + residual**2 / (outlier**2 * total)))
    spread = float((weight * (x - np.average(x, weights=weight)) ** 2).sum()) * seen.count
    return (scale, shift) if scale * spread**0.5 > SIGNIFICANT else None


def weighted_line(x: Doubles, y: Doubles, weight: Doubles) -> tuple[float, float]:
    """Scale and shift of the least sum of weight (y - scale x - shift)^2."""
    mean_x, mean_y = np.average(x, weights=weight), np.average(y, weights=weight)
    centred = weight * (x - mean_x)
    scale = float((centred * (y - mean_y)).sum() / (centred * (x - mean_x)).sum())
    return scale, float(mean_y - scale * mean_x)


def misfit_variance(residual: npt.NDArray[np.floating], variance: npt.NDArray[np.floating]) -> float:
    """What, added to the variance of each observation, has 68 % of the residuals within one sigma.

    A quantile: r^2 <= variance + misfit is r^2 - variance <= misfit. 0 where the variances say enough.
    """
    return max(float(np.quantile(residual**2 - variance, ONE_SIGMA)), 0.0) if residual.size else 0.0


def field_variance(residual: Floats, seen: Observations) -> float:
    """Variance of the correction: of what residuals have in common over a cell, or of all of it if more.

    Errors of the focus average out over a cell, those of the prior do not. Where the focus is uncertain, or
    too cautious, this sees what its sigma hides.
    """
    weight = np.where(seen.known, 1.0 / seen.variance, np.float32(0.0))
    number = seen.known.sum(axis=1)
    whole = number > seen.known.shape[1] // 2
    total = weight.sum(axis=1)[whole]
    mean = (weight * residual).sum(axis=1)[whole] / total
    own = number[whole] / total / np.maximum(seen.count * number[whole], 1.0)
    over_cells = misfit_variance(mean, own)
    return max(over_cells, misfit_variance(residual[seen.known], seen.variance[seen.known]))


def solve_correction(
    basis: Basis, residual: Floats, seen: Observations, field: float, options: AlignmentOptions
) -> tuple[Doubles, Doubles]:
    """The most likely correction of residuals [cells, samples], and its variance; [nodes] both.

    field (1/m)^2: variance of the random field that the correction is drawn from.
    """
    precision = smoothness(basis.shape, options.reach) / field
    total = seen.variance + np.float32(_MISFIT_SHARE * field)
    correction: Doubles = np.zeros(basis.shape.count)
    normal = precision
    for _ in range(options.rounds):
        surprise = np.square(residual - basis.gather(correction)) / total
        weight = np.float32(seen.count) / (total * (1.0 + surprise / np.float32(options.outlier**2)))
        weight = np.where(seen.known, weight, np.float32(0.0))
        normal = basis.normal_matrix(weight) + precision
        correction = np.asarray(np.linalg.solve(normal, basis.scatter(weight * residual)), np.float64)
    return correction, np.asarray(np.linalg.inv(normal).diagonal(), np.float64)


def common_variance(basis: Basis, seen: Observations) -> Doubles:
    """Variance [nodes] of what all errors of the focus have in common, which no fit averages out.

    As certain as the focus is around a node, or in the whole image, if that is more certain.
    """
    information = np.where(seen.known, 1.0 / seen.variance, np.float32(0.0))
    around = basis.scatter(information) / (basis.scatter(np.ones_like(information)) + _NOTHING)
    return np.asarray(COMMON / np.maximum(around, float(information.mean())))


def local_misfit(
    basis: Basis, left: Floats, seen: Observations, fit: Floats, misfit: float, pseudo_count: float
) -> Doubles:
    """Variance [nodes] by which the aligned prior is wrong around a node, beside the fit's own.

    left, fit [cells, samples]: residuals after the fit, its variance. A mean of the residuals' excess over
    what the focus explains, each with the information that it holds, and of `misfit`, that of the image.
    """
    share = np.float32(misfit) / (seen.variance + np.float32(misfit))
    information = np.where(seen.known, np.float32(seen.count) * share * share, np.float32(0.0))
    number = basis.scatter(information)
    explained = seen.variance - np.minimum(fit, seen.variance)  # the fit follows its observations
    around, result = np.full_like(left, misfit), np.empty(0)
    for _ in range(2):
        square = np.minimum(left * left, np.float32(_CLIP**2) * (seen.variance + around)) / _CLIPPED
        excess = basis.scatter((information * (square - explained)).astype(np.float32))
        result = (pseudo_count * misfit + np.maximum(excess, 0.0)) / (pseudo_count + number)
        around = basis.gather(result)
    return result
