"""Time that ROS costs per 480x640 estimate: taking five slices in, sending six outputs to another process.

.venv/bin/python benchmarks/ros_overhead.py
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
os.environ.setdefault("ROS_DOMAIN_ID", str(random.SystemRandom().randint(1, 100)))

import numpy as np
from measure import copy_ms, median_ms, report, result
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from hybriddepth_msgs.msg import FocusState
from hybriddepth_ros.estimator import DepthEstimate
from hybriddepth_ros.focal_stack import CameraIntrinsics
from hybriddepth_ros.point_cloud import PointCloudOptions, PointCloudProjector
from hybriddepth_ros.registration import Registration
from hybriddepth_ros.ros import messages
from hybriddepth_ros.ros.dds import set_dds_profile
from hybriddepth_ros.ros.depth_node import DepthNode
from hybriddepth_ros.ros.depth_outputs import TOPICS

HEIGHT, WIDTH, SLICES = 480, 640, 5


def subscribe_to_all() -> None:
    """The other process: takes every output until it is ended."""
    context = Context()
    context.init(args=[])
    node = Node("benchmark_subscriber", context=context)
    for topic, kind in TOPICS.items():
        node.create_subscription(kind, topic, lambda message: None, 5)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    executor.spin()


def main() -> None:
    set_dds_profile()
    generator = np.random.default_rng(0)
    camera = CameraIntrinsics(600.0, 600.0, 319.5, 239.5, WIDTH, HEIGHT)
    image = generator.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    depth = generator.uniform(0.3, 3.0, (HEIGHT, WIDTH)).astype(np.float32)
    depth[generator.random((HEIGHT, WIDTH)) < 0.2] = np.nan
    header = messages.make_header(time.time_ns(), "optical")
    estimate = DepthEstimate(
        depth, depth * np.float32(0.02), image, Registration.identity(SLICES, 2), camera, time.time_ns()
    )
    slices = [
        messages.slice_message(image, camera, FocusState(header=header, focus_diopters=0.5 + 0.5 * index))
        for index in range(SLICES)
    ]
    projector = PointCloudProjector()
    cloud = projector(depth, estimate.sigma, image, camera)

    context = Context()
    context.init(args=[])
    node = DepthNode(context=context)
    node.start()
    outputs = node._outputs
    assert outputs is not None
    other = subprocess.Popen([sys.executable, __file__, "--subscriber"])
    try:
        while not all(outputs.wanted(topic) for topic in TOPICS):
            time.sleep(0.05)
        time.sleep(0.5)

        def publish() -> None:
            outputs.publish(estimate, "optical", "32FC1", PointCloudOptions())

        spent = []
        for _ in range(60):  # at the pace of a camera, so that the subscriber is not what is measured
            start, start_cpu = time.perf_counter(), time.thread_time()
            publish()
            spent.append((time.perf_counter() - start, time.thread_time() - start_cpu))
            time.sleep(0.1)
        publish_ms, publish_cpu_ms = np.median(spent[5:], axis=0) * 1e3
        in_ms = median_ms(lambda: messages.stack_of(slices))
        rows = {
            "project_cloud": (
                median_ms(lambda: projector(depth, estimate.sigma, image, camera)),
                cloud.nbytes,
            ),
            "cloud_message": (median_ms(lambda: messages.cloud_message(cloud, header)), cloud.nbytes),
            "depth_message": (
                median_ms(lambda: messages.depth_message(depth, "32FC1", header)),
                depth.nbytes,
            ),
            "rgb_message": (median_ms(lambda: messages.picture_message(image, header)), image.nbytes),
            "five_slices_in": (in_ms, SLICES * image.nbytes),
        }
        size = 2 * depth.nbytes + image.nbytes + cloud.nbytes
        baseline = copy_ms(size)
        results = [
            result("convert_and_publish_all_outputs", float(publish_ms), baseline),
            result("convert_and_publish_all_outputs/own_cpu_time", float(publish_cpu_ms), baseline),
        ]
        results += [result(name, value, copy_ms(nbytes)) for name, (value, nbytes) in rows.items()]
        report(results)
    finally:
        other.terminate()
        other.wait()
        node.destroy_node()
        context.try_shutdown()


if __name__ == "__main__":
    subscribe_to_all() if "--subscriber" in sys.argv else main()
