"""Pixels are copied once from a message to what is computed with, and once to a message: by the identity of
buffers, and by how much memory a frame takes anew.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from rclpy.context import Context
from rclpy.node import Node
from rclpy.parameter import Parameter

from hybriddepth_msgs.msg import FocusState
from hybriddepth_ros.estimator import DepthEstimate
from hybriddepth_ros.focal_stack import CameraIntrinsics
from hybriddepth_ros.point_cloud import CLOUD_DTYPE, PointCloudOptions, PointCloudProjector
from hybriddepth_ros.registration import Registration
from hybriddepth_ros.ros import messages
from hybriddepth_ros.ros.depth_node import DepthNode
from hybriddepth_ros.ros.depth_outputs import TOPICS, DepthOutputs
from tests.ros.helpers import NAMESPACE, Running, wait_for

WIDTH, HEIGHT = 640, 480
PIXELS = WIDTH * HEIGHT
RGB, FLOAT, CLOUD = 3 * PIXELS, 4 * PIXELS, CLOUD_DTYPE.itemsize * PIXELS  # bytes of an image of each kind
SMALL = 64_000  # bytes of all that is not an image: headers, fields, views
ROOM = 1.0 / 16.0  # what array.array takes more than it is asked for
CAMERA = CameraIntrinsics(500.0, 500.0, 319.5, 239.5, WIDTH, HEIGHT)
HEADER = messages.make_header(12_345_678_901, "optical")


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def depth() -> np.ndarray:
    rng = np.random.default_rng(1)
    values = rng.uniform(0.5, 3.0, (HEIGHT, WIDTH)).astype(np.float32)
    values[rng.random(values.shape) < 0.1] = np.nan
    return values


@pytest.fixture(scope="module", autouse=True)
def tracing() -> Iterator[None]:
    """numpy and array.array both tell tracemalloc of their memory."""
    tracemalloc.start()
    yield
    tracemalloc.stop()


def new_bytes(work: Callable[[], Any]) -> tuple[int, int]:
    """(most at once, left with the result) of memory that `work` takes anew, once it is warm."""
    kept = work()
    del kept
    tracemalloc.reset_peak()
    before, _ = tracemalloc.get_traced_memory()
    kept = work()
    after, peak = tracemalloc.get_traced_memory()
    del kept
    return peak - before, after - before


def of_message(data: Any) -> np.ndarray:
    return np.frombuffer(data, np.uint8)


def test_the_measure_sees_an_image_that_is_copied(picture: np.ndarray) -> None:
    most, left = new_bytes(picture.copy)
    assert RGB <= left <= most < RGB + SMALL
    most, left = new_bytes(lambda: (picture.copy() + np.uint8(1)).tobytes())
    assert 3 * RGB > most >= 2 * RGB and RGB <= left < RGB + SMALL


# -- in


def slice_of(image: np.ndarray, encoding: str, padding: int = 0) -> Any:
    rows = image.reshape(HEIGHT, -1)
    padded = np.concatenate([rows, np.zeros((HEIGHT, padding), np.uint8)], axis=1)
    focus = FocusState(header=HEADER, slice_count=5, focus_diopters=1.0, settled=True)
    message = messages.slice_message(image, CAMERA, focus)
    message.image = messages.image_message(padded, encoding, HEADER)
    message.image.width = WIDTH
    return message


def test_a_slice_in_rgb_is_the_messages_memory(picture: np.ndarray) -> None:
    message = slice_of(picture, "rgb8")
    assert np.shares_memory(messages.focal_slice(message).image, of_message(message.image.data))
    most, _ = new_bytes(lambda: messages.focal_slice(message))
    assert most < SMALL


@pytest.mark.parametrize(
    ("encoding", "padding"), [("bgr8", 0), ("mono8", 0), ("rgb8", 8), ("bgr8", 8), ("mono8", 8)]
)
def test_a_slice_in_another_layout_is_copied_once(picture: np.ndarray, encoding: str, padding: int) -> None:
    sent = picture[..., 0] if encoding == "mono8" else picture
    message = slice_of(np.ascontiguousarray(sent), encoding, padding)
    image = messages.focal_slice(message).image
    expected = {
        "rgb8": picture,
        "bgr8": picture[..., ::-1],
        "mono8": np.stack([picture[..., 0]] * 3, axis=-1),
    }
    assert np.array_equal(image, expected[encoding]) and image.flags.c_contiguous
    most, left = new_bytes(lambda: messages.focal_slice(message))
    assert RGB <= left <= most < RGB + SMALL


# -- out


def test_a_message_is_one_copy_of_its_image(picture: np.ndarray, depth: np.ndarray) -> None:
    focus = FocusState(header=HEADER, slice_count=5, focus_diopters=1.0, settled=True)
    cloud = PointCloudProjector()(depth, depth, picture, CAMERA)
    for make, size in (
        (lambda: messages.image_message(picture, "rgb8", HEADER), RGB),
        (lambda: messages.depth_message(depth, "32FC1", HEADER), FLOAT),
        (lambda: messages.slice_message(picture, CAMERA, focus), RGB),
        (lambda: messages.cloud_message(cloud, HEADER), CLOUD),
    ):
        most, left = new_bytes(make)
        assert size <= left <= most < (1.0 + ROOM) * size + SMALL, size


def test_a_message_in_memory_that_was_sent_takes_none_anew(picture: np.ndarray, depth: np.ndarray) -> None:
    cloud = PointCloudProjector()(depth, depth, picture, CAMERA)
    # Beside the message: millimetres are rounded as floats and cast, and a cloud's z is looked at for NaN.
    for make, values, extra in (
        (lambda reuse: messages.image_message(picture, "rgb8", HEADER, reuse), picture, 0),
        (lambda reuse: messages.depth_message(depth, "32FC1", HEADER, reuse), depth, 0),
        (lambda reuse: messages.cloud_message(cloud, HEADER, reuse), cloud, PIXELS),
        (lambda reuse: messages.depth_message(depth, "16UC1", HEADER, reuse), None, 2 * FLOAT),
    ):
        used = make(None).data
        used[:100] = type(used)("B", bytes(100))
        message = make(used)
        assert message.data is used
        if values is not None:
            assert used.tobytes() == values.tobytes()
        most, left = new_bytes(lambda: make(used))  # noqa: B023
        assert most < extra + SMALL and left < SMALL


def test_a_cloud_is_written_where_its_message_has_it(picture: np.ndarray, depth: np.ndarray) -> None:
    projector = PointCloudProjector()
    used = messages.cloud_message(projector(depth, depth, picture, CAMERA), HEADER).data
    expected = used.tobytes()
    used[:100] = type(used)("B", bytes(100))
    cloud = projector(depth, depth, picture, CAMERA, None, used)
    assert np.shares_memory(cloud, of_message(used)) and used.tobytes() == expected
    message = messages.cloud_message(cloud, HEADER, used)
    assert message.data is used and used.tobytes() == expected
    # which pixels have a point: a mask, the same as bits, and z with the gaps as NaN
    most, left = new_bytes(
        lambda: messages.cloud_message(projector(depth, depth, picture, CAMERA, None, used), HEADER, used)
    )
    assert most < 3.5 * FLOAT and left < SMALL


# -- the node's outputs, with publishers


@pytest.fixture
def outputs(context: Context) -> Iterator[DepthOutputs]:
    """Of a running node; whoever subscribes takes nothing, so that no memory but the node's is counted."""
    listener = Node("listener", context=context, use_global_arguments=False, start_parameter_services=False)
    overrides = [Parameter("model", value="classical"), Parameter("warm_up", value=False)]
    with Running(DepthNode, context, parameter_overrides=overrides) as node:
        node.start()
        for topic, kind in TOPICS.items():
            listener.create_subscription(kind, f"/{NAMESPACE}/{topic}", lambda message: None, 1)
        assert wait_for(lambda: all(node._outputs.wanted(topic) for topic in TOPICS))
        yield node._outputs
    listener.destroy_node()


@pytest.mark.parametrize(("encoding", "organised"), [("32FC1", True), ("16UC1", True), ("32FC1", False)])
def test_publishing_takes_no_memory_anew_from_frame_to_frame(
    outputs: DepthOutputs, picture: np.ndarray, depth: np.ndarray, encoding: str, organised: bool
) -> None:
    points = PointCloudOptions(organised=organised)
    estimate = DepthEstimate(
        depth, depth * np.float32(0.1), lambda: picture, Registration.identity(5, 2), CAMERA, 1_000_000_000
    )

    def publish() -> None:
        outputs.publish(estimate, "optical", encoding, points)

    publish()
    sent = {topic: id(data) for topic, data in outputs._used.items()}
    assert set(sent) == {"depth/image_rect", "depth/uncertainty", "rgb/image_rect", "depth/points"}
    most, left = new_bytes(publish)
    assert {topic: id(data) for topic, data in outputs._used.items()} == sent
    # What is computed on the way, of one message after the other: no more than 3.5 depth images at once, or
    # one more where the points of a compact cloud are chosen by number.
    assert most < (3.5 if organised else 4.5) * FLOAT and left < SMALL, most / FLOAT
