"""cv_bridge: what a user's script relies on. Runs against the stand-in and against the real package."""

from __future__ import annotations

import sys
from array import array
from fractions import Fraction
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("rclpy", reason="cv_bridge needs a ROS 2 installation")
pytest.importorskip("cv_bridge", reason="cv_bridge is not installed")

import cv_bridge
from cv_bridge import CvBridge, CvBridgeError, cvtColorForDisplay, getCvType
from cv_bridge.boost.cv_bridge_boost import CV_MAT_CNWrap, CV_MAT_DEPTHWrap, cvtColor2
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

Array = npt.NDArray[Any]

overlay_only = pytest.mark.skipif(
    not getattr(cv_bridge, "PIP_OVERLAY", False),
    reason="the real cv_bridge is installed; this is what the stand-in does better",
)

BRIDGE = CvBridge()

COLOR = [f"{layout}{bits}" for layout in ("mono", "rgb", "bgr", "rgba", "bgra") for bits in (8, 16)]
BAYER = [f"bayer_{pattern}{bits}" for pattern in ("rggb", "bggr", "gbrg", "grbg") for bits in (8, 16)]
GENERIC = [f"{depth}C{c}" for depth in ("8U", "8S", "16U", "16S", "32S", "32F", "64F") for c in (1, 2, 3, 4)]
PACKED_YUV = ["yuv422", "yuv422_yuy2"]
NEW_YUV = ["uyvy", "yuyv", "nv12", "nv21", "nv24"]
WIDE = ["8UC5", "32FC7", "16SC40"]
PLANAR_ROWS = {"nv12": Fraction(3, 2), "nv21": Fraction(3, 2), "nv24": Fraction(3)}


def random_image(encoding: str, height: int = 6, width: int = 8, seed: int = 0) -> Array:
    """[rows, width] or [rows, width, C] of the encoding's type, any bits a sensor may send."""
    dtype, channels = BRIDGE.encoding_to_dtype_with_channels(encoding)
    rows = int(height * PLANAR_ROWS.get(encoding, Fraction(1)))
    shape = (rows, width) if channels == 1 else (rows, width, channels)
    random = np.random.default_rng(seed)
    if np.issubdtype(np.dtype(dtype), np.floating):
        return random.normal(0.0, 100.0, shape).astype(dtype)
    limits = np.iinfo(dtype)
    return random.integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True)


def message_of(image: Array, encoding: str, padding: int = 0, big_endian: bool = False) -> Image:
    """The message a driver sends: `padding` bytes of rubbish after each row, bytes in the order it says."""
    stored = image.astype(image.dtype.newbyteorder(">" if big_endian else "<"))
    rows = [row.tobytes() + b"\xa5" * padding for row in stored]
    height = int(image.shape[0] / PLANAR_ROWS.get(encoding, Fraction(1)))
    step = len(rows[0])
    message = Image(
        height=height, width=image.shape[1], encoding=encoding, is_bigendian=int(big_endian), step=step
    )
    message.data = array("B", b"".join(rows))
    return message


# --- round trips ---


@pytest.mark.parametrize("encoding", COLOR + BAYER + GENERIC + PACKED_YUV + WIDE)
def test_every_encoding_survives_the_way_there_and_back(encoding: str) -> None:
    image = random_image(encoding)
    message = BRIDGE.cv2_to_imgmsg(image, encoding)
    assert (message.height, message.width, message.encoding) == (6, 8, encoding)
    assert message.step * message.height == len(message.data) == image.nbytes
    back = BRIDGE.imgmsg_to_cv2(message)
    assert back.dtype == image.dtype
    np.testing.assert_array_equal(back, image)


@overlay_only
@pytest.mark.parametrize("encoding", NEW_YUV)
def test_planar_yuv_survives_and_keeps_the_height_of_the_image(encoding: str) -> None:
    image = random_image(encoding)
    message = BRIDGE.cv2_to_imgmsg(image, encoding)
    assert (message.height, message.width) == (6, 8)
    np.testing.assert_array_equal(BRIDGE.imgmsg_to_cv2(message), image)


