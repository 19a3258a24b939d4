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
    energies = [_log_gradient_energy(image) for image in (first, second)]
    return _at_energy(first, *energies), _at_energy(second, *reversed(energies))


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


def _at_energy(image: Floats, energy: Floats, target: Floats) -> Floats:
    """Per pixel, between the two blur levels whose energies (falling) enclose the target."""
    result = sharper = image
    for width in BLUR_BOXES_PX[1:]:
        if (energy <= target).all():
            break
        blurrier = box_twice(image, width)
        lower = _log_gradient_energy(blurrier)
        share = np.clip((energy - target) / np.maximum(energy - lower, 1e-6), 0.0, 1.0)
        full_share = cv2.resize(share, image.shape[::-1], interpolation=cv2.INTER_LINEAR)
        result = result + full_share * (blurrier - sharper)
        sharper, energy = blurrier, lower
    return result
