"""sensor_msgs_py.point_cloud2: shapes, padding, byte order, selection. Runs against the real package as
well."""

from __future__ import annotations

import sys
from array import array
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("rclpy", reason="sensor_msgs_py needs a ROS 2 installation")
pytest.importorskip("sensor_msgs_py.point_cloud2", reason="sensor_msgs_py is not installed")

import sensor_msgs_py
from sensor_msgs.msg import PointCloud2, PointField
from sensor_msgs_py import point_cloud2
from sensor_msgs_py.point_cloud2 import (
    create_cloud,
    create_cloud_xyz32,
    dtype_from_fields,
    read_points,
    read_points_list,
    read_points_numpy,
)
from std_msgs.msg import Header

Array = npt.NDArray[Any]

overlay_only = pytest.mark.skipif(
    not getattr(sensor_msgs_py, "PIP_OVERLAY", False),
    reason="the real sensor_msgs_py is installed; this is what the stand-in does better",
)

HEADER = Header(frame_id="camera_optical_frame")
ROWS, COLUMNS = 3, 5


def field(name: str, offset: int, datatype: int = PointField.FLOAT32, count: int = 1) -> PointField:
    return PointField(name=name, offset=offset, datatype=datatype, count=count)


XYZ = [field("x", 0), field("y", 4), field("z", 8)]
MIXED = [field("x", 0), field("sigma", 4, PointField.FLOAT64), field("ring", 12, PointField.UINT8)]


def grid() -> Array:
    """[ROWS, COLUMNS, 3] float32 whose every point says where it stands: (column, row, range)."""
    v, u = np.mgrid[:ROWS, :COLUMNS]
    return np.stack([u, v, 10 * v + u], axis=-1).astype(np.float32)


def mixed_points(count: int = 6) -> Array:
    points = np.zeros(count, dtype_from_fields(MIXED))
    points["x"], points["sigma"], points["ring"] = np.arange(count), np.arange(count) / 7, np.arange(count)
    return points


def big_endian(cloud: PointCloud2) -> PointCloud2:
    """The same cloud as a big-endian machine sends it."""
    points = read_points(cloud)
    other = PointCloud2(
        header=cloud.header, height=cloud.height, width=cloud.width, fields=cloud.fields,
        point_step=cloud.point_step, row_step=cloud.row_step, is_dense=cloud.is_dense, is_bigendian=True,
    )  # fmt: skip
    other.data = array("B", points.astype(points.dtype.newbyteorder(">")).tobytes())
    return other


def padded_rows(cloud: PointCloud2, padding: int) -> PointCloud2:
    rows = np.frombuffer(cloud.data, np.uint8).reshape(cloud.height, cloud.row_step)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=0xA5)
    cloud.row_step += padding
    cloud.data = array("B", rows.tobytes())
    return cloud


# --- organised clouds ---


@overlay_only
def test_an_organised_cloud_has_the_height_and_width_of_the_image() -> None:
    cloud = create_cloud_xyz32(HEADER, grid())
    assert (cloud.height, cloud.width) == (ROWS, COLUMNS)
    assert (cloud.point_step, cloud.row_step) == (12, 12 * COLUMNS)
    assert len(cloud.data) == cloud.row_step * cloud.height


@overlay_only
def test_the_point_of_pixel_u_v_lies_where_rviz_and_pcl_look_for_it() -> None:
    cloud = create_cloud_xyz32(HEADER, grid())
    for v in range(ROWS):
        for u in range(COLUMNS):
            start = v * cloud.row_step + u * cloud.point_step
            x, y, _ = np.frombuffer(cloud.data[start : start + 12], np.float32)
            assert (x, y) == (u, v)


@overlay_only
def test_an_organised_cloud_comes_back_in_its_shape() -> None:
    cloud = create_cloud_xyz32(HEADER, grid())
    np.testing.assert_array_equal(read_points_numpy(cloud, reshape_organized_cloud=True), grid())
    assert read_points(cloud, reshape_organized_cloud=True).shape == (ROWS, COLUMNS)
    assert read_points_numpy(cloud).shape == (ROWS * COLUMNS, 3)


