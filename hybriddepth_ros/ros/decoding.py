"""ROS messages -> numpy arrays and this package's types; from rclpy, or from rosbags without any ROS.

What comes in is checked: MessageError, one line with value and expectation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt

from hybriddepth_ros.errors import MessageError
from hybriddepth_ros.focal_stack import CameraIntrinsics, FocalSlice, FocalStack
from hybriddepth_ros.image_files import ImageRGB
from hybriddepth_ros.optics import ThinLens

if TYPE_CHECKING:
    from builtin_interfaces.msg import Time
    from sensor_msgs.msg import CameraInfo, Image

    import hybriddepth_msgs.msg as msgs

# Bytes per pixel of every encoding that can become RGB. 32FC1 and its like are no pictures and are refused.
BYTES_PER_PIXEL = {
    "mono8": 1,
    "mono16": 2,
    "rgb8": 3,
    "bgr8": 3,
    "rgba8": 4,
    "bgra8": 4,
    "rgb16": 6,
    "bgr16": 6,
    "rgba16": 8,
    "bgra16": 8,
    "yuv422": 2,
    "uyvy": 2,
    "yuv422_yuy2": 2,
    "yuyv": 2,
    **{f"bayer_{order}{bits}": bits // 8 for order in ("rggb", "bggr", "gbrg", "grbg") for bits in (8, 16)},
}
DEPTH_ENCODINGS = {"32FC1": "f4", "16UC1": "u2"}  # metres, millimetres


def from_time(time: Time) -> int:
    """A ROS time in nanoseconds since the epoch."""
    return int(time.sec) * 1_000_000_000 + int(time.nanosec)


def check_image(message: Image) -> None:
    """MessageError unless the image is a picture whose size, step and data agree."""
    pixel = BYTES_PER_PIXEL.get(message.encoding)
    if pixel is None:
        raise MessageError(
            f"image: encoding {message.encoding!r}, expected a picture: rgb8, bgr8, mono8, bayer_rggb8 ..."
        )
    _check_size(message, pixel)


def _check_size(message: Image, pixel: int) -> None:
    """`pixel`: bytes per pixel."""
    if message.width < 1 or message.height < 1:
        raise MessageError(f"image: size {message.width}x{message.height}, expected at least 1x1")
    if message.step < message.width * pixel:
        raise MessageError(
            f"image: step {message.step}, expected at least {message.width * pixel}"
            f" ({message.width} {message.encoding} pixels)"
        )
    if len(message.data) != message.step * message.height:
        raise MessageError(
            f"image: {len(message.data)} bytes of data, expected {message.step * message.height}"
            f" (step {message.step} x height {message.height})"
        )


def image_array(message: Image) -> ImageRGB:
    """The picture as [H, W, 3] uint8 RGB; rgb8 without row padding shares the message's memory."""
    check_image(message)
    encoding, height, width = message.encoding, message.height, message.width
    if encoding in ("rgb8", "bgr8", "mono8"):
        pixel = BYTES_PER_PIXEL[encoding]
        rows = np.frombuffer(message.data, np.uint8).reshape(height, message.step)[:, : width * pixel]
        if encoding == "mono8":
            return _rgb(cv2.cvtColor(rows, cv2.COLOR_GRAY2RGB))
        image = rows.reshape(height, width, 3)  # a view, padded rows or not
        return _rgb(image if encoding == "rgb8" else cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
    from cv_bridge import CvBridge, CvBridgeError  # absent on a bare rclpy, and rgb8 does not need it

    try:
        return _rgb(CvBridge().imgmsg_to_cv2(message, desired_encoding="rgb8"))
    except (CvBridgeError, ValueError, KeyError, cv2.error) as error:
        raise MessageError(f"image: encoding {encoding!r} cannot be converted to RGB: {error}") from error


def depth_array(message: Image) -> npt.NDArray[np.float32]:
    """[H, W] float32 m of 32FC1 (metres) or 16UC1 (millimetres, 0 = none: NaN); see REP 118."""
    kind = DEPTH_ENCODINGS.get(message.encoding)
    if kind is None:
        raise MessageError(f"image: encoding {message.encoding!r}, expected a depth: 32FC1 or 16UC1")
    dtype = np.dtype(kind).newbyteorder(">" if message.is_bigendian else "<")
    _check_size(message, dtype.itemsize)
    rows = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)
    values = np.ascontiguousarray(rows[:, : message.width * dtype.itemsize]).view(dtype)  # [H, W]
    if kind == "u2":
        return np.where(values > 0, values.astype(np.float32) * np.float32(1e-3), np.float32(np.nan))
    return values.astype(np.float32)


def _rgb(image: npt.NDArray[Any]) -> ImageRGB:
    return np.ascontiguousarray(image, np.uint8)


