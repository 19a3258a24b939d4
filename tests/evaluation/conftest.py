"""A small source with known truths, and estimates that are off by a known amount."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from hybriddepth_ros.errors import DatasetError
from hybriddepth_ros.evaluation.frames import EvaluationFrame, MetricTruth
from hybriddepth_ros.evaluation.runner import Contender
from hybriddepth_ros.evaluation.scoring import Reading, Subject
from hybriddepth_ros.focal_stack import FocalSlice, FocalStack

SIZE = (24, 32)


def make_frame(name: str = "frame", seed: int = 0, slices: int = 5) -> EvaluationFrame:
    """Random slices, and a truth from 1 m to 3 m whose first row is unknown."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 255, (slices, *SIZE, 3), dtype=np.uint8)
    stack = FocalStack(tuple(FocalSlice(image, 0.3 + i) for i, image in enumerate(images)), name=name)
    truth = np.tile(np.linspace(1.0, 3.0, SIZE[1], dtype=np.float32), (SIZE[0], 1))
    truth[0] = np.nan
    return EvaluationFrame(name, stack, MetricTruth(truth), truth > 0, reference=2)


@dataclass
class MadeSource:
    """Frames `f0`, `f1` ...; those in `bad` cannot be loaded."""

    count: int = 4
    bad: tuple[int, ...] = ()
    loaded: list[int] = field(default_factory=list)
    name = "made"
    oracle = False

    def names(self) -> list[str]:
        return [f"f{i}" for i in range(self.count)]

    def load(self, index: int) -> EvaluationFrame:
        self.loaded.append(index)
        if index in self.bad:
            raise DatasetError(f"f{index}: expected an image, found none")
        return make_frame(f"f{index}", seed=index)


def off_by(factor: float, label: str = "made") -> Contender:
    """A model whose depth is `factor` times the truth, and whose sigma is the error."""

    def judge(frame: EvaluationFrame) -> tuple[Subject, Reading]:
        truth = frame.depth_m()
        depth = (factor * truth).astype(np.float32)
        return Subject.of(frame), Reading(depth, np.abs(depth - truth), None, 5.0)

    return Contender(label, {"model": label, "factor": factor}, judge)