@overlay_only
def test_a_structured_grid_is_organised_too() -> None:
    points = mixed_points(ROWS * COLUMNS).reshape(ROWS, COLUMNS)
    cloud = create_cloud(HEADER, MIXED, points)
    assert (cloud.height, cloud.width) == (ROWS, COLUMNS)
    np.testing.assert_array_equal(read_points(cloud, reshape_organized_cloud=True), points)


@overlay_only
def test_upstreams_order_of_axes_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(point_cloud2, "ORGANIZED_AS_UPSTREAM", True)
    cloud = create_cloud_xyz32(HEADER, grid())
    assert (cloud.height, cloud.width) == (COLUMNS, ROWS)
    assert (cloud.row_step, len(cloud.data)) == (12 * ROWS, 12 * ROWS * COLUMNS)
    np.testing.assert_array_equal(read_points_numpy(cloud, reshape_organized_cloud=True), grid())


def test_three_dimensions_of_points_are_refused() -> None:
    with pytest.raises(AssertionError):
        create_cloud_xyz32(HEADER, np.zeros((2, 2, 2, 3), np.float32))


@overlay_only
def test_a_grid_with_holes_is_no_grid() -> None:
    points = grid()
    points[1, 1] = np.nan
    cloud = create_cloud_xyz32(HEADER, points)
    assert read_points(cloud, skip_nans=True).shape == (ROWS * COLUMNS - 1,)
    with pytest.raises(ValueError, match="14 of 3x5"):
        read_points(cloud, skip_nans=True, reshape_organized_cloud=True)


# --- round trips ---


@given(
    rows=st.integers(1, 6),
    columns=st.integers(1, 6),
    point_padding=st.integers(0, 9),
    row_padding=st.integers(0, 9),
    swapped=st.booleans(),
)
@overlay_only
def test_clouds_survive_padding_and_byte_order(
    rows: int, columns: int, point_padding: int, row_padding: int, swapped: bool
) -> None:
    points = np.random.default_rng(rows * 10 + columns).normal(size=(rows, columns, 3)).astype(np.float32)
    cloud = create_cloud(HEADER, XYZ, points, 12 + point_padding)
    assert cloud.point_step == 12 + point_padding
    if swapped:
        cloud = big_endian(cloud)
    cloud = padded_rows(cloud, row_padding)
    read = read_points_numpy(cloud, reshape_organized_cloud=True)
    assert read.dtype.isnative
    np.testing.assert_array_equal(read, points if rows > 1 else points[0])


def test_a_list_of_tuples_makes_a_cloud_of_mixed_types() -> None:
    cloud = create_cloud(HEADER, MIXED, [(1.5, 0.25, 7), (2.5, 0.5, 8)])
    assert (cloud.height, cloud.width, cloud.point_step) == (1, 2, 13)
    points = read_points(cloud)
    assert points["x"].tolist() == [1.5, 2.5]
    assert points["sigma"].tolist() == [0.25, 0.5]
    assert points["ring"].tolist() == [7, 8]


@overlay_only
def test_columns_of_another_array_need_not_be_copied_first() -> None:
    points = grid().reshape(-1, 3)
    transposed = np.ascontiguousarray(points.T).T
    np.testing.assert_array_equal(read_points_numpy(create_cloud_xyz32(HEADER, transposed)), points)
    mixed = mixed_points(8)[::2]
    np.testing.assert_array_equal(read_points(create_cloud(HEADER, MIXED, mixed)), mixed)


def test_float64_points_are_narrowed() -> None:
    cloud = create_cloud_xyz32(HEADER, grid().reshape(-1, 3).astype(np.float64))
    np.testing.assert_array_equal(read_points_numpy(cloud), grid().reshape(-1, 3))


