"""Clouds: points that project back to their pixels, PCL's colour, the filters, and PLY files that parse."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybriddepth_ros.errors import OutputError, ParameterError
from hybriddepth_ros.focal_stack import CameraIntrinsics
from hybriddepth_ros.parameters import from_mapping
from hybriddepth_ros.point_cloud import (
    CLOUD_DTYPE,
    PointCloudOptions,
    PointCloudProjector,
    project,
    write_ply,
)

HEIGHT, WIDTH = 24, 31


def scene(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, CameraIntrinsics]:
    """depth, sigma [m], rgb and camera, with every third pixel or so without an estimate."""
    random = np.random.default_rng(seed)
    depth = random.uniform(0.3, 5.0, (HEIGHT, WIDTH)).astype(np.float32)
    depth[random.random(depth.shape) < 0.3] = np.nan
    sigma = (0.02 * depth**2).astype(np.float32)
    rgb = random.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    return depth, sigma, rgb, CameraIntrinsics(40.5, 41.5, 15.2, 11.7, WIDTH, HEIGHT)


def colours(cloud: np.ndarray) -> np.ndarray:
    """[..., 3] uint8 RGB, read as PCL reads it."""
    packed = np.ascontiguousarray(cloud["rgb"]).view(np.uint32)
    assert not np.any(packed >> 24)
    return np.stack([packed >> 16 & 255, packed >> 8 & 255, packed & 255], -1).astype(np.uint8)


def test_a_point_is_twenty_packed_bytes() -> None:
    assert CLOUD_DTYPE.itemsize == 20
    assert {name: offset for name, (_, offset) in CLOUD_DTYPE.fields.items()} == {
        "x": 0,
        "y": 4,
        "z": 8,
        "rgb": 12,
        "sigma": 16,
    }


@given(st.integers(0, 1000), st.integers(1, 9))
def test_points_project_back_to_their_pixels(seed: int, stride: int) -> None:
    depth, sigma, rgb, camera = scene(seed)
    cloud = project(depth, sigma, rgb, camera, PointCloudOptions(stride=stride))
    sampled = depth[::stride, ::stride]
    assert cloud.shape == sampled.shape and cloud.flags.c_contiguous
    np.testing.assert_array_equal(cloud["z"], sampled)
    rows, columns = np.mgrid[0:HEIGHT:stride, 0:WIDTH:stride]
    there = np.isfinite(sampled)
    u = cloud["x"] / cloud["z"] * camera.fx + camera.cx
    v = cloud["y"] / cloud["z"] * camera.fy + camera.cy
    np.testing.assert_allclose(u[there], columns[there], atol=1e-4)
    np.testing.assert_allclose(v[there], rows[there], atol=1e-4)
    np.testing.assert_array_equal(colours(cloud), rgb[::stride, ::stride])
    np.testing.assert_array_equal(cloud["sigma"], sigma[::stride, ::stride])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 0.0, -1.0])
def test_a_pixel_without_depth_has_no_point(bad: float) -> None:
    depth, sigma, rgb, camera = scene()
    depth[:] = 1.0
    sigma[:] = 0.1
    depth[3, 4] = bad
    cloud = project(depth, sigma, rgb, camera)
    missing = np.zeros(depth.shape, bool)
    missing[3, 4] = True
    for name in ("x", "y", "z", "sigma"):
        np.testing.assert_array_equal(np.isnan(cloud[name]), missing)


def test_a_compact_cloud_is_the_organised_one_without_its_gaps() -> None:
    depth, sigma, rgb, camera = scene()
    organised = project(depth, sigma, rgb, camera)
    compact = project(depth, sigma, rgb, camera, PointCloudOptions(organised=False))
    assert compact.dtype == CLOUD_DTYPE and compact.ndim == 1 and compact.flags.c_contiguous
    assert compact.tobytes() == organised[np.isfinite(organised["z"])].tobytes()


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        (PointCloudOptions(min_range=1.0), lambda depth, sigma: depth >= 1.0),
        (PointCloudOptions(max_range=2.0), lambda depth, sigma: depth <= 2.0),
        (PointCloudOptions(max_sigma=0.1), lambda depth, sigma: sigma <= np.float32(0.1)),
        (PointCloudOptions(), lambda depth, sigma: np.isfinite(depth)),
    ],
)
def test_filters_leave_out_what_they_say(options: PointCloudOptions, kept: object) -> None:
    depth, sigma, rgb, camera = scene()
    depth[0, 0], sigma[0, 0] = 1.5, np.nan  # without a sigma there is none below the limit
    cloud = project(depth, sigma, rgb, camera, options)
    expected = kept(depth, sigma)
    assert 0 < expected.sum() < expected.size
    np.testing.assert_array_equal(np.isfinite(cloud["z"]), expected)


def test_a_projector_reuses_its_memory_and_survives_a_change_of_size() -> None:
    projector = PointCloudProjector()
    for options in (PointCloudOptions(), PointCloudOptions(stride=3), PointCloudOptions(organised=False)):
        first = projector(*scene(1), options)
        address = first.__array_interface__["data"][0]
        second = projector(*scene(2), options)
        assert second.__array_interface__["data"][0] == address
        assert second.tobytes() == project(*scene(2), options).tobytes()


def test_a_projector_writes_an_organised_cloud_where_it_is_told_to() -> None:
    projector, expected = PointCloudProjector(), project(*scene(2))
    memory = bytearray(expected.nbytes)
    cloud = projector(*scene(2), memory=memory)
    assert np.shares_memory(cloud, np.frombuffer(memory, np.uint8))
    assert bytes(memory) == expected.tobytes() and cloud.shape == expected.shape
    for options in (PointCloudOptions(stride=2), PointCloudOptions(organised=False)):  # which do not fit
        cloud = projector(*scene(1), options, memory)
        assert not np.shares_memory(cloud, np.frombuffer(memory, np.uint8))
        assert cloud.tobytes() == project(*scene(1), options).tobytes()
    assert bytes(memory) == expected.tobytes()


@pytest.mark.parametrize("argument", ["depth", "sigma", "rgb"])
def test_inputs_of_another_size_or_type_are_refused_by_name(argument: str) -> None:
    depth, sigma, rgb, camera = scene()
    inputs = {"depth": depth, "sigma": sigma, "rgb": rgb}
    for wrong in (inputs[argument][:-1], inputs[argument].astype(np.float64)):
        with pytest.raises(ParameterError, match=f"^{argument}: expected "):
            project(**{**inputs, argument: wrong}, camera=camera)


def test_an_unrectified_camera_is_refused() -> None:
    depth, sigma, rgb, _ = scene()
    bent = CameraIntrinsics(40.0, 40.0, 15.0, 12.0, WIDTH, HEIGHT, (0.1, 0.0, 0.0, 0.0, 0.0))
    with pytest.raises(ParameterError, match="rectified"):
        project(depth, sigma, rgb, bent)


def test_a_range_without_inside_is_refused() -> None:
    with pytest.raises(ParameterError, match="max_range: expected 0 or more than min_range"):
        from_mapping(PointCloudOptions, {"min_range": 2.0, "max_range": 1.0})


PLY_TYPES = {"float": "<f4", "uchar": "u1"}


def parsed_ply(data: bytes) -> np.ndarray:
    """Vertices by the header's own words, as any PLY reader takes them."""
    header, body = data.split(b"end_header\n", 1)
    lines = header.decode("ascii").splitlines()
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"]
    (count,) = (int(line.split()[2]) for line in lines if line.startswith("element vertex "))
    properties = [line.split()[1:] for line in lines if line.startswith("property ")]
    vertices = np.frombuffer(body, [(name, PLY_TYPES[kind]) for kind, name in properties])
    assert len(vertices) == count
    return vertices


