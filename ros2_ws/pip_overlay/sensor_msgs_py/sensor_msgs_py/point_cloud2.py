"""sensor_msgs/PointCloud2 to and from numpy, with the names, arguments and results of ROS's sensor_msgs_py.

Where it differs on purpose:

- Organised clouds keep their shape: an array [rows, columns] makes a cloud with height = rows and width =
  columns, and reads back so. Upstream takes the first axis for the width, which swaps the two without moving
  the points, so that row r, column c is no longer the pixel it came from. For scripts that were written
  around that, SENSOR_MSGS_PY_ORGANIZED_AS_UPSTREAM=1 in the environment when this module is imported brings
  upstream's order back.
- Reading a big-endian cloud leaves the message as it is; upstream swaps its bytes in place.
- Padding at the end of rows (row_step) is skipped, arrays need not be contiguous, `uvs` may be (u, v) pairs
  and counts points before NaNs are skipped.
"""

from __future__ import annotations

import os
import sys
from array import array
from collections import namedtuple
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header

from sensor_msgs_py.numpy_compat import structured_to_unstructured, unstructured_to_structured

Array = npt.NDArray[Any]

DUMMY_FIELD_PREFIX = "unnamed_field"

ORGANIZED_AS_UPSTREAM = os.environ.get("SENSOR_MSGS_PY_ORGANIZED_AS_UPSTREAM", "0") not in ("", "0")

_DATATYPES: dict[int, np.dtype[Any]] = {
    PointField.INT8: np.dtype(np.int8),
    PointField.UINT8: np.dtype(np.uint8),
    PointField.INT16: np.dtype(np.int16),
    PointField.UINT16: np.dtype(np.uint16),
    PointField.INT32: np.dtype(np.int32),
    PointField.UINT32: np.dtype(np.uint32),
    PointField.FLOAT32: np.dtype(np.float32),
    PointField.FLOAT64: np.dtype(np.float64),
}


def read_points(
    cloud: PointCloud2,
    field_names: Sequence[str] | None = None,
    skip_nans: bool = False,
    uvs: Iterable[Any] | None = None,
    reshape_organized_cloud: bool = False,
) -> Array:
    """The points as a structured array [N], or [height, width] of an organised cloud if asked to.

    A field of count n > 1 comes as n fields `name_0` ... `name_{n-1}`. Without skip_nans and uvs the array
    lies over the message's data, unless that is big-endian or its rows are padded.

    field_names: only these, in this order. skip_nans: without points that have a NaN in one of them; a cloud
    that says is_dense is taken at its word. uvs: only these points, by index or as (u, v) = (column, row).
    """
    assert isinstance(cloud, PointCloud2), f"{type(cloud).__name__} is not a sensor_msgs.msg.PointCloud2"
    points = _points_over(cloud)
    if field_names is not None:
        unknown = [name for name in field_names if name not in (points.dtype.names or ())]
        assert not unknown, f"the cloud has no fields {unknown}, it has {points.dtype.names}"
        points = points[list(field_names)]
    if uvs is not None:
        points = points[_point_indices(uvs, cloud.width)]
    if skip_nans and not cloud.is_dense:
        points = points[_is_complete(points)]
    if reshape_organized_cloud and cloud.height > 1:
        shape = (cloud.width, cloud.height) if ORGANIZED_AS_UPSTREAM else (cloud.height, cloud.width)
        if points.size != cloud.width * cloud.height:
            raise ValueError(
                f"{points.size} of {cloud.height}x{cloud.width} points are left, which is no grid any more"
            )
        points = points.reshape(shape)
    return points


def read_points_numpy(
    cloud: PointCloud2,
    field_names: Sequence[str] | None = None,
    skip_nans: bool = False,
    uvs: Iterable[Any] | None = None,
    reshape_organized_cloud: bool = False,
) -> Array:
    """The points as a plain array [N, F], or [height, width, F]; the fields must all be of one type
    (AssertionError)."""
    assert isinstance(cloud, PointCloud2), f"{type(cloud).__name__} is not a sensor_msgs.msg.PointCloud2"
    dtype = dtype_from_fields(cloud.fields)
    names = (
        dtype.names if field_names is None else [name for name in field_names if name in (dtype.names or ())]
    )
    assert len({dtype[name] for name in names or ()}) <= 1, (
        "All fields need to have the same datatype. Use `read_points()` otherwise."
    )
    return structured_to_unstructured(
        read_points(cloud, field_names, skip_nans, uvs, reshape_organized_cloud)
    )


def read_points_list(
    cloud: PointCloud2,
    field_names: Sequence[str] | None = None,
    skip_nans: bool = False,
    uvs: Iterable[Any] | None = None,
) -> list[Any]:
    """The points as named tuples. Convenient and slow: `read_points` is the fast way."""
    points = read_points(cloud, field_names, skip_nans, uvs)
    Point = namedtuple("Point", points.dtype.names or ())  # type: ignore[misc]
    return [Point._make(point) for point in points]