@overlay_only
@pytest.mark.parametrize("points", [[], np.zeros((0, 3), np.float32)], ids=["list", "array"])
def test_an_empty_cloud_survives(points: Any) -> None:
    cloud = create_cloud_xyz32(HEADER, points)
    assert (cloud.height, cloud.width, len(cloud.data)) == (1, 0, 0)
    assert read_points(cloud).shape == (0,)


def test_the_message_says_what_it_holds_and_does_not_share_memory() -> None:
    points = grid().reshape(-1, 3)
    cloud = create_cloud_xyz32(HEADER, points)
    points[:] = -1
    assert cloud.header == HEADER
    assert [f.name for f in cloud.fields] == ["x", "y", "z"]
    assert not cloud.is_dense
    assert cloud.is_bigendian == (sys.byteorder == "big")
    assert isinstance(cloud.data, array)
    assert read_points_numpy(cloud).min() == 0.0


def test_reading_a_native_cloud_copies_nothing() -> None:
    cloud = create_cloud_xyz32(HEADER, grid().reshape(-1, 3))
    read_points(cloud)["z"] = 42.0
    assert (read_points(cloud)["z"] == 42.0).all()


@overlay_only
def test_reading_a_big_endian_cloud_leaves_it_as_it_is() -> None:
    cloud = big_endian(create_cloud(HEADER, MIXED, mixed_points()))
    before = bytes(cloud.data)
    for _ in range(2):
        np.testing.assert_array_equal(read_points(cloud), mixed_points())
    assert bytes(cloud.data) == before


def test_padding_of_a_structured_array_is_kept() -> None:
    padded = np.zeros(
        4, np.dtype({"names": ["x", "y", "z"], "formats": ["f4"] * 3, "offsets": [0, 4, 8], "itemsize": 20})
    )
    assert create_cloud(HEADER, XYZ, padded, 20).point_step == 20
    with pytest.raises(AssertionError):
        create_cloud(HEADER, XYZ, padded, 12)


@overlay_only
def test_the_step_of_a_structured_array_need_not_be_repeated() -> None:
    padded = np.zeros(
        4, np.dtype({"names": ["x", "y", "z"], "formats": ["f4"] * 3, "offsets": [0, 4, 8], "itemsize": 20})
    )
    assert create_cloud(HEADER, XYZ, padded).point_step == 20


# --- selection ---


def test_fields_come_in_the_order_they_are_asked_for() -> None:
    cloud = create_cloud_xyz32(HEADER, grid().reshape(-1, 3))
    assert read_points(cloud, field_names=["z", "x"]).dtype.names == ("z", "x")
    np.testing.assert_array_equal(
        read_points_numpy(cloud, field_names=("z", "x")), grid().reshape(-1, 3)[:, [2, 0]]
    )
    with pytest.raises(AssertionError):
        read_points(cloud, field_names=["intensity"])


@overlay_only
def test_only_the_fields_that_are_read_need_one_type() -> None:
    cloud = create_cloud(HEADER, MIXED, mixed_points())
    with pytest.raises(AssertionError, match="same datatype"):
        read_points_numpy(cloud)
    np.testing.assert_array_equal(read_points_numpy(cloud, ["sigma"])[:, 0], mixed_points()["sigma"])


def test_points_with_a_nan_are_skipped_unless_the_cloud_says_it_has_none() -> None:
    points = grid().reshape(-1, 3)
    points[[2, 7], [0, 2]] = np.nan
    cloud = create_cloud_xyz32(HEADER, points)
    kept = read_points_numpy(cloud, skip_nans=True)
    np.testing.assert_array_equal(kept, points[~np.isnan(points).any(axis=1)])
    assert len(read_points(cloud, field_names=["x"], skip_nans=True)) == len(points) - 1
    cloud.is_dense = True
    assert len(read_points(cloud, skip_nans=True)) == len(points)


