"""The camera `topic`: images of another node's topic, joined with a lens that this one moves."""

from __future__ import annotations

import statistics
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from itertools import pairwise

from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image

from hybriddepth_ros.cameras.assembled import AssembledCamera, AssemblyOptions
from hybriddepth_ros.cameras.base import FrameTimeout
from hybriddepth_ros.cameras.lens import FocusLens
from hybriddepth_ros.cameras.source import ImageSource, RawFrame
from hybriddepth_ros.errors import CameraError, MessageError
from hybriddepth_ros.focal_stack import CameraIntrinsics
from hybriddepth_ros.ros.lifecycle import ManagedNode
from hybriddepth_ros.ros.messages import camera_intrinsics, from_time, image_array
from hybriddepth_ros.ros.topic_options import TOPIC_CAMERA, TopicCameraOptions

_WAITING_IMAGES = 8
_RATE_FRAMES = 30  # whose median period is compared with what was told; a few that were lost do not matter
_RATE_TOLERANCE = 0.2


def topic_camera(
    node: ManagedNode, options: TopicCameraOptions, lens: FocusLens, cancelled: Callable[[], bool]
) -> AssembledCamera:
    """Unopened; `cancelled` ends the wait for the first image."""
    assembly = AssemblyOptions(
        options.calibration, options.settle_ms, options.horizontal_fov_deg, options.focus_in_diopters
    )
    return AssembledCamera(TOPIC_CAMERA, TopicSource(node, options, cancelled), lens, assembly)


class TopicSource(ImageSource):
    """What arrives on an image topic; a message that DDS lost, or that nobody read in time, is a gap in
    `sequence`, told from the stamps.
    """

    def __init__(self, node: ManagedNode, options: TopicCameraOptions, cancelled: Callable[[], bool]) -> None:
        self._node, self._options, self._cancelled = node, options, cancelled
        self._resources = ExitStack()
        self._arrived = threading.Condition()  # guards what the callbacks fill
        self._images: deque[tuple[Image, int]] = deque(maxlen=_WAITING_IMAGES)  # and when it came
        self._info: CameraInfo | None = None
        self._size = (0, 0)
        self._camera: CameraIntrinsics | None = None
        self._open = False
        self._sequence, self._last_ns = 0, 0
        self._stamps_ns: list[int] = []

    def open(self) -> None:
        options = self._options
        qos = QoSProfile(depth=_WAITING_IMAGES, reliability=ReliabilityPolicy.BEST_EFFORT)
        self._images.clear()
        self._stamps_ns.clear()
        self._info, self._open, self._last_ns = None, True, 0
        with ExitStack() as resources:
            resources.callback(self.close)
            self._node.subscription(self._resources, Image, options.image, self._on_image, qos)
            if options.camera_info:
                self._node.subscription(
                    self._resources, CameraInfo, options.camera_info, self._on_camera_info, qos
                )
            self._await_first()
            resources.pop_all()

    def _await_first(self) -> None:
        """Size and intrinsics come with the first messages."""
        options, end_s = self._options, time.monotonic() + self._options.timeout
        with self._arrived:
            while not self._images or (options.camera_info and self._info is None):
                if self._cancelled() or not self._open:
                    raise CameraError("camera topic: stopped while waiting for the first image")
                if time.monotonic() > end_s:
                    missing = options.camera_info if self._images else options.image
                    raise CameraError(
                        f"camera topic: expected messages on {missing}, got none within {options.timeout:g} s"
                    )
                self._arrived.wait(0.05)
            image = self._images[0][0]
            self._size = (image.width, image.height)
            try:
                self._camera = camera_intrinsics(self._info, self._size) if self._info else None
            except MessageError as error:
                raise CameraError(f"camera topic: {options.camera_info}: {error}") from error
        if self._camera and (self._camera.width, self._camera.height) != self._size:
            raise CameraError(
                f"camera topic: {options.camera_info}: expected a size of {image.width}x{image.height} px"
                f" as the images have, got {self._camera.width}x{self._camera.height}"
            )

    def close(self) -> None:
        with self._arrived:
            self._open = False
            self._arrived.notify_all()
        self._resources.close()

    def read(self, timeout_s: float = 1.0) -> RawFrame:
        options = self._options
        with self._arrived:
            self._arrived.wait_for(lambda: self._images or not self._open, timeout_s)
            if not self._open:
                raise CameraError("camera topic: closed")
            if not self._images:
                raise FrameTimeout(f"camera topic: no image on {options.image} within {timeout_s:g} s")
            message, arrived_ns = self._images.popleft()
        if (message.width, message.height) != self._size:
            raise CameraError(
                f"camera topic: {options.image}: expected images of {self._size[0]}x{self._size[1]} px as"
                f" before, got {message.width}x{message.height}"
            )
        try:
            image = image_array(message)
        except MessageError as error:
            raise CameraError(f"camera topic: {options.image}: {error}") from error
        stamp_ns = from_time(message.header.stamp)
        self._check_rate(stamp_ns)
        passed = round((stamp_ns - self._last_ns) * 1e-9 * options.frame_rate) if self._last_ns else 1
        self._sequence, self._last_ns = self._sequence + max(1, passed), stamp_ns
        exposure_ns = round(options.exposure_ms * 1e6)
        start_ns = stamp_ns - {"start": 0, "middle": exposure_ns // 2, "end": exposure_ns}[options.stamp_at]
        # What has arrived is exposed. What was not even begun then has a wrong stamp, and stays that way.
        end_ns = min(start_ns + exposure_ns, max(arrived_ns, start_ns + 1))
        return RawFrame(image, self._sequence, start_ns, end_ns)

    def _check_rate(self, stamp_ns: int) -> None:
        """Losses are counted by the period: a wrong one makes losses of nothing, or hides them."""
        self._stamps_ns.append(stamp_ns)
        if len(self._stamps_ns) <= _RATE_FRAMES:
            return
        period_ms = 1e-6 * statistics.median(after - before for before, after in pairwise(self._stamps_ns))
        self._stamps_ns.clear()
        told_ms = 1e3 / self._options.frame_rate
        if abs(period_ms - told_ms) > _RATE_TOLERANCE * told_ms:
            self._node.problem(
                "topic.frame_rate",
                f"expected an image each {told_ms:.1f} ms ({self._options.frame_rate:g} Hz), by their stamps"
                f" one comes each {period_ms:.1f} ms",
            )

    def _on_image(self, message: Image) -> None:
        with self._arrived:
            self._images.append((message, self.clock.now_ns()))
            self._arrived.notify_all()

    def _on_camera_info(self, message: CameraInfo) -> None:
        with self._arrived:
            if self._info is None:
                self._info = message
                self._arrived.notify_all()

    @property
    def frame_rate_hz(self) -> float:
        return self._options.frame_rate

    @property
    def size(self) -> tuple[int, int]:
        return self._size

    @property
    def camera(self) -> CameraIntrinsics | None:
        return self._camera
