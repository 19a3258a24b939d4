"""What the depth node publishes and saves of one estimate."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Float32MultiArray

from hybriddepth_ros.adaptive_sweep import demand_of
from hybriddepth_ros.errors import OutputError
from hybriddepth_ros.estimator import DepthEstimate
from hybriddepth_ros.point_cloud import PointCloudOptions, PointCloudProjector, project, write_ply
from hybriddepth_ros.ros.lifecycle import ManagedNode
from hybriddepth_ros.ros.messages import (
    Bytes,
    camera_info_message,
    cloud_message,
    demand_message,
    depth_message,
    image_message,
    make_header,
)

TOPICS: dict[str, type] = {
    "depth/image_rect": Image,
    "depth/uncertainty": Image,
    "depth/camera_info": CameraInfo,
    "rgb/image_rect": Image,
    "rgb/camera_info": CameraInfo,
    "depth/points": PointCloud2,
    "focus_demand": Float32MultiArray,
}


class DepthOutputs:
    """The publishers, each of which converts only what somebody subscribes to."""

    def __init__(self, node: ManagedNode, resources: ExitStack, queue_size: int) -> None:
        self._node = node
        self._publishers = {
            topic: node.publisher(resources, kind, topic, queue_size) for topic, kind in TOPICS.items()
        }
        self._projector = PointCloudProjector()
        self._used: dict[str, Bytes] = {}

    def wanted(self, topic: str) -> bool:
        return self._publishers[topic].get_subscription_count() > 0

    def any_wanted(self) -> bool:
        return any(self.wanted(topic) for topic in TOPICS)

    def publish(
        self, estimate: DepthEstimate, frame_id: str, depth_encoding: str, points: PointCloudOptions
    ) -> None:
        """All messages that have a header carry that of the reference slice."""
        header = make_header(estimate.stamp_ns, frame_id)
        messages: dict[str, Any] = {}
        used = self._used
        if self.wanted(topic := "depth/image_rect"):
            messages[topic] = depth_message(estimate.depth, depth_encoding, header, used.get(topic))
        if self.wanted(topic := "depth/uncertainty"):
            messages[topic] = image_message(estimate.sigma, "32FC1", header, used.get(topic))
        if self.wanted(topic := "rgb/image_rect"):
            messages[topic] = image_message(estimate.all_in_focus, "rgb8", header, used.get(topic))
        if estimate.camera is not None:
            for topic in ("depth/camera_info", "rgb/camera_info"):
                if self.wanted(topic):
                    messages[topic] = camera_info_message(estimate.camera, header)
            if self.wanted(topic := "depth/points"):
                cloud = self._projector(
                    estimate.depth,
                    estimate.sigma,
                    estimate.all_in_focus,
                    estimate.camera,
                    points,
                    used.get(topic),
                )
                messages[topic] = cloud_message(cloud, header, used.get(topic))
        if self.wanted(topic := "focus_demand"):
            demand = demand_of(estimate.depth, estimate.sigma)
            if demand is not None:  # else nothing is known that the next sweep could be planned by
                messages[topic] = demand_message(demand)
        for topic, message in messages.items():  # all at once: whoever joins them has little to wait for
            self._node.send(self._publishers[topic], message)
            if isinstance(message, (Image, PointCloud2)):
                used[topic] = message.data  # publishing has copied it


def save_estimate(estimate: DepthEstimate, directory: Path, points: PointCloudOptions) -> None:
    """depth.npy and sigma.npy [m], aif.png, depth_mm.png (16 bit, 0 = none), points.ply; or OutputError."""
    depth_mm = np.nan_to_num(np.rint(estimate.depth * np.float32(1000.0)), nan=0.0, posinf=0.0)
    depth_mm[(depth_mm < 0) | (depth_mm > 65535)] = 0
    try:
        directory.mkdir(parents=True, exist_ok=True)
        np.save(directory / "depth.npy", estimate.depth)
        np.save(directory / "sigma.npy", estimate.sigma)
        for name, picture in (
            ("aif.png", cv2.cvtColor(estimate.all_in_focus, cv2.COLOR_RGB2BGR)),
            ("depth_mm.png", depth_mm.astype(np.uint16)),
        ):
            # imwrite tells a failure by its result alone
            (directory / name).write_bytes(cv2.imencode(".png", picture)[1].tobytes())
    except OSError as error:
        raise OutputError(f"{directory}: expected a folder that can be written: {error.strerror}") from None
    if estimate.camera is not None:
        cloud = project(
            estimate.depth,
            estimate.sigma,
            estimate.all_in_focus,
            estimate.camera,
            replace(points, organised=False),
        )
        write_ply(directory / "points.ply", cloud)
