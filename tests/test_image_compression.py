"""Pictures come back as they were sent, or nearly; what was damaged on the way is refused and never shown."""

import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybriddepth_ros.errors import MessageError
from hybriddepth_ros.image_compression import (
    check_compressed,
    compress,
    decompress,
    format_text,
    parse_format,
)


def smooth(height: int, width: int, seed: int = 0, channels: int = 3) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, channels)).astype(np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 3.0).reshape(height, width, channels)


JPEG = compress(smooth(48, 64), "rgb8", "jpeg", 90)
PNG = compress(smooth(48, 64), "rgb8", "png")


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 70),
    st.integers(1, 70),
    st.sampled_from(["rgb8", "bgr8", "mono8", "mono16", "bayer_rggb8", "bayer_gbrg16"]),
    st.integers(0, 9),
)
def test_png_keeps_every_bit_of_every_encoding(height: int, width: int, encoding: str, seed: int) -> None:
    shape = (height, width, 3) if encoding in ("rgb8", "bgr8") else (height, width)
    dtype = np.uint16 if encoding.endswith("16") else np.uint8
    image = np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)
    data = compress(image, encoding, "png")
    assert check_compressed(data, encoding, "png", zlib.crc32(data)) == (width, height)
    assert np.array_equal(decompress(data, encoding, "png"), image)


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "mono8"])
def test_jpeg_comes_back_near_and_in_the_order_of_colours_it_was_sent_in(encoding: str) -> None:
    image = smooth(48, 64, channels=1 if encoding == "mono8" else 3).squeeze()
    if image.ndim == 3:
        image[..., 0] //= 4  # what is red is not what is blue
    near, far = (
        float(
            np.abs(
                decompress(compress(image, encoding, "jpeg", q), encoding, "jpeg") - image.astype(int)
            ).mean()
        )
        for q in (95, 10)
    )
    assert near < 1.5 < far


@pytest.mark.skipif(not hasattr(cv2, "IMWRITE_JPEG_SAMPLING_FACTOR"), reason="OpenCV before 4.7")
def test_jpeg_keeps_colour_at_full_resolution() -> None:
    """Stripes of one pixel that differ in colour, hardly in brightness: halved, they would become grey."""
    image = np.zeros((32, 32, 3), np.uint8)
    image[:, 0::2], image[:, 1::2] = (200, 60, 60), (60, 130, 60)
    back = decompress(compress(image, "rgb8", "jpeg", 95), "rgb8", "jpeg")
    assert np.abs(back.astype(int) - image).mean() < 6.0


@pytest.mark.parametrize("encoding", ["bayer_rggb8", "bayer_grbg16", "mono16"])
def test_jpeg_of_what_it_would_spoil_is_refused(encoding: str) -> None:
    with pytest.raises(MessageError, match=rf"jpeg of {encoding}, expected .*send it as png"):
        compress(np.zeros((8, 8), np.uint8), encoding, "jpeg")
    with pytest.raises(MessageError, match="send it as png"):
        parse_format(f"{encoding}; jpeg compressed {encoding}")


@pytest.mark.parametrize(("data", "codec"), [(JPEG, "jpeg"), (PNG, "png")])
def test_whatever_is_cut_off_is_noticed(data: bytes, codec: str) -> None:
    for length in range(len(data)):
        with pytest.raises(MessageError, match="image: "):
            check_compressed(data[:length], "rgb8", codec)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(JPEG) - 1), st.integers(1, 255))
def test_a_jpeg_with_one_wrong_byte_is_refused_by_its_checksum(place: int, change: int) -> None:
    damaged = bytearray(JPEG)
    damaged[place] ^= change
    with pytest.raises(MessageError):
        check_compressed(bytes(damaged), "rgb8", "jpeg", zlib.crc32(JPEG))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.sampled_from([JPEG, PNG]), st.integers(2, 600))
def test_no_bytes_whatever_raise_anything_else(junk: bytes, head: bytes, kept: int) -> None:
    data = head[:kept] + junk
    codec = "jpeg" if head is JPEG else "png"
    for read in (lambda: check_compressed(data, "rgb8", codec), lambda: decompress(data, "rgb8", codec)):
        try:
            read()
        except MessageError as error:
            assert "\n" not in str(error)


def test_a_small_file_that_claims_to_be_huge_is_refused_before_it_is_decoded() -> None:
    at = JPEG.index(b"\xff\xc0") + 5
    huge = JPEG[:at] + struct.pack(">HH", 65000, 65000) + JPEG[at + 4 :]
    with pytest.raises(MessageError, match="size 65000x65000, expected one of at most 100 megapixels"):
        check_compressed(huge, "rgb8", "jpeg")


def test_a_picture_of_another_kind_than_its_format_says_is_refused() -> None:
    grey = compress(np.zeros((8, 8), np.uint8), "mono8", "jpeg")
    with pytest.raises(MessageError, match=r"jpeg of 1 x uint8 per pixel, expected 3 x uint8 \(rgb8\)"):
        decompress(grey, "rgb8", "jpeg")
    with pytest.raises(MessageError, match="that are no png"):
        check_compressed(grey, "mono8", "png")


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "mono8"])
@pytest.mark.parametrize("codec", ["jpeg", "png"])
def test_the_format_is_read_as_it_is_written(encoding: str, codec: str) -> None:
    assert parse_format(format_text(encoding, codec)) == (encoding, codec)


def test_the_format_of_compressed_image_transport_is_taken() -> None:
    assert parse_format("rgb8; jpeg compressed bgr8") == ("rgb8", "jpeg")
    assert parse_format("mono8; jpeg compressed ") == ("mono8", "jpeg")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "jpeg",
        "rgb8; jpeg",
        "rgb8; jpeg compressed rgb8",
        "rgb8; webp compressed bgr8",
        "16UC1; compressedDepth png",
    ],
)
def test_another_format_is_one_line(text: str) -> None:
    with pytest.raises(MessageError, match="image: "):
        parse_format(text)
