"""`hybriddepth depth`: a focal stack on disk becomes depth, sigma, pictures and a point cloud on disk."""

# ruff: noqa: UP045
# The typer of Ubuntu 24.04 knows neither `X | None` nor annotations that are not evaluated (__future__).

import time
from pathlib import Path
from typing import Annotated, Optional

import typer

from hybriddepth_ros.commands.options import (
    ENGINE_HELP,
    EstimatorAssignments,
    Prior,
    PriorWeights,
    check_model,
    parse_assignments,
)
from hybriddepth_ros.commands.output import OutputFolder
from hybriddepth_ros.parameters import from_mapping

FILES = ("depth.npy", "sigma.npy", "aif.png", "depth.png", "points.ply", "summary.json")


def depth(
    stack: Annotated[
        Path,
        typer.Argument(
            metavar="STACK",
            help="Folder of images whose names end in the focus distance in metres (image_3_0.90.jpg; inf is "
            "allowed), or a stack.yaml.",
        ),
    ],
    out: Annotated[
        Optional[Path],
        typer.Option("--out", help="Folder for the results.  [default: out/<name of the stack>]"),
    ] = None,
    model: Annotated[str, typer.Option("--model", help="Depth model, by its name.")] = "sweepnet",
    weights: Annotated[
        Optional[str],
        typer.Option(
            "--weights",
            metavar="NAME|FILE",
            help="Weights of the model: an installed name, or a file.  [default: the first installed for it]",
        ),
    ] = None,
    device: Annotated[
        str, typer.Option("--device", help="Where the model runs: auto, cpu, cuda, cuda:1 ...")
    ] = "auto",
    precision: Annotated[
        str,
        typer.Option(
            "--precision",
            help="Arithmetic of models with weights: float32, or faster and less exact int8 (cpu), bfloat16, "
            "float16 (cuda).",
        ),
    ] = "float32",
    engine: Annotated[str, typer.Option("--engine", help=ENGINE_HELP)] = "auto",
    prior: Prior = "none",
    prior_weights: PriorWeights = None,
    parameter: EstimatorAssignments = None,
    fov_deg: Annotated[
        float,
        typer.Option(
            "--fov-deg",
            min=1.0,
            max=170.0,
            help="Horizontal field of view [degrees] for the point cloud, where the stack has no intrinsics.",
        ),
    ] = 65.0,
) -> int:
    """Depth in metres with a sigma per pixel from a focal stack: a folder of images, or a stack.yaml.

    Writes depth.npy and sigma.npy (float32 metres, NaN = no estimate), aif.png (all in focus), depth.png,
    points.ply and summary.json, and prints how well each slice could be aligned.
    """
    from hybriddepth_ros.commands.depth_results import print_summary, summarise, write_results
    from hybriddepth_ros.estimator import EstimatorOptions, load_estimator
    from hybriddepth_ros.focal_stack import FocalStack
    from hybriddepth_ros.models.prior import check_prior

    options = from_mapping(EstimatorOptions, parse_assignments(parameter or ()), where="-p")
    check_model(model, device, weights or "", precision, engine)
    check_prior(prior, model, prior_weights or "")
    out = out or Path("out") / stack.resolve().name.removesuffix(".yaml")
    with OutputFolder(out, FILES) as folder:  # refused here rather than after the computation
        focal_stack = FocalStack.load(stack)  # and a stack that cannot be used, before weights are read
        estimator = load_estimator(
            model, device, options, weights or "", precision, prior, prior_weights or "", engine
        )
        began = time.perf_counter()
        estimate = estimator(focal_stack)
        elapsed_ms = (time.perf_counter() - began) * 1e3
        summary = summarise(focal_stack, estimate, estimator, elapsed_ms)
        write_results(folder, estimate, summary, fov_deg)
    print_summary(focal_stack, estimate, summary, out)
    return 0