def test_whole_numbers_are_never_nan() -> None:
    points = mixed_points()
    points["sigma"][3] = np.nan
    assert read_points(create_cloud(HEADER, MIXED, points), skip_nans=True)["ring"].tolist() == [
        0,
        1,
        2,
        4,
        5,
    ]


@pytest.mark.parametrize(
    "uvs", [[3, 0, 3], np.array([3, 0, 3]), iter([3, 0, 3])], ids=["list", "array", "iterator"]
)
def test_points_are_picked_by_index(uvs: Any) -> None:
    points = grid().reshape(-1, 3)
    np.testing.assert_array_equal(
        read_points_numpy(create_cloud_xyz32(HEADER, points), uvs=uvs), points[[3, 0, 3]]
    )


@overlay_only
def test_points_are_picked_by_pixel() -> None:
    cloud = create_cloud_xyz32(HEADER, grid())
    pixels = [(4, 2), (0, 0), (3, 1)]  # (u, v) = (column, row)
    assert read_points_numpy(cloud, ["x", "y"], uvs=pixels).tolist() == [[4.0, 2.0], [0.0, 0.0], [3.0, 1.0]]
    assert read_points(cloud, uvs=[]).shape == (0,)


@overlay_only
def test_skipping_nans_does_not_move_the_points_that_are_picked() -> None:
    points = grid().reshape(-1, 3)
    points[0] = np.nan
    cloud = create_cloud_xyz32(HEADER, points)
    np.testing.assert_array_equal(read_points_numpy(cloud, skip_nans=True, uvs=[0, 4, 5]), points[[4, 5]])


def test_named_tuples_hold_the_points() -> None:
    named = read_points_list(create_cloud(HEADER, MIXED, mixed_points(2)))
    assert [point._fields for point in named] == [("x", "sigma", "ring")] * 2
    assert named[1].ring == 1


# --- fields ---


@pytest.mark.parametrize(
    ("datatype", "dtype"),
    [
        (PointField.INT8, "i1"),
        (PointField.UINT8, "u1"),
        (PointField.INT16, "i2"),
        (PointField.UINT16, "u2"),
        (PointField.INT32, "i4"),
        (PointField.UINT32, "u4"),
        (PointField.FLOAT32, "f4"),
        (PointField.FLOAT64, "f8"),
    ],
)
def test_every_datatype_has_its_dtype(datatype: int, dtype: str) -> None:
    assert dtype_from_fields([field("value", 0, datatype)])["value"] == np.dtype(dtype)


def test_a_field_with_a_count_becomes_that_many() -> None:
    fields = [field("normal", 4, count=3), field("", 20, PointField.UINT8)]
    dtype = dtype_from_fields(fields, point_step=32)
    assert dtype.names == ("normal_0", "normal_1", "normal_2", "unnamed_field_1")
    assert [dtype.fields[name][1] for name in dtype.names] == [4, 8, 12, 20]
    assert dtype.itemsize == 32


@pytest.mark.parametrize(
    "fields", [[field("x", 0), field("x", 4)], [field("x", 0, count=0)]], ids=["name twice", "count of 0"]
)
def test_fields_that_contradict_each_other_are_refused(fields: list[PointField]) -> None:
    with pytest.raises(AssertionError):
        dtype_from_fields(fields)


def test_a_plain_array_for_fields_of_several_types_is_refused() -> None:
    with pytest.raises(AssertionError):
        create_cloud(HEADER, MIXED, np.zeros((4, 3), np.float32))


def test_a_structured_array_of_other_fields_is_refused() -> None:
    with pytest.raises(AssertionError):
        create_cloud(HEADER, XYZ, mixed_points())


def test_a_cloud_whose_data_is_too_short_is_refused() -> None:
    cloud = create_cloud_xyz32(HEADER, grid().reshape(-1, 3))
    cloud.data = cloud.data[:-1]
    with pytest.raises(TypeError):
        read_points(cloud)


def test_what_is_no_cloud_is_refused() -> None:
    with pytest.raises(AssertionError):
        read_points(HEADER)