def camera_intrinsics(
    message: CameraInfo, image_size: tuple[int, int] | None = None
) -> CameraIntrinsics | None:
    """Intrinsics of the image as it is; None for an uncalibrated camera (K all zero, as the message's
    definition says). image_size (width, height) [px] stands in where the message gives none.
    """
    k = message.k
    if not np.any(k):
        return None
    for name, value in zip(("fx", "fy", "cx", "cy"), (k[0], k[4], k[2], k[5]), strict=True):
        if not math.isfinite(value) or (name in ("fx", "fy") and value <= 0.0):
            expected = "a positive focal length" if name in ("fx", "fy") else "a finite number"
            raise MessageError(f"camera_info: {name} {value}, expected {expected} in pixels")
    width, height = (message.width, message.height) if message.width else (image_size or (0, 0))
    if width < 1 or height < 1:
        raise MessageError(f"camera_info: size {width}x{height}, expected that of the image")
    distortion = tuple(float(value) for value in message.d)
    if message.distortion_model not in ("", "plumb_bob") or len(distortion) not in (0, 4, 5):
        raise MessageError(
            f"camera_info: distortion_model {message.distortion_model!r} with {len(distortion)} values,"
            " expected plumb_bob with 5 (or none)"
        )
    if message.binning_x > 1 or message.binning_y > 1:
        raise MessageError(f"camera_info: binning {message.binning_x}x{message.binning_y}, expected none")
    if not all(math.isfinite(value) for value in distortion):
        raise MessageError("camera_info: distortion is not finite, expected 5 numbers")
    if not any(distortion):
        distortion = ()
    elif len(distortion) == 4:
        distortion = (*distortion, 0.0)
    return CameraIntrinsics(
        fx=float(k[0]),
        fy=float(k[4]),
        cx=float(k[2]),
        cy=float(k[5]),
        width=int(width),
        height=int(height),
        distortion=distortion,
    )


def check_slice(message: msgs.FocalSlice) -> None:
    """MessageError unless image, camera_info and focus can be used; cheap, no pixel is touched."""
    check_image(message.image)
    check_focus_and_camera(message.focus, message.camera_info, (message.image.width, message.image.height))


def check_focus_and_camera(focus: msgs.FocusState, info: CameraInfo, image_size: tuple[int, int]) -> None:
    """MessageError unless focus and intrinsics can be used with an image of this (width, height) [px]."""
    if not math.isfinite(focus.focus_diopters):
        raise MessageError(f"focus: focus_diopters {focus.focus_diopters}, expected a finite number of 1/m")
    width, height = image_size
    if (info.width or info.height) and (info.width, info.height) != (width, height):
        raise MessageError(f"camera_info: size {info.width}x{info.height}, expected {width}x{height} (image)")
    camera_intrinsics(info, image_size)


def check_place(focus: msgs.FocusState, most: int) -> None:
    """MessageError unless a slice's place in its sweep can be, and the sweep has at most so many slices."""
    if focus.slice_count > most:
        raise MessageError(f"focus: slice_count {focus.slice_count}, expected at most {most}")
    if focus.slice_index >= focus.slice_count > 0:
        raise MessageError(
            f"focus: slice_index {focus.slice_index}, expected less than slice_count {focus.slice_count}"
        )


def focal_slice(message: msgs.FocalSlice) -> FocalSlice:
    """The slice; an rgb8 image shares the message's memory."""
    check_slice(message)
    return FocalSlice(
        image=image_array(message.image),
        focus_diopters=float(message.focus.focus_diopters),
        stamp_ns=from_time(message.header.stamp),
        camera=camera_intrinsics(message.camera_info, (message.image.width, message.image.height)),
    )


def focal_stack(message: msgs.FocalStack, name: str = "stack") -> FocalStack:
    """The stack; MessageError for a slice that cannot be used, StackError for slices that make no stack."""
    values = (message.focal_length_mm, message.f_number, message.pixel_pitch_um)
    known = all(math.isfinite(value) and value > 0.0 for value in values)
    return stack_of(message.slices, ThinLens(*(float(value) for value in values)) if known else None, name)


def stack_of(
    slices: Sequence[msgs.FocalSlice], lens: ThinLens | None = None, name: str = "sweep"
) -> FocalStack:
    """A stack of received slices; without a lens it is what their blur_px_per_diopter says, if they do."""
    return stack_of_read([focal_slice(message) for message in slices], slices, lens, name)


def stack_of_read(
    read: Sequence[FocalSlice],
    messages: Sequence[msgs.FocalSlice | msgs.CompressedFocalSlice],
    lens: ThinLens | None = None,
    name: str = "sweep",
) -> FocalStack:
    """As `stack_of`, of slices that were read from these messages, of either kind."""
    if lens is None and messages:
        middle = len(messages) // 2
        lens = equivalent_lens(read[middle].camera, float(messages[middle].focus.blur_px_per_diopter))
    return FocalStack(slices=tuple(read), lens=lens, name=name)


def equivalent_lens(camera: CameraIntrinsics | None, blur_px_per_diopter: float) -> ThinLens | None:
    """A lens that blurs and magnifies as the message says, None if that is unknown.

    The two figures leave the focal length open, which then only sets how the blur grows with the focus (0.4 %
    per diopter).
    """
    if camera is None or not math.isfinite(blur_px_per_diopter) or blur_px_per_diopter <= 0.0:
        return None
    focal_length_mm = 4.0
    aperture_mm = 1e3 * blur_px_per_diopter / camera.fx
    return ThinLens(focal_length_mm, focal_length_mm / aperture_mm, focal_length_mm * 1e3 / camera.fx)
