"""Messages hold exactly what the arrays held, and bad ones are refused with one clear line."""

import array

import cv2
import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo, Image, PointField

from hybriddepth_ros.adaptive_sweep import FocusDemand
from hybriddepth_ros.errors import MessageError, ParameterError, StackError
from hybriddepth_ros.focal_stack import CameraIntrinsics
from hybriddepth_ros.optics import ThinLens, blur_px_per_diopter
from hybriddepth_ros.point_cloud import PointCloudOptions, project
from hybriddepth_ros.ros import messages
from tests.ros.helpers import CAMERA, HEIGHT, WIDTH, make_slice, make_sweep, picture

HEADER = messages.make_header(12_345_678_901, "optical")


def test_stamps_keep_every_nanosecond() -> None:
    for stamp_ns in (0, 1, 999_999_999, 1_763_000_000_123_456_789):
        assert messages.from_time(messages.to_time(stamp_ns)) == stamp_ns


def test_an_rgb_picture_comes_back_bit_for_bit_and_shares_memory() -> None:
    image = picture()
    message = messages.picture_message(image, HEADER)
    assert (message.encoding, message.step, message.width) == ("rgb8", 3 * WIDTH, WIDTH)
    assert isinstance(message.data, array.array) and message.data.typecode == "B"
    back = messages.image_array(message)
    assert np.array_equal(back, image)
    assert np.shares_memory(back, np.frombuffer(message.data, np.uint8))


def test_a_crop_of_an_image_is_sent_as_the_crop() -> None:
    crop = picture()[2:10, 3:9]
    assert np.array_equal(messages.image_array(messages.picture_message(crop, HEADER)), crop)


def test_grey_becomes_three_equal_channels() -> None:
    grey = picture()[..., 2]
    back = messages.image_array(messages.picture_message(grey, HEADER))
    assert all(np.array_equal(back[..., channel], grey) for channel in range(3))


def test_row_padding_is_left_out() -> None:
    image = picture()
    padded = np.zeros((HEIGHT, 3 * WIDTH + 5), np.uint8)
    padded[:, : 3 * WIDTH] = image.reshape(HEIGHT, -1)
    message = messages.image_message(padded, "rgb8", HEADER)
    message.width = WIDTH
    assert np.array_equal(messages.image_array(message), image)


@pytest.mark.parametrize(
    ("encoding", "encode"),
    [
        ("bgr8", lambda rgb: rgb[..., ::-1]),
        ("rgba8", lambda rgb: np.dstack([rgb, np.full(rgb.shape[:2], 9, np.uint8)])),
        ("bgra8", lambda rgb: np.dstack([rgb[..., ::-1], np.full(rgb.shape[:2], 9, np.uint8)])),
    ],
)
def test_channel_orders_become_rgb(encoding: str, encode: object) -> None:
    rgb = picture()
    message = messages.image_message(encode(rgb), encoding, HEADER)  # type: ignore[operator]
    assert np.array_equal(messages.image_array(message), rgb)


def test_bayer_and_yuv_and_16_bit_become_rgb() -> None:
    even = np.full((HEIGHT, WIDTH), 80, np.uint8)
    bayer = messages.image_array(messages.image_message(even, "bayer_rggb8", HEADER))
    assert bayer.shape == (HEIGHT, WIDTH, 3) and abs(int(bayer[5, 5, 1]) - 80) <= 1
    yuv = messages.image_message(np.full((HEIGHT, WIDTH, 2), 128, np.uint8), "yuv422_yuy2", HEADER)
    assert np.ptp(messages.image_array(yuv)[5, 5].astype(int)) <= 3  # no chroma: grey
    deep = messages.image_message(np.full((HEIGHT, WIDTH), 0x8000, np.uint16), "mono16", HEADER)
    assert abs(int(messages.image_array(deep)[0, 0, 0]) - 128) <= 1


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"encoding": "32FC1"}, "encoding '32FC1'"),
        ({"encoding": "nonsense"}, "encoding 'nonsense'"),
        ({"step": 1}, "step 1, expected at least 96"),
        ({"height": HEIGHT + 1}, "2304 bytes of data, expected 2400"),
        ({"width": 0}, "size 0x24"),
        ({"data": array.array("B", [1, 2, 3])}, "3 bytes of data"),
    ],
)
def test_a_bad_image_is_refused_naming_value_and_expectation(
    change: dict[str, object], expected: str
) -> None:
    message = messages.picture_message(picture(), HEADER)
    for name, value in change.items():
        setattr(message, name, value)
    with pytest.raises(MessageError, match=expected) as caught:
        messages.image_array(message)
    assert "\n" not in str(caught.value)


