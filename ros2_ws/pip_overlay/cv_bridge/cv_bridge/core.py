"""CvBridge: the class that scripts use."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable
from typing import Any, TypeVar

import cv2
import numpy as np
from sensor_msgs.msg import CompressedImage
from sensor_msgs.msg import Image as ImageMsg
from std_msgs.msg import Header

from cv_bridge import color, encodings
from cv_bridge.color import Image
from cv_bridge.encodings import Encoding

Result = TypeVar("Result")


class CvBridgeError(TypeError):
    """A message or an array that cannot be converted."""


class CvBridge:
    """Converts between OpenCV images (numpy arrays) and ROS image messages. Holds tables only, no state."""

    def __init__(self) -> None:
        self.cvtype_to_name: dict[int, str] = {
            getattr(cv2, f"CV_{depth}C{channels}"): f"{depth}C{channels}"
            for depth in encodings.DEPTH_TO_NUMPY
            for channels in (1, 2, 3, 4)
        }
        self.cvdepth_to_numpy_depth: dict[int, str] = dict(encodings.CV_DEPTH_TO_NUMPY)
        self.numpy_type_to_cvtype: dict[str, str] = {
            **{numpy: depth for depth, numpy in encodings.DEPTH_TO_NUMPY.items()},
            **encodings.DEPTH_TO_NUMPY,  # both ways, as upstream has it
        }

    def dtype_with_channels_to_cvtype2(self, dtype: np.dtype[Any], n_channels: int) -> str:
        """The generic encoding of a dtype: float32 with 2 channels is "32FC2"."""
        if dtype.name not in self.numpy_type_to_cvtype:
            known = ", ".join(encodings.DEPTH_TO_NUMPY.values())
            raise CvBridgeError(f"no ROS encoding holds {dtype.name}; convert the array to one of {known}")
        return f"{self.numpy_type_to_cvtype[dtype.name]}C{n_channels}"

    def cvtype2_to_dtype_with_channels(self, cvtype: int) -> tuple[str, int]:
        """The dtype's name and the channels of an OpenCV type code: cv2.CV_8UC3 is ("uint8", 3)."""
        depth, channels = encodings.CV_MAT_DEPTHWrap(cvtype), encodings.CV_MAT_CNWrap(cvtype)
        return self.cvdepth_to_numpy_depth[depth], channels

    def encoding_to_cvtype2(self, encoding: str) -> int:
        """OpenCV's type code of an encoding: "bgr8" is cv2.CV_8UC3."""
        return _as_bridge_error(encodings.getCvType, encoding)

    def encoding_to_dtype_with_channels(self, encoding: str) -> tuple[str, int]:
        """The dtype's name and the channels of an encoding: "bgr8" is ("uint8", 3)."""
        return self.cvtype2_to_dtype_with_channels(self.encoding_to_cvtype2(encoding))

    def imgmsg_to_cv2(self, img_msg: ImageMsg, desired_encoding: str = "passthrough") -> Image:
        """The message's image as [H, W] or [H, W, C], native-endian and contiguous.

        "passthrough" gives an array OVER the message's data (writing to one writes to the other) unless rows
        are padded or the byte order is foreign; any other desired_encoding gives a new array. Planar YUV
        passes through as all its planes: [3H/2, W] for nv12 and nv21, [3H, W] for nv24.
        """
        encoding = _as_bridge_error(encodings.find_encoding, img_msg.encoding)
        image = _array_over(img_msg, encoding)
        if desired_encoding == "passthrough":
            return image
        return _as_bridge_error(color.cvtColor2, image, img_msg.encoding, desired_encoding)

    def cv2_to_imgmsg(
        self, cvim: Image, encoding: str = "passthrough", header: Header | None = None
    ) -> ImageMsg:
        """A message with a copy of `cvim` [H, W] or [H, W, C]; "passthrough" names the encoding after the
        dtype.

        `encoding` says what the array is and converts nothing; one that cannot be (three channels as rgba8)
        raises.
        """
        if not isinstance(cvim, np.ndarray | np.generic):
            raise TypeError("Your input type is not a numpy array")
        if cvim.ndim not in (2, 3):
            raise CvBridgeError(f"an image is [H, W] or [H, W, C], not of shape {cvim.shape}")
        cv_type = self.dtype_with_channels_to_cvtype2(cvim.dtype, cvim.shape[2] if cvim.ndim == 3 else 1)
        given = _as_bridge_error(encodings.find_encoding, cv_type if encoding == "passthrough" else encoding)
        if f"{given.depth}C{given.channels}" != cv_type:
            raise CvBridgeError(
                f"encoding specified as {encoding}, but image has incompatible type {cv_type}"
            )
        height = cvim.shape[0] / given.rows
        if height.denominator != 1:
            raise CvBridgeError(
                f"{encoding} takes {given.rows} array rows per image row; {cvim.shape[0]} do not divide"
            )
        img_msg = ImageMsg()
        if header is not None:
            img_msg.header = header
        img_msg.height = int(height)
        img_msg.width = cvim.shape[1]
        img_msg.encoding = given.name
        img_msg.is_bigendian = int(not _is_little_endian(cvim.dtype))
        img_msg.step = cvim.shape[1] * given.channels * cvim.dtype.itemsize
        img_msg.data = _to_bytes(cvim)
        return img_msg

    def compressed_imgmsg_to_cv2(
        self, cmprs_img_msg: CompressedImage, desired_encoding: str = "passthrough"
    ) -> Image:
        """The decoded image as the file holds it (grey, BGR or BGRA; 8 or 16 bit), or converted."""
        data = np.frombuffer(_buffer(cmprs_img_msg.data), np.uint8)
        try:
            image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
        except cv2.error as error:
            raise CvBridgeError(f"cannot decode a {cmprs_img_msg.format!r} image: {error}") from error
        if image is None:
            raise CvBridgeError(
                f"{data.size} bytes of format {cmprs_img_msg.format!r} are no image OpenCV can decode"
            )
        if desired_encoding == "passthrough":
            return image
        cv_type = self.dtype_with_channels_to_cvtype2(image.dtype, image.shape[2] if image.ndim == 3 else 1)
        decoded = color.FILE_ENCODINGS.get(cv_type, cv_type)
        return _as_bridge_error(color.cvtColor2, image, decoded, desired_encoding)

    def cv2_to_compressed_imgmsg(self, cvim: Image, dst_format: str = "jpg") -> CompressedImage:
        """`cvim` (grey, BGR or BGRA) encoded as `dst_format`, any extension that OpenCV writes (jpg, png)."""
        if not isinstance(cvim, np.ndarray | np.generic):
            raise TypeError("Your input type is not a numpy array")
        try:
            encoded, data = cv2.imencode("." + dst_format, np.ascontiguousarray(cvim))
        except cv2.error as error:
            raise CvBridgeError(
                f"cannot encode {cvim.dtype} of shape {cvim.shape} as {dst_format!r}: {error}"
            ) from error
        if not encoded:
            raise CvBridgeError(f"cannot encode {cvim.dtype} of shape {cvim.shape} as {dst_format!r}")
        cmprs_img_msg = CompressedImage()
        cmprs_img_msg.format = dst_format
        cmprs_img_msg.data = _to_bytes(data)
        return cmprs_img_msg