@pytest.mark.parametrize(
    "encoding", ["mono16", "rgb16", "bayer_rggb16", "16SC2", "32SC1", "32FC1", "32FC3", "64FC4"]
)
def test_big_endian_and_little_endian_messages_hold_the_same_image(encoding: str) -> None:
    image = random_image(encoding)
    for big_endian in (False, True):
        back = BRIDGE.imgmsg_to_cv2(message_of(image, encoding, big_endian=big_endian))
        assert back.dtype.isnative
        np.testing.assert_array_equal(back, image)


def test_a_big_endian_array_makes_a_big_endian_message() -> None:
    image = random_image("32SC1")
    message = BRIDGE.cv2_to_imgmsg(image.astype(">i4"))
    assert message.is_bigendian
    np.testing.assert_array_equal(BRIDGE.imgmsg_to_cv2(message), image)
    assert bool(BRIDGE.cv2_to_imgmsg(image).is_bigendian) == (sys.byteorder == "big")


def test_big_endian_16_bit_converts_like_little_endian() -> None:
    image = random_image("rgb16")
    expected = BRIDGE.imgmsg_to_cv2(message_of(image, "rgb16"), "bgr8")
    np.testing.assert_array_equal(
        BRIDGE.imgmsg_to_cv2(message_of(image, "rgb16", big_endian=True), "bgr8"), expected
    )


@given(
    encoding=st.sampled_from([*COLOR, *BAYER, *GENERIC]),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    pixels_of_padding=st.integers(0, 3),
    big_endian=st.booleans(),
)
def test_padded_rows_are_skipped(
    encoding: str, height: int, width: int, pixels_of_padding: int, big_endian: bool
) -> None:
    image = random_image(encoding, height, width)
    pixel = image.dtype.itemsize * (image.shape[2] if image.ndim == 3 else 1)
    back = BRIDGE.imgmsg_to_cv2(message_of(image, encoding, pixels_of_padding * pixel, big_endian))
    assert back.flags.c_contiguous
    np.testing.assert_array_equal(back, image)


@overlay_only
@given(encoding=st.sampled_from(["mono16", "rgb8", "32FC3", "bgra16"]), padding=st.integers(0, 17))
def test_padding_may_end_in_the_middle_of_a_pixel(encoding: str, padding: int) -> None:
    image = random_image(encoding)
    np.testing.assert_array_equal(BRIDGE.imgmsg_to_cv2(message_of(image, encoding, padding)), image)


@overlay_only
@pytest.mark.parametrize("encoding", ["nv12", "nv21"])
def test_padded_planes_are_put_together(encoding: str) -> None:
    image = random_image(encoding)
    np.testing.assert_array_equal(BRIDGE.imgmsg_to_cv2(message_of(image, encoding, padding=5)), image)


@overlay_only
def test_padded_nv24_skips_the_padding_of_its_double_length_chroma_rows() -> None:
    planes = random_image("nv24", height=2, width=4)  # luma [2, 4], then chroma [2, 8]
    luma, chroma = planes[:2], planes[2:].reshape(2, 8)
    data = b"".join(
        [row.tobytes() + b"\xa5" * 3 for row in luma] + [row.tobytes() + b"\xa5" * 6 for row in chroma]
    )
    message = Image(height=2, width=4, encoding="nv24", step=7)
    message.data = array("B", data)
    np.testing.assert_array_equal(BRIDGE.imgmsg_to_cv2(message), planes)


@pytest.mark.parametrize(
    "cut",
    [
        np.s_[::2],
        np.s_[:, ::3],
        np.s_[::-1, ::-1],
        np.s_[1:4, 2:5],
        np.s_[:, :, ::-1],
        np.s_[:, :, 0],
    ],
    ids=["every 2nd row", "every 3rd column", "upside down", "crop", "channels reversed", "one channel"],
)
def test_slices_that_are_not_contiguous_are_sent_as_they_look(cut: Any) -> None:
    slice_ = random_image("bgr16", 7, 9)[cut]
    assert not slice_.flags.c_contiguous
    np.testing.assert_array_equal(BRIDGE.imgmsg_to_cv2(BRIDGE.cv2_to_imgmsg(slice_)), slice_)


