"""What one update costs beside the model: one slice in, its registration, depth, sigma, rgb and a cloud out.

As this package does it, or as a plain node does it with cv_bridge and sensor_msgs_py. Run as a process by
bench_graph: `python -m hybriddepth_ros.ros.bench_overhead ours|plain RUNS`; prints the times [ms] as JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np
import numpy.typing as npt
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import Image, PointCloud2, PointField

from hybriddepth_msgs.msg import FocalSlice, FocusState
from hybriddepth_ros.bench.scenes import endless, made_slices
from hybriddepth_ros.estimator import DepthEstimate, EstimatorOptions, register_stack
from hybriddepth_ros.focal_stack import FocalStack
from hybriddepth_ros.point_cloud import PointCloudOptions
from hybriddepth_ros.registration import Registration
from hybriddepth_ros.ros.dds import set_dds_profile
from hybriddepth_ros.ros.depth_outputs import DepthOutputs
from hybriddepth_ros.ros.lifecycle import ManagedNode
from hybriddepth_ros.ros.messages import focal_slice, make_header, slice_message
from hybriddepth_ros.slice_windows import RollingWindows

WIDTH, HEIGHT, SLICES = 640, 480, 5
OUTPUTS: dict[str, type] = {
    "depth/image_rect": Image,
    "depth/uncertainty": Image,
    "rgb/image_rect": Image,
    "depth/points": PointCloud2,
}
PAUSE_S = 0.1  # the pace of a camera, so that the subscriber is not what is measured
Work = Callable[[], object]


def main(kind: str, runs: int) -> None:
    """Times `runs` updates; a process of its own takes what is sent."""
    if kind == "ours":
        set_dds_profile()
    context = Context()
    context.init(args=[])
    with ExitStack() as stack:
        stack.callback(context.try_shutdown)
        subscriber = subprocess.Popen([sys.executable, "-m", __spec__.name, "subscriber", "0"])
        stack.callback(subscriber.wait)
        stack.callback(subscriber.terminate)
        estimate = made_estimate()
        make = our_update if kind == "ours" else plain_update
        receive, publish, ready = make(context, stack, estimate)
        while not ready():
            time.sleep(0.05)
        time.sleep(0.5)
        register = registering_one() if kind == "ours" else registering_all()
        print(json.dumps(_timed({"receive": receive, "register": register, "publish": publish}, runs)))


def _timed(parts: Mapping[str, Work], runs: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in parts}
    warm_up = 2 * SLICES
    for n in range(warm_up + runs):
        for name, work in parts.items():
            start = time.perf_counter()
            work()
            if n >= warm_up:
                times[name].append((time.perf_counter() - start) * 1e3)
        time.sleep(PAUSE_S)
    return times


def made_estimate() -> DepthEstimate:
    """Of a slope, with holes, in the present."""
    generator = np.random.default_rng(0)
    newest = made_slices(WIDTH, HEIGHT, SLICES)[-1]
    depth = 1.0 / np.linspace(0.5, 2.3, HEIGHT, dtype=np.float32)[:, None].repeat(WIDTH, 1)
    depth[generator.random(depth.shape) < 0.2] = np.nan
    registration = Registration.identity(SLICES, SLICES - 1)
    return DepthEstimate(
        depth, depth * np.float32(0.02), lambda: newest.image, registration, newest.camera, time.time_ns()
    )


def registering_one() -> Work:
    """Registration of a new slice to one of those that are kept."""
    coming, windows = endless(made_slices(WIDTH, HEIGHT, SLICES)), RollingWindows(EstimatorOptions)
    return lambda: windows.add(next(coming), SLICES)


def registering_all() -> Work:
    """Registration of the newest slices to the last, by the same means."""
    coming, options = endless(made_slices(WIDTH, HEIGHT, SLICES)), EstimatorOptions()
    recent = deque((next(coming) for _ in range(SLICES)), maxlen=SLICES)

    def register() -> None:
        recent.append(next(coming))
        register_stack(FocalStack(tuple(recent)), SLICES - 1, options)

    return register


def received_bytes() -> bytes:
    """A slice as it comes out of the middleware."""
    made = made_slices(WIDTH, HEIGHT, SLICES)[0]
    assert made.camera is not None
    focus = FocusState(header=make_header(1, "optical"), slice_count=SLICES, focus_diopters=1.0, settled=True)
    return bytes(serialize_message(slice_message(made.image, made.camera, focus)))


# -- as this package does it


class _OutputsNode(ManagedNode):
    """The depth node's outputs without its model."""

    outputs: DepthOutputs

    def configure(self, resources: ExitStack) -> None:
        self.outputs = DepthOutputs(self, resources, 5)

    def activate(self, resources: ExitStack) -> None:
        pass

    def status(self) -> tuple[bytes, str, Mapping[str, Any]]:
        return DiagnosticStatus.OK, "", {}


