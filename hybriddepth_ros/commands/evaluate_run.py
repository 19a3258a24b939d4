"""What `hybriddepth evaluate` runs: the source, its contenders, and the loop over them, with progress."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hybriddepth_ros.errors import HybridDepthError, ParameterError
from hybriddepth_ros.estimator import EstimatorOptions, load_estimator
from hybriddepth_ros.evaluation.bag_frames import BagSource, RecordedSource, is_bag
from hybriddepth_ros.evaluation.contenders import model_contender, recorded_contender
from hybriddepth_ros.evaluation.runner import (
    Contender,
    Failure,
    ModelResult,
    Source,
    digest,
    evaluate,
    evenly,
)
from hybriddepth_ros.evaluation.store import ResultStore
from hybriddepth_ros.models import NO_PRIOR, model_names, precisions_of, takes_weights, usable_precision
from hybriddepth_ros.models.base import has_own_prior
from hybriddepth_ros.models.prior import check_prior
from hybriddepth_ros.parameters import nearest_name


@dataclass(frozen=True)
class Request:
    """The options of the command, checked one by one. mode: offline, recorded, live."""

    source: Path
    models: tuple[str, ...]
    protocol: str | None
    kind: str
    slices: tuple[int, ...]
    zoom: float | None
    mode: str
    namespace: str
    truth_topic: str
    device: str
    precision: str
    prior: str
    prior_weights: str
    options: EstimatorOptions


@dataclass(frozen=True)
class Evaluation:
    """An open source and what is true of every contender: `common` goes into their settings.

    notes: what a user should know of how the models run, a line each.
    """

    request: Request
    source: Source[Any]
    common: dict[str, Any]
    notes: list[str]

    @property
    def oracle(self) -> bool:
        """Whether the focus distances came from the ground truth."""
        return bool(self.common["oracle"])


@dataclass(frozen=True, eq=False)
class Outcome:
    """Results per model, frames that failed, and how many there were to score."""

    evaluation: Evaluation
    results: list[ModelResult]
    failures: list[Failure]
    frames: int
    pictured: list[int]


@dataclass(frozen=True)
class Spec:
    """One of the models asked for; slices: None = all of a stack."""

    model: str
    weights: str
    precision: str
    prior: str
    prior_weights: str
    slices: int | None

    @property
    def label(self) -> str:
        """What it is called in tables; of a file of weights only its name."""
        name = f"{self.model}:{Path(self.weights).stem}" if self.weights else self.model
        if self.prior != NO_PRIOR:
            name += f" + {self.prior}"
        return name if self.slices is None else f"{name} n={self.slices}"


def open_evaluation(request: Request) -> Evaluation:
    """Opens the source; HybridDepthError if it, the models or their combination with it cannot be."""
    check_prior(request.prior, "", request.prior_weights)
    notes = notes_on(specs(request), request)
    bag = is_bag(request.source)
    if not bag and request.mode != "offline":
        raise ParameterError(f"--{request.mode}: expected a bag, got {request.source}")
    if request.mode != "offline" and request.slices:
        raise ParameterError(f"--slices: expected not with --{request.mode}, whose stacks are whole")
    if request.mode != "offline" and request.zoom is not None:
        raise ParameterError(f"--zoom: expected not with --{request.mode}, which sees stacks as they are")
    source = _open_source(request, bag)
    protocol = getattr(source, "protocol", None)
    names = source.names()
    common = {
        "source": source.name,
        "reader": {"name": type(source).__name__, **getattr(source, "options", {})},
        "mode": request.mode,
        "frames": {"count": len(names), "digest": digest(names)},
        "oracle": bool(getattr(source, "oracle", False)),
        "protocol": asdict(protocol) if is_dataclass(protocol) and not isinstance(protocol, type) else None,
        "estimator": asdict(request.options),
        "topics": [request.namespace, request.truth_topic] if bag else None,
    }
    return Evaluation(request, source, common, notes)


def _open_source(request: Request, bag: bool) -> Source[Any]:
    if not bag:
        from hybriddepth_ros.evaluation.datasets import DDFF12_WHOLE, open_source
        from hybriddepth_ros.evaluation.ddff12 import SLICES, Ddff12
        from hybriddepth_ros.evaluation.protocols import load_protocol

        protocol = load_protocol(request.protocol) if request.protocol is not None else None
        source = open_source(request.source, protocol, request.kind)
        asked = max(request.slices, default=0)
        if isinstance(source, Ddff12) and source.options["slices"] < asked <= SLICES:
            at_most = f"at most {source.options['slices']} of {source.name}, as published"
            raise ParameterError(
                f"--slices {asked}: expected {at_most}; --kind {DDFF12_WHOLE} takes all {SLICES}"
            )
        return source
    if request.protocol is not None:
        raise ParameterError(f"--protocol: expected none for a bag, whose slices are given: {request.source}")
    if request.mode == "recorded":
        return RecordedSource(request.source, request.namespace, request.truth_topic)
    return BagSource(request.source, request.namespace, request.truth_topic, request.options.reference)


def specs(request: Request) -> list[Spec]:
    """Every model with every number of slices; ParameterError for an unknown model or one asked for twice."""
    found = []
    for text in request.models:
        name, _, weights = text.partition(":")
        if name not in model_names():
            known = ", ".join(model_names())
            hint = nearest_name(name, model_names())
            raise ParameterError(f"--model {text}: unknown model {name!r}, expected one of {known}{hint}")
        if weights and not takes_weights(name):
            raise ParameterError(f"--model {text}: {name} takes no weights")
        precision = usable_precision(name, request.precision)
        prior = (NO_PRIOR, "") if has_own_prior(name) else (request.prior, request.prior_weights)
        found += [Spec(name, weights, precision, *prior, count) for count in request.slices or (None,)]
    for label in (spec.label for spec in found):
        same = [spec for spec in found if spec.label == label]
        if len({spec.weights for spec in same}) > 1:
            files = " and ".join(spec.weights for spec in same)
            raise ParameterError(
                f"--model: expected weights of different names beside each other, got {files}"
            )
        if len(same) > 1:
            raise ParameterError(f"--model: expected each model once, got {label} {len(same)} times")
    return found


def notes_on(found: list[Spec], request: Request) -> list[str]:
    """Which models run without an option that others take; ParameterError for one that none of them takes."""
    notes = []
    models = {spec.model for spec in found}
    for option, reason_of in (("precision", _known_precisions), ("prior", _own_prior)):
        asked = getattr(request, option)
        without = sorted({spec.model for spec in found if getattr(spec, option) != asked})
        if len(without) == len(models):
            raise ParameterError(f"--{option} {asked}: {without[0]} {reason_of(without[0])}")
        notes += [f"{model} {reason_of(model)}: --{option} {asked} is for the others" for model in without]
    return notes


def _known_precisions(model: str) -> str:
    return f"knows {' and '.join(precisions_of(model))} only"


def _own_prior(model: str) -> str:
    return "has a prior of its own"


def run(evaluation: Evaluation, out: Path, at_most: int, pictures: int, resume: bool) -> Outcome:
    """Scores everything, with a progress bar; HybridDepthError if nothing at all could be scored."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    count = len(evaluation.source.names())
    path = str(evaluation.request.source.resolve())  # tells folders of one name apart; not for reports
    indices = evenly(count, at_most or count)
    pictured = [indices[i] for i in evenly(len(indices), pictures)]
    failures: list[Failure] = []
    results: list[ModelResult] = []
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    for note in evaluation.notes:
        console.print(note, markup=False)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not sys.stderr.isatty()) as progress:

        def tell(failure: Failure) -> None:
            failures.append(failure)
            reason = " ".join(failure.reason.split())
            console.print(f"skipped {failure.frame} ({failure.label}): {reason}", markup=False)

        for contenders in _contenders(evaluation):
            names = ", ".join(contender.label for contender in contenders)
            task = progress.add_task(names, total=len(indices) * len(contenders))
            paired = [(contender, ResultStore(out, contender.label)) for contender in contenders]
            for contender, store in paired:
                store.begin(contender.settings | {"path": path}, resume)
            advance = partial(progress.advance, task)
            results += evaluate(evaluation.source, indices, paired, pictured, advance, tell)
    if not any(result.frames for result in results):
        raise HybridDepthError(
            f"{evaluation.request.source}: none of {len(indices)} frames could be scored; "
            f"the first: {failures[0].reason}"
        )
    return Outcome(evaluation, results, failures, len(indices), pictured)


