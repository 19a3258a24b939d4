"""Where slices come from: one message per slice, or three topics of any ROS camera joined by their stamps."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image

from hybriddepth_msgs.msg import CompressedFocalSlice, FocalSlice, FocusState
from hybriddepth_ros.ros.lifecycle import ManagedNode
from hybriddepth_ros.ros.messages import from_time
from hybriddepth_ros.ros.schema import DepthParameters

AnySlice = FocalSlice | CompressedFocalSlice
OnSlice = Callable[[Any], None]  # of either kind

# A message out of order takes nothing from the others; stamps further back: a bag loops or a clock was set.
JUMP_BACK_NS = 1_000_000_000
SLICE_TOPICS = {"slices": "slice", "compressed_slices": "slice/compressed"}  # `input` -> topic
_SLICE_TYPES = {"slices": FocalSlice, "compressed_slices": CompressedFocalSlice}
TOPICS = {"image_raw": Image, "camera_info": CameraInfo, "focus": FocusState}


def subscribe(
    node: ManagedNode, resources: ExitStack, parameters: DepthParameters, on_slice: OnSlice
) -> None:
    """Have `on_slice` called, never two at a time, with every slice that the parameter `input` stands for:
    CompressedFocalSlice with compressed_slices, else FocalSlice.
    """
    reliable = parameters.input_reliability == "reliable"
    qos = QoSProfile(
        depth=parameters.input_queue_size,
        history=HistoryPolicy.KEEP_LAST,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
    )
    if topic := SLICE_TOPICS.get(parameters.input):
        node.subscription(resources, _SLICE_TYPES[parameters.input], topic, on_slice, qos)
        return
    joined = SynchronisedTopics(node, on_slice, parameters.input_queue_size, parameters.sync_slop)
    for topic, kind in TOPICS.items():
        node.subscription(resources, kind, topic, partial(joined.take, topic), qos)


class SynchronisedTopics:
    """image_raw + camera_info + focus with equal (or close) stamps become one FocalSlice.

    The synchroniser of message_filters is fed by hand: it matches nothing any more once stamps have jumped
    back, so it is replaced then; and the callback it is given cannot raise, which would leave its lock held
    for ever.
    """

    def __init__(self, node: ManagedNode, on_slice: OnSlice, queue_size: int, slop_s: float) -> None:
        self._node = node
        self._on_slice = on_slice
        self._queue_size = queue_size
        self._slop_s = slop_s
        self._newest_ns: dict[str, int] = {}
        self._filters: dict[str, Any] = {}
        self._begin()

    def take(self, topic: str, message: Any) -> None:
        stamp_ns = from_time(message.header.stamp)
        newest_ns = self._newest_ns.get(topic, stamp_ns)
        if stamp_ns < newest_ns - JUMP_BACK_NS:
            self._node.problem("stamps jumped back", f"on {topic}; matching begins anew")
            self._newest_ns.clear()
            self._begin()
            newest_ns = stamp_ns
        self._newest_ns[topic] = max(newest_ns, stamp_ns)
        self._filters[topic].signalMessage(message)

    def _begin(self) -> None:
        import message_filters  # absent on a bare rclpy, where `input: slices` still works

        self._filters = {topic: message_filters.SimpleFilter() for topic in TOPICS}
        inputs = list(self._filters.values())
        if self._slop_s > 0.0:
            synchroniser = message_filters.ApproximateTimeSynchronizer(
                fs=inputs, queue_size=self._queue_size, slop=self._slop_s
            )
        else:
            synchroniser = message_filters.TimeSynchronizer(fs=inputs, queue_size=self._queue_size)
        synchroniser.registerCallback(self._node.guarded(self._join))

    def _join(self, image: Image, camera_info: CameraInfo, focus: FocusState) -> None:
        self._on_slice(FocalSlice(header=image.header, image=image, camera_info=camera_info, focus=focus))
