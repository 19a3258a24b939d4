"""`hybriddepth train`: trains a model as a config file says, and goes on where a former start ended."""

# ruff: noqa: UP045
# The typer of Ubuntu 24.04 knows neither `X | None` nor annotations that are not evaluated (__future__).

import re
from importlib import import_module
from pathlib import Path
from typing import Annotated, Optional

import typer

from hybriddepth_ros.errors import ModelError, ParameterError

PRECISIONS = ("auto", "32-true", "bf16-mixed", "16-mixed")
TRAINERS = {  # module and function, imported when a model is trained
    "sweepnet": ("sweepnet_training", "train_sweepnet"),
    "hybriddepth": ("published_training", "train_published"),
    "crossdepth": ("published_training", "train_published"),
}


def train(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG", help="A YAML file; those of the package: config/training.")
    ],
    out: Annotated[
        Optional[Path],
        typer.Option("--out", help="Folder of the training.  [default: out/training/<name of CONFIG>]"),
    ] = None,
    devices: Annotated[str, typer.Option("--devices", help="How many GPUs or processes, or auto.")] = "auto",
    nodes: Annotated[int, typer.Option("--nodes", min=1, help="Machines that train together.")] = 1,
    precision: Annotated[
        str,
        typer.Option(
            "--precision", help="auto (bf16-mixed on a GPU, else 32-true), 32-true, bf16-mixed, 16-mixed."
        ),
    ] = "auto",
) -> int:
    """Train a model as CONFIG says.

    Started again with the same --out it goes on from the last checkpoint, with the result that it would have
    had without the interruption. Writes checkpoints/, log/ and, at the end, the weights.
    """
    from hybriddepth_ros.training.config import keep_record, read_config

    if not re.fullmatch(r"auto|[1-9]\d*", devices):
        raise ParameterError(f"--devices {devices}: expected auto or a whole number from 1 up")
    if precision not in PRECISIONS:
        raise ParameterError(f"--precision {precision}: expected one of {', '.join(PRECISIONS)}")
    wanted = read_config(config)
    module, function = TRAINERS[wanted.model]
    try:
        trainer = getattr(import_module(f"hybriddepth_ros.training.{module}"), function)
    except ImportError as error:
        raise ModelError(f"train: a Python package is missing: {error}; pip install lightning") from None
    folder = out or Path("out/training") / config.stem
    keep_record(folder, wanted)
    print(
        f"Training {wanted.model} into {folder}; log/ has its progress, every epoch leaves a checkpoint.",
        flush=True,
    )
    try:
        weights = trainer(wanted.settings, folder, devices, nodes, precision)
    except SystemExit:  # how Lightning ends after Ctrl-C, when all is written
        print(f"Stopped; the same command goes on from {folder / 'checkpoints'}.")
        return 130
    print(f"Trained; the weights are {weights}.")
    return 0
