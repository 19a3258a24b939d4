"""Models as contenders: a stack of every frame through the estimator, all its slices or some of them."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import Any

import numpy as np

from hybriddepth_ros.errors import DatasetError, HybridDepthError
from hybriddepth_ros.estimator import DepthEstimator
from hybriddepth_ros.evaluation.bag_frames import RecordedFrame
from hybriddepth_ros.evaluation.frames import EvaluationFrame, Floats
from hybriddepth_ros.evaluation.runner import Contender
from hybriddepth_ros.evaluation.scoring import Reading, Subject
from hybriddepth_ros.evaluation.zoom import magnified, zoom_difference


def model_contender(
    label: str,
    estimator: DepthEstimator,
    settings: dict[str, Any],
    slices: int | None = None,
    zoom: float | None = None,
) -> Contender:
    """An estimator; slices: how many of every stack it gets, None = all; zoom: magnify by this and estimate
    again, None = do not.
    """

    def judge(frame: EvaluationFrame) -> tuple[Subject, Reading]:
        chosen = frame if slices is None else with_slices(frame, slices)
        began = time.perf_counter()
        estimate = estimator(chosen.stack, chosen.reference)
        elapsed_ms = (time.perf_counter() - began) * 1e3
        difference = None if zoom is None else _zoom_difference(estimator, chosen, estimate.depth, zoom)
        return Subject.of(frame), Reading(estimate.depth, estimate.sigma, None, elapsed_ms, difference)

    return Contender(label, settings, judge)


def _zoom_difference(estimator: DepthEstimator, frame: EvaluationFrame, depth: Floats, zoom: float) -> float:
    """See `zoom_difference`; NaN where the magnified stack cannot be estimated: `depth` is scored all the
    same.
    """
    try:
        again = estimator(magnified(frame.stack, zoom), frame.reference)
    except HybridDepthError:
        return math.nan
    return zoom_difference(depth, again.depth, zoom)


def recorded_contender(settings: dict[str, Any]) -> Contender:
    """What a bag recorded."""

    def judge(frame: RecordedFrame) -> tuple[Subject, Reading]:
        return frame.subject, frame.reading

    return Contender("recorded", settings, judge)


def with_slices(frame: EvaluationFrame, count: int) -> EvaluationFrame:
    """The frame with so many slices, evenly from farthest focus to nearest; the reference is one of them.

    It takes the place of the slice that is closest to it in the order of focus; of two, of the nearer.
    """
    available = len(frame.stack.slices)
    if not 2 <= count <= available:
        raise DatasetError(f"{frame.name}: expected at least {count} slices, got {available}")
    order = [int(i) for i in np.argsort(frame.stack.focus_diopters, kind="stable")]
    places = [int(p) for p in np.linspace(0, available - 1, count).round()]
    reference_at = order.index(frame.reference)
    if reference_at not in places:  # the truth is in its frame
        replaced = min(range(count), key=lambda i: (abs(places[i] - reference_at), -places[i]))
        places[replaced] = reference_at
    kept = sorted(order[place] for place in places)  # the order of capture
    slices = tuple(frame.stack.slices[i] for i in kept)
    return replace(frame, stack=replace(frame.stack, slices=slices), reference=kept.index(frame.reference))
