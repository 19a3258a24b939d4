"""What each name of sensor_msgs/image_encodings means: depth, channels, colour family, rows in memory."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import cv2

DEPTH_TO_NUMPY = {
    "8U": "uint8",
    "8S": "int8",
    "16U": "uint16",
    "16S": "int16",
    "32S": "int32",
    "32F": "float32",
    "64F": "float64",
}
CV_DEPTH_TO_NUMPY = {getattr(cv2, f"CV_{depth}"): name for depth, name in DEPTH_TO_NUMPY.items()}

# OpenCV packs depth and channels in one integer; how many bits depth takes changed with OpenCV 5, so ask the
# library.
_CHANNEL_SHIFT = (cv2.CV_8UC2 - cv2.CV_8UC1).bit_length() - 1
_MAX_CHANNELS = 512 if _CHANNEL_SHIFT == 3 else 128

_GENERIC = re.compile(r"(8U|8S|16U|16S|32S|32F|64F)(?:C([0-9]+))?")


@dataclass(frozen=True)
class Encoding:
    """One encoding. `family` is the colour layout apart from depth, None where the name says only a number
    type.

    rows: rows of the array per row of the image; not 1 for planar YUV, whose chroma planes follow the luma
    plane.
    """

    name: str
    depth: str
    channels: int
    family: str | None = None
    rows: Fraction = Fraction(1)

    @property
    def dtype(self) -> str:
        return DEPTH_TO_NUMPY[self.depth]

    @property
    def bits(self) -> int:
        return int(self.depth[:-1])

    @property
    def cv_type(self) -> int:
        return int(getattr(cv2, f"CV_{self.depth}")) + ((self.channels - 1) << _CHANNEL_SHIFT)


def _named_encodings() -> dict[str, Encoding]:
    named = [
        Encoding("yuv422", "8U", 2, "uyvy"),
        Encoding("uyvy", "8U", 2, "uyvy"),
        Encoding("yuv422_yuy2", "8U", 2, "yuyv"),
        Encoding("yuyv", "8U", 2, "yuyv"),
        Encoding("nv12", "8U", 1, "nv12", Fraction(3, 2)),
        Encoding("nv21", "8U", 1, "nv21", Fraction(3, 2)),
        Encoding("nv24", "8U", 1, "nv24", Fraction(3)),
    ]
    for bits in (8, 16):
        named.append(Encoding(f"mono{bits}", f"{bits}U", 1, "mono"))
        named += [
            Encoding(f"{family}{bits}", f"{bits}U", len(family), family)
            for family in ("rgb", "bgr", "rgba", "bgra")
        ]
        named += [
            Encoding(f"bayer_{pattern}{bits}", f"{bits}U", 1, f"bayer_{pattern}")
            for pattern in ("rggb", "bggr", "gbrg", "grbg")
        ]
    return {encoding.name: encoding for encoding in named}


NAMED = _named_encodings()


@lru_cache(maxsize=256)
def find_encoding(name: str) -> Encoding:
    """The encoding called `name`; RuntimeError, which is what upstream's extension raises, if there is
    none."""
    if name in NAMED:
        return NAMED[name]
    generic = _GENERIC.fullmatch(name)
    channels = int(generic[2] or 1) if generic else 0
    if generic is None or not 1 <= channels <= _MAX_CHANNELS:
        raise RuntimeError(f"Unrecognized image encoding [{name}]")
    return Encoding(name, generic[1], channels)


def getCvType(encoding: str) -> int:  # noqa: N802
    """OpenCV's type code of an encoding, as in `getCvType("bgr8") == cv2.CV_8UC3`."""
    return find_encoding(encoding).cv_type


def CV_MAT_CNWrap(i: int) -> int:  # noqa: N802
    """How many channels an OpenCV type code stands for."""
    return (i >> _CHANNEL_SHIFT) % _MAX_CHANNELS + 1


def CV_MAT_DEPTHWrap(i: int) -> int:  # noqa: N802
    """The depth (cv2.CV_8U, cv2.CV_32F, ...) an OpenCV type code stands for."""
    return i & ((1 << _CHANNEL_SHIFT) - 1)