def _as_bridge_error(function: Callable[..., Result], *arguments: Any) -> Result:
    """Upstream's extension raises RuntimeError, its class CvBridgeError."""
    try:
        return function(*arguments)
    except RuntimeError as error:
        raise CvBridgeError(str(error)) from error


def _array_over(message: ImageMsg, encoding: Encoding) -> Image:
    """An array over the message's data, checked against its width, height, step and byte order."""
    dtype = np.dtype(encoding.dtype).newbyteorder(">" if message.is_bigendian else "<")
    rows = message.height * encoding.rows
    data = _buffer(message.data)
    row_bytes = message.width * encoding.channels * dtype.itemsize
    what = f"{message.width}x{message.height} {message.encoding} image"
    if message.height and message.step < row_bytes:
        raise CvBridgeError(f"{what}: step is {message.step}, a row takes {row_bytes} bytes")
    if rows.denominator != 1:
        raise CvBridgeError(f"{what}: the height must be even")
    if data.nbytes < rows * message.step:
        raise CvBridgeError(
            f"{what}: data holds {data.nbytes} bytes, step {message.step} needs {rows * message.step}"
        )
    if encoding.name == "nv24" and message.step > row_bytes:
        return _nv24_without_padding(data, message)
    image: Image = np.ndarray(
        shape=(int(rows), message.width, encoding.channels)[: 2 if encoding.channels == 1 else 3],
        dtype=dtype,
        buffer=data,
        strides=(message.step, encoding.channels * dtype.itemsize, dtype.itemsize)[
            : 2 if encoding.channels == 1 else 3
        ],
    )
    return np.ascontiguousarray(image.astype(encoding.dtype, copy=False))


def _nv24_without_padding(data: memoryview, message: ImageMsg) -> Image:
    """[3H, W] of padded rows: the chroma plane's rows are twice as long, and so is their padding."""
    height, width, step = message.height, message.width, message.step
    planes = np.frombuffer(data, np.uint8)
    luma = planes[: height * step].reshape(height, step)[:, :width]
    chroma = planes[height * step : 3 * height * step].reshape(height, 2 * step)[:, : 2 * width]
    return np.concatenate([luma, chroma.reshape(2 * height, width)])


def _buffer(data: Any) -> memoryview:
    """Bytes of array.array('B'), bytes, a numpy array or a list, whatever the message was filled with."""
    if isinstance(data, list | tuple):
        data = bytes(data)
    view = memoryview(data)
    return view.cast("B") if view.nbytes else memoryview(b"")


def _to_bytes(values: Image) -> array[int]:
    """A copy as array('B'): a message takes that in under 1 ms for 8 MB, `bytes` or numpy in half a
    second."""
    data = array("B")
    data.frombytes(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
    return data


def _is_little_endian(dtype: np.dtype[Any]) -> bool:
    return dtype.byteorder in "<|" or (dtype.byteorder == "=" and sys.byteorder == "little")