def test_depth_in_metres_keeps_nan_and_in_millimetres_uses_zero() -> None:
    depth = np.array([[1.2345, np.nan], [np.inf, 70.0]], np.float32)
    metres = messages.depth_message(depth, "32FC1", HEADER)
    assert np.array_equal(np.frombuffer(metres.data, np.float32).reshape(2, 2), depth, equal_nan=True)
    millimetres = messages.depth_message(depth, "16UC1", HEADER)
    assert np.frombuffer(millimetres.data, np.uint16).tolist() == [1234, 0, 0, 0]  # 70 m do not fit


def test_camera_info_round_trips_and_its_projection_is_k() -> None:
    camera = CameraIntrinsics(500.0, 510.0, 320.5, 240.25, 640, 480, (0.1, -0.2, 0.001, 0.002, 0.03))
    info = messages.camera_info_message(camera, HEADER)
    assert messages.camera_intrinsics(info) == camera
    assert info.distortion_model == "plumb_bob" and info.binning_x == 0 and info.roi.width == 0
    assert np.array_equal(np.array(info.p).reshape(3, 4)[:, :3], camera.matrix)
    assert messages.camera_intrinsics(messages.camera_info_message(CAMERA, HEADER)) == CAMERA


def test_an_uncalibrated_camera_has_no_intrinsics() -> None:
    assert messages.camera_intrinsics(CameraInfo(width=640, height=480)) is None


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"distortion_model": "rational_polynomial", "d": [0.1] * 8}, "rational_polynomial"),
        ({"binning_x": 2}, "binning 2x0"),
        ({"k": np.array([-1.0, 0, 5, 0, 1, 5, 0, 0, 1])}, "fx -1.0"),
        ({"k": np.array([np.nan, 0, 5, 0, 1, 5, 0, 0, 1])}, "fx nan"),
        ({"k": np.array([1, 0, np.nan, 0, 1, 5, 0, 0, 1])}, "cx nan, expected a finite number"),
        ({"k": np.array([1, 0, 5, 0, 0, 5, 0, 0, 1])}, "fy 0.0"),
    ],
)
def test_a_camera_info_that_means_something_else_is_refused(change: dict[str, object], expected: str) -> None:
    info = messages.camera_info_message(CAMERA, HEADER)
    for name, value in change.items():
        setattr(info, name, value)
    with pytest.raises(MessageError, match=expected):
        messages.camera_intrinsics(info)


def test_a_slice_round_trips() -> None:
    message = make_slice(3, 1)
    one = messages.focal_slice(message)
    assert np.array_equal(one.image, picture(1))
    assert one.focus_diopters == 1.5 and one.camera == CAMERA
    assert one.stamp_ns == messages.from_time(message.header.stamp)


def test_a_slice_with_nan_focus_or_another_cameras_info_is_refused() -> None:
    with pytest.raises(MessageError, match="focus_diopters nan"):
        messages.focal_slice(make_slice(0, 0, focus=float("nan")))
    message = make_slice(0, 0)
    message.camera_info.width = 640
    with pytest.raises(MessageError, match="camera_info: size 640x24"):
        messages.check_slice(message)


def test_a_camera_info_without_a_size_takes_that_of_the_image() -> None:
    message = make_slice(0, 0)
    message.camera_info.width = message.camera_info.height = 0
    messages.check_slice(message)
    assert messages.focal_slice(message).camera == CAMERA
    with pytest.raises(MessageError, match="camera_info: size 0x0"):
        messages.camera_intrinsics(message.camera_info)


