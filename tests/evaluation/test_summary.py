"""What is pooled over frames: bins are the same for every model, and one without a pixel breaks nothing."""

from __future__ import annotations

import numpy as np
import pytest

from hybriddepth_ros.commands.distance_table import distance_table
from hybriddepth_ros.evaluation.charts import draw_by_distance, draw_by_texture
from hybriddepth_ros.evaluation.frames import Floats, MetricTruth
from hybriddepth_ros.evaluation.runner import ModelResult
from hybriddepth_ros.evaluation.scoring import Reading, Subject, score
from hybriddepth_ros.evaluation.store import FrameResult
from hybriddepth_ros.evaluation.summary import summarise

SLOPE = np.tile(np.linspace(1.0, 3.0, 200, dtype=np.float32), (150, 1))
NEAR, FAR = np.full_like(SLOPE, 0.5), np.full_like(SLOPE, 5.0)
NOTHING = np.full_like(SLOPE, np.nan)
FLAT, MOTTLED = np.zeros_like(SLOPE), np.random.default_rng(0).uniform(0, 20, SLOPE.shape).astype(np.float32)
ONE_PIXEL = np.where(np.arange(SLOPE.size).reshape(SLOPE.shape) == 7, SLOPE, np.float32(np.nan))


def result(label: str, *frames: tuple[Floats, Floats, Floats]) -> ModelResult:
    """Of frames of truth, estimate and texture."""
    results = {}
    for index, (truth, depth, texture) in enumerate(frames):
        scene = np.zeros((*truth.shape, 3), np.uint8)
        subject = Subject(str(index), MetricTruth(truth), truth > 0, scene, texture)
        results[index] = FrameResult(str(index), score(subject, Reading(depth, 0.1 * depth)))
    return ModelResult(label, {}, results)


@pytest.mark.parametrize(
    ("frames", "distances", "textures"),
    [
        ([(SLOPE, SLOPE, FLAT)], 8, 1),
        ([(NEAR, NEAR, MOTTLED)], 1, 8),
        ([(NEAR, NEAR, FLAT), (FAR, FAR, MOTTLED)], 8, 5),
        ([(SLOPE, NOTHING, MOTTLED)], 8, 8),
        ([(ONE_PIXEL, SLOPE, MOTTLED)], 1, 1),
    ],
)
def test_bins_without_a_pixel_or_an_estimate_break_neither_numbers_nor_pictures(
    frames: list[tuple[Floats, Floats, Floats]], distances: int, textures: int
) -> None:
    summaries = summarise([result("made", *frames)])
    (summary,) = summaries
    assert (len(summary.distances), len(summary.textures)) == (distances, textures)
    assert draw_by_distance(summaries) and draw_by_texture(summaries)
    rows = distance_table([("", one) for one in summary.distances], ("coverage",)).rows
    assert len(rows) == distances


def test_a_model_that_missed_the_far_frame_has_the_bins_of_the_others() -> None:
    every = result("every", (NEAR, NEAR, FLAT), (FAR, 1.1 * FAR, MOTTLED))
    near_only = result("near only", (NEAR, NEAR, FLAT))
    one, other = summarise([every, near_only])
    for name in ("distances", "textures"):
        assert len(getattr(one, name)) == len(getattr(other, name))
    assert [(b.near, b.far) for b in one.distances] == [(b.near, b.far) for b in other.distances]
    assert [(b.low, b.high) for b in one.textures] == [(b.low, b.high) for b in other.textures]
    assert one.distances[-1].median_relative == pytest.approx(0.1, rel=1e-4)
    assert np.isnan(other.distances[-1].median_relative) and np.isnan(other.textures[-1].valid_share)
    assert other.distances[0].valid_share == other.textures[0].valid_share == 1.0
