"""From a depth image to a coloured point cloud with a sigma per point.

Points are in the camera's optical frame (REP 103: x right, y down, z forward), in metres.
"""

from __future__ import annotations

import array as arrays
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from hybriddepth_ros.errors import OutputError, ParameterError
from hybriddepth_ros.focal_stack import CameraIntrinsics
from hybriddepth_ros.image_files import ImageRGB
from hybriddepth_ros.parameters import parameter

# x, y, z [m]; rgb: the bits of 0x00RRGGBB, as PCL and RViz read it; sigma [m]: 1 sigma of z.
CLOUD_DTYPE = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("rgb", "<f4"), ("sigma", "<f4")])

_PLY_DTYPE = np.dtype(
    [
        ("x", "<f4"),
        ("y", "<f4"),
        ("z", "<f4"),
        ("red", "u1"),
        ("green", "u1"),
        ("blue", "u1"),
        ("sigma", "<f4"),
    ]
)
_PLY_TYPES = {"f": "float", "u": "uchar"}

Cloud = npt.NDArray[np.void]  # of CLOUD_DTYPE
Buffer: TypeAlias = "arrays.array[int] | bytearray"


@dataclass(frozen=True)
class PointCloudOptions:
    """Which pixels become points, and in which layout."""

    organised: bool = parameter(
        True,
        "keep the image's rows and columns, pixels without a point as NaN; false: only points, in one row",
        dynamic=True,
    )
    stride: int = parameter(
        1, "take every n-th pixel of every n-th row", unit="px", minimum=1, maximum=64, dynamic=True
    )
    min_range: float = parameter(
        0.0, "points nearer than this along Z are left out; 0 = none", unit="m", minimum=0.0, dynamic=True
    )
    max_range: float = parameter(
        0.0, "points farther than this along Z are left out; 0 = none", unit="m", minimum=0.0, dynamic=True
    )
    max_sigma: float = parameter(
        0.0,
        "points less certain than this (1 sigma) are left out; 0 = none",
        unit="m",
        minimum=0.0,
        dynamic=True,
    )

    def __post_init__(self) -> None:
        if self.max_range and self.max_range <= self.min_range:
            raise ParameterError(
                f"max_range: expected 0 or more than min_range ({self.min_range:g} m), got {self.max_range!r}"
            )


def project(
    depth: npt.NDArray[np.float32],
    sigma: npt.NDArray[np.float32],
    rgb: ImageRGB,
    camera: CameraIntrinsics,
    options: PointCloudOptions | None = None,
) -> Cloud:
    """Points of CLOUD_DTYPE in metres: [ceil(H / stride), ceil(W / stride)] if organised, else [N].

    depth, sigma [H, W] m, NaN = no estimate; rgb [H, W, 3] uint8; camera: rectified. xyz and sigma of a pixel
    without a point are NaN.
    """
    return PointCloudProjector()(depth, sigma, rgb, camera, options)


class PointCloudProjector:
    """`project` for a stream: the cloud [m] that it returns is its own buffer, overwritten by the next call,
    or the caller's.

    Fresh pages for 6 MB, a cloud of 640x480, can cost more than filling them.
    """

    def __init__(self) -> None:
        self._organised = np.empty((0, 0), CLOUD_DTYPE)
        self._compact = np.empty(0, CLOUD_DTYPE)

    def __call__(
        self,
        depth: npt.NDArray[np.float32],
        sigma: npt.NDArray[np.float32],
        rgb: ImageRGB,
        camera: CameraIntrinsics,
        options: PointCloudOptions | None = None,
        memory: Buffer | None = None,
    ) -> Cloud:
        """Points in metres; see :func:`project`. memory: where an organised cloud of just so many bytes is
        written to, so that whoever sends it need not copy it.
        """
        options = options or PointCloudOptions()
        _check_inputs(depth, sigma, rgb, camera)
        step = options.stride
        depth, sigma, rgb = depth[::step, ::step], sigma[::step, ::step], rgb[::step, ::step]  # [H', W'(, 3)]
        cloud = self._memory(memory if options.organised else None, depth.shape)
        valid = _valid(depth, sigma, options)  # [H', W']
        # All bits set is a NaN. A masked copy is seven times slower: branches on a mask mispredict.
        blank = valid.astype(np.uint32) - np.uint32(1)  # 0 where valid, else 0xFFFFFFFF
        z = (depth.view(np.uint32) | blank).view(np.float32)
        rays_x, rays_y = _rays(camera, step)
        columns = _columns(cloud)  # [H', W', 5]
        np.multiply(z, rays_x, out=columns[..., 0])
        np.multiply(z, rays_y, out=columns[..., 1])
        columns[..., 2] = z
        _write_rgb(cloud, rgb)
        np.bitwise_or(sigma.view(np.uint32), blank, out=columns.view(np.uint32)[..., 4])
        return cloud if options.organised else self._compressed(cloud, valid)

    def _memory(self, given: Buffer | None, shape: tuple[int, ...]) -> Cloud:
        """[H', W'] for the cloud, not filled."""
        if given is not None and memoryview(given).nbytes == math.prod(shape) * CLOUD_DTYPE.itemsize > 0:
            return np.frombuffer(given, CLOUD_DTYPE).reshape(shape)
        if self._organised.shape != shape:
            self._organised = np.empty(shape, CLOUD_DTYPE)
        return self._organised

    def _compressed(self, cloud: Cloud, valid: npt.NDArray[np.bool_]) -> Cloud:
        """[N]; rows of floats by their indices, as indexing with the mask takes four times as long."""
        if self._compact.size < cloud.size:
            self._compact = np.empty(cloud.size, CLOUD_DTYPE)
        chosen = np.flatnonzero(valid)
        points = self._compact[: len(chosen)]
        # clip: nothing is to be clipped; with the check that it replaces numpy copies the result once more
        np.take(_columns(cloud.reshape(-1)), chosen, axis=0, out=_columns(points), mode="clip")
        return points


