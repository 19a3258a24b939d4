"""Colour and depth conversion between encodings: upstream's cvtColor2, and what it holds for nonsense."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from cv_bridge.encodings import Encoding, find_encoding

Image = npt.NDArray[Any]  # [H, W] or [H, W, C]

# What OpenCV's own arrays hold, where nothing says what they hold.
FILE_ENCODINGS = {
    "8UC1": "mono8",
    "8UC3": "bgr8",
    "8UC4": "bgra8",
    "16UC1": "mono16",
    "16UC3": "bgr16",
    "16UC4": "bgra16",
}

_PIXEL_FAMILIES = {"mono": "GRAY", "rgb": "RGB", "bgr": "BGR", "rgba": "RGBA", "bgra": "BGRA"}
# ROS names a Bayer pattern by its first row from the corner, OpenCV by the second row from the second column.
_BAYER_FAMILIES = {
    "bayer_rggb": "BayerBG",
    "bayer_bggr": "BayerRG",
    "bayer_gbrg": "BayerGR",
    "bayer_grbg": "BayerGB",
}
_YUV_FAMILIES = {"uyvy": "UYVY", "yuyv": "YUY2", "nv12": "NV12", "nv21": "NV21"}


def _conversion_codes() -> dict[tuple[str, str], int]:
    """(family from, family to) -> the cv2.COLOR_ code that does it in one step."""
    codes: dict[tuple[str, str], int] = {}
    for target, cv_target in _PIXEL_FAMILIES.items():
        for source, cv_source in _PIXEL_FAMILIES.items():
            if source != target:
                codes[source, target] = getattr(cv2, f"COLOR_{cv_source}2{cv_target}")
        for source, cv_source in _YUV_FAMILIES.items():
            codes[source, target] = getattr(cv2, f"COLOR_YUV2{cv_target}_{cv_source}")
        if target in ("mono", "rgb", "bgr"):
            for source, cv_source in _BAYER_FAMILIES.items():
                codes[source, target] = getattr(cv2, f"COLOR_{cv_source}2{cv_target}")
    # Packing to 4:2:2 came with OpenCV 4.9.
    for source in ("rgb", "bgr", "rgba", "bgra"):
        for target in ("uyvy", "yuyv"):
            code = getattr(cv2, f"COLOR_{source.upper()}2YUV_{_YUV_FAMILIES[target]}", None)
            if code is not None:
                codes[source, target] = code
    return codes


_CODES = _conversion_codes()


def cvtColor2(image: Image, encoding_in: str, encoding_out: str) -> Image:  # noqa: N802
    """A new array: `image` [H, W] or [H, W, C] of `encoding_in`, converted to `encoding_out` ("" =
    unchanged).

    8-bit and 16-bit images are scaled by 257 into each other, other depths are rounded and saturated. Raises
    RuntimeError, as upstream's extension does, where the conversion makes no sense or the image is not of its
    encoding.
    """
    source = find_encoding(encoding_in)
    image = _checked(image, source)
    if encoding_out in ("", encoding_in):
        return image.copy()
    target = find_encoding(encoding_out)
    _refuse_nonsense(source, target)
    if source.family and target.family and source.family != target.family:
        image = _convert_family(image, source, target)
    return _convert_depth(image, source, target)


def _checked(image: Image, encoding: Encoding) -> Image:
    """`image` as [H, W] or [H, W, C], C-contiguous and native-endian, as OpenCV takes it."""
    channels = image.shape[2] if image.ndim == 3 else 1
    if image.ndim not in (2, 3) or channels != encoding.channels:
        raise RuntimeError(
            f"[{encoding.name}] has {encoding.channels} channel(s), the array's shape is {image.shape}"
        )
    if image.dtype.newbyteorder("=") != np.dtype(encoding.dtype):
        raise RuntimeError(f"[{encoding.name}] holds {encoding.dtype}, the array holds {image.dtype}")
    if image.ndim == 3 and channels == 1:
        image = image[:, :, 0]
    return np.ascontiguousarray(image, dtype=encoding.dtype)


def _refuse_nonsense(source: Encoding, target: Encoding) -> None:
    """An encoding without colour may change its number type, never get or give a colour."""
    if source.family is None and target.family is not None:
        raise RuntimeError(
            f"[{source.name}] is not a color format but [{target.name}] is: that conversion makes no sense"
        )
    if (source.family is None or target.family is None) and source.channels != target.channels:
        raise RuntimeError(
            f"[{source.name}] and [{target.name}] do not have the same number of channels "
            f"({source.channels} and {target.channels})"
        )


def _convert_family(image: Image, source: Encoding, target: Encoding) -> Image:
    assert source.family is not None and target.family is not None
    family = source.family
    try:
        if family == "nv24":
            image, family = _bgr_from_nv24(image), "bgr"
        elif family in _BAYER_FAMILIES and target.family in ("rgba", "bgra"):
            image, family = cv2.cvtColor(image, _CODES[family, "bgr"]), "bgr"
        if family == target.family:
            return image
        if (family, target.family) not in _CODES:
            raise RuntimeError(f"Unsupported conversion from [{source.name}] to [{target.name}]")
        return cv2.cvtColor(image, _CODES[family, target.family])
    except cv2.error as error:
        raise RuntimeError(
            f"[{source.name}] to [{target.name}] for an array of shape {image.shape}: {error}"
        ) from error


def _bgr_from_nv24(planes: Image) -> Image:
    """planes [3H, W]: luma [H, W], then U and V of each pixel in turn [H, 2W].

    OpenCV has no code for 4:4:4 in video range. Each pixel becomes a 4:2:2 pair of itself, so that the same
    matrix as for the other YUV encodings is applied.
    """
    height, width = planes.shape[0] // 3, planes.shape[1]
    luma = planes[:height]
    chroma = planes[height:].reshape(height, width, 2)
    pairs = np.stack([chroma[..., 0], luma, chroma[..., 1], luma], axis=-1)  # [H, W, 4] = U Y V Y
    doubled = cv2.cvtColor(pairs.reshape(height, 2 * width, 2), cv2.COLOR_YUV2BGR_UYVY)
    return np.ascontiguousarray(doubled[:, ::2])


def _convert_depth(image: Image, source: Encoding, target: Encoding) -> Image:
    if source.depth == target.depth:
        return image.copy() if source.family == target.family or target.family is None else image
    if (source.depth, target.depth) == ("8U", "16U"):
        return image.astype(np.uint16) * np.uint16(257)
    if (source.depth, target.depth) == ("16U", "8U"):
        return ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)
    scale = {(8, 16): 257.0, (16, 8): 1.0 / 257.0}.get((source.bits, target.bits), 1.0)
    return saturate_cast(image.astype(np.float64) * scale, target.dtype)


def saturate_cast(values: npt.NDArray[np.float64], dtype: str) -> Image:
    """Rounded to even and clipped to what `dtype` holds, NaN to 0; floats are only narrowed."""
    if np.issubdtype(np.dtype(dtype), np.floating):
        return values.astype(dtype)
    limits = np.iinfo(dtype)
    return np.clip(
        np.rint(np.nan_to_num(values, posinf=np.inf, neginf=-np.inf)), limits.min, limits.max
    ).astype(dtype)