def dtype_from_fields(fields: Iterable[PointField], point_step: int | None = None) -> np.dtype[Any]:
    """The structured dtype of one point, `point_step` bytes long if given, else as long as the fields
    need."""
    names: list[str] = []
    formats: list[str] = []
    offsets: list[int] = []
    for position, field in enumerate(fields):
        assert field.count > 0, f"field {field.name!r} has count 0"
        datatype = _DATATYPES[field.datatype]
        name = field.name or f"{DUMMY_FIELD_PREFIX}_{position}"
        for element in range(field.count):
            names.append(name if field.count == 1 else f"{name}_{element}")
            formats.append(datatype.str)
            offsets.append(field.offset + element * datatype.itemsize)
    assert len(set(names)) == len(names), f"field names repeat: {names}"
    layout: Any = {"names": names, "formats": formats, "offsets": offsets}
    if point_step is not None:
        layout["itemsize"] = point_step
    dtype: np.dtype[Any] = np.dtype(layout)
    return dtype


def create_cloud(
    header: Header, fields: Sequence[PointField], points: Iterable[Any], point_step: int | None = None
) -> PointCloud2:
    """A cloud with a copy of `points`: an array [N, F] or [rows, columns, F] (fields of one type), a
    structured array [N] or [rows, columns] whose dtype is the fields', or a list of tuples.

    point_step: bytes per point, default the structured array's or what the fields need.
    """
    array_points = _structured(fields, points, point_step)
    assert array_points.ndim <= 2, (
        f"points can be organised in two dimensions at most, not in {array_points.ndim}"
    )
    height, width = array_points.shape if array_points.ndim == 2 else (1, array_points.shape[0])
    if ORGANIZED_AS_UPSTREAM and array_points.ndim == 2:
        height, width = width, height
    data = array("B")
    data.frombytes(np.ascontiguousarray(array_points).reshape(-1).view(np.uint8).data)
    cloud = PointCloud2(
        header=header,
        height=height,
        width=width,
        is_dense=False,
        is_bigendian=sys.byteorder != "little",
        fields=fields,
        point_step=array_points.dtype.itemsize,
        row_step=array_points.dtype.itemsize * width,
    )
    cloud.data = data  # set as a property: an array.array passed to the constructor is copied value by value
    return cloud


def create_cloud_xyz32(header: Header, points: Iterable[Any]) -> PointCloud2:
    """A cloud of x, y, z as float32; `points` as in `create_cloud`."""
    fields = [
        PointField(name=name, offset=4 * position, datatype=PointField.FLOAT32, count=1)
        for position, name in enumerate("xyz")
    ]
    return create_cloud(header, fields, points)


def _points_over(cloud: PointCloud2) -> Array:
    """All points [height * width] over the message's data, native-endian."""
    dtype = dtype_from_fields(cloud.fields, point_step=cloud.point_step)
    row_bytes = cloud.width * cloud.point_step
    row_step = max(cloud.row_step, row_bytes) if cloud.height > 1 else row_bytes
    needed = row_step * (cloud.height - 1) + row_bytes if cloud.height else 0
    if len(cloud.data) < needed:
        raise TypeError(
            f"{cloud.height}x{cloud.width} points of {cloud.point_step} bytes, rows of {row_step}: "
            f"data must hold {needed} bytes and holds {len(cloud.data)}"
        )
    stored = dtype.newbyteorder(">" if cloud.is_bigendian else "<")
    grid: Array = np.ndarray(
        shape=(cloud.height, cloud.width),
        dtype=stored,
        buffer=cloud.data if needed else b"",
        strides=(row_step, cloud.point_step),
    )
    return grid.reshape(-1).astype(dtype, copy=False)


def _point_indices(uvs: Iterable[Any], width: int) -> Array:
    indices = uvs if isinstance(uvs, np.ndarray) else np.array(list(uvs))
    if indices.size == 0:
        return np.empty(0, np.intp)
    if indices.ndim == 2:  # (column, row) pairs
        indices = indices[:, 1] * width + indices[:, 0]
    return indices


def _is_complete(points: Array) -> npt.NDArray[np.bool_]:
    complete = np.ones(points.shape, dtype=bool)
    for name in points.dtype.names or ():
        if np.issubdtype(points.dtype[name], np.floating):
            complete &= ~np.isnan(points[name])
    return complete


def _structured(fields: Sequence[PointField], points: Iterable[Any], point_step: int | None) -> Array:
    if not isinstance(points, np.ndarray):
        return np.array([tuple(point) for point in points], dtype=dtype_from_fields(fields, point_step))
    if points.dtype.names is None:
        assert len({field.datatype for field in fields}) <= 1, (
            "All fields need to have the same datatype. Pass a structured NumPy array otherwise."
        )
        return unstructured_to_structured(points, dtype=dtype_from_fields(fields, point_step))
    expected = dtype_from_fields(fields, points.dtype.itemsize if point_step is None else point_step)
    native = points.dtype.newbyteorder("=")
    assert native == expected, f"the array's dtype {points.dtype} is not the fields' {expected}"
    return points.astype(native, copy=False)
