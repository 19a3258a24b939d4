"""What is encoded as a camera does comes out as it was, within what the format loses."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybriddepth_ros.cameras.v4l2_formats import FORMATS, DamagedFrame, decode
from hybriddepth_ros.emulation.v4l2_parts import bytes_per_line, encode
from hybriddepth_ros.errors import CameraError
from tests.emulated_v4l2 import texture

BAYER = ("BA81", "GBRG", "GRBG", "RGGB")
sizes = st.tuples(st.integers(2, 20), st.integers(2, 20)).map(lambda size: (2 * size[0], 2 * size[1]))
colours = st.tuples(*[st.integers(0, 255)] * 3)


@settings(deadline=None, max_examples=40)
@given(size=sizes, colour=colours, fourcc=st.sampled_from(FORMATS), padding=st.integers(0, 40))
def test_a_plain_colour_comes_through_every_format(
    size: tuple[int, int], colour: tuple[int, int, int], fourcc: str, padding: int
) -> None:
    width, height = size
    image = np.full((height, width, 3), colour, np.uint8)
    data = encode(image, fourcc, width, height, padding)
    got = decode(data, fourcc, width, height, bytes_per_line(fourcc, width, padding))
    assert got.dtype == np.uint8 and got.flags.c_contiguous
    if fourcc == "GREY":
        assert got.shape == (height, width)
        expected = np.array(colour) @ (0.299, 0.587, 0.114)
        assert np.abs(got - expected).max() <= 1
    else:
        assert got.shape == (height, width, 3)
        # 8 bits of limited-range YUV are coarser than RGB's; mosaics hold a plain colour exactly.
        assert np.abs(got.astype(int) - colour).max() <= (0 if fourcc in BAYER else 4)


@settings(deadline=None, max_examples=30)
@given(data=st.data(), size=sizes)
def test_grey_levels_come_through_yuyv_pixel_by_pixel(data: st.DataObject, size: tuple[int, int]) -> None:
    width, height = size
    seed = data.draw(st.integers(0, 2**32 - 1))
    grey = np.random.default_rng(seed).integers(0, 256, (height, width, 1), np.uint8).repeat(3, axis=2)
    got = decode(encode(grey, "YUYV", width, height, 6), "YUYV", width, height, 2 * width + 6)
    assert np.abs(got.astype(int) - grey).max() <= 2


@pytest.mark.parametrize("fourcc", BAYER)
def test_a_mosaic_keeps_what_its_own_pixels_saw(fourcc: str) -> None:
    image = np.random.default_rng(3).integers(0, 256, (24, 32, 3), np.uint8)
    got = decode(encode(image, fourcc, 32, 24), fourcc, 32, 24)
    own = {"BA81": 2, "GBRG": 1, "GRBG": 1, "RGGB": 0}[fourcc]  # channel of the upper left pixel
    inside = np.s_[2:-2:2, 2:-2:2, own]
    np.testing.assert_array_equal(got[inside], image[inside])


def test_a_jpeg_shows_its_texture_in_its_colours() -> None:
    image = texture()
    image[:, :32] = image[:, :32] // np.array([1, 2, 4], np.uint8)  # reddish
    got = decode(encode(image, "MJPG", 64, 48), "MJPG", 64, 48)
    assert np.abs(got[:, :24].astype(int) - image[:, :24]).mean() < 3


def test_a_jpeg_without_huffman_tables_is_read_as_cameras_send_them() -> None:
    image = texture()
    done, coded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])
    data = bytes(coded)
    while (table := data.find(b"\xff\xc4")) >= 0:
        data = data[:table] + data[table + 2 + int.from_bytes(data[table + 2 : table + 4]) :]
    assert done and b"\xff\xc4" not in data
    assert np.abs(decode(data, "MJPG", 64, 48).astype(int) - image).mean() < 3


@settings(deadline=None, max_examples=60)
@given(fourcc=st.sampled_from(FORMATS), share=st.floats(0.0, 0.99))
def test_what_is_missing_at_the_end_is_a_damaged_frame(fourcc: str, share: float) -> None:
    data = encode(texture(), fourcc, 64, 48)
    with pytest.raises(DamagedFrame, match="truncated"):
        decode(data[: int(share * len(data))], fourcc, 64, 48)


def test_bytes_after_a_jpeg_do_no_harm() -> None:
    data = encode(texture(), "MJPG", 64, 48)
    np.testing.assert_array_equal(decode(data + bytes(77), "MJPG", 64, 48), decode(data, "MJPG", 64, 48))


def test_a_jpeg_of_another_size_or_none_is_a_damaged_frame() -> None:
    with pytest.raises(DamagedFrame, match="64x48 px, expected 32x24"):
        decode(encode(texture(), "MJPG", 64, 48), "MJPG", 32, 24)
    with pytest.raises(DamagedFrame, match="no JPEG"):
        decode(b"\xff\xd8 \xff\xda \xff\xd9", "MJPG", 64, 48)


def test_the_last_row_may_come_without_its_padding() -> None:
    data = encode(texture(), "GREY", 64, 48, 8)
    np.testing.assert_array_equal(decode(data[:-8], "GREY", 64, 48, 72), decode(data, "GREY", 64, 48, 72))


def test_an_unknown_format_is_refused_with_the_known_ones() -> None:
    with pytest.raises(CameraError, match="'H264': expected one of YUYV, BA81"):
        decode(b"", "H264", 64, 48)
