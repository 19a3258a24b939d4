"""Camera motion and focus breathing between the slices of a stack.

Each slice is laid over the reference slice by a homography that is estimated from local displacements: both
images are divided into tiles, each tile's displacement is measured by gradients (Lucas-Kanade) on images
whose blur was made equal, and one global motion is fitted to all tiles, robustly, from coarse to fine. The
motion's scale is each slice's own where there is texture all over; where there is little it is drawn
towards a line in diopters through the reference, since focus breathing is one scale about the principal point
that follows the focus. What the tiles still disagree by after the fit is the residual; it
tells whether to trust a slice.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from hybriddepth_ros.blur_matching import box_twice, match_blur
from hybriddepth_ros.tiles import MAX_STEP_PX, TileGradients, TileGrid

Floats = npt.NDArray[np.floating[Any]]  # float32 in images
Float64 = npt.NDArray[np.float64]
Pyramid = list[Floats]

FINEST_WIDTH_PX = 640  # the finest level is half the image, but at most this wide: 0.05 px there are enough
COARSEST_WIDTH_PX = 40
ITERATIONS_PER_LEVEL = 3
BACKGROUND_PX = 13  # box width; slower changes than this are shading, not texture
ROBUST_ITERATIONS = 3
TILE_SIGMA = 1e-3  # what a tile's displacement is worth, in half widths
MIN_TEXTURED_TILES = 8
MIN_TILE_CORRELATION = 0.5
MIN_SIMILAR_SHARE = 0.35

# How far each parameter of the motion may stand from its expectation [1, with the half width of the image =
# 1]: translation, scale, roll, aspect, shear, perspective. A hand shifts and turns a camera; it does not
# shear it.
PRIOR_SIGMA = np.array([1.0, 1.0, 0.02, 0.1, 0.004, 0.004, 0.02, 0.02])
SCALE = 2
BREATHING_SIGMA = 0.004  # of the scale about the breathing line: the camera also moves forwards and back
MAX_SCALE_SURPRISE = 0.03  # of known magnifications


def _start_workers() -> ThreadPoolExecutor:
    # OpenCV and numpy let go of the interpreter lock, so that slices are registered side by side.
    return ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1), thread_name_prefix="registration")


_workers = _start_workers()


def _restart_workers() -> None:
    global _workers
    _workers = _start_workers()


os.register_at_fork(after_in_child=_restart_workers)  # a forked process inherits the pool without its threads


@dataclass(frozen=True)
class Registration:
    """How each slice lies over the reference slice.

    reference: index of the reference slice; transforms [S, 3, 3] float64: pixel of the reference (x, y, 1) ->
    pixel of the slice; residual_before_px, residual_px [S]: median displacement of the textured tiles before
    and after [px of the full image]; used [S] bool: False = the slice could not be registered and is not to
    be used; textured_tiles [S]: how many tiles that counts; residual_p75_px [S]: what the upper quartile of
    them exceeds; tile_residual_px [S, rows, columns]: where it is large something moved by itself. In these
    two a tile that does not fit at all counts as the largest displacement that can be measured.
    breathing_per_diopter: relative magnification per diopter of focus that the slices agree on.
    """

    reference: int
    transforms: Float64
    residual_before_px: Float64
    residual_px: Float64
    used: npt.NDArray[np.bool_]
    textured_tiles: npt.NDArray[np.int64]
    residual_p75_px: Float64
    tile_residual_px: Float64
    breathing_per_diopter: float = 0.0

    @classmethod
    def identity(cls, count: int, reference: int, tiles: tuple[int, int] = (1, 1)) -> Registration:
        """The registration of slices that are known to lie over each other."""
        return cls(
            reference,
            transforms=np.tile(np.eye(3), (count, 1, 1)),
            residual_before_px=np.zeros(count),
            residual_px=np.zeros(count),
            used=np.ones(count, np.bool_),
            textured_tiles=np.zeros(count, np.int64),
            residual_p75_px=np.zeros(count),
            tile_residual_px=np.zeros((count, *tiles)),
        )


@dataclass(frozen=True)
class SliceFit:
    """How one slice lies over the reference; the fields of Registration, without [S]."""

    transform: Float64
    residual_before_px: float
    residual_px: float
    used: bool
    textured_tiles: int
    residual_p75_px: float
    tile_residual_px: Float64


@dataclass(frozen=True)
class _Fit:
    """One slice's motion at one level, and how well the tiles agree with it.

    before_px, left_px [T]: displacements before and after [px of the level]; textured [T] bool: tiles that
    say something; similar [T] bool: tiles that show the same as the reference's; aligned [T] bool: those
    whose displacement could be measured.
    """

    homography: Float64
    before_px: Float64
    left_px: Float64
    textured: npt.NDArray[np.bool_]
    similar: npt.NDArray[np.bool_]
    aligned: npt.NDArray[np.bool_]


def register(
    greys: Sequence[npt.NDArray[np.uint8]],
    focus_diopters: npt.NDArray[np.float32],
    reference: int,
    max_residual_px: float = 1.5,
    magnifications: Sequence[float] | None = None,
) -> Registration:
    """Register every slice to the reference slice.

    greys: S images [H, W] uint8; focus_diopters [S] 1/m; magnifications [S]: each slice's focal length in
    pixels relative to the reference's where the camera knows its breathing, else (and where the slices
    contradict it) it is estimated.
    """
    height, width = greys[0].shape
    levels = list(_workers.map(pyramid_of, greys))
    focus_step = focus_diopters.astype(np.float64) - float(focus_diopters[reference])

    def coarse(index: int) -> Float64:
        if index == reference:
            return np.eye(3)
        still, moving = (levels[i][1:] or levels[i] for i in (reference, index))  # small images: one level
        return _coarse_to_fine(still, moving, 1.0 if magnifications is None else magnifications[index])

    homographies = list(_workers.map(coarse, range(len(levels))))

    scales = np.array([_scale(h) - 1.0 for h in homographies])
    expected_scales = np.asarray(magnifications or np.ones(len(greys)), np.float64) - 1.0
    # What the slices contradict is not known: intrinsics of another focus, or of another lens.
    if magnifications is None or np.median(np.abs(scales - expected_scales)) > MAX_SCALE_SURPRISE:
        expected_scales = breathing_slope(focus_step, scales) * focus_step
    breathing = breathing_slope(focus_step, expected_scales)

    prior_sigma = PRIOR_SIGMA.copy()
    prior_sigma[SCALE] = BREATHING_SIGMA

    def fine(index: int) -> SliceFit:
        still, moving = levels[reference][0], levels[index][0]
        fit = _align_level(still, moving, homographies[index], prior_sigma, float(expected_scales[index]))
        return _measured(fit, still, (width, height), max_residual_px)

    columns, rows = TileGrid(*levels[reference][0].shape[::-1]).tiles
    found = Registration.identity(len(greys), reference, (rows, columns))
    others = [index for index in range(len(greys)) if index != reference]
    for index, fit in zip(others, _workers.map(fine, others), strict=True):
        for name, value in vars(fit).items():
            getattr(found, {"transform": "transforms"}.get(name, name))[index] = value
    return replace(found, breathing_per_diopter=float(breathing))


def register_pair(
    reference: Pyramid,
    moving: Pyramid,
    size: tuple[int, int],
    max_residual_px: float,
    expected_scale: float | None = None,
    start: Float64 | None = None,
) -> SliceFit:
    """Register one slice to another, both as `pyramid_of` images of `size` (W, H) px.

    expected_scale: relative magnification of the moving slice, None = unknown; start [3, 3]: pixel of the
    reference -> pixel of the slice, as it is expected to be, which saves the search where it is not far off.
    """
    prior_sigma = PRIOR_SIGMA.copy()
    if expected_scale is not None:
        prior_sigma[SCALE] = BREATHING_SIGMA
    scale = 1.0 if expected_scale is None else expected_scale

    def fit(homography: Float64) -> SliceFit:
        found = _align_level(reference[0], moving[0], homography, prior_sigma, scale - 1.0)
        return _measured(found, reference[0], size, max_residual_px)

    if start is not None:
        found = fit(_to_normalised(start, *size))
        if found.used:
            return found
    return fit(_coarse_to_fine(reference[1:] or reference, moving[1:] or moving, scale))


def _measured(fit: _Fit, reference: Floats, size: tuple[int, int], max_residual_px: float) -> SliceFit:
    """What a fit at the finest level says in pixels of the full image (W, H)."""
    to_full = size[0] / reference.shape[1]
    columns, rows = TileGrid(*reference.shape[::-1]).tiles
    textured, left_px = fit.textured, fit.left_px * to_full
    at_least_px = np.where(fit.aligned, left_px, np.maximum(left_px, MAX_STEP_PX * to_full))
    transform, count = _to_pixels(fit.homography, *size), int(textured.sum())
    if count < MIN_TEXTURED_TILES:
        return SliceFit(transform, np.inf, np.inf, False, count, np.inf, np.zeros((rows, columns)))
    middle = float(np.median(left_px[textured]))
    return SliceFit(
        transform,
        residual_before_px=float(np.median(fit.before_px[textured]) * to_full),
        residual_px=middle,
        used=bool(middle <= max_residual_px and fit.similar[textured].mean() >= MIN_SIMILAR_SHARE),
        textured_tiles=count,
        residual_p75_px=float(np.percentile(at_least_px[textured], 75.0)),
        tile_residual_px=np.where(textured, at_least_px, middle).reshape(rows, columns),
    )


def scale_of(transform: Float64, size: tuple[int, int]) -> float:
    """Relative magnification of a slice by its transform [3, 3] in pixels of images (W, H)."""
    return _scale(_to_normalised(transform, *size))


def _scale(homography: Float64) -> float:
    return float(np.sqrt(abs(np.linalg.det(homography[:2, :2]))))


def breathing_slope(focus_step: Float64, scales: Float64) -> float:
    """Relative magnification per diopter: the median of the slices' own slopes, weighted by their distance in
    focus.
    """
    far = np.abs(focus_step) > 1e-6
    if not far.any():
        return 0.0
    return _weighted_median(scales[far] / focus_step[far], np.abs(focus_step[far]))


def pyramid_of(grey: npt.NDArray[np.uint8]) -> Pyramid:
    """What is registered of an image [H, W] uint8, finest level first.

    Band-passed logarithm: neither exposure nor vignetting nor shading is left, texture is.
    """
    height, width = grey.shape
    scale = min(0.5, FINEST_WIDTH_PX / width) if width > 2 * COARSEST_WIDTH_PX else 1.0
    size = (max(round(width * scale), 8), max(round(height * scale), 8))
    image = cv2.resize(grey, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    image = np.log(image + 8.0)
    levels = []
    while True:
        levels.append(cv2.GaussianBlur(image, (3, 3), 0.8) - box_twice(image, BACKGROUND_PX))
        if image.shape[1] < 2 * COARSEST_WIDTH_PX or min(image.shape) < COARSEST_WIDTH_PX:
            return levels
        image = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)


def _coarse_to_fine(reference: list[Floats], moving: list[Floats], expected: float) -> Float64:
    """The motion in normalised coordinates, from the coarsest level up, begun at the expected magnification
    or none, whichever fits better.
    """
    # Copies: OpenCV 4.13 multiplies its arguments by the window in place.
    window = cv2.createHanningWindow(reference[-1].shape[::-1], cv2.CV_32F)
    shift, _ = cv2.phaseCorrelate(reference[-1].copy(), moving[-1].copy(), window)
    x, y = np.array(shift) / (0.5 * reference[-1].shape[1])
    starts = [
        np.array([[scale, 0.0, share * x], [0.0, scale, share * y], [0.0, 0.0, 1.0]])
        for scale in dict.fromkeys((expected, 1.0))
        for share in (0.0, 1.0)
    ]
    homography = max(starts, key=lambda start: _correlation(reference[-1], moving[-1], start))
    for level_reference, level_moving in zip(reversed(reference), reversed(moving), strict=True):
        homography = _align_level(
            level_reference, level_moving, homography, PRIOR_SIGMA, expected - 1.0
        ).homography
    return homography


def _align_level(
    reference: Floats, moving: Floats, homography: Float64, prior_sigma: Float64, expected_scale: float
) -> _Fit:
    """Refine the motion at one level: warp, make the blur equal, then measure tiles and fit, a few times
    over.
    """
    height, width = reference.shape
    grid = TileGrid(width, height)
    centres = grid.centres()
    first, second = match_blur(reference, _warp(moving, homography))
    gradients = TileGradients(first, grid)
    so_far, warped = homography, second
    for iteration in range(ITERATIONS_PER_LEVEL + 1):
        step, correlation = gradients.displacements(warped)
        inside = grid.inside(_apply(so_far, centres))
        confidence = np.where(inside, gradients.texture * np.clip(correlation, 0.0, 1.0) ** 2, 0.0)
        if iteration == ITERATIONS_PER_LEVEL:
            break
        fitted = _fit_motion(centres, _apply(so_far, centres + step), confidence, prior_sigma, expected_scale)
        moved_px = np.abs(_apply(fitted, centres) - _apply(so_far, centres)).max() * 0.5 * width
        so_far = fitted
        warped = _warp(second, np.linalg.inv(homography) @ so_far)
        if moved_px < 0.02:
            break
    px = 0.5 * width
    before = np.linalg.norm(_apply(so_far, centres + step) - centres, axis=1) * px
    left = np.linalg.norm(step, axis=1) * px
    # A step that was cut short, or between things that do not look alike, measures nothing.
    similar = correlation > MIN_TILE_CORRELATION
    aligned = similar & (np.abs(step).max(axis=1) * px < MAX_STEP_PX - 1e-6)
    return _Fit(so_far, before, left, inside & (gradients.texture > 0.0), similar, aligned)


def _warp(image: Floats, homography: Float64) -> Floats:
    height, width = image.shape
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    transform = _to_pixels(homography, width, height)
    warped = cv2.warpPerspective(
        image, transform, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(warped, np.float32)


def _fit_motion(
    source: Float64, target: Float64, confidence: Float64, prior_sigma: Float64, expected_scale: float
) -> Float64:
    """Homography [3, 3] through weighted point pairs [T, 2]: iterated least squares (Cauchy weights) with a
    prior.
    """
    u, v = source.T
    x, y = target.T
    zero, one = np.zeros_like(u), np.ones_like(u)
    # Columns: tx, ty, scale, roll, aspect, shear, p, q of [[1+s+a, b-r, tx], [b+r, 1+s-a, ty], [-p, -q, 1]].
    rows_x = np.stack([one, zero, u, -v, u, v, u * x, v * x], axis=1)
    rows_y = np.stack([zero, one, v, u, -v, u, u * y, v * y], axis=1)
    rows = np.concatenate([rows_x, rows_y])
    values = np.concatenate([x - u, y - v])
    expected = np.zeros(8)
    expected[SCALE] = expected_scale
    if confidence.max(initial=0.0) <= 0.0:
        return np.diag([1.0 + expected_scale, 1.0 + expected_scale, 1.0])
    # Texture beyond the typical says no more about position: a tile's weight saturates, or one lamp steers
    # the whole fit.
    typical = np.median(confidence[confidence > 0.0])
    base = confidence / (confidence + typical)
    weight = base
    prior = np.diag(1.0 / prior_sigma**2)
    motion = expected
    for _ in range(ROBUST_ITERATIONS):
        both = np.concatenate([weight, weight]) / TILE_SIGMA**2
        normal = rows.T @ (both[:, None] * rows) + prior
        motion = np.linalg.solve(normal, rows.T @ (both * values) + prior @ expected)
        error = (rows @ motion - values).reshape(2, -1)
        distance = np.hypot(error[0], error[1])
        spread = 1.5 * _weighted_median(distance, base) + 2e-4
        weight = base / (1.0 + (distance / spread) ** 2) ** 2
    tx, ty, s, r, a, b, p, q = motion
    return np.array([[1 + s + a, b - r, tx], [b + r, 1 + s - a, ty], [-p, -q, 1.0]])


def _weighted_median(values: Float64, weights: Float64) -> float:
    order = np.argsort(values)
    cumulative = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(cumulative, 0.5 * cumulative[-1])])


def _apply(homography: Float64, points: Float64) -> Float64:
    mapped = points @ homography[:, :2].T + homography[:, 2]
    return mapped[:, :2] / mapped[:, 2:]


def _to_pixels(homography: Float64, width: int, height: int) -> Float64:
    """From normalised coordinates to pixels of an image of this size."""
    to_pixels = _pixels(width, height)
    return to_pixels @ homography @ np.linalg.inv(to_pixels)


def _to_normalised(transform: Float64, width: int, height: int) -> Float64:
    """The reverse of `_to_pixels`, with 1 in the corner."""
    to_pixels = _pixels(width, height)
    homography = np.linalg.inv(to_pixels) @ transform @ to_pixels
    return np.asarray(homography / homography[2, 2])


def _pixels(width: int, height: int) -> Float64:
    half = 0.5 * width
    return np.array([[half, 0.0, 0.5 * (width - 1)], [0.0, half, 0.5 * (height - 1)], [0.0, 0.0, 1.0]])


def _correlation(reference: Floats, moving: Floats, homography: Float64) -> float:
    warped = _warp(moving, homography)
    return float((reference * warped).sum() / (np.linalg.norm(reference) * np.linalg.norm(warped) + 1e-9))