def our_update(
    context: Context, stack: ExitStack, estimate: DepthEstimate
) -> tuple[Work, Work, Callable[[], bool]]:
    """(receive, publish, whether somebody listens to all)."""
    node = _OutputsNode("depth", context=context, namespace="/hybriddepth_overhead")
    stack.callback(node.destroy_node)
    node.start()
    received = received_bytes()
    return (
        lambda: focal_slice(deserialize_message(received, FocalSlice)),
        lambda: node.outputs.publish(estimate, "optical", "32FC1", PointCloudOptions()),
        lambda: all(node.outputs.wanted(topic) for topic in OUTPUTS),
    )


# -- as a plain node does it


def plain_update(
    context: Context, stack: ExitStack, estimate: DepthEstimate
) -> tuple[Work, Work, Callable[[], bool]]:
    """(receive, publish, whether somebody listens to all)."""
    from cv_bridge import CvBridge

    node = Node("plain", context=context, namespace="/hybriddepth_overhead")
    stack.callback(node.destroy_node)
    bridge = CvBridge()
    publishers = {topic: node.create_publisher(kind, topic, 5) for topic, kind in OUTPUTS.items()}
    received = received_bytes()

    def publish() -> None:
        header = make_header(estimate.stamp_ns, "optical")
        depth = bridge.cv2_to_imgmsg(estimate.depth, encoding="32FC1", header=header)
        publishers["depth/image_rect"].publish(depth)
        sigma = bridge.cv2_to_imgmsg(estimate.sigma, encoding="32FC1", header=header)
        publishers["depth/uncertainty"].publish(sigma)
        rgb = bridge.cv2_to_imgmsg(estimate.all_in_focus, encoding="rgb8", header=header)
        publishers["rgb/image_rect"].publish(rgb)
        publishers["depth/points"].publish(plain_cloud(estimate, header))

    return (
        lambda: bridge.imgmsg_to_cv2(deserialize_message(received, FocalSlice).image, "rgb8"),
        publish,
        lambda: all(publisher.get_subscription_count() for publisher in publishers.values()),
    )


def plain_cloud(estimate: DepthEstimate, header: Any) -> PointCloud2:
    """x y z rgb sigma of every pixel, by numpy and create_cloud."""
    from sensor_msgs_py.point_cloud2 import create_cloud

    camera, depth = estimate.camera, estimate.depth
    assert camera is not None
    rows, columns = np.indices(depth.shape)
    x = (columns - camera.cx) / camera.fx * depth
    y = (rows - camera.cy) / camera.fy * depth
    colours = estimate.all_in_focus.astype(np.uint32)
    packed = (colours[..., 0] << 16) | (colours[..., 1] << 8) | colours[..., 2]
    columns_of: list[npt.NDArray[Any]] = [x, y, depth, packed.view(np.float32), estimate.sigma]
    points = np.stack([values.ravel() for values in columns_of], axis=1).astype(np.float32)  # [N, 5]
    fields = [
        PointField(name=name, offset=4 * place, datatype=PointField.FLOAT32, count=1)
        for place, name in enumerate(("x", "y", "z", "rgb", "sigma"))
    ]
    return create_cloud(header, fields, points)


# -- the other process


def subscribe_to_all() -> None:
    """Takes every output until it is ended."""
    context = Context()
    context.init(args=[])
    node = Node("subscriber", context=context, namespace="/hybriddepth_overhead")
    for topic, kind in OUTPUTS.items():
        node.create_subscription(kind, topic, lambda message: None, 5)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    executor.spin()


if __name__ == "__main__":
    subscribe_to_all() if sys.argv[1] == "subscriber" else main(sys.argv[1], int(sys.argv[2]))
