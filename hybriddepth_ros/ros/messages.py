"""numpy arrays and this package's types <-> ROS messages.

What comes in is checked, by decoding.py, which needs no ROS; what goes out is copied once. `Image.data` and
its like are always `array.array('B')`: rclpy takes any other type element by element, thousands of times
slower.
"""

from __future__ import annotations

import array
import zlib
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from builtin_interfaces.msg import Time
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2, PointField
from std_msgs.msg import Float32MultiArray, Header, MultiArrayDimension, MultiArrayLayout

import hybriddepth_msgs.msg as msgs
from hybriddepth_ros.adaptive_sweep import FocusDemand
from hybriddepth_ros.errors import ParameterError
from hybriddepth_ros.focal_stack import CameraIntrinsics
from hybriddepth_ros.image_compression import DEFAULT_JPEG_QUALITY, compress, format_text
from hybriddepth_ros.optics import ThinLens
from hybriddepth_ros.ros.decoding import BYTES_PER_PIXEL as BYTES_PER_PIXEL
from hybriddepth_ros.ros.decoding import camera_intrinsics as camera_intrinsics
from hybriddepth_ros.ros.decoding import check_image as check_image
from hybriddepth_ros.ros.decoding import check_place as check_place
from hybriddepth_ros.ros.decoding import check_slice as check_slice
from hybriddepth_ros.ros.decoding import equivalent_lens as equivalent_lens
from hybriddepth_ros.ros.decoding import focal_slice as focal_slice
from hybriddepth_ros.ros.decoding import focal_stack as focal_stack
from hybriddepth_ros.ros.decoding import from_time as from_time
from hybriddepth_ros.ros.decoding import image_array as image_array
from hybriddepth_ros.ros.decoding import stack_of as stack_of

Bytes: TypeAlias = "array.array[int]"
_POINT_FIELD_TYPES = {
    np.dtype(np.uint8): PointField.UINT8,
    np.dtype(np.uint16): PointField.UINT16,
    np.dtype(np.uint32): PointField.UINT32,
    np.dtype(np.int32): PointField.INT32,
    np.dtype(np.float32): PointField.FLOAT32,
    np.dtype(np.float64): PointField.FLOAT64,
}


# -- stamps and headers


def to_time(stamp_ns: int) -> Time:
    """Nanoseconds since the epoch as a ROS time."""
    seconds, nanoseconds = divmod(int(stamp_ns), 1_000_000_000)
    return Time(sec=seconds, nanosec=nanoseconds)


def make_header(stamp_ns: int, frame_id: str) -> Header:
    return Header(stamp=to_time(stamp_ns), frame_id=frame_id)


# -- images


def image_message(
    image: npt.NDArray[Any], encoding: str, header: Header, reuse: Bytes | None = None
) -> Image:
    """[H, W] or [H, W, C] in the byte layout that `encoding` says; one copy.

    reuse: `data` of a message that was published and is not needed any more, to be overwritten.
    """
    image = np.ascontiguousarray(image)
    height, width = image.shape[:2]
    message = Image(header=header, height=height, width=width, encoding=encoding, check_fields=True)
    message.step = image.nbytes // height if height else 0
    message.data = _bytes_of(image, reuse)
    return message


def picture_message(image: npt.NDArray[np.uint8], header: Header) -> Image:
    """[H, W, 3] RGB or [H, W] grey, uint8."""
    return image_message(image, "mono8" if image.ndim == 2 else "rgb8", header)


def depth_message(
    depth: npt.NDArray[np.float32], encoding: str, header: Header, reuse: Bytes | None = None
) -> Image:
    """[H, W] metres along Z (NaN = none) as 32FC1 metres, or as 16UC1 millimetres with 0 = none (REP 118)."""
    if encoding == "32FC1":
        return image_message(np.asarray(depth, np.float32), encoding, header, reuse)
    millimetres = depth * np.float32(1000.0)
    np.rint(millimetres, out=millimetres)
    # NaN compares false; what 16 bits cannot hold is no estimate, rather than a wrong one
    known = millimetres >= 1.0
    known &= millimetres <= 65535.0
    with np.errstate(invalid="ignore"):
        values = millimetres.astype(np.uint16)
    values *= known  # whatever the others became is 0 now; choosing before the cast takes four times as long
    return image_message(values, encoding, header, reuse)


def _bytes_of(values: npt.NDArray[Any], reuse: Bytes | None) -> Bytes:
    """The bytes of a contiguous array, in `reuse` if the size fits or in a new array.array.

    The pages of a fresh 6 MB cloud cost several times its copy. So do the messages' constructors, which copy
    `data`: it is assigned afterwards, with `check_fields` on, which takes an array.array as it is. An array
    that lies in `reuse` is not copied.
    """
    if reuse is not None and len(reuse) == values.nbytes:
        target = np.frombuffer(reuse, np.uint8)
        if target.ctypes.data != values.ctypes.data:
            target[:] = values.reshape(-1).view(np.uint8)
        return reuse
    data = array.array("B")
    if values.size:
        data.frombytes(values.reshape(-1).view(np.uint8).data)
    return data


