"""`hybriddepth evaluate`: models side by side on a data set or a bag, against its ground truth."""

# ruff: noqa: UP045
# The typer of Ubuntu 24.04 knows neither `X | None` nor annotations that are not evaluated (__future__).

import time
from pathlib import Path
from typing import Annotated, Optional

import typer

from hybriddepth_ros.commands.options import (
    EstimatorAssignments,
    Prior,
    PriorWeights,
    check_device,
    check_namespace,
    parse_assignments,
)
from hybriddepth_ros.commands.output import OutputFolder
from hybriddepth_ros.errors import ParameterError
from hybriddepth_ros.parameters import from_mapping


def evaluate(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE", help="Bag with slices and a ground truth, or a data set (docs/evaluation.md)."
        ),
    ],
    out: Annotated[
        Optional[Path],
        typer.Option("--out", help="Folder for the results.  [default: out/evaluate/<name of the source>]"),
    ] = None,
    model: Annotated[
        Optional[list[str]],
        typer.Option(
            "--model",
            metavar="M[:WEIGHTS]",
            help="Depth model, by its name, with the name or file of its weights; may be repeated.  "
            "[default: sweepnet]",
        ),
    ] = None,
    protocol: Annotated[
        Optional[str],
        typer.Option(
            "--protocol", metavar="NAME|FILE", help="How focal stacks are made of colour and depth images."
        ),
    ] = None,
    kind: Annotated[
        str, typer.Option("--kind", help="Kind of data set; auto = what it looks like.")
    ] = "auto",
    slices: Annotated[
        Optional[list[int]],
        typer.Option("--slices", min=2, help="Slices of each stack to use, evenly chosen; may be repeated."),
    ] = None,
    zoom: Annotated[
        Optional[float],
        typer.Option(
            "--zoom",
            min=1.1,
            max=4.0,
            help="Also estimate every stack magnified by this: does depth stay what it is?  [default: no]",
        ),
    ] = None,
    frames: Annotated[
        int, typer.Option("--frames", min=0, help="Frames to use, evenly chosen; 0 = all.")
    ] = 0,
    recorded: Annotated[
        bool, typer.Option("--recorded", help="Score the depth that the bag recorded; no model runs.")
    ] = False,
    live: Annotated[
        bool,
        typer.Option(
            "--live", help="Replay the bag's slices into the depth node and score what it publishes."
        ),
    ] = False,
    namespace: Annotated[
        str, typer.Option("--namespace", help="Namespace of a bag's topics.")
    ] = "focus_camera",
    truth_topic: Annotated[
        str, typer.Option("--truth-topic", help="A bag's ground truth: depth as 32FC1 or 16UC1.")
    ] = "ground_truth/depth",
    device: Annotated[
        str, typer.Option("--device", help="Where the models run: auto, cpu, cuda, cuda:1 ...")
    ] = "auto",
    precision: Annotated[
        str, typer.Option("--precision", help="Arithmetic of models with weights, as in depth.")
    ] = "float32",
    prior: Prior = "none",
    prior_weights: PriorWeights = None,
    parameter: EstimatorAssignments = None,
    pictures: Annotated[
        int, typer.Option("--pictures", min=0, max=200, help="Frames shown in the report, evenly chosen.")
    ] = 8,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume/--no-resume", help="Go on from what OUT has of the same settings, or begin anew."
        ),
    ] = True,
) -> int:
    """Depth and sigma of one or several models against a ground truth: numbers, curves, pictures.

    SOURCE is a bag (its slices, estimated anew; --recorded: the depth in it; --live: through the running
    node), or a data set. Writes metrics.json, metrics.csv and report.html, and every frame's result as soon
    as it is there: the same command goes on where it was interrupted.
    """
    from hybriddepth_ros.commands.evaluate_results import FILES, print_summary, write_results
    from hybriddepth_ros.commands.evaluate_run import Request, open_evaluation, run
    from hybriddepth_ros.estimator import EstimatorOptions
    from hybriddepth_ros.models import PRECISIONS

    if precision not in PRECISIONS:
        raise ParameterError(f"--precision {precision}: expected one of {', '.join(PRECISIONS)}")
    mode = _mode(recorded, live)
    if recorded and model:
        raise ParameterError(
            "--model: expected not with --recorded, which scores the bag's depth and runs none"
        )
    began = time.perf_counter()
    request = Request(
        source=source,
        models=tuple(model or ("sweepnet",)),
        protocol=protocol,
        kind=kind,
        slices=tuple(slices or ()),
        zoom=zoom,
        mode=mode,
        namespace=check_namespace(namespace),
        truth_topic=truth_topic,
        device=check_device(device),
        precision=precision,
        prior=prior,
        prior_weights=prior_weights or "",
        options=from_mapping(EstimatorOptions, parse_assignments(parameter or ()), where="-p"),
    )
    evaluation = open_evaluation(request)
    out = out or Path("out") / "evaluate" / source.resolve().name
    with OutputFolder(out, FILES) as folder:  # refused here rather than after the computation
        outcome = run(evaluation, out, frames, pictures, resume)
        summaries = write_results(folder, outcome)
    print_summary(outcome, summaries, out, time.perf_counter() - began)
    return 0


def _mode(recorded: bool, live: bool) -> str:
    if recorded and live:
        raise ParameterError("--live: expected either --recorded or --live, got both")
    return "recorded" if recorded else "live" if live else "offline"