def write_ply(path: str | Path, cloud: Cloud) -> None:
    """The cloud's valid points [m] as binary little-endian PLY: x y z red green blue sigma."""
    points = cloud[np.isfinite(cloud["z"])]  # [N]
    vertices = np.empty(points.shape, _PLY_DTYPE)
    for name in ("x", "y", "z", "sigma"):
        vertices[name] = points[name]
    packed = np.ascontiguousarray(points["rgb"]).view(np.uint32)
    for name, shift in (("red", 16), ("green", 8), ("blue", 0)):
        vertices[name] = (packed >> shift) & 0xFF
    properties = "".join(f"property {_PLY_TYPES[_PLY_DTYPE[n].kind]} {n}\n" for n in _PLY_DTYPE.names or ())
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(vertices)}\n{properties}end_header\n"
    try:
        Path(path).write_bytes(header.encode("ascii") + vertices.tobytes())
    except OSError as error:
        raise OutputError(f"{path}: expected a file that can be written: {error.strerror}") from None


def _check_inputs(
    depth: npt.NDArray[np.float32], sigma: npt.NDArray[np.float32], rgb: ImageRGB, camera: CameraIntrinsics
) -> None:
    size = (camera.height, camera.width)
    for name, array, shape, dtype in (
        ("depth", depth, size, np.float32),
        ("sigma", sigma, size, np.float32),
        ("rgb", rgb, (*size, 3), np.uint8),
    ):
        if array.shape != shape or array.dtype != dtype:
            expected = f"{np.dtype(dtype)} {list(shape)} (the camera's size)"
            raise ParameterError(f"{name}: expected {expected}, got {array.dtype} {list(array.shape)}")
    if any(camera.distortion):
        raise ParameterError(f"camera: expected rectified intrinsics, got distortion {camera.distortion}")


def _rays(camera: CameraIntrinsics, step: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """x/z [1, W'] and y/z [H', 1]: without distortion one row and one column say it for every pixel."""
    x = (np.arange(0, camera.width, step) - camera.cx) / camera.fx
    y = (np.arange(0, camera.height, step) - camera.cy) / camera.fy
    return x.astype(np.float32)[None, :], y.astype(np.float32)[:, None]


def _valid(
    depth: npt.NDArray[np.float32], sigma: npt.NDArray[np.float32], options: PointCloudOptions
) -> npt.NDArray[np.bool_]:
    valid = (depth > 0.0) & (depth < np.inf)
    if options.min_range:
        valid &= depth >= options.min_range
    if options.max_range:
        valid &= depth <= options.max_range
    if options.max_sigma:
        valid &= sigma <= options.max_sigma
    return valid


def _columns(cloud: Cloud) -> npt.NDArray[np.float32]:
    """[..., 5] view."""
    return cloud.view(np.float32).reshape(*cloud.shape, len(CLOUD_DTYPE.names or ()))


def _write_rgb(cloud: Cloud, rgb: ImageRGB) -> None:
    """0x00RRGGBB in little-endian order, byte by byte: packing integers first takes three times as long."""
    channels = cloud.view(np.uint8).reshape(*cloud.shape, CLOUD_DTYPE.itemsize)  # [H', W', 20]
    for offset, channel in ((12, 2), (13, 1), (14, 0)):
        channels[..., offset] = rgb[..., channel]
    channels[..., 15] = 0
