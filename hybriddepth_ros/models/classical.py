"""Depth from focus without learning: the baseline, and the fallback that needs no weights.

Focus is measured in all slices (`focus_measure`), the inverse depth that explains it best is found with its
variance (`focus_fit`), and estimates are averaged along surfaces, guided by the all-in-focus image (He et al.
2013), each with the weight of its inverse variance.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from hybriddepth_ros.image_files import to_grey
from hybriddepth_ros.models.base import AlignedStack, FocusEstimate, RollingStack
from hybriddepth_ros.models.focus_fit import StackOptics, find_optics, fit_response
from hybriddepth_ros.models.focus_measure import (
    STILL_PX,
    FocusMeasure,
    SliceMeasure,
    join_measures,
    measure_slice,
    resize,
)

Floats = npt.NDArray[np.floating[Any]]  # float32 in images

GUIDE_RADIUS = 4  # [grid px]
GUIDE_EPSILON = 0.03**2  # an edge is what changes the guide by more than 3 % of its range
UNCOVERED_SIGMA_FACTOR = 2.0
MIN_OWN_SHARE = 0.5  # below it a pixel's focus is that of its neighbours
CLIPPED_SHARE = 0.1  # of the window, from which on it counts against the estimate
CLIPPED_SIGMA = 0.2  # [1/m]

# Sigma's constants were fitted to rendered stacks with known depth (likelihood, coverage): the width of the
# focus curve is too careful, but at a depth edge the window sees both sides, and part of the step between
# them is in doubt; and no neighbour can make a pixel much more certain than it is by itself.
SIGMA_SCALE = 0.55
EDGE_SHARE = 0.25
EDGE_RADIUS = 6  # [grid px]
OWN_SIGMA_SHARE = 0.7


class Classical:
    """The classical model: `model: classical`. Runs on the CPU, whatever the device asked for."""

    def __init__(self, device: str = "auto") -> None:
        self.device = "cpu"

    def __call__(self, stack: AlignedStack) -> FocusEstimate:
        """FocusEstimate at full resolution; sources in the module's text."""
        measures = [measure_slice(to_grey(image)) for image in stack.images]
        measure = join_measures(measures)
        optics = find_optics(measure, stack.focus_diopters, stack.blur_px_per_diopter)
        return estimate_focus(stack, measures, measure, optics)

    def rolling(self) -> RollingClassical:
        """The same, one new slice at a time."""
        return RollingClassical()


class RollingClassical:
    """Measures each slice once, in its own frame. See RollingModel."""

    reads_aligned = False

    def __init__(self) -> None:
        self._measured: dict[int, SliceMeasure] = {}
        self._optics: StackOptics | None = None
        self._optics_of: tuple[int, npt.NDArray[np.float32]] = (-1, np.empty(0, np.float32))  # newest, foci

    def __call__(self, stack: RollingStack) -> FocusEstimate:
        """FocusEstimate at full resolution."""
        self._measured = {
            place.key: self._measured.get(place.key) or measure_slice(to_grey(place.image))
            for place in stack.places
        }
        measures = [
            own if place.largest_step_px < STILL_PX else own.moved(place.transform, place.image.shape[1::-1])
            for place, own in zip(stack.places, self._measured.values(), strict=True)
        ]
        measure = join_measures(measures)
        return estimate_focus(stack, measures, measure, self._optics_for(stack, measure))

    def _optics_for(self, stack: RollingStack, measure: FocusMeasure) -> StackOptics:
        """Looked for once a sweep: while the slice that was the newest then is there, and the foci are."""
        key, foci = self._optics_of
        there = any(place.key == key for place in stack.places) and np.array_equal(foci, stack.focus_diopters)
        if self._optics is None or not there or stack.blur_px_per_diopter is not None:
            self._optics = find_optics(measure, stack.focus_diopters, stack.blur_px_per_diopter)
            self._optics_of = stack.places[stack.reference].key, stack.focus_diopters
        return self._optics


def estimate_focus(
    stack: AlignedStack | RollingStack,
    measures: Sequence[SliceMeasure],
    measure: FocusMeasure,
    optics: StackOptics,
) -> FocusEstimate:
    """FocusEstimate at full resolution; measures: of the stack's slices; measure: of them together."""
    diopters, variance = fit_response(measure, stack.focus_diopters, optics)
    variance = doubted(variance, measure)
    fine_guide = _sharpest([each.half for each in measures], measure.energies)
    guide = resize(fine_guide, diopters.shape, cv2.INTER_AREA)
    surface = smooth_along_surfaces(diopters, variance, guide)
    slope, offset, variance = (resize(image, fine_guide.shape) for image in surface)
    size = stack.covered.shape[1:]
    sigma = resize(np.sqrt(variance), size)
    sigma[~stack.covered.all(axis=0)] *= UNCOVERED_SIGMA_FACTOR
    return FocusEstimate(resize(slope * fine_guide + offset, size), sigma, optics.blur_px_per_diopter)


def doubted(variance: Floats, measure: FocusMeasure) -> Floats:
    """The variance [h, w] of the focus fit, with what the fit cannot know of.

    A blank surface beside a textured one shows its neighbour's texture, in every slice alike: the fit is good
    and wrong. Clipped highlights keep their edges however blurred they are.
    """
    borrowed = np.maximum(MIN_OWN_SHARE / np.maximum(measure.own_share, np.float32(1e-3)), np.float32(1.0))
    clipped = np.maximum(measure.clipped - np.float32(CLIPPED_SHARE), 0.0) / np.float32(CLIPPED_SHARE)
    return variance * borrowed**2 + (np.float32(CLIPPED_SIGMA) * clipped) ** 2


def _sharpest(greys: Sequence[Floats], energies: Floats) -> Floats:
    """A quick all-in-focus grey image 0..1 as large as greys [S, h, w] 0..255, for guiding only."""
    result = greys[0].copy()
    most = energies[0, 1]
    for grey, energy in zip(greys[1:], energies[1:, 1], strict=True):
        share = energy / (most + energy + np.float32(1e-6))
        share = share * share * share * (share * (6.0 * share - 15.0) + 10.0)  # mostly one or the other
        result += (grey - result) * resize(share, result.shape)
        most = np.maximum(most, energy)
    result *= np.float32(1.0 / 255.0)
    return result


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
    reach = 2 * EDGE_RADIUS + 1
    window = np.ones((reach, reach), np.uint8)
    step = cv2.dilate(smooth, window) - cv2.erode(smooth, window)
    own = np.float32(OWN_SIGMA_SHARE**2) * variance
    spread = SIGMA_SCALE**2 * (np.maximum(1.0 / total, own) + scatter) + (EDGE_SHARE * step) ** 2
    return slope, offset, np.asarray(spread, np.float32)
