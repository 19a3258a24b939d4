"""A colour and depth image, and a protocol: the evaluation frame that the protocol makes of it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from torch import Tensor

from hybriddepth_ros.errors import DatasetError, HybridDepthError
from hybriddepth_ros.estimator import reference_index_of
from hybriddepth_ros.evaluation.frames import EvaluationFrame, Floats, Mask, MetricTruth
from hybriddepth_ros.evaluation.metrics import is_depth
from hybriddepth_ros.evaluation.protocols import PUBLISHED, EvaluationProtocol
from hybriddepth_ros.focal_stack import CameraIntrinsics, FocalSlice, FocalStack
from hybriddepth_ros.image_files import ImageRGB
from hybriddepth_ros.simulation import (
    CameraMotion,
    Exposure,
    StackOptics,
    develop_stack,
    published_defocus,
    render_stack,
)
from hybriddepth_ros.simulation.rgbd_scenes import scene_from_rgbd

_GAMMA = 2.2  # what scene_from_rgbd decodes with: a pixel in focus comes out as it went in


@dataclass(frozen=True, eq=False)
class RgbdImage:
    """rgb [H, W, 3] uint8; depth [h, w] float32 m, 0 or not finite = a hole, of the same view; camera of rgb.

    Depth cameras have fewer pixels: h and w may differ from H and W.
    """

    rgb: ImageRGB
    depth: Floats
    camera: CameraIntrinsics | None = None


def synthesise(name: str, image: RgbdImage, protocol: EvaluationProtocol) -> EvaluationFrame:
    """The frame that `protocol` makes of the image; a `name` has the same noise and motion every time."""
    try:
        fitted = fit(image, protocol.camera.width, protocol.camera.height)
        valid = usable_pixels(fitted.depth, protocol)
        if not valid.any():
            raise DatasetError(_no_depth(protocol))
        focus = focus_positions(fitted.depth[valid], protocol)
        reference = reference_index_of(focus, "middle")
        images = _render(name, fitted, focus, reference, protocol)
        slices = tuple(FocalSlice(*parts) for parts in zip(images, focus, strict=True))
        lens = protocol.camera.lens if protocol.camera.lens_known else None
        stack = FocalStack(slices, fitted.camera, lens, name)
    except HybridDepthError as error:
        text = str(error)
        raise DatasetError(text if text.startswith(name) else f"{name}: {text}") from None
    truth = np.where(valid, fitted.depth, np.float32(0.0))
    return EvaluationFrame(
        name,
        stack,
        MetricTruth(truth),
        valid,
        oracle=protocol.oracle,
        reference=reference,
        sharp=fitted.rgb,
    )


def fit(image: RgbdImage, width: int, height: int) -> RgbdImage:
    """The image in this size, cut on both sides to its aspect. Depth is picked, never mixed across edges."""
    rows, columns = image.rgb.shape[:2]
    depth_rows, depth_columns = image.depth.shape
    if abs(depth_rows * columns - depth_columns * rows) > max(rows, columns):  # a pixel's rounding
        sizes = f"{columns}x{rows} and {depth_columns}x{depth_rows}"
        raise DatasetError(f"expected colour and depth of one shape, got {sizes}")
    scale = max(width / columns, height / rows)
    kept_columns, kept_rows = min(round(width / scale), columns), min(round(height / scale), rows)
    left, top = (columns - kept_columns) // 2, (rows - kept_rows) // 2
    rgb = np.ascontiguousarray(image.rgb[top : top + kept_rows, left : left + kept_columns])
    if (kept_columns, kept_rows) != (width, height):
        how = cv2.INTER_AREA if scale < 1.0 else cv2.INTER_LINEAR
        rgb = np.asarray(cv2.resize(rgb, (width, height), interpolation=how), np.uint8)
    x = (left + (np.arange(width) + 0.5) * kept_columns / width) * depth_columns / columns
    y = (top + (np.arange(height) + 0.5) * kept_rows / height) * depth_rows / rows
    depth = image.depth[y.astype(np.int64)[:, None], x.astype(np.int64)[None, :]]
    camera = image.camera
    if camera is not None:
        to_x, to_y = width / kept_columns, height / kept_rows
        camera = CameraIntrinsics(
            camera.fx * to_x,
            camera.fy * to_y,
            (camera.cx + 0.5 - left) * to_x - 0.5,  # the middle of the first pixel is at 0
            (camera.cy + 0.5 - top) * to_y - 0.5,
            width,
            height,
            camera.distortion,
        )
    return RgbdImage(rgb, np.ascontiguousarray(depth, np.float32), camera)


def usable_pixels(depth: Floats, protocol: EvaluationProtocol) -> Mask:
    """[H, W] bool: measured, and within the protocol's range."""
    valid = is_depth(depth)
    if protocol.frames.depth_m:
        low, high = protocol.frames.depth_m
        valid &= (depth > low) & (depth < high)
    return valid


def focus_positions(depths: Floats, protocol: EvaluationProtocol) -> list[float]:
    """[S] 1/m; an oracle's are even in metres from the least to the largest of `depths`, near to far."""
    fixed = protocol.sweep.fixed_diopters
    if fixed is not None:
        return list(fixed)
    assert protocol.sweep.from_truth is not None
    low, high = float(depths.min()), float(depths.max())
    return [float(1.0 / metres) for metres in np.linspace(low, high, protocol.sweep.from_truth.count)]


def _render(
    name: str, image: RgbdImage, focus: list[float], reference: int, protocol: EvaluationProtocol
) -> list[ImageRGB]:
    """[S] slices [H, W, 3] uint8."""
    if protocol.renderer == PUBLISHED:
        rgb = np.ascontiguousarray(image.rgb.transpose(2, 0, 1), np.float32) / np.float32(255.0)
        depth = np.where(np.isfinite(image.depth), image.depth, np.float32(0.0))
        metres = np.array([1.0 / value for value in focus])
        gathered = published_defocus(rgb, depth, metres, protocol.camera.lens, protocol.window)
        return _images(torch.from_numpy((gathered * 255.0).round().clip(0, 255).astype(np.uint8)))
    generator = torch.Generator().manual_seed(_seed(name, protocol.seed))
    motion = None
    if protocol.motion is not None:
        steps = (protocol.motion.step_px, protocol.motion.step_deg)
        motion = CameraMotion.random(len(focus), *steps, generator)
    breathing = protocol.camera.breathing_percent_per_diopter
    optics = replace(StackOptics.of_lens(protocol.camera.lens), breathing_percent_per_diopter=breathing)
    scene, _ = scene_from_rgbd(image.rgb, image.depth)
    linear = render_stack(scene, focus, optics, motion, reference)
    return _images(develop_stack(linear, _exposure(protocol), generator))


def _exposure(protocol: EvaluationProtocol) -> Exposure:
    asked = protocol.exposure
    if asked is None:
        return Exposure(full_well_electrons=None, read_noise_electrons=None, gamma=_GAMMA)
    values = dict(vars(asked)) | {"jpeg_quality": asked.jpeg_quality or None}
    return Exposure(**values, gamma=_GAMMA)


def _images(stack: Tensor) -> list[ImageRGB]:
    return list(np.ascontiguousarray(stack.permute(0, 2, 3, 1).numpy()))


def _seed(name: str, seed: int) -> int:
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:7], "big")


def _no_depth(protocol: EvaluationProtocol) -> str:
    if not protocol.frames.depth_m:
        return "expected a depth image with measurements, found none"
    low, high = protocol.frames.depth_m
    return f"expected depths of {low:g} to {high:g} m, found none"
