"""The whole graph in one process: what depth.launch.py starts, for where there is no `ros2 launch`."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any

from rclpy.context import Context
from rclpy.parameter import Parameter

from hybriddepth_ros.errors import HybridDepthError, ParameterError
from hybriddepth_ros.parameters import check_value, nearest_name
from hybriddepth_ros.ros.dds import set_dds_profile
from hybriddepth_ros.ros.depth_node import DepthNode
from hybriddepth_ros.ros.focus_sweep_node import FocusSweepNode
from hybriddepth_ros.ros.lifecycle import ManagedNode
from hybriddepth_ros.ros.local_slices import LocalSlices
from hybriddepth_ros.ros.params_file import ROS_OWN, check_params_file, check_together, known_parameters
from hybriddepth_ros.ros.schema import NODES
from hybriddepth_ros.ros.spin import Spinner, refusals_of_ros, share_interpreter


class DepthGraph:
    """`focus_sweep` and `depth`, active and spinning in the background while the context is entered.

    params_file: as `check_params_file` takes it; overrides: node -> parameter -> value, stronger than the
    file. with_camera: False leaves `focus_sweep` out, for slices that come from elsewhere. Signal handling is
    the caller's: an event that a handler sets ends `start` (KeyboardInterrupt) and `wait`. Errors of the
    user's making are HybridDepthError.
    """

    def __init__(
        self,
        params_file: str | Path | None = None,
        overrides: Mapping[str, Mapping[str, Any]] | None = None,
        namespace: str = "focus_camera",
        stop_event: threading.Event | None = None,
        with_camera: bool = True,
    ) -> None:
        self._with_camera = with_camera
        self._stop_event = stop_event or threading.Event()
        self._namespace = namespace.strip("/")
        self._parameters: dict[str, dict[str, Any]] = {node: {} for node in NODES}
        if params_file is not None:
            for node, values in check_params_file(params_file, self._namespace).items():
                self._parameters[node].update(values)
        for node, given in (overrides or {}).items():
            checked = _checked(node, given)
            self._parameters[node].update(checked)
            check_together(node, self._parameters[node], "parameters")
        self.context = Context()
        self.focus_sweep: FocusSweepNode
        self.depth: DepthNode
        self._spinner: Spinner | None = None
        self._closed = False

    def __enter__(self) -> DepthGraph:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Start ROS, make, configure and activate both nodes; HybridDepthError with a node's reason."""
        set_dds_profile()
        share_interpreter()
        try:
            with refusals_of_ros():
                self.context.init(args=[])
                nodes: list[ManagedNode] = []
                slices = LocalSlices() if self._with_camera else None
                if self._with_camera:
                    self.focus_sweep = FocusSweepNode(slices, **self._node_arguments("focus_sweep"))
                    nodes.append(self.focus_sweep)
                self.depth = DepthNode(slices, **self._node_arguments("depth"))
            self._spinner = Spinner([*nodes, self.depth], self.context)
            self._start_node(self.depth)  # first: it is to see the first sweep
            for node in nodes:
                self._start_node(node)
        except BaseException:
            self.close()
            raise

    def _start_node(self, node: ManagedNode) -> None:
        """In a thread, so that a Ctrl-C need not wait for a model to load or a camera to open."""
        outcome: Future[None] = Future()

        def run() -> None:
            try:
                node.start()
                outcome.set_result(None)
            except BaseException as error:
                outcome.set_exception(error)

        threading.Thread(target=run, name=f"start_{node.get_name()}", daemon=True).start()
        while not self._stop_event.is_set():
            try:
                return outcome.result(0.05)
            except TimeoutError:
                if outcome.done():
                    raise
        raise KeyboardInterrupt

    def wait(self, stop_event: threading.Event | None = None, timeout: float | None = None) -> bool:
        """Block until the event is set (True), `timeout` [s] is over or ROS was shut down (False)."""
        stop_event = stop_event or self._stop_event
        end = None if timeout is None else time.monotonic() + timeout
        while self.context.ok():
            left = 0.2 if end is None else min(0.2, end - time.monotonic())
            if stop_event.wait(max(left, 0.0)):
                return True
            if end is not None and time.monotonic() >= end:
                return False
        return False

    def close(self) -> None:
        """Stop and destroy everything, within two seconds; safe to call again."""
        if self._closed:
            return
        self._closed = True
        if self._spinner is None:
            self.context.try_shutdown()
            return
        self._spinner.close()
        self.context = Context()  # which is not ok; a destroyed one raises when it is asked
        self._spinner.close_context()

    def _node_arguments(self, node: str) -> dict[str, Any]:
        overrides = [
            Parameter(name, value=list(value) if isinstance(value, tuple) else value)
            for name, value in self._parameters[node].items()
        ]
        return {
            "context": self.context,
            "namespace": self._namespace,
            "parameter_overrides": overrides,
            "use_global_arguments": False,
        }


def _checked(node: str, values: Mapping[str, Any]) -> dict[str, Any]:
    if node not in NODES:
        raise ParameterError(
            f"unknown node {node!r}, expected one of {', '.join(NODES)}{nearest_name(node, NODES)}"
        )
    known = known_parameters(node) | {name: (False, info) for name, info in ROS_OWN.items()}
    checked = {}
    for name, value in values.items():
        if name not in known:
            raise ParameterError(f"{node}: unknown parameter {name!r}{nearest_name(name, known)}")
        try:
            checked[name] = check_value(name, *known[name], value)
        except ParameterError as error:
            raise ParameterError(f"{node}: {error}") from None
    return checked


__all__ = ["DepthGraph", "HybridDepthError", "check_params_file", "set_dds_profile"]