@pytest.mark.parametrize(
    ("index", "count", "expected"),
    [
        (7, 3, "slice_index 7, expected less than slice_count 3"),
        (0, 17, "slice_count 17, expected at most 16"),
    ],
)
def test_a_place_that_no_sweep_has_is_refused(index: int, count: int, expected: str) -> None:
    with pytest.raises(MessageError, match=expected):
        messages.check_place(make_slice(0, index, count).focus, 16)
    messages.check_place(make_slice(0, 99, 0).focus, 16)  # no fixed pattern


def test_a_stack_round_trips_with_its_lens_and_the_reference_header() -> None:
    lens = ThinLens(4.0, 2.0, 1.5)
    message = messages.stack_message(make_sweep(0), lens, reference=1)
    assert message.header.stamp == message.slices[1].header.stamp
    stack = messages.focal_stack(message)
    assert stack.focus_diopters.tolist() == [0.5, 1.5, 2.5] and stack.lens == lens
    assert messages.focal_stack(messages.stack_message(make_sweep(0), None)).lens is None


def test_slices_that_make_no_stack_are_a_stack_error() -> None:
    with pytest.raises(StackError):
        messages.stack_of([make_slice(0, 0), make_slice(0, 1, focus=0.5)])


def test_the_blur_of_received_slices_becomes_a_lens_that_blurs_so() -> None:
    slices = make_sweep(0)
    for message in slices:
        message.focus.blur_px_per_diopter = 7.0
    lens = messages.stack_of(slices).lens
    assert lens is not None and blur_px_per_diopter(lens) == pytest.approx(7.0, rel=1e-5)


@pytest.mark.parametrize("organised", [True, False])
def test_a_cloud_reads_back_as_it_was_projected(organised: bool) -> None:
    point_cloud2 = pytest.importorskip("sensor_msgs_py.point_cloud2")
    depth = np.full((HEIGHT, WIDTH), 2.0, np.float32)
    depth[3, 4] = np.nan
    sigma = depth * np.float32(0.1)
    options = PointCloudOptions(organised=organised)
    message = messages.cloud_message(project(depth, sigma, picture(), CAMERA, options), HEADER)
    assert [field.name for field in message.fields] == ["x", "y", "z", "rgb", "sigma"]
    assert all(field.datatype == PointField.FLOAT32 for field in message.fields)
    assert len(message.data) == message.row_step * message.height
    assert message.is_dense is not organised  # organised clouds keep the pixel without a depth as NaN
    assert (message.height, message.width) == ((HEIGHT, WIDTH) if organised else (1, HEIGHT * WIDTH - 1))
    points = point_cloud2.read_points(message, skip_nans=True)
    assert len(points) == HEIGHT * WIDTH - 1
    u = points["x"] / points["z"] * CAMERA.fx + CAMERA.cx
    assert np.allclose(sorted(set(np.round(u, 3))), np.arange(WIDTH), atol=1e-2)
    assert np.allclose(points["sigma"], 0.2)


def test_conversion_survives_opencv_and_image_messages_of_every_kind() -> None:
    assert cv2.__version__.split(".")[0] == "4"  # 5 changed the type codes that cv_bridge is built on
    with pytest.raises(MessageError):
        messages.check_image(Image())


def test_a_focus_demand_reads_back_as_it_was_sent() -> None:
    demand = FocusDemand(np.array([0.5, 1.0, 1.5]), np.array([1.0, 0.0, 3.0]))
    read = messages.demand_from(messages.demand_message(demand))
    assert read.diopters.tolist() == demand.diopters.tolist()
    assert read.weight.tolist() == demand.weight.tolist()


def test_a_message_of_other_dimensions_is_no_focus_demand() -> None:
    demand = messages.demand_message(FocusDemand(np.array([0.5, 1.0]), np.array([1.0, 1.0])))
    demand.layout.data_offset = 1
    with pytest.raises(ParameterError, match="expected the dimensions"):
        messages.demand_from(demand)
    demand.layout.data_offset = 0
    demand.layout.dim[1].size = 3
    with pytest.raises(ParameterError, match=r"\('bins', 3\).* and 4 values"):
        messages.demand_from(demand)
