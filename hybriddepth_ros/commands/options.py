"""Options that several commands have or that are checked here: `-p name:=value` as in ROS, `--device` ..."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Optional

import typer
import yaml

from hybriddepth_ros import models
from hybriddepth_ros.errors import ModelError, ParameterError

EstimatorAssignments = Annotated[
    Optional[list[str]],  # noqa: UP045 - the typer of Ubuntu 24.04 does not know `X | None`
    typer.Option(
        "-p", metavar="NAME:=VALUE", help="An option of the estimator (max_depth:=5); may be repeated."
    ),
]

ENGINE_HELP = (
    "What computes models with weights: auto (the fastest as measured), torch, compile, onnx, openvino "
    "(cpu), tensorrt (cuda)."
)
Prior = Annotated[
    str,
    typer.Option(
        "--prior",
        help="Learned prior that the model's estimate is joined with: none, depth_anything.",
    ),
]
PriorWeights = Annotated[
    Optional[str],  # noqa: UP045 - see above
    typer.Option(
        "--prior-weights",
        metavar="NAME|FILE",
        help="Weights of the prior: an installed name, or a file.  [default: the first installed for it]",
    ),
]


def parse_assignments(texts: Sequence[str]) -> dict[str, Any]:
    """`["max_depth:=5", "register:=false"]` -> `{"max_depth": 5, "register": False}`; values are YAML."""
    values = {}
    for text in texts:
        name, separator, value = text.partition(":=")
        if not separator or not name.strip():
            raise ParameterError(f"-p {text}: expected name:=value")
        try:
            values[name.strip()] = yaml.safe_load(value)
        except (yaml.YAMLError, ValueError):  # ValueError: a date such as 2024-99-99
            raise ParameterError(f"-p {text}: expected a YAML value after :=") from None
    return values


def check_device(device: str) -> str:
    """The device, if the models take it."""
    try:
        models.check_device(device)
    except ModelError as error:
        raise ParameterError(f"--{error}") from None  # it begins with the parameter's name, `device`
    return device


def check_model(model: str, device: str, weights: str, precision: str, engine: str = "auto") -> None:
    """ParameterError for what no weights could mend: told before anything large is read."""
    try:
        models.check_choice(model, device, weights, precision, engine)
    except ModelError as error:
        raise ParameterError(f"--{error}") from None


def check_namespace(namespace: str) -> str:
    """The namespace, if ROS takes it: names joined by slashes, or none."""
    if not re.fullmatch(r"/?|/?[A-Za-z_]\w*(/[A-Za-z_]\w*)*/?", namespace, re.ASCII):
        raise ParameterError(f"--namespace {namespace}: expected letters, digits, _ and /, no digit first")
    return namespace


def by_node(assignments: dict[str, Any], nodes: Sequence[str]) -> dict[str, dict[str, Any]]:
    """`{"depth.model": "classical"}` -> `{"depth": {"model": "classical"}, ...}`, an entry for each node."""
    result: dict[str, dict[str, Any]] = {node: {} for node in nodes}
    for name, value in assignments.items():
        node, _, parameter = name.partition(".")
        if node not in result or not parameter:
            expected = " or ".join(f"{node}.<parameter>" for node in nodes)
            raise ParameterError(f"-p {name}: expected {expected}")
        result[node][parameter] = value
    return result