def _contenders(evaluation: Evaluation) -> Iterator[list[Contender]]:
    """Those that run together: all models offline, which are loaded first; one after the other live."""
    request = evaluation.request
    if request.mode == "recorded":
        yield [recorded_contender(evaluation.common | {"model": "recorded"})]
    elif request.mode == "live":
        for spec in specs(request):
            with _live(evaluation, spec) as contender:
                yield [contender]
    else:
        made = []
        for spec in specs(request):
            estimator = load_estimator(
                spec.model,
                request.device,
                request.options,
                spec.weights,
                spec.precision,
                spec.prior,
                spec.prior_weights,
            )
            settings = evaluation.common | {
                "model": spec.model,
                "weights": estimator.weights,
                "device": device_kind(estimator.device),
                "precision": spec.precision,
                "prior": spec.prior,
                "prior_weights": estimator.prior_weights,
                "slices": spec.slices,
                "zoom": request.zoom,
            }
            made.append(model_contender(spec.label, estimator, settings, spec.slices, request.zoom))
        yield made


@contextlib.contextmanager
def _live(evaluation: Evaluation, spec: Spec) -> Iterator[Contender]:
    from hybriddepth_ros.commands.demo import keep_to_this_machine
    from hybriddepth_ros.ros.dds import check_environment

    keep_to_this_machine()
    check_environment()
    from hybriddepth_ros.ros.replayed import ReplayedGraph

    request, source = evaluation.request, evaluation.source
    assert isinstance(source, BagSource)
    parameters = asdict(request.options) | {
        "model": spec.model,
        "weights": spec.weights,
        "device": request.device,
        "precision": spec.precision,
        "prior": spec.prior,
        "prior_weights": spec.prior_weights,
    }
    with ReplayedGraph(source, parameters, request.namespace) as graph:
        settings = evaluation.common | {
            "model": spec.model,
            "weights": graph.running["weights"],
            "device": device_kind(graph.running["device"]),
            "precision": spec.precision,
            "prior": spec.prior,
            "prior_weights": graph.running["prior weights"],
            "slices": None,
        }
        yield Contender(f"{spec.label} live", settings, graph.judge)


def device_kind(device: str) -> str:
    """cpu or cuda: their arithmetic differs, that of two GPUs does not."""
    return device.partition(":")[0]
