"""What the focus sweep node publishes of one frame."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import numpy as np
from sensor_msgs.msg import CameraInfo, Image

from hybriddepth_msgs.msg import CompressedFocalSlice, FocalSlice, FocusState
from hybriddepth_ros.cameras import SweptFrame
from hybriddepth_ros.image_compression import RAW
from hybriddepth_ros.optics import ThinLens, blur_px_per_diopter
from hybriddepth_ros.ros.lifecycle import ManagedNode
from hybriddepth_ros.ros.local_slices import LocalSlices
from hybriddepth_ros.ros.messages import (
    camera_info_message,
    compressed_slice_message,
    depth_message,
    make_header,
    picture_message,
    slice_message,
)
from hybriddepth_ros.ros.schema import FocusSweepParameters

TOPICS: dict[str, type] = {
    "image_raw": Image,
    "camera_info": CameraInfo,
    "focus": FocusState,
}
SLICES = "slice"
COMPRESSED_SLICES = "slice/compressed"
GROUND_TRUTH_TOPICS: dict[str, type] = {"ground_truth/depth": Image, "ground_truth/camera_info": CameraInfo}
CAMERAS_WITH_GROUND_TRUTH = ("simulated",)


class SweepOutputs:
    """The publishers, each of which converts only what somebody subscribes to; all of a frame carry one
    header.
    """

    def __init__(
        self,
        node: ManagedNode,
        resources: ExitStack,
        parameters: FocusSweepParameters,
        local_slices: LocalSlices,
    ) -> None:
        self._node, self._local_slices = node, local_slices
        self._frame_id = parameters.frame_id
        known_depth = parameters.camera in CAMERAS_WITH_GROUND_TRUTH
        topics = TOPICS | GROUND_TRUTH_TOPICS if known_depth else dict(TOPICS)
        # one of the two, so that nobody subscribes to the raw slices by mistake over a link too thin for them
        self._codec = parameters.transport
        topics |= {SLICES: FocalSlice} if self._codec == RAW else {COMPRESSED_SLICES: CompressedFocalSlice}
        self._publishers = {
            topic: node.publisher(resources, kind, topic, parameters.queue_size)
            for topic, kind in topics.items()
        }

    def publish(self, swept: SweptFrame, lens: ThinLens | None) -> None:
        frame = swept.frame
        header = make_header(frame.stamp_ns, self._frame_id)
        sent, given = self._wanted(SLICES), self._local_slices.wanted
        whole = swept_message(swept, self._frame_id, lens) if sent or given else None
        if whole is not None:
            self._local_slices.give(whole)  # first: whoever takes it only keeps the reference
        if self._wanted("image_raw"):
            self._send("image_raw", whole.image if whole else picture_message(frame.image, header))
        if self._wanted("camera_info"):
            self._send("camera_info", camera_info_message(frame.camera, header))
        if self._wanted("focus"):
            self._send("focus", focus_message(swept, self._frame_id, lens))
        if whole and sent:
            self._send(SLICES, whole)
        if self._wanted(COMPRESSED_SLICES):
            focus = focus_message(swept, self._frame_id, lens)
            quality = self._node.parameters[FocusSweepParameters].jpeg_quality
            compressed = compressed_slice_message(frame.image, frame.camera, focus, self._codec, quality)
            self._send(COMPRESSED_SLICES, compressed)
        if frame.ground_truth_depth is not None:
            if self._wanted("ground_truth/depth"):
                self._send("ground_truth/depth", depth_message(frame.ground_truth_depth, "32FC1", header))
            if self._wanted("ground_truth/camera_info"):
                self._send("ground_truth/camera_info", camera_info_message(frame.camera, header))

    def _wanted(self, topic: str) -> bool:
        publisher = self._publishers.get(topic)
        return publisher is not None and publisher.get_subscription_count() > 0

    def _send(self, topic: str, message: Any) -> None:
        self._node.send(self._publishers[topic], message)


def focus_message(swept: SweptFrame, frame_id: str, lens: ThinLens | None) -> FocusState:
    frame = swept.frame
    blur = blur_px_per_diopter(lens, frame.focus_diopters) if lens else 0.0
    return FocusState(
        header=make_header(frame.stamp_ns, frame_id),
        sweep_id=swept.sweep_id & 0xFFFFFFFF,
        slice_index=swept.slice_index,
        slice_count=swept.slice_count,
        focus_diopters=_as_sent(frame.focus_diopters),
        actuator_position=_as_sent(frame.actuator_position),
        settled=swept.settled,
        blur_px_per_diopter=_as_sent(blur),
    )


def _as_sent(value: float) -> float:
    """As the message's 32 bits have it, so that whoever takes it in this process sees what a bag has."""
    return float(np.float32(value))


def swept_message(swept: SweptFrame, frame_id: str, lens: ThinLens | None) -> FocalSlice:
    return slice_message(swept.frame.image, swept.frame.camera, focus_message(swept, frame_id, lens))
