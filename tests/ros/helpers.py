"""What the tests of the nodes share: a peer on the graph, slices to send, an estimator that obeys."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from hybriddepth_msgs.msg import CompressedFocalSlice, FocusState
from hybriddepth_msgs.msg import FocalSlice as FocalSliceMessage
from hybriddepth_ros.estimator import DepthEstimate, EstimatorOptions
from hybriddepth_ros.focal_stack import CameraIntrinsics, FocalStack
from hybriddepth_ros.registration import Registration
from hybriddepth_ros.ros.lifecycle import ManagedNode
from hybriddepth_ros.ros.messages import compressed_slice_message, make_header, slice_message
from hybriddepth_ros.ros.spin import Spinner

NAMESPACE = "focus_camera"
FRAME = "focus_camera_optical_frame"
WIDTH, HEIGHT = 32, 24
CAMERA = CameraIntrinsics(30.0, 30.0, 15.5, 11.5, WIDTH, HEIGHT)


def wait_for(condition: Callable[[], Any], timeout_s: float = 10.0) -> Any:
    """The first true value of `condition`, or its last false one; generous, for machines that are busy."""
    end = time.monotonic() + timeout_s
    while not (value := condition()) and time.monotonic() < end:
        time.sleep(0.01)
    return value


class Peer:
    """A plain node with its own executor thread, as another process would be."""

    def __init__(self, context: Context) -> None:
        self.node = Node("peer", context=context, use_global_arguments=False, start_parameter_services=False)
        self._executor = SingleThreadedExecutor(context=context)
        self._executor.add_node(self.node)
        self._closing = False
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        while not self._closing and self.node.context.ok():
            self._executor.spin_once(0.2)

    def listen(self, kind: type, topic: str, qos: Any = 50) -> list[Any]:
        """What arrives on a topic of the namespace, as it arrives."""
        received: list[Any] = []
        full = topic if topic.startswith("/") else f"/{NAMESPACE}/{topic}"
        self.node.create_subscription(kind, full, received.append, qos)
        return received

    def publisher(self, kind: type, topic: str, qos: Any = 50) -> Any:
        return self.node.create_publisher(kind, f"/{NAMESPACE}/{topic}", qos)

    def call_async(self, kind: type, name: str, request: Any) -> Any:
        client = self.node.create_client(kind, f"/{NAMESPACE}/{name}")
        assert client.wait_for_service(10.0), name
        return client.call_async(request)

    def call(self, kind: type, name: str, request: Any, timeout_s: float = 20.0) -> Any:
        future = self.call_async(kind, name, request)
        assert wait_for(future.done, timeout_s), f"{name} did not answer"
        return future.result()

    def diagnostics(self, node: str) -> Callable[[], Any]:
        """A function that gives the newest status of a node, or None."""
        received = self.listen(DiagnosticArray, "/diagnostics")

        def newest() -> Any:
            matching = [s for array in received for s in array.status if s.name == f"{NAMESPACE}/{node}"]
            return matching[-1] if matching else None

        return newest

    def close(self) -> None:
        self._closing = True
        self._thread.join(5.0)
        self._executor.shutdown()
        self.node.destroy_node()


class Running:
    """A managed node in a spinner, closed at the end of the `with` block."""

    def __init__(self, make: Callable[..., ManagedNode], context: Context, **arguments: Any) -> None:
        self.node: Any = make(context=context, namespace=NAMESPACE, use_global_arguments=False, **arguments)
        self._spinner = Spinner([self.node], context)

    def __enter__(self) -> Any:
        return self.node

    def __exit__(self, *_: object) -> None:
        self._spinner.close()


class FakeEstimator:
    """Depth 1 m but for two pixels; `before` is called ahead of every estimate and may raise or wait."""

    device = "cpu"

    def __init__(self, options: EstimatorOptions | None = None) -> None:
        self.options = options or EstimatorOptions()
        self.stacks: list[FocalStack] = []
        self.before: Callable[[], None] = lambda: None
        self.warmed_up = 0

    def warm_up(self, *, rolling: bool = False) -> None:
        self.warmed_up += 1

    def __call__(self, stack: FocalStack) -> DepthEstimate:
        self.stacks.append(stack)
        self.before()
        image = stack.slices[0].image
        depth = np.full(image.shape[:2], 1.0, np.float32)
        depth[0, 0] = np.nan
        depth[1, 1] = 2.5
        count = len(stack.slices)
        return DepthEstimate(
            depth=depth,
            sigma=(depth * np.float32(0.1)),
            make_all_in_focus=lambda: image,
            registration=Registration.identity(count, count // 2),
            camera=stack.slices[count // 2].camera,
            stamp_ns=stack.slices[count // 2].stamp_ns,
            timings_ms={"fake": 1.0},
        )


def picture(value: int = 0) -> np.ndarray:
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    return np.stack([rows + value, columns, rows * columns % 251], axis=-1).astype(np.uint8)


def make_slice(
    sweep_id: int, index: int, count: int = 3, stamp_ns: int | None = None, focus: float | None = None
) -> FocalSliceMessage:
    stamp_ns = 1_000_000_000 + sweep_id * 100_000_000 + index * 10_000_000 if stamp_ns is None else stamp_ns
    state = FocusState(
        header=make_header(stamp_ns, FRAME),
        sweep_id=sweep_id,
        slice_index=index,
        slice_count=count,
        focus_diopters=0.5 + index if focus is None else focus,
        settled=True,
    )
    return slice_message(picture(index), CAMERA, state)


def make_sweep(sweep_id: int, count: int = 3) -> list[FocalSliceMessage]:
    return [make_slice(sweep_id, index, count) for index in range(count)]


def values_of(status: Any) -> dict[str, str]:
    return {entry.key: entry.value for entry in status.values} if status else {}


def stamps(messages: Sequence[Any]) -> list[tuple[int, int]]:
    return [(m.header.stamp.sec, m.header.stamp.nanosec) for m in messages]


def make_compressed(sweep_id: int, index: int, codec: str = "jpeg", **keys: Any) -> CompressedFocalSlice:
    return compressed_slice_message(picture(index), CAMERA, make_slice(sweep_id, index, **keys).focus, codec)
