"""The depth node in this process, fed with a bag's slices on simulated time: `evaluate --live`."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Mapping
from functools import partial
from types import TracebackType
from typing import Any

import numpy as np
from rclpy.publisher import Publisher
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image

from hybriddepth_msgs.msg import CompressedFocalSlice, FocalSlice
from hybriddepth_ros.errors import HybridDepthError, MessageError
from hybriddepth_ros.evaluation.bag_frames import BagSource, in_namespace
from hybriddepth_ros.evaluation.frames import EvaluationFrame, Floats
from hybriddepth_ros.evaluation.recording import COMPRESSED_SLICE, DEPTH, SIGMA, SLICE
from hybriddepth_ros.evaluation.scoring import Reading, Subject
from hybriddepth_ros.ros.bag import BagMessage
from hybriddepth_ros.ros.decoding import depth_array, from_time
from hybriddepth_ros.ros.graph import DepthGraph
from hybriddepth_ros.ros.messages import to_time
from hybriddepth_ros.ros.quiet import quiet_start
from hybriddepth_ros.ros.spin import spinning_node

START_TIMEOUT_S = 60.0
_REFUSALS = ("stacks refused", "slices refused", "exceptions", "stacks not needed")


class ReplayedGraph:
    """Plays sweep after sweep of a bag to a depth node while the context is entered.

    Time stands still while the node estimates: the next sweep comes when the depth of this one is there, so
    that nothing is lost on a machine of any speed. The results are those of the topics, over DDS.
    """

    def __init__(
        self,
        source: BagSource,
        parameters: Mapping[str, Any],
        namespace: str = "focus_camera",
        timeout_s: float = 300.0,
    ) -> None:
        """`parameters` of the depth node; `timeout_s`: how long one estimate may take."""
        self._source = source
        self._namespace = namespace
        self._timeout_s = timeout_s
        live = {"use_sim_time": True, "input_reliability": "reliable", "depth_encoding": "32FC1"}
        live |= {"input": "compressed_slices" if source.compressed else "slices"}
        self._graph = DepthGraph(
            overrides={"depth": {**parameters, **live}}, namespace=namespace, with_camera=False
        )
        self._slice_type = CompressedFocalSlice if source.compressed else FocalSlice
        self._arrived = threading.Condition()
        self._images: dict[int, dict[str, Floats]] = {}  # stamp -> topic -> metres
        self._unusable: dict[int, str] = {}  # stamp -> why an image cannot be used
        self._slices: Publisher
        self._clock: Publisher
        self._cleanup = contextlib.ExitStack()

    def __enter__(self) -> ReplayedGraph:
        with contextlib.ExitStack() as opened:
            opened.callback(self._graph.close)
            with quiet_start(self._namespace):
                self._graph.start()
            node = opened.enter_context(spinning_node("replay"))
            qos = QoSProfile(
                depth=16, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.RELIABLE
            )
            topic = COMPRESSED_SLICE if self._source.compressed else SLICE
            self._slices = node.create_publisher(self._slice_type, in_namespace(topic, self._namespace), qos)
            self._clock = node.create_publisher(Clock, "/clock", qos)
            for topic in (DEPTH, SIGMA):
                node.create_subscription(
                    Image, in_namespace(topic, self._namespace), partial(self._on_image, topic), qos
                )
            self._wait_for_discovery()
            self._cleanup = opened.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cleanup.close()

    @property
    def running(self) -> dict[str, str]:
        """What the node runs: `weights` and `prior weights` by name and content, `device`."""
        values = self._graph.depth.status()[2]
        return {name: str(values[name]) for name in ("weights", "prior weights", "device")}

    def judge(self, frame: EvaluationFrame) -> tuple[Subject, Reading]:
        """What the node publishes of a sweep; HybridDepthError if it publishes nothing."""
        stamp_ns, before = int(frame.name), self._graph.depth.counters.snapshot()
        with self._arrived:
            self._images.clear()
            self._unusable.clear()
        messages = self._source.messages(frame.name)
        for place, message in enumerate(messages):
            self._clock.publish(Clock(clock=to_time(message.stamp_ns)))
            self._slices.publish(_counted(message, self._slice_type, place, len(messages)))
        began = time.perf_counter()
        images = self._wait_for_images(stamp_ns, before)
        elapsed_ms = (time.perf_counter() - began) * 1e3
        return Subject.of(frame), Reading(images[DEPTH], images[SIGMA], None, elapsed_ms)

    def _on_image(self, topic: str, message: Image) -> None:
        with self._arrived:
            stamp_ns = from_time(message.header.stamp)
            try:
                self._images.setdefault(stamp_ns, {})[topic] = np.array(depth_array(message))
            except MessageError as error:  # raised from here it would end the thread that receives
                self._unusable[stamp_ns] = f"{topic}: {error}"
            self._arrived.notify()

    def _wait_for_images(self, stamp_ns: int, before: Mapping[str, int]) -> dict[str, Floats]:
        end = time.monotonic() + self._timeout_s
        with self._arrived:
            while len(self._images.get(stamp_ns, {})) < 2:
                self._arrived.wait(0.1)
                if stamp_ns in self._unusable:
                    raise MessageError(f"{stamp_ns}: {self._unusable[stamp_ns]}")
                counts = self._graph.depth.counters.snapshot()
                refused = [cause for cause in _REFUSALS if counts.get(cause, 0) > before.get(cause, 0)]
                if refused:
                    raise HybridDepthError(f"{stamp_ns}: the depth node gave no depth: {', '.join(refused)}")
                if time.monotonic() > end:
                    raise HybridDepthError(
                        f"{stamp_ns}: expected depth within {self._timeout_s:g} s of the sweep, none came"
                    )
            return self._images.pop(stamp_ns)

    def _wait_for_discovery(self) -> None:
        """Until both sides know of each other: what is published before is lost."""
        end = time.monotonic() + START_TIMEOUT_S
        depth = self._graph.depth
        while not (
            self._slices.get_subscription_count()
            and self._clock.get_subscription_count()
            and all(depth.is_wanted(topic) for topic in (DEPTH, SIGMA))
        ):
            if time.monotonic() > end:
                raise HybridDepthError(
                    f"--live: expected the depth node to be found within {START_TIMEOUT_S:g} s; see doctor"
                )
            time.sleep(0.05)


def _counted(message: BagMessage, slice_type: type, place: int, count: int) -> Any:
    """The slice as recorded; but where sweeps have no number of slices, none would follow that ends them."""
    if message.message.focus.slice_count:
        return bytes(message.data)
    numbered = deserialize_message(bytes(message.data), slice_type)
    numbered.focus.slice_index, numbered.focus.slice_count = place, count
    return numbered
