"""Two images made equally blurred, wherever which one of them is the sharper: what registration compares."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]  # float32

BLUR_BOXES_PX = (1, 3, 5, 9)  # widths of the box filters, applied twice, that blur the sharper image to match
CELL_PX = 10  # gradients are compared in cells of this size: small enough to follow how blur changes


def match_blur(first: Floats, second: Floats) -> tuple[Floats, Floats]:
    """Both images [H, W] with equal local sharpness: wherever one is sharper it is blurred until its
    gradients match.

    Blur of a symmetric lens does not move structure, but the difference of two unequal blurs looks like
    motion noise.
    """
    levels = [_blur_levels(first), _blur_levels(second)]
    energies = [[_log_gradient_energy(image) for image in images] for images in levels]
    return (
        _at_energy(levels[0], energies[0], energies[1][0]),
        _at_energy(levels[1], energies[1], energies[0][0]),
    )


def _blur_levels(image: Floats) -> list[Floats]:
    return [image, *(box_twice(image, width) for width in BLUR_BOXES_PX[1:])]


def box_twice(image: Floats, width: int) -> Floats:
    """Nearly a Gaussian of sigma width / 2.5, at a cost that does not grow with the width."""
    return np.asarray(cv2.blur(cv2.blur(image, (width, width)), (width, width)), np.float32)


def _log_gradient_energy(image: Floats) -> Floats:
    """Logarithm of the mean squared gradient per cell [H / CELL_PX, W / CELL_PX]."""
    gradient_x = cv2.Sobel(image, cv2.CV_32F, 1, 0, ksize=3)
    gradient_y = cv2.Sobel(image, cv2.CV_32F, 0, 1, ksize=3)
    size = (max(image.shape[1] // CELL_PX, 2), max(image.shape[0] // CELL_PX, 2))
    energy = cv2.resize(gradient_x * gradient_x + gradient_y * gradient_y, size, interpolation=cv2.INTER_AREA)
    return np.log(cv2.blur(energy, (3, 3)) + 1e-9)


def _at_energy(levels: list[Floats], energies: list[Floats], target: Floats) -> Floats:
    """Per pixel, between the two blur levels whose energies (falling) enclose the target."""
    result = levels[0]
    for sharper, blurrier, upper, lower in zip(levels, levels[1:], energies, energies[1:], strict=False):
        share = np.clip((upper - target) / np.maximum(upper - lower, 1e-6), 0.0, 1.0)
        if share.max() <= 0.0:
            break
        full_share = cv2.resize(share, sharper.shape[::-1], interpolation=cv2.INTER_LINEAR)
        result = result + full_share * (blurrier - sharper)
    return result
