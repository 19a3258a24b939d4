"""Image files from anywhere, read without trusting what they claim."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from hybriddepth_ros.errors import StackError

ImageRGB = npt.NDArray[np.uint8]  # [H, W, 3] RGB

MAX_IMAGE_PIXELS = 100_000_000
MAX_FILE_BYTES = 1 << 30


def read_image(path: Path) -> ImageRGB:
    """[H, W, 3] RGB of any image: 16 bits are scaled to 8, grey is repeated, alpha is dropped."""
    return np.asarray(cv2.cvtColor(_decoded(path, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB), np.uint8)


def read_grey(path: Path) -> npt.NDArray[Any]:
    """[H, W] of an image with one channel, as it is stored: depth in millimetres, say."""
    values = _decoded(path, cv2.IMREAD_UNCHANGED)
    if values.ndim != 2:
        raise StackError(f"{path}: expected an image with one channel, got {values.shape[2]}")
    return values


def _decoded(path: Path, flags: int) -> npt.NDArray[Any]:
    """What OpenCV makes of a file, [H, W] or [H, W, C] with blue first; StackError if it is no image."""
    data = read_bytes(path, MAX_FILE_BYTES)
    try:
        for width, height in declared_sizes(data):
            _check_pixels(path, width, height)
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    except (cv2.error, struct.error, IndexError, ValueError):
        pixels = None
    if pixels is None:
        raise StackError(f"{path}: expected an image, could not decode it")
    _check_pixels(path, pixels.shape[1], pixels.shape[0])
    return np.asarray(pixels)


def _check_pixels(path: Path, width: int, height: int) -> None:
    if width * height > MAX_IMAGE_PIXELS:
        limit = f"{MAX_IMAGE_PIXELS / 1e6:g} megapixels"
        raise StackError(f"{path}: expected an image of at most {limit}, got {width}x{height}")


def declared_sizes(data: bytes) -> Iterator[tuple[int, int]]:
    """(width, height) in pixels that the file claims; ValueError and its like for a damaged file.

    A small file can claim any size, so it is asked before decoding. PNG and JPEG are walked to their end:
    libpng complains of a cut file on stderr, and OpenCV 4.6 fills the rest of a cut JPEG with grey.
    """
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        yield struct.unpack_from(">II", data, 16)
        position, kind = 8, b""
        while kind != b"IEND":
            (length,), kind = struct.unpack_from(">I", data, position), data[position + 4 : position + 8]
            end = position + 8 + length
            if struct.unpack_from(">I", data, end)[0] != zlib.crc32(data[position + 4 : end]):
                raise ValueError("checksum")
            position = end + 4
    elif data.startswith(b"\xff\xd8"):
        position, marker = 2, 0
        while marker != 0xDA:  # start of scan
            while data[position + 1] == 0xFF:  # padding
                position += 1
            marker, length = data[position + 1], struct.unpack_from(">H", data, position + 2)[0]
            if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # a frame header
                height, width = struct.unpack_from(">HH", data, position + 5)
                yield width, height
            position += 2 + length
        data.index(b"\xff\xd9", position)  # the end of the image: within a scan no 0xFF is followed by 0xD9
    elif data.startswith(b"BM"):
        width, height = struct.unpack_from("<HH" if data[14] == 12 else "<ii", data, 18)
        yield abs(width), abs(height)
    elif data[:4] == b"RIFF" and data[8:16] == b"WEBPVP8X":
        yield 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")


def to_grey(image: ImageRGB) -> npt.NDArray[np.uint8]:
    """[H, W] uint8 luma of an RGB image."""
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)


def smaller(image: ImageRGB, factor: float) -> ImageRGB:
    """The image with sides `factor` times as long, averaged over; factor below 1."""
    height, width = (max(round(side * factor), 1) for side in image.shape[:2])
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def encode_png(image: ImageRGB) -> bytes:
    """The PNG file of an image [H, W, 3] RGB."""
    return cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()


def read_bytes(path: Path, limit: int) -> bytes:
    """A regular file of at most `limit` bytes; StackError names it otherwise."""
    try:
        if path.exists() and not path.is_file():  # a pipe would block
            raise StackError(f"{path}: expected a regular file")
        if path.stat().st_size > limit:
            raise StackError(f"{path}: expected at most {limit >> 20} MiB")
        return path.read_bytes()
    except OSError as error:
        raise StackError(f"{path}: expected a file that can be read: {error.strerror}") from None