def test_a_single_channel_axis_is_dropped() -> None:
    image = random_image("mono8")[:, :, np.newaxis]
    message = BRIDGE.cv2_to_imgmsg(image, "mono8")
    assert BRIDGE.imgmsg_to_cv2(message).shape == (6, 8)
    assert BRIDGE.imgmsg_to_cv2(message, "mono16").shape == (6, 8)


@overlay_only
@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (5, 0), (0, 5, 3)])
def test_an_empty_image_survives(shape: tuple[int, ...]) -> None:
    image = np.zeros(shape, np.uint16)
    assert BRIDGE.imgmsg_to_cv2(BRIDGE.cv2_to_imgmsg(image)).shape == shape


# --- whose memory ---


def test_passthrough_is_an_array_over_the_message() -> None:
    message = BRIDGE.cv2_to_imgmsg(np.zeros((4, 4, 3), np.uint8), "rgb8")
    BRIDGE.imgmsg_to_cv2(message)[0, 0] = (1, 2, 3)
    assert list(message.data[:3]) == [1, 2, 3]


@pytest.mark.parametrize("desired", ["rgb8", "bgr8", "mono8"])
def test_any_other_encoding_is_a_copy(desired: str) -> None:
    message = BRIDGE.cv2_to_imgmsg(np.zeros((4, 4, 3), np.uint8), "rgb8")
    BRIDGE.imgmsg_to_cv2(message, desired)[:] = 9
    assert not any(message.data)


def test_a_message_does_not_share_the_arrays_memory() -> None:
    image = np.zeros((4, 4), np.uint8)
    message = BRIDGE.cv2_to_imgmsg(image)
    image[:] = 9
    assert isinstance(message.data, array)
    assert message.data.typecode == "B"
    assert not any(message.data)


def test_the_header_is_taken_over() -> None:
    header = Header(frame_id="camera")
    header.stamp.sec = 7
    assert BRIDGE.cv2_to_imgmsg(np.zeros((2, 2), np.uint8), header=header).header == header


# --- colour ---

CV_NAMES = {"mono": "GRAY", "rgb": "RGB", "bgr": "BGR", "rgba": "RGBA", "bgra": "BGRA"}


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("target", CV_NAMES)
@pytest.mark.parametrize("source", CV_NAMES)
def test_colours_convert_as_opencv_does(source: str, target: str, bits: int) -> None:
    image = random_image(f"{source}{bits}")
    if source == target:
        expected = image
    else:
        expected = cv2.cvtColor(image, getattr(cv2, f"COLOR_{CV_NAMES[source]}2{CV_NAMES[target]}"))
    converted = BRIDGE.imgmsg_to_cv2(BRIDGE.cv2_to_imgmsg(image, f"{source}{bits}"), f"{target}{bits}")
    assert converted.dtype == image.dtype
    np.testing.assert_array_equal(converted, expected)


def test_depth_is_scaled_both_ways() -> None:
    grey8 = np.arange(256, dtype=np.uint8).reshape(16, 16)
    grey16 = cvtColor2(grey8, "mono8", "mono16")
    np.testing.assert_array_equal(grey16, grey8.astype(np.uint16) * 257)
    np.testing.assert_array_equal(cvtColor2(grey16, "mono16", "mono8"), grey8)


def test_every_16_bit_value_is_rounded_to_the_nearest_8_bit_value() -> None:
    grey16 = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    expected = np.rint(grey16 * (255.0 / 65535.0)).astype(np.uint8)
    np.testing.assert_array_equal(cvtColor2(grey16, "mono16", "mono8"), expected)


def test_colour_and_depth_change_together() -> None:
    image = random_image("rgb16")
    expected = np.rint(image[:, :, ::-1] * (255.0 / 65535.0)).astype(np.uint8)
    np.testing.assert_array_equal(cvtColor2(image, "rgb16", "bgr8"), expected)


