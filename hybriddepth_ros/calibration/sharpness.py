"""How sharp a region of an image is, and the region itself, which follows the board as the image breathes."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from hybriddepth_ros.calibration.board import FoundCorners, Grey, Points


def region_sharpness(grey: Grey, region: Points) -> float:
    """Mean squared gradient over the squared mean brightness (ratio) within a convex outline [N, 2] px.

    0 where the outline lies outside the image. Source: Tenenbaum's gradient, normalised so that flicker of
    the light counts less.
    """
    gradients = _gradients(grey, region)
    return float((gradients**2).sum()) if gradients is not None else 0.0


def sharpness_products(images: Sequence[Grey], region: Points) -> npt.NDArray[np.float64]:
    """[P, P] of P images of one size: what `region_sharpness` squares, multiplied between any two of them.

    The sharpness of a mean of the images is then the mean of these by the products of their weights.
    """
    gradients = [_gradients(image, region) for image in images]
    if any(each is None for each in gradients):
        return np.zeros((len(images), len(images)))
    flat = np.stack([each.ravel() for each in gradients if each is not None])
    return np.asarray(flat @ flat.T, np.float64)


def _gradients(grey: Grey, region: Points) -> npt.NDArray[np.float32] | None:
    """[2, N], so that their squares sum to the sharpness; None where the outline lies outside the image."""
    outline = np.round(region).astype(np.int32)
    x, y, width, height = cv2.boundingRect(outline)
    x0, y0 = max(x, 0), max(y, 0)
    x1, y1 = min(x + width, grey.shape[1]), min(y + height, grey.shape[0])
    if x1 - x0 < 8 or y1 - y0 < 8:
        return None
    part = grey[y0:y1, x0:x1].astype(np.float32)
    mask = np.zeros(part.shape, np.uint8)
    cv2.fillConvexPoly(mask, outline - [x0, y0], 1)
    inside = mask.astype(bool)
    across, down = (cv2.Sobel(part, cv2.CV_32F, *order, ksize=3)[inside] for order in ((1, 0), (0, 1)))
    brightness = max(float(part[inside].mean()), 1.0)
    return np.asarray(np.stack([across, down]) / (brightness * np.sqrt(len(across))), np.float32)


def central_region(size: tuple[int, int], share: float = 0.5) -> Points:
    """The outline [4, 2] px of the middle `share` of an image of (width, height)."""
    half = 0.5 * share * np.array(size, np.float64)
    middle = 0.5 * (np.array(size, np.float64) - 1.0)
    return middle + half * np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])


def board_region(corners: FoundCorners) -> Points:
    """The convex outline [N, 2] px of the corners."""
    hull = cv2.convexHull(corners.points.astype(np.float32))
    return np.asarray(hull[:, 0, :], np.float64)


def magnified(region: Points, centre: Points, scale: float) -> Points:
    """The outline after the image has grown by `scale` (ratio) about `centre` [2] px."""
    return centre + scale * (region - centre)


def growth(points: Points, reference: Points) -> tuple[float, float]:
    """By how much `points` [N, 2] are larger than `reference` (ratio), wherever; rms residual [px]."""
    moved, still = points - points.mean(axis=0), reference - reference.mean(axis=0)
    scale = float((moved * still).sum() / (still * still).sum())
    residual: npt.NDArray[np.float64] = moved - scale * still
    return scale, float(np.sqrt((residual**2).sum(axis=1).mean()))