@pytest.mark.parametrize("organised", [True, False])
def test_a_ply_file_holds_the_points_and_their_sigma(tmp_path: Path, organised: bool) -> None:
    depth, sigma, rgb, camera = scene()
    write_ply(
        tmp_path / "points.ply", project(depth, sigma, rgb, camera, PointCloudOptions(organised=organised))
    )
    vertices = parsed_ply((tmp_path / "points.ply").read_bytes())
    assert vertices.dtype.names == ("x", "y", "z", "red", "green", "blue", "sigma")
    expected = project(depth, sigma, rgb, camera, PointCloudOptions(organised=False))
    for name in ("x", "y", "z", "sigma"):
        np.testing.assert_array_equal(vertices[name], expected[name])
    written = np.stack([vertices[name] for name in ("red", "green", "blue")], -1)
    np.testing.assert_array_equal(written, rgb[np.isfinite(depth)])


def test_a_cloud_without_points_is_still_a_ply_file(tmp_path: Path) -> None:
    depth, sigma, rgb, camera = scene()
    write_ply(tmp_path / "points.ply", project(np.full_like(depth, np.nan), sigma, rgb, camera))
    assert len(parsed_ply((tmp_path / "points.ply").read_bytes())) == 0


def test_a_ply_file_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "points.ply"
    with pytest.raises(OutputError, match=r"missing/points\.ply: expected a file that can be written"):
        write_ply(path, np.empty(0, CLOUD_DTYPE))