def mosaic(color: tuple[int, int, int], pattern: str, bits: int) -> Array:
    """What a sensor with that Bayer pattern sees of one flat (red, green, blue)."""
    cells = [color["rgb".index(letter)] for letter in pattern]
    return np.tile(np.array(cells, f"uint{bits}").reshape(2, 2), (6, 6))


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_bayer_patterns_give_back_the_colour_that_was_seen(pattern: str, bits: int) -> None:
    color = (200, 100, 20) if bits == 8 else (50000, 30000, 4000)
    message = BRIDGE.cv2_to_imgmsg(mosaic(color, pattern, bits), f"bayer_{pattern}{bits}")
    seen = BRIDGE.imgmsg_to_cv2(message, f"rgb{bits}")
    assert (seen[2:-2, 2:-2] == color).all()
    assert (BRIDGE.imgmsg_to_cv2(message, f"bgr{bits}")[2:-2, 2:-2] == color[::-1]).all()


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(
    ("pattern", "cv_pattern"), [("rggb", "BG"), ("bggr", "RG"), ("gbrg", "GR"), ("grbg", "GB")]
)
def test_bayer_is_demosaiced_by_opencv(pattern: str, cv_pattern: str, bits: int) -> None:
    raw = random_image(f"bayer_{pattern}{bits}", 12, 16)
    for target, cv_target in (("rgb", "RGB"), ("bgr", "BGR"), ("mono", "GRAY")):
        expected = cv2.cvtColor(raw, getattr(cv2, f"COLOR_Bayer{cv_pattern}2{cv_target}"))
        np.testing.assert_array_equal(cvtColor2(raw, f"bayer_{pattern}{bits}", f"{target}{bits}"), expected)


def yuv_of(rgb: tuple[int, int, int]) -> tuple[int, int, int]:
    """BT.601, video range: what cameras send."""
    r, g, b = (value / 255.0 for value in rgb)
    luma = 0.299 * r + 0.587 * g + 0.114 * b
    u, v = (b - luma) / 1.772, (r - luma) / 1.402
    return round(16 + 219 * luma), round(128 + 224 * u), round(128 + 224 * v)