# -- camera info


def camera_info_message(camera: CameraIntrinsics, header: Header) -> CameraInfo:
    """plumb_bob, no binning, no region of interest; P is K of an undistorted image with the same focal
    length.
    """
    matrix = camera.matrix
    return CameraInfo(
        header=header,
        height=camera.height,
        width=camera.width,
        distortion_model="plumb_bob",
        d=[float(value) for value in camera.distortion or (0.0,) * 5],
        k=matrix.reshape(9),
        r=np.eye(3).reshape(9),
        p=np.hstack([matrix, np.zeros((3, 1))]).reshape(12),
    )


# -- point clouds


def cloud_message(points: npt.NDArray[Any], header: Header, reuse: Bytes | None = None) -> PointCloud2:
    """A structured array, [H, W] organised or [N] compact, its fields as they lie in memory; one copy, or
    none where it lies in `reuse`.
    """
    points = np.ascontiguousarray(points)
    height, width = points.shape if points.ndim == 2 else (1, points.shape[0])
    step = points.dtype.itemsize
    message = PointCloud2(
        header=header,
        height=height,
        width=width,
        fields=[
            PointField(name=name, offset=offset, datatype=_POINT_FIELD_TYPES[kind], count=1)
            for name, (kind, offset) in _layout(points.dtype).items()
        ],
        is_bigendian=False,
        point_step=step,
        row_step=step * width,
        is_dense=bool(np.isfinite(points["z"]).all()),
        check_fields=True,
    )
    message.data = _bytes_of(points, reuse)
    return message


def _layout(dtype: np.dtype[Any]) -> dict[str, tuple[np.dtype[Any], int]]:
    assert dtype.fields is not None
    return {name: (dtype.fields[name][0], dtype.fields[name][1]) for name in dtype.names or ()}


# -- slices and stacks


def slice_message(
    image: npt.NDArray[np.uint8], camera: CameraIntrinsics, focus: msgs.FocusState
) -> msgs.FocalSlice:
    """One message from an image, its intrinsics and its focus, whose header all of them take."""
    header = focus.header
    return msgs.FocalSlice(
        header=header,
        image=picture_message(image, header),
        camera_info=camera_info_message(camera, header),
        focus=focus,
    )


def compressed_slice_message(
    image: npt.NDArray[np.uint8],
    camera: CameraIntrinsics,
    focus: msgs.FocusState,
    codec: str,
    jpeg_quality: int = DEFAULT_JPEG_QUALITY,
) -> msgs.CompressedFocalSlice:
    """As `slice_message`, with the picture, [H, W, 3] RGB or [H, W] grey, as jpeg or png."""
    header, encoding = focus.header, "mono8" if image.ndim == 2 else "rgb8"
    data = compress(image, encoding, codec, jpeg_quality)
    message = msgs.CompressedFocalSlice(
        header=header,
        image=CompressedImage(header=header, format=format_text(encoding, codec), check_fields=True),
        image_crc32=zlib.crc32(data),
        camera_info=camera_info_message(camera, header),
        focus=focus,
    )
    message.image.data = array.array("B", data)
    return message


def stack_message(
    slices: list[msgs.FocalSlice], lens: ThinLens | None, reference: int = 0
) -> msgs.FocalStack:
    """A stack whose header is that of the slice `reference`."""
    message = msgs.FocalStack(header=slices[reference].header, slices=slices)
    if lens is not None:
        message.focal_length_mm = float(lens.focal_length_mm)
        message.f_number = float(lens.f_number)
        message.pixel_pitch_um = float(lens.pixel_pitch_um)
    return message


# -- where focus is wanted

_DEMAND_ROWS = "diopters,weight"


def demand_message(demand: FocusDemand) -> Float32MultiArray:
    """Two rows [2, B]: the bins' inverse depths [1/m], then their weights."""
    bins = len(demand.diopters)
    rows = MultiArrayDimension(label=_DEMAND_ROWS, size=2, stride=2 * bins)
    columns = MultiArrayDimension(label="bins", size=bins, stride=bins)
    values = np.concatenate([demand.diopters, demand.weight]).astype(np.float32)
    return Float32MultiArray(
        layout=MultiArrayLayout(dim=[rows, columns]), data=array.array("f", values.tobytes())
    )


def demand_from(message: Float32MultiArray) -> FocusDemand:
    """The demand of a message; ParameterError for any other layout or values."""
    dimensions = [(dimension.label, dimension.size) for dimension in message.layout.dim]
    size = len(message.data)
    if dimensions != [(_DEMAND_ROWS, 2), ("bins", size // 2)] or size % 2 or message.layout.data_offset:
        raise ParameterError(
            f"focus demand: expected the dimensions ('{_DEMAND_ROWS}', 2) and ('bins', half of all values),"
            f" got {dimensions[:3]} and {size} values"
        )
    diopters, weight = np.array(message.data, np.float64).reshape(2, -1)
    return FocusDemand(diopters, weight)
