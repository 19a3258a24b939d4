"""Pictures as JPEG or PNG bytes and back, in the encodings that ROS names them by. Needs no ROS.

A JPEG decodes whatever becomes of its bytes: libjpeg fills a cut one with grey and goes on after a damaged
one. So what comes in is walked to its end, and held against a CRC-32 where the sender gave one.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from hybriddepth_ros.errors import MessageError
from hybriddepth_ros.image_files import MAX_IMAGE_PIXELS, declared_sizes

RAW, JPEG, PNG = "raw", "jpeg", "png"
TRANSPORTS = (RAW, JPEG, PNG)
DEFAULT_JPEG_QUALITY = 90

_ORDERS = ("rggb", "bggr", "gbrg", "grbg")
_DTYPES: dict[str, type] = {
    "rgb8": np.uint8,
    "bgr8": np.uint8,
    "mono8": np.uint8,
    "mono16": np.uint16,
    **{f"bayer_{order}8": np.uint8 for order in _ORDERS},
    **{f"bayer_{order}16": np.uint16 for order in _ORDERS},
}
_COLOR = ("rgb8", "bgr8")
_JPEG_ENCODINGS = (*_COLOR, "mono8")
_SIGNATURES = {JPEG: b"\xff\xd8", PNG: b"\x89PNG\r\n\x1a\n"}


def compress(
    image: npt.NDArray[Any], encoding: str, codec: str, jpeg_quality: int = DEFAULT_JPEG_QUALITY
) -> bytes:
    """The file of an image [H, W, 3] or [H, W] in `encoding`; codec jpeg (quality 1..100) or png.

    JPEG keeps its colours at full resolution (4:4:4) where OpenCV can, 4.7 on. MessageError for an encoding
    that the codec cannot carry: JPEG of a Bayer mosaic would mix its colours, PNG keeps every bit.
    """
    _check_encoding(encoding, codec)
    if encoding == "rgb8":
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    if codec == PNG:
        # of pictures with noise 13 % fewer bytes than OpenCV's own choice, which is somewhat faster
        options = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]
        done, data = cv2.imencode(".png", image, options)
    else:
        options = [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality]
        if encoding in _COLOR and hasattr(cv2, "IMWRITE_JPEG_SAMPLING_FACTOR"):
            options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
        done, data = cv2.imencode(".jpg", image, options)
    if not done:
        raise MessageError(f"image: OpenCV could not write a {image.shape} {encoding} picture as {codec}")
    return data.tobytes()


def decompress(data: bytes, encoding: str, codec: str) -> npt.NDArray[Any]:
    """The image [H, W, 3] or [H, W] in `encoding`; MessageError if it cannot be decoded or is another kind.

    To be called after `check_compressed`, which costs a fraction.
    """
    _check_encoding(encoding, codec)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise MessageError(f"image: {codec} that OpenCV cannot decode: {error.err}") from None
    if image is None:
        raise MessageError(f"image: {len(data)} bytes of {codec} that OpenCV cannot decode")
    channels = 3 if encoding in _COLOR else 1
    found = image.shape[2] if image.ndim == 3 else 1
    if found != channels or image.dtype != _DTYPES[encoding]:
        raise MessageError(
            f"image: {codec} of {found} x {image.dtype} per pixel, expected {channels} x"
            f" {np.dtype(_DTYPES[encoding])} ({encoding})"
        )
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB) if encoding == "rgb8" else np.asarray(image)


def check_compressed(data: bytes, encoding: str, codec: str, crc32: int = 0) -> tuple[int, int]:
    """(width, height) [px] of a whole JPEG or PNG, without decoding it; MessageError for any other bytes.

    crc32: of `data` as the sender made it; 0 = unknown. Without it a JPEG whose inside is damaged passes.
    """
    _check_encoding(encoding, codec)
    if not data.startswith(_SIGNATURES[codec]):
        raise MessageError(f"image: {len(data)} bytes that are no {codec}, though the format says so")
    if crc32 and zlib.crc32(data) != crc32:
        raise MessageError(f"image: {codec} damaged on the way: {len(data)} bytes, expected CRC {crc32:08x}")
    try:
        sizes = list(declared_sizes(data))
    except (ValueError, IndexError, struct.error) as error:
        raise MessageError(f"image: {codec} cut short or damaged: {len(data)} bytes ({error})") from None
    if len(sizes) != 1 or min(sizes[0]) < 1 or sizes[0][0] * sizes[0][1] > MAX_IMAGE_PIXELS:
        said = ", ".join(f"{width}x{height}" for width, height in sizes) or "none"
        raise MessageError(
            f"image: {codec} of size {said}, expected one of at most {MAX_IMAGE_PIXELS / 1e6:g} megapixels"
        )
    return sizes[0]


def format_text(encoding: str, codec: str) -> str:
    """`CompressedImage.format`, as compressed_image_transport writes it."""
    return f"{encoding}; {codec} compressed {'bgr8' if encoding in _COLOR else encoding}"


def parse_format(text: str) -> tuple[str, str]:
    """(encoding, codec) of `CompressedImage.format`; MessageError for one that is not known here."""
    encoding, separator, rest = text.partition(";")
    encoding, words = encoding.strip(), rest.split()
    # of pictures without colours, compressed_image_transport leaves the last word out
    stored = (["bgr8"],) if encoding in _COLOR else ([encoding], [])
    known = words[1:2] == ["compressed"] and words[2:] in stored
    if not separator or not known or words[0] not in (JPEG, PNG):
        raise MessageError(
            f"image: format {text!r}, expected '{format_text('rgb8', JPEG)}', '{format_text('mono8', PNG)}'"
            " or their like"
        )
    _check_encoding(encoding, words[0])
    return encoding, words[0]


def _check_encoding(encoding: str, codec: str) -> None:
    if codec not in (JPEG, PNG):
        raise MessageError(f"image: codec {codec!r}, expected {JPEG} or {PNG}")
    if encoding not in _DTYPES:
        raise MessageError(f"image: encoding {encoding!r}, expected one of {', '.join(_DTYPES)}")
    if codec == JPEG and encoding not in _JPEG_ENCODINGS:
        raise MessageError(
            f"image: {JPEG} of {encoding}, expected {', '.join(_JPEG_ENCODINGS)}: send it as {PNG}"
        )
