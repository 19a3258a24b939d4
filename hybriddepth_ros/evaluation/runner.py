"""Models over frames: each result is kept as it is made, a bad frame is told and passed over."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, TypeVar

import numpy as np

from hybriddepth_ros.errors import HybridDepthError, OutputError
from hybriddepth_ros.evaluation.scoring import Reading, Subject, score
from hybriddepth_ros.evaluation.store import FrameResult, ResultStore, Thumbnails

Frame_co = TypeVar("Frame_co", covariant=True)


class Source(Protocol[Frame_co]):
    """What frames come from: a FrameSource, or a bag's recorded depth."""

    @property
    def name(self) -> str: ...

    def names(self) -> list[str]: ...

    def load(self, index: int) -> Frame_co: ...


@dataclass(frozen=True)
class Contender:
    """A model under evaluation. judge: frame -> what is true of it and what the model made of it.

    settings: plain data that its results depend on, without a path of this machine.
    """

    label: str
    settings: dict[str, Any]
    judge: Callable[[Any], tuple[Subject, Reading]]


@dataclass(frozen=True)
class Failure:
    """A frame that could not be scored, and why."""

    label: str
    frame: str
    reason: str


@dataclass(frozen=True, eq=False)
class ModelResult:
    """The results of one model: frame index -> result, in the order of the frames."""

    label: str
    settings: dict[str, Any]
    frames: dict[int, FrameResult] = field(repr=False)


def evaluate(
    source: Source[Any],
    indices: Sequence[int],
    contenders: Sequence[tuple[Contender, ResultStore]],
    pictured: Iterable[int],
    on_done: Callable[[], None],
    on_failure: Callable[[Failure], None],
) -> list[ModelResult]:
    """Scores every contender on the frames `indices`; what its store has already is taken from there.

    pictured: indices of the frames to keep pictures of. on_done is called for every frame and contender. A
    frame is loaded once for all contenders. OutputError, of a full disk say, ends it; the stores keep what
    they have.
    """
    names, pictured = source.names(), frozenset(pictured)
    results: list[dict[int, FrameResult]] = [{} for _ in contenders]
    for index in indices:
        frame = _LoadedOnce(partial(source.load, index))
        for (contender, store), done in zip(contenders, results, strict=True):
            kept = store.load(index, names[index])
            if kept is None or (index in pictured and kept.thumbnails is None):
                try:
                    kept = _judged(contender, frame(), names[index], index in pictured)
                    store.save(index, kept)
                except OutputError:
                    raise
                except HybridDepthError as error:
                    on_failure(Failure(contender.label, names[index], str(error)))
            if kept is not None:
                done[index] = kept
            on_done()
    return [ModelResult(c.label, c.settings, d) for (c, _), d in zip(contenders, results, strict=True)]


class _LoadedOnce:
    """A frame, loaded when it is first asked for; one that is bad is refused again without another try."""

    def __init__(self, load: Callable[[], Any]) -> None:
        self._load = load
        self._frame: Any = None
        self._error: HybridDepthError | None = None

    def __call__(self) -> Any:
        if self._frame is None and self._error is None:
            try:
                self._frame = self._load()
            except HybridDepthError as error:
                self._error = error
        if self._error is not None:
            raise self._error
        return self._frame


def _judged(contender: Contender, frame: Any, name: str, pictured: bool) -> FrameResult:
    subject, reading = contender.judge(frame)
    thumbnails = Thumbnails.of(subject, reading) if pictured else None
    return FrameResult(name, score(subject, reading), thumbnails)


def evenly(count: int, at_most: int) -> list[int]:
    """At most so many of 0 .. count - 1, evenly spread, first and last among them where there are two."""
    if at_most <= 0:
        return []
    if count <= at_most:
        return list(range(count))
    return sorted({int(i) for i in np.linspace(0, count - 1, at_most).round()})


def digest(names: Sequence[str]) -> str:
    """Stands for the names of the frames in a contender's settings."""
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]
