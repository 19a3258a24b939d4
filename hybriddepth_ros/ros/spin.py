"""Running nodes: an executor that outlives a callback's exception, and the `main` that both nodes share."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from rclpy import create_node
from rclpy.context import Context
from rclpy.exceptions import NameValidationException, ParameterException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.logging import get_logger
from rclpy.node import Node

from hybriddepth_ros.errors import HybridDepthError, ParameterError
from hybriddepth_ros.leaving import leave
from hybriddepth_ros.ros.dds import set_dds_profile
from hybriddepth_ros.ros.diagnostics import LogThrottle
from hybriddepth_ros.ros.lifecycle import ManagedNode
from hybriddepth_ros.shared_cores import share_cores

CLOSE_TIMEOUT_S = (
    1.5  # a Ctrl-C is to be over within two seconds, even if a model is in the middle of an estimate
)


class Spinner:
    """Nodes in an executor in a background thread; `close` stops and destroys them, once.

    One thread is enough, as no callback takes long: services work in threads of their own and are awaited.
    rclpy's MultiThreadedExecutor hands every message to another thread. Until that has taken it, the
    middleware says at once that there is something to do, and the thread that spins finds nothing and asks
    again: with large messages it held the interpreter for as long as the estimates did.
    """

    def __init__(self, nodes: Sequence[ManagedNode], context: Context) -> None:
        self._nodes = list(nodes)
        self._context = context
        self._executor = SingleThreadedExecutor(context=context)
        for node in self._nodes:
            self._executor.add_node(node)
        self._closing = threading.Event()
        self._destroyed = False
        self._throttle = LogThrottle()
        self._close_lock = threading.Lock()
        self._thread = threading.Thread(target=self._spin, name="executor", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Within two seconds; safe to call again, from any thread."""
        with self._close_lock:
            if self._closing.is_set():
                return
            deadline = time.monotonic() + CLOSE_TIMEOUT_S
            stopping = threading.Thread(target=self._stop_nodes, name="stop_nodes", daemon=True)
            stopping.start()
            stopping.join(CLOSE_TIMEOUT_S)
            self._closing.set()
            self._executor.shutdown(max(deadline - time.monotonic(), 0.0))
            self._thread.join(max(deadline - time.monotonic(), 0.2))
            if not stopping.is_alive() and not self._thread.is_alive():
                for node in self._nodes:
                    node.destroy_node()
                self._destroyed = True

    def close_context(self) -> None:
        """Shut the context down, which must be of these nodes alone, and give back what it shares on this
        machine, 70 MB, even if a thread goes on with an estimate; after `close`.
        """
        self._context.try_shutdown()
        if self._destroyed:
            self._context.destroy()

    def _stop_nodes(self) -> None:
        for node in self._nodes:
            try:
                node.stop()
            except Exception as error:
                node.get_logger().warning(f"while stopping: {error}")

    def _spin(self) -> None:
        while self._context.ok() and not self._closing.is_set():
            try:
                self._executor.spin_once()
            except ExternalShutdownException:
                return
            except Exception as error:
                if self._closing.is_set() or not self._context.ok():
                    return
                # also an entity that was destroyed between being ready and being taken (InvalidHandle)
                line = self._throttle.pass_through(type(error).__name__, f"{type(error).__name__}: {error}")
                if line:
                    get_logger("hybriddepth_ros").warning(f"a callback raised {line}")


@contextlib.contextmanager
def refusals_of_ros() -> Iterator[None]:
    """What ROS itself refuses of arguments, names and its own parameters, as a ParameterError of one line."""
    try:
        yield
    except (ParameterException, NameValidationException, RuntimeError) as error:  # RCLError is a RuntimeError
        raise ParameterError(" ".join(str(error).split())) from error


@contextlib.contextmanager
def spinning_node(name: str) -> Iterator[Node]:
    """A node with a context and a thread of its own, so that it and the graph do not wait for one another."""
    context = Context()
    context.init(args=[])
    node = create_node(name, context=context, use_global_arguments=False, start_parameter_services=False)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)

    def spin() -> None:
        with contextlib.suppress(ExternalShutdownException):
            executor.spin()

    thread = threading.Thread(target=spin, name=name, daemon=True)
    thread.start()
    try:
        yield node
    finally:
        executor.shutdown(timeout_sec=0.5)
        thread.join(0.5)
        node.destroy_node()
        context.try_shutdown()


def share_interpreter() -> None:
    """Let threads wait 0.5 ms for the interpreter, not 5: the steps of an estimate are shorter than that, and
    each would wait so long for a thread that converts messages.
    """
    sys.setswitchinterval(0.0005)


def run_node(make_node: Callable[..., ManagedNode], arguments: Sequence[str] | None = None) -> int:
    """Spin one node, as `run_nodes` does."""
    return run_nodes(lambda context: [make_node(context=context)], arguments)


def run_nodes(
    make_nodes: Callable[[Context], list[ManagedNode]],
    arguments: Sequence[str] | None = None,
    autostart: bool = False,
) -> int:
    """Spin nodes until SIGINT or SIGTERM; the exit code, or the end of the process where a thread is still at
    work. A second Ctrl-C, as `ros2 launch` sends, changes nothing.

    autostart: configure and activate all of them, in this order, and not only those that say so themselves.
    """
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    set_dds_profile()
    share_cores()
    share_interpreter()
    context = Context()
    try:
        with refusals_of_ros():
            context.init(args=list(sys.argv if arguments is None else arguments))
            nodes = make_nodes(context)
    except HybridDepthError as error:
        context.try_shutdown()
        print(" ".join(str(error).split()), file=sys.stderr)
        return 2
    spinner = Spinner(nodes, context)
    started = [node for node in nodes if autostart or node.autostart]
    threading.Thread(target=_autostart, args=(started,), name="autostart", daemon=True).start()
    while not stop.wait(0.5) and context.ok():
        pass
    spinner.close()
    spinner.close_context()
    # Python's exit puts the default handlers back, and a late second Ctrl-C would end it by signal
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    return leave(0)


def _autostart(nodes: list[ManagedNode]) -> None:
    for node in nodes:
        # the transition has logged it; a camera that comes later can be configured by hand
        with contextlib.suppress(HybridDepthError):
            node.start()
