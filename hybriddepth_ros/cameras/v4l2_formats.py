"""V4L2 pixel formats to RGB or mono images. Names are the kernel's four characters (linux/videodev2.h)."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

from hybriddepth_ros.errors import CameraError

Image = npt.NDArray[np.uint8]


class DamagedFrame(CameraError):  # noqa: N818 - it says what came, and the stream goes on
    """A frame of which a part is missing; the next one may be whole."""


def decode(data: bytes, fourcc: str, width: int, height: int, bytes_per_line: int = 0) -> Image:
    """[H, W, 3] RGB, or [H, W] mono for GREY, uint8; DamagedFrame says what is missing.

    bytes_per_line: of formats that are not compressed, 0 = rows without padding.
    """
    if fourcc not in _DECODERS:
        raise CameraError(f"pixel format {fourcc!r}: expected one of {', '.join(FORMATS)}")
    return _DECODERS[fourcc](data, width, height, bytes_per_line)


def _mjpg(data: bytes, width: int, height: int, bytes_per_line: int) -> Image:
    # libjpeg fills what is missing with grey and only warns. Within compressed data 0xff is always followed
    # by 0 or a restart marker, so an end marker behind the scan's start is the end.
    scan = data.find(b"\xff\xda")
    if not data.startswith(b"\xff\xd8") or scan < 0 or data.find(b"\xff\xd9", scan) < 0:
        raise DamagedFrame(f"truncated MJPG ({len(data)} bytes)")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        image = None
    if image is None:
        raise DamagedFrame(f"MJPG that is no JPEG ({len(data)} bytes)")
    if image.shape[:2] != (height, width):
        raise DamagedFrame(f"MJPG of {image.shape[1]}x{image.shape[0]} px, expected {width}x{height}")
    return _uint8(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))


def _rows(data: bytes, fourcc: str, row_bytes: int, height: int, bytes_per_line: int) -> Image:
    """[H, row_bytes]; the last row may come without its padding."""
    stride = max(bytes_per_line, row_bytes)
    expected = stride * (height - 1) + row_bytes
    if len(data) < expected:
        raise DamagedFrame(f"truncated {fourcc} ({len(data)} bytes, expected {expected})")
    flat = np.zeros(stride * height, np.uint8)
    given = np.frombuffer(data, np.uint8)[: flat.size]
    flat[: given.size] = given
    return np.ascontiguousarray(flat.reshape(height, stride)[:, :row_bytes])


def _yuyv(data: bytes, width: int, height: int, bytes_per_line: int) -> Image:
    pairs = _rows(data, "YUYV", 2 * width, height, bytes_per_line).reshape(height, width, 2)
    return _uint8(cv2.cvtColor(pairs, cv2.COLOR_YUV2RGB_YUYV))


def _grey(data: bytes, width: int, height: int, bytes_per_line: int) -> Image:
    return _rows(data, "GREY", width, height, bytes_per_line)


def _bayer(fourcc: str, code: int) -> Callable[[bytes, int, int, int], Image]:
    def decode_bayer(data: bytes, width: int, height: int, bytes_per_line: int) -> Image:
        return _uint8(cv2.cvtColor(_rows(data, fourcc, width, height, bytes_per_line), code))

    return decode_bayer


def _uint8(image: npt.ArrayLike) -> Image:
    return np.ascontiguousarray(image, np.uint8)


# OpenCV names a mosaic by the second and third pixel of its second row, the kernel by its first four.
_DECODERS: dict[str, Callable[[bytes, int, int, int], Image]] = {
    "YUYV": _yuyv,
    "BA81": _bayer("BA81", cv2.COLOR_BayerRG2RGB),
    "GBRG": _bayer("GBRG", cv2.COLOR_BayerGR2RGB),
    "GRBG": _bayer("GRBG", cv2.COLOR_BayerGB2RGB),
    "RGGB": _bayer("RGGB", cv2.COLOR_BayerBG2RGB),
    "GREY": _grey,
    "MJPG": _mjpg,
}
# In the order of preference: compression costs detail, and detail is what focus is measured by.
FORMATS = tuple(_DECODERS)