def flat_yuv(rgb: tuple[int, int, int], encoding: str, height: int = 4, width: int = 6) -> Array:
    y, u, v = yuv_of(rgb)
    if encoding in ("uyvy", "yuv422"):
        return np.tile(np.array([[u, y], [v, y]], np.uint8), (height, width // 2, 1))
    if encoding in ("yuyv", "yuv422_yuy2"):
        return np.tile(np.array([[y, u], [y, v]], np.uint8), (height, width // 2, 1))
    chroma_rows = {"nv12": height // 2, "nv21": height // 2, "nv24": 2 * height}[encoding]
    pair = (v, u) if encoding == "nv21" else (u, v)
    return np.vstack([np.full((height, width), y), np.tile(pair, (chroma_rows, width // 2))]).astype(np.uint8)


@pytest.mark.parametrize("rgb", [(200, 100, 20), (20, 60, 220), (128, 128, 128), (10, 250, 30)])
@pytest.mark.parametrize(
    "encoding", [*PACKED_YUV, *(pytest.param(name, marks=overlay_only) for name in NEW_YUV)]
)
def test_yuv_gives_back_the_colour_that_was_encoded(encoding: str, rgb: tuple[int, int, int]) -> None:
    message = BRIDGE.cv2_to_imgmsg(flat_yuv(rgb, encoding), encoding)
    seen = BRIDGE.imgmsg_to_cv2(message, "rgb8")
    assert seen.shape == (4, 6, 3)
    np.testing.assert_allclose(seen.reshape(-1, 3), np.tile(rgb, (24, 1)), atol=3)
    np.testing.assert_array_equal(BRIDGE.imgmsg_to_cv2(message, "bgr8"), seen[:, :, ::-1])
    np.testing.assert_array_equal(BRIDGE.imgmsg_to_cv2(message, "rgba8")[:, :, :3], seen)


@overlay_only
def test_nv24_keeps_the_colour_of_every_single_pixel() -> None:
    colors = [(200, 100, 20), (20, 60, 220), (10, 250, 30), (240, 240, 16)]
    yuv = np.array([yuv_of(color) for color in colors], np.uint8)  # one row of four pixels
    planes = np.vstack([yuv[:, 0], yuv[:2, 1:].reshape(-1), yuv[2:, 1:].reshape(-1)])  # [3, 4]
    np.testing.assert_allclose(cvtColor2(planes, "nv24", "rgb8")[0], colors, atol=3)


# --- what makes no sense ---


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("8UC3", "bgr8"),
        ("8UC3", "mono16"),
        ("8UC1", "mono8"),
        ("32FC1", "mono8"),
        ("bgr8", "8UC4"),
        ("32FC1", "32FC2"),
        ("rgb8", "bayer_rggb8"),
        ("rgb8", "no_such_encoding"),
    ],
)
def test_a_conversion_that_makes_no_sense_is_refused(source: str, target: str) -> None:
    message = BRIDGE.cv2_to_imgmsg(random_image(source), source)
    with pytest.raises(CvBridgeError, match=target):
        BRIDGE.imgmsg_to_cv2(message, target)


@pytest.mark.parametrize(
    ("source", "target"), [("bgr8", "8UC3"), ("mono16", "16UC1"), ("bayer_rggb8", "8UC1")]
)
def test_colour_becomes_plain_numbers_unchanged(source: str, target: str) -> None:
    image = random_image(source)
    np.testing.assert_array_equal(cvtColor2(image, source, target), image)


def test_plain_numbers_change_depth_by_rounding_and_saturating() -> None:
    values = np.array([[-5.0, 0.5, 1.5, 2.49, 70000.0, 1234.5]], np.float32)
    np.testing.assert_array_equal(cvtColor2(values, "32FC1", "16UC1"), [[0, 0, 2, 2, 65535, 1234]])
    np.testing.assert_array_equal(cvtColor2(values, "32FC1", "64FC1"), values.astype(np.float64))


@overlay_only
def test_plain_numbers_that_are_no_numbers_become_zero_and_the_infinite_saturates() -> None:
    values = np.array([[np.nan, np.inf, -np.inf]], np.float32)
    np.testing.assert_array_equal(cvtColor2(values, "32FC1", "16UC1"), [[0, 65535, 0]])


def test_the_extension_raises_runtime_error_and_the_class_type_error() -> None:
    with pytest.raises(RuntimeError):
        getCvType("no_such_encoding")
    with pytest.raises(RuntimeError):
        cvtColor2(np.zeros((2, 2, 3), np.uint8), "8UC3", "bgr8")
    assert issubclass(CvBridgeError, TypeError)


# --- bad input ---


def broken(**changes: Any) -> Image:
    message = message_of(random_image("rgb8"), "rgb8")
    for name, value in changes.items():
        setattr(message, name, value)
    return message


@pytest.mark.parametrize("desired", ["passthrough", "bgr8"])
@pytest.mark.parametrize("encoding", ["", "rgb", "8UC0", "8UC99999", "8UC", "7UC1", "jpeg"])
def test_an_unknown_encoding_is_refused(encoding: str, desired: str) -> None:
    if encoding == "8UC" and not getattr(cv_bridge, "PIP_OVERLAY", False):
        pytest.skip("the real cv_bridge may read it as one channel")
    with pytest.raises(CvBridgeError):
        BRIDGE.imgmsg_to_cv2(broken(encoding=encoding), desired)


@overlay_only
@pytest.mark.parametrize("encoding", COLOR + BAYER + GENERIC + PACKED_YUV + NEW_YUV)
def test_data_one_byte_short_is_refused(encoding: str) -> None:
    message = BRIDGE.cv2_to_imgmsg(random_image(encoding), encoding)
    message.data = message.data[:-1]
    with pytest.raises(CvBridgeError, match="data holds"):
        BRIDGE.imgmsg_to_cv2(message)


@overlay_only
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"step": 23}, "step is 23"),
        ({"step": 0}, "step is 0"),
        ({"width": 9}, "step is 24"),
        ({"height": 7}, "data holds"),
        ({"data": array("B")}, "data holds 0"),
        ({"encoding": "rgba8"}, "step is 24"),
        ({"encoding": "nv12", "height": 5}, "even"),
    ],
)
def test_a_message_that_contradicts_itself_is_refused_with_the_reason(
    changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(CvBridgeError, match=reason):
        BRIDGE.imgmsg_to_cv2(broken(**changes))


@pytest.mark.parametrize("encoding", ["rgba8", "mono8", "rgb16", "8UC1", "32FC3", "no_such_encoding"])
def test_an_array_that_is_not_of_its_encoding_is_refused(encoding: str) -> None:
    with pytest.raises(CvBridgeError):
        BRIDGE.cv2_to_imgmsg(np.zeros((4, 4, 3), np.uint8), encoding)


@pytest.mark.parametrize("not_an_image", [1, None, [[1, 2], [3, 4]], "image"])
def test_what_is_no_array_is_a_type_error(not_an_image: Any) -> None:
    with pytest.raises(TypeError):
        BRIDGE.cv2_to_imgmsg(not_an_image, "mono8")
    with pytest.raises(TypeError):
        BRIDGE.cv2_to_compressed_imgmsg(not_an_image)


@overlay_only
@pytest.mark.parametrize("dtype", ["int64", "uint32", "float16", "bool", "complex64"])
def test_a_number_type_that_ros_has_no_encoding_for_is_refused(dtype: str) -> None:
    with pytest.raises(CvBridgeError, match=dtype):
        BRIDGE.cv2_to_imgmsg(np.zeros((4, 4), dtype))


@overlay_only
@pytest.mark.parametrize("shape", [(), (4,), (4, 4, 3, 1)])
def test_an_array_that_is_no_image_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(CvBridgeError, match="shape"):
        BRIDGE.cv2_to_imgmsg(np.zeros(shape, np.uint8))


# --- compressed ---


@pytest.mark.parametrize("encoding", ["mono8", "bgr8", "bgra8", "mono16", "bgr16"])
def test_png_keeps_every_bit(encoding: str) -> None:
    image = random_image(encoding)
    message = BRIDGE.cv2_to_compressed_imgmsg(image, "png")
    assert message.format == "png"
    np.testing.assert_array_equal(BRIDGE.compressed_imgmsg_to_cv2(message), image)


@pytest.mark.parametrize("extension", ["jpg", "jpeg", "png", "bmp", "tiff"])
def test_compressed_formats_hold_the_picture(extension: str) -> None:
    image = cv2.GaussianBlur(random_image("bgr8", 48, 64), (0, 0), 5)
    message = BRIDGE.cv2_to_compressed_imgmsg(image, extension)
    np.testing.assert_allclose(BRIDGE.compressed_imgmsg_to_cv2(message).astype(int), image, atol=12)


def test_jpeg_is_the_default_and_converts() -> None:
    image = np.full((16, 16, 3), (20, 100, 200), np.uint8)
    message = BRIDGE.cv2_to_compressed_imgmsg(image)
    assert message.format == "jpg"
    np.testing.assert_allclose(BRIDGE.compressed_imgmsg_to_cv2(message, "rgb8")[8, 8], (200, 100, 20), atol=6)


@overlay_only
def test_a_grey_jpeg_becomes_colour_when_asked() -> None:
    message = BRIDGE.cv2_to_compressed_imgmsg(np.full((16, 16), 77, np.uint8))
    assert BRIDGE.compressed_imgmsg_to_cv2(message, "bgr8").shape == (16, 16, 3)
    assert BRIDGE.compressed_imgmsg_to_cv2(message, "mono8").shape == (16, 16)


@overlay_only
@pytest.mark.parametrize("data", [b"", b"not a picture", b"\xff\xd8\xff"])
def test_a_file_that_does_not_decode_is_refused(data: bytes) -> None:
    with pytest.raises(CvBridgeError):
        BRIDGE.compressed_imgmsg_to_cv2(CompressedImage(format="jpeg", data=data))


@overlay_only
def test_a_file_format_that_opencv_does_not_write_is_refused() -> None:
    with pytest.raises(CvBridgeError, match="no_such_format"):
        BRIDGE.cv2_to_compressed_imgmsg(np.zeros((4, 4), np.uint8), "no_such_format")


# --- tables and display ---


@pytest.mark.parametrize(
    "encoding", ["bgr8", "mono16", "32FC1", "8UC4", "64FC3", "16SC2", "bayer_gbrg16", "yuv422"]
)
def test_type_codes_and_names_agree(encoding: str) -> None:
    code = BRIDGE.encoding_to_cvtype2(encoding)
    dtype, channels = BRIDGE.cvtype2_to_dtype_with_channels(code)
    assert (dtype, channels) == BRIDGE.encoding_to_dtype_with_channels(encoding)
    assert BRIDGE.cvtype_to_name[code] == BRIDGE.dtype_with_channels_to_cvtype2(np.dtype(dtype), channels)
    assert CV_MAT_CNWrap(code) == channels
    assert BRIDGE.cvdepth_to_numpy_depth[CV_MAT_DEPTHWrap(code)] == dtype


def test_type_codes_are_those_of_opencv() -> None:
    assert getCvType("bgr8") == cv2.CV_8UC3
    assert getCvType("8U") == cv2.CV_8UC1
    assert getCvType("32FC4") == cv2.CV_32FC4
    assert BRIDGE.numpy_type_to_cvtype["uint8"] == "8U"
    assert BRIDGE.numpy_type_to_cvtype["8U"] == "uint8"


def test_labels_are_drawn_in_different_colours_and_the_background_black() -> None:
    labels = np.arange(-1, 20, dtype=np.int32).reshape(1, -1)
    drawn = cvtColorForDisplay(labels, "32SC1", "bgr8")
    assert drawn.dtype == np.uint8
    assert (drawn[0, 0] == 0).all()
    assert tuple(drawn[0, 1]) == (255, 248, 239)  # aliceblue, as blue, green, red
    assert len({tuple(color) for color in drawn[0, 1:10]}) == 9


def test_depth_is_stretched_over_the_range_that_is_asked_for() -> None:
    depth = np.array([[0.5, 1.0, 2.0, 3.0, 9.0]], np.float32)
    shown = cvtColorForDisplay(depth, "32FC1", "mono8", min_image_value=1.0, max_image_value=3.0)
    assert shown.tolist()[0] in ([0, 0, 127, 255, 255], [0, 0, 128, 255, 255])


def test_dynamic_scaling_uses_the_whole_range() -> None:
    shown = cvtColorForDisplay(np.array([[100, 200, 300]], np.uint16), "mono16", "bgr8", True)
    assert shown.shape == (1, 3, 3)
    assert (shown.min(), shown.max()) == (0, 255)


@overlay_only
def test_pixels_without_depth_are_black() -> None:
    shown = cvtColorForDisplay(np.array([[1.0, np.nan, 3.0]], np.float32), "32FC1", "mono8", True)
    assert shown.tolist() == [[0, 0, 255]]


@overlay_only
@pytest.mark.parametrize(
    ("encoding", "chosen_shape"),
    [("16UC1", (6, 8)), ("32SC1", (6, 8, 3)), ("8UC3", (6, 8, 3)), ("bgra8", (6, 8, 3))],
)
def test_display_chooses_an_encoding_when_none_is_given(encoding: str, chosen_shape: tuple[int, ...]) -> None:
    shown = cvtColorForDisplay(random_image(encoding), encoding, "")
    assert shown.dtype == np.uint8
    assert shown.shape == chosen_shape


@pytest.mark.parametrize("encoding", ["mono16", "32FC1", "bayer_rggb8"])
def test_display_refuses_what_no_screen_shows(encoding: str) -> None:
    with pytest.raises(RuntimeError):
        cvtColorForDisplay(random_image("bgr8"), "bgr8", encoding)
