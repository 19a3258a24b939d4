"""Compressed slices -> this package's types; like decoding.py from rclpy, or from rosbags without any ROS."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np

from hybriddepth_ros.focal_stack import FocalSlice
from hybriddepth_ros.image_compression import check_compressed, decompress, parse_format
from hybriddepth_ros.image_files import ImageRGB
from hybriddepth_ros.ros.decoding import camera_intrinsics, check_focus_and_camera, from_time, image_array

if TYPE_CHECKING:
    from sensor_msgs.msg import CompressedImage

    import hybriddepth_msgs.msg as msgs


def check_compressed_slice(message: msgs.CompressedFocalSlice) -> tuple[int, int]:
    """(width, height) [px]; MessageError unless picture, camera_info and focus can be used.

    Cheap, 0.1 ms for 640x480: nothing is decoded. What passes may still fail to decode if no CRC came.
    """
    encoding, codec = parse_format(message.image.format)
    size = check_compressed(bytes(message.image.data), encoding, codec, int(message.image_crc32))
    check_focus_and_camera(message.focus, message.camera_info, size)
    return size


def compressed_image_array(message: CompressedImage) -> ImageRGB:
    """The picture as [H, W, 3] uint8 RGB, whatever its encoding; MessageError if it cannot be decoded."""
    encoding, codec = parse_format(message.format)
    image = decompress(bytes(message.data), encoding, codec)
    if encoding == "rgb8":
        return np.ascontiguousarray(image, np.uint8)
    plain = SimpleNamespace(
        encoding=encoding,
        height=image.shape[0],
        width=image.shape[1],
        step=image.nbytes // image.shape[0],
        is_bigendian=int(sys.byteorder == "big"),
        data=np.ascontiguousarray(image).tobytes(),
    )
    return image_array(plain)


def compressed_focal_slice(message: msgs.CompressedFocalSlice) -> FocalSlice:
    """The slice, decoded: milliseconds, so never in a callback."""
    size = check_compressed_slice(message)
    return FocalSlice(
        image=compressed_image_array(message.image),
        focus_diopters=float(message.focus.focus_diopters),
        stamp_ns=from_time(message.header.stamp),
        camera=camera_intrinsics(message.camera_info, size),
    )
