"""A real colour and depth image as a layered scene: cut where depth jumps, continued behind what hides it."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hybriddepth_ros.errors import ParameterError
from hybriddepth_ros.simulation.layers import LayeredScene

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.int64]  # of pixels in the flattened image

_LEVELS = 512  # at which a cut may lie
_SMOOTH_WEIGHT = 0.5  # cutting a smooth surface between two pixels, against leaving a jump between two uncut
_FEWEST_JUMPS = 20  # pairs of pixels that are worth a layer of their own


def scene_from_rgbd(
    rgb: npt.NDArray[np.uint8],
    depth: Floats,
    blur_px_per_diopter: float = 1.0,
    max_layers: int = 5,
    jump: float = 0.05,
) -> tuple[LayeredScene, Tensor]:
    """The frame as layers, and [H, W] bool: where its depth was measured, and the scene's therefore holds.

    rgb [H, W, 3] uint8, taken as of gamma 2.2; depth [H, W] m along Z, 0 or not finite where there is none.
    The scene's depth there is blur_px_per_diopter / depth, exactly. Depth jumps where it differs by the
    fraction `jump` or more from one pixel to the next. Holes take the nearest depth at their rim, of its far
    side if it jumps: a depth camera is blind beside what is near. Hidden surfaces take up what lies at their
    rim: its depth, and its colours mirrored. Things that hide nothing of one another may share a layer.
    """
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.shape[:2] != depth.shape or rgb.dtype != np.uint8:
        raise ParameterError(
            f"scene: expected rgb uint8 [H, W, 3] and depth [H, W] of one size; got {rgb.dtype}"
            f" {list(rgb.shape)} and {list(depth.shape)}"
        )
    if max_layers < 1 or not jump > 0 or not blur_px_per_diopter > 0:
        raise ParameterError(
            "scene: expected max_layers of at least 1, jump and blur_px_per_diopter above 0; got"
            f" {max_layers}, {jump}, {blur_px_per_diopter}"
        )
    valid = np.isfinite(depth) & (depth > 0)
    if not valid.any():
        raise ParameterError("scene: the depth image holds no measurement")
    diopters = np.zeros(depth.shape, np.float32)  # times blur_px_per_diopter
    diopters[valid] = np.float32(blur_px_per_diopter) / depth[valid]
    diopters = _without_holes(diopters, valid, jump)
    cuts = _cuts(diopters, jump, max_layers - 1)
    band = np.searchsorted(cuts, diopters, side="right")  # [H, W], 0: the farthest
    color = np.asarray((rgb / np.float32(255)) ** np.float32(2.2), np.float32)
    layers = [_layer(color, diopters, band, int(index)) for index in np.unique(band)]
    colors, coverages, depths = (np.stack(parts) for parts in zip(*layers, strict=True))
    scene = LayeredScene(
        torch.from_numpy(np.ascontiguousarray(colors.transpose(0, 3, 1, 2))),
        torch.from_numpy(coverages),
        torch.from_numpy(depths),
    )
    return scene, torch.from_numpy(valid)


def _without_holes(diopters: Floats, valid: Mask, jump: float) -> Floats:
    if valid.all():
        return diopters
    _, holes = cv2.connectedComponents((~valid).astype(np.uint8), connectivity=8)
    # Each pixel at a rim, with its hole; one that lies between two holes counts for one of them.
    beside = cv2.dilate(holes.astype(np.float32), np.ones((3, 3), np.uint8)).astype(np.int32)
    rim = np.flatnonzero(valid & (beside > 0))
    rim = rim[np.lexsort((diopters.ravel()[rim], beside.ravel()[rim]))]  # by hole, far to near
    hole, value = beside.ravel()[rim], diopters.ravel()[rim]
    # Within a hole's rim, everything past the first jump is the near side.
    first = np.r_[True, hole[1:] != hole[:-1]]
    jumps = np.r_[False, value[1:] > (1 + jump) * value[:-1]] & ~first
    count = np.cumsum(jumps)
    starts = np.maximum.accumulate(np.where(first, np.arange(len(rim)), 0))
    sources = np.zeros(valid.shape, bool)
    sources.ravel()[rim[count == count[starts]]] = True
    return np.where(valid, diopters, diopters.ravel()[_nearest(sources)])


def _cuts(diopters: Floats, jump: float, count: int) -> Floats:
    """At most `count` levels of 1/z, ascending, that part the most jumps and cut little of what is smooth.

    A level parts two neighbours that lie on either side of it.
    """
    # In the logarithm, where a jump is the same step at any distance.
    log = np.log(diopters)
    low, high = float(log.min()), float(log.max())
    if high - low < np.log1p(jump):
        return np.zeros(0, np.float32)
    scale = _LEVELS / (high - low)
    far, near = [], []
    for first, second in ((log[:, 1:], log[:, :-1]), (log[1:], log[:-1])):
        far.append(np.minimum(first, second).ravel())
        near.append(np.maximum(first, second).ravel())
    a, b = np.concatenate(far), np.concatenate(near)
    is_jump = b - a > np.log1p(jump)
    # Level i lies at low + i / scale; a pair is parted by the levels above its far one up to its near one.
    start = np.floor((a - low) * scale).astype(np.int64) + 1
    stop = np.floor((b - low) * scale).astype(np.int64) + 1
    smooth = _levels_parting(start[~is_jump], stop[~is_jump])
    start, stop = start[is_jump], stop[is_jump]
    levels: list[int] = []
    while len(levels) < count and len(start):
        score = _levels_parting(start, stop) - _SMOOTH_WEIGHT * smooth
        best = score.max()
        if best < _FEWEST_JUMPS:
            break
        # The middle of the levels that are as good: as far as can be from either side.
        equal = np.flatnonzero(score >= best - 1e-9)
        level = int(equal[len(equal) // 2])
        levels.append(level)
        left = (start > level) | (stop <= level)
        start, stop = start[left], stop[left]
    return np.exp(low + np.sort(np.array(levels, np.float64)) / scale).astype(np.float32)


def _levels_parting(start: Indices, stop: Indices) -> npt.NDArray[np.float64]:
    """For each level, how many of the ranges start..stop - 1 hold it."""
    changes = np.bincount(start, minlength=_LEVELS + 2) - np.bincount(stop, minlength=_LEVELS + 2)
    counts: npt.NDArray[np.float64] = np.cumsum(changes)[: _LEVELS + 1].astype(np.float64)
    return counts


def _layer(color: Floats, diopters: Floats, band: Indices, index: int) -> tuple[Floats, Floats, Floats]:
    """Colour, coverage and 1/z of one band: as seen where it is seen, continued elsewhere.

    Behind what is nearer it goes on until something farther is as close by.
    """
    own = band == index
    nearest = _nearest(own)
    coverage = own.copy()
    hidden = band > index
    if hidden.any():
        behind = band.ravel()[_nearest(~hidden)]
        coverage |= hidden & (behind == index)
    if index == 0:
        coverage[:] = True
    # At a rim the camera has mixed two surfaces in a pixel: colours come from one pixel further in.
    inner = cv2.erode(own.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    source = _nearest(inner) if inner.any() else nearest
    filled = np.where(own[..., None], color, color.reshape(-1, 3)[_mirrored(source, inner)])
    return (
        filled.astype(np.float32),
        coverage.astype(np.float32),
        diopters.ravel()[nearest].astype(np.float32),
    )


def _nearest(sources: Mask) -> Indices:
    """[H, W]: which source is the nearest to each pixel; a source is its own."""
    _, labels = cv2.distanceTransformWithLabels(
        (~sources).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    places = np.flatnonzero(sources)
    of_label = np.zeros(int(labels.max()) + 1, np.int64)
    of_label[labels.ravel()[places]] = places
    return of_label[labels]


def _mirrored(nearest: Indices, sources: Mask) -> Indices:
    """[H, W]: the pixel on the other side of the nearest source, if it is one too; else that source."""
    height, width = sources.shape
    rows, columns = np.divmod(nearest, width)
    mirror_row = np.clip(2 * rows - np.arange(height)[:, None], 0, height - 1)
    mirror_column = np.clip(2 * columns - np.arange(width)[None, :], 0, width - 1)
    mirror = mirror_row * width + mirror_column
    return np.where(sources[mirror_row, mirror_column], mirror, nearest)
