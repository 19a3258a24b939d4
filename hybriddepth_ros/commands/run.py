"""`hybriddepth run`: the graph that depth.launch.py starts, in this process."""

# ruff: noqa: UP045
# The typer of Ubuntu 24.04 knows neither `X | None` nor annotations that are not evaluated (__future__).

import contextlib
import signal
import time
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from hybriddepth_ros.commands.options import (
    ENGINE_HELP,
    by_node,
    check_device,
    check_namespace,
    parse_assignments,
)
from hybriddepth_ros.commands.status import StatusLine, describe
from hybriddepth_ros.commands.stopping import stop_on_signals
from hybriddepth_ros.errors import ParameterError
from hybriddepth_ros.ros.dds import check_environment


def run(
    params_file: Annotated[
        Optional[Path],
        typer.Option("--params-file", help="ROS parameter file of both nodes, such as config/depth.yaml."),
    ] = None,
    camera: Annotated[
        Optional[str], typer.Option("--camera", help="Camera to open, by its driver's name.")
    ] = None,
    stack: Annotated[
        Optional[Path],
        typer.Option("--stack", metavar="STACK", help="Replay this focal stack as the camera."),
    ] = None,
    model: Annotated[Optional[str], typer.Option("--model", help="Depth model, by its name.")] = None,
    weights: Annotated[
        Optional[str],
        typer.Option(
            "--weights",
            metavar="NAME|FILE",
            help="Weights of the model: an installed name, or a file.  [default: the first installed for it]",
        ),
    ] = None,
    device: Annotated[
        Optional[str], typer.Option("--device", help="Where the model runs: auto, cpu, cuda, cuda:1 ...")
    ] = None,
    precision: Annotated[
        Optional[str],
        typer.Option(
            "--precision",
            help="Arithmetic of models with weights: float32, or faster and less exact int8 (cpu), bfloat16, "
            "float16 (cuda).",
        ),
    ] = None,
    engine: Annotated[Optional[str], typer.Option("--engine", help=ENGINE_HELP)] = None,
    namespace: Annotated[str, typer.Option("--namespace", help="Namespace of both nodes.")] = "focus_camera",
    seconds: Annotated[
        Optional[float],
        typer.Option("--seconds", min=0.0, help="Stop after so many seconds.  [default: Ctrl-C]"),
    ] = None,
    parameter: Annotated[
        Optional[list[str]],
        typer.Option(
            "-p",
            metavar="NODE.NAME:=VALUE",
            help="A parameter (depth.max_depth:=5, focus_sweep.simulated.seed:=3), stronger than the file; "
            "may be repeated.",
        ),
    ] = None,
) -> int:
    """Run the focus_sweep and depth nodes in this process, without ros2 launch.

    ROS_DOMAIN_ID and the discovery settings of the environment hold. Ends with Ctrl-C, or after --seconds.
    """
    with stop_on_signals() as stop:
        overrides = _overrides(camera, stack, model, weights, device, precision, engine, parameter)
        check_environment()
        from hybriddepth_ros.ros.graph import DepthGraph
        from hybriddepth_ros.ros.quiet import quiet_start

        graph = DepthGraph(params_file, overrides, check_namespace(namespace), stop_event=stop.event)
        with contextlib.closing(graph), StatusLine() as status:
            status.show("starting the camera and the model ...")
            with quiet_start(namespace):
                graph.start()
            if graph.depth.replaced:
                status.tell(f"warning: {graph.depth.replaced}")
            status.rest(after_s=1.0)
            end = None if seconds is None else time.monotonic() + seconds
            while not stop and graph.context.ok():
                if end is not None and time.monotonic() >= end:
                    break
                graph.wait(timeout=0.2)
                if status.due:
                    status.show(describe(graph))
            status.show(describe(graph))
        # SIGTERM is how a service manager ends what is to run for ever: no failure
        return 0 if stop.signal_number == signal.SIGTERM else stop.exit_code


def _overrides(
    camera: str | None,
    stack: Path | None,
    model: str | None,
    weights: str | None,
    device: str | None,
    precision: str | None,
    engine: str | None,
    parameter: list[str] | None,
) -> dict[str, dict[str, Any]]:
    """Node -> parameter -> value; `-p` is stronger than the other options."""
    overrides: dict[str, dict[str, Any]] = {"focus_sweep": {}, "depth": {}}
    if stack is not None:
        if camera not in (None, "replay"):
            raise ParameterError(f"--stack: expected the camera replay, got --camera {camera}")
        overrides["focus_sweep"] = {"camera": camera or "replay", "replay.stack": str(stack)}
    elif camera is not None:
        overrides["focus_sweep"]["camera"] = camera
    if model is not None:
        overrides["depth"]["model"] = model
    if weights is not None:
        overrides["depth"]["weights"] = weights
    if device is not None:
        overrides["depth"]["device"] = check_device(device)
    if precision is not None:
        overrides["depth"]["precision"] = precision
    if engine is not None:
        overrides["depth"]["engine"] = engine
    for node, values in by_node(parse_assignments(parameter or ()), tuple(overrides)).items():
        overrides[node] |= values
    return overrides
