"""Scoring a recorded bag: each depth image against the ground truth of its stamp, and how late it came."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hybriddepth_ros.evaluation.metrics import Score, ScoreKeeper
from hybriddepth_ros.evaluation.runner import evenly
from hybriddepth_ros.ros.bag import read_bag, read_stamps
from hybriddepth_ros.ros.decoding import DEPTH_ENCODINGS, depth_array, image_array

DEPTH = "depth/image_rect"
SIGMA = "depth/uncertainty"
SCENE = "rgb/image_rect"
TRUTH = "ground_truth/depth"
SLICE = "slice"
COMPRESSED_SLICE = "slice/compressed"
FOCUS = "focus"

Image = npt.NDArray[Any]
Ages = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Example:
    """One estimate with its truth: scene [H, W, 3] uint8 RGB; depth, sigma, truth [H, W] float32 m."""

    stamp_ns: int
    scene: Image
    depth: Image
    sigma: Image
    truth: Image


@dataclass(frozen=True)
class RecordingScore:
    """What a bag shows.

    stacks: depth images in the bag; without_truth: those that no ground truth has the stamp of; evaluated:
    those that were scored, after the warm-up, evenly chosen if there were too many. Rates in Hz. Ages in ms,
    one per depth image: from an exposure, of the reference or of the sweep's newest slice, to the receipt.
    """

    score: Score
    per_image: tuple[dict[str, float], ...]
    example: Example | None
    stacks: int
    without_truth: int
    evaluated: int
    depth_rate_hz: float
    slice_rate_hz: float
    age_of_reference_ms: Ages
    age_of_newest_slice_ms: Ages


def score_recording(
    bag: Path, namespace: str = "/focus_camera", warm_up: int = 2, at_most: int = 200
) -> RecordingScore:
    """Scores the depth images of a bag; the first `warm_up` and those beyond `at_most` are not."""
    topic = {name: f"{namespace}/{name}" for name in (DEPTH, SIGMA, SCENE, TRUTH, SLICE, FOCUS)}
    stamps = read_stamps(bag, list(topic.values()))
    depth_stamps = stamps.get(topic[DEPTH], {})
    truths = stamps.get(topic[TRUTH], {})
    sigmas = stamps.get(topic[SIGMA], {})
    slices = stamps.get(topic[SLICE], {})
    scorable = [s for s in sorted(depth_stamps)[warm_up:] if s in truths and s in sigmas]
    chosen = [scorable[i] for i in evenly(len(scorable), at_most)]
    keeper = ScoreKeeper()
    rows: dict[int, dict[str, float]] = {}
    for stamp, images in _matched(bag, [topic[DEPTH], topic[SIGMA], topic[TRUTH]], chosen):
        rows[stamp] = keeper.add(images[topic[DEPTH]], images[topic[SIGMA]], images[topic[TRUTH]])
    reference_age, newest_age = _ages_ms(bag, topic[FOCUS], depth_stamps)
    return RecordingScore(
        score=keeper.score(),
        per_image=tuple(rows[s] for s in sorted(rows)),
        example=_example(bag, topic, rows, stamps.get(topic[SCENE], {})),
        stacks=len(depth_stamps),
        without_truth=sum(s not in truths for s in depth_stamps),
        evaluated=len(rows),
        depth_rate_hz=_rate_hz(depth_stamps),
        slice_rate_hz=_rate_hz(slices),
        age_of_reference_ms=reference_age,
        age_of_newest_slice_ms=newest_age,
    )


def pixels(message: Any) -> Image:
    """A depth as float32 m [H, W], NaN = none; a picture as uint8 RGB [H, W, 3]."""
    return depth_array(message) if message.encoding in DEPTH_ENCODINGS else image_array(message)


def _matched(bag: Path, topics: Sequence[str], stamps: Sequence[int]) -> Any:
    """(stamp, {topic: image}) for every stamp that all topics have, as soon as it is complete."""
    waiting: dict[int, dict[str, Image]] = {}
    for message in read_bag(bag, topics, stamps):
        images = waiting.setdefault(message.stamp_ns, {})
        images[message.topic] = pixels(message.message)
        if len(images) == len(topics):
            yield message.stamp_ns, waiting.pop(message.stamp_ns)


def _example(
    bag: Path, topic: dict[str, str], rows: dict[int, dict[str, float]], scenes: dict[int, int]
) -> Example | None:
    """The estimate whose error is the median of all: neither the best nor the worst."""
    ranked = sorted((row["abs_rel"], stamp) for stamp, row in rows.items() if stamp in scenes)
    if not ranked:
        return None
    stamp = ranked[len(ranked) // 2][1]
    for _, images in _matched(bag, [topic[n] for n in (SCENE, DEPTH, SIGMA, TRUTH)], [stamp]):
        return Example(stamp, *(images[topic[n]] for n in (SCENE, DEPTH, SIGMA, TRUTH)))
    return None


def _ages_ms(bag: Path, focus_topic: str, depth: dict[int, int]) -> tuple[Ages, Ages]:
    """Age of each depth image at its receipt: since its reference slice, since its sweep's newest slice."""
    newest: dict[int, int] = {}  # sweep -> stamp of its newest slice
    sweeps: dict[int, int] = {}  # stamp of a slice -> its sweep
    for message in read_bag(bag, [focus_topic]):
        sweep = message.message.sweep_id
        sweeps[message.stamp_ns] = sweep
        newest[sweep] = max(message.stamp_ns, newest.get(sweep, 0))
    of_reference = [(received - stamp) * 1e-6 for stamp, received in sorted(depth.items())]
    of_newest = [
        (received - newest[sweeps[stamp]]) * 1e-6
        for stamp, received in sorted(depth.items())
        if stamp in sweeps
    ]
    return np.array(of_reference), np.array(of_newest)


def _rate_hz(received: dict[int, int]) -> float:
    """Messages per second between the first and the last."""
    times = sorted(received.values())
    return (
        (len(times) - 1) / ((times[-1] - times[0]) * 1e-9) if len(times) > 1 and times[-1] > times[0] else 0.0
    )
