"""The focus measure: how much fine structure each slice shows where, and how far that can be trusted.

Sum-modified-Laplacian energy (Nayar and Nakagawa 1994) in three pass bands, on a grid a few pixels coarse.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from hybriddepth_ros.models.focus_response import BANDS

Floats = npt.NDArray[np.floating[Any]]  # float32 in images

GRID_PX = 4  # focus is measured on a grid this coarse: the windows below are wider
WINDOW_SIGMA = 1.5  # Gaussian window of the energies [grid px]
CORE_SIGMA = 0.5  # and of what counts as a pixel's own [grid px]
CLIPPED = (1, 254)  # grey levels at or outside which a pixel shows the sensor's limit, not the scene


@dataclass(frozen=True)
class FocusMeasure:
    """What is measured of S slices on a grid [h, w], h = H / GRID_PX; all float32.

    energies [S, BANDS, h, w]: windowed energy of the modified Laplacian, exposures made equal; noise [BANDS]:
    the energy of noise alone; own_share [h, w]: how much of the window's energy lies at its centre (0 = all
    of it comes from the neighbours, 1 = evenly spread or all at the centre); clipped [h, w]: share of the
    window where the slice with the most of it is over- or underexposed.
    """

    energies: Floats
    noise: Floats
    own_share: Floats
    clipped: Floats


def measure_focus(greys: Sequence[npt.NDArray[np.uint8]]) -> FocusMeasure:
    """FocusMeasure of S images [H, W]."""
    height, width = greys[0].shape
    shape = (max(height // GRID_PX, 1), max(width // GRID_PX, 1))
    energies = np.empty((len(greys), BANDS, *shape), np.float32)
    core, clipped = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    kernel = np.array([[1.0, -2.0, 1.0]], np.float32)
    gains = exposure_gains(greys)
    for index, grey in enumerate(greys):
        level = grey.astype(np.float32)
        for band in range(BANDS):
            if band:
                level = resize(level, (max(height >> band, 1), max(width >> band, 1)), cv2.INTER_AREA)
            second_x, second_y = cv2.filter2D(level, -1, kernel), cv2.filter2D(level, -1, kernel.T)
            energy = np.asarray(second_x * second_x + second_y * second_y, np.float32)
            energy = resize(energy, shape, cv2.INTER_AREA) * np.float32(gains[index] ** -2)
            cv2.GaussianBlur(energy, (0, 0), WINDOW_SIGMA, dst=energies[index, band])
            if band == 1:
                core = np.maximum(core, cv2.GaussianBlur(energy, (3, 3), CORE_SIGMA))
        limits = ((grey <= CLIPPED[0]) | (grey >= CLIPPED[1])).view(np.uint8)
        clipped = np.maximum(clipped, resize(limits.astype(np.float32), shape, cv2.INTER_AREA))
    noise = noise_floor(energies)
    most = energies[:, 1].max(axis=0)
    own_share = np.maximum(core - noise[1], 0.0) / np.maximum(most, noise[1])
    clipped = cv2.GaussianBlur(clipped, (0, 0), WINDOW_SIGMA)
    return FocusMeasure(energies, noise, own_share, np.asarray(clipped, np.float32))


def exposure_gains(greys: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float64]:
    """Each slice's brightness [S] over the middle one's; defocus moves light about but keeps its sum."""
    cells = np.stack([cv2.resize(grey, (16, 12), interpolation=cv2.INTER_AREA) for grey in greys]) + 1.0
    return np.asarray(np.median(cells / cells[len(cells) // 2], axis=(1, 2)), np.float64)


def noise_floor(energies: Floats) -> Floats:
    """Energy of the noise alone in each band [BANDS]: what the least textured, most blurred places show."""
    least = energies.min(axis=0)[:, ::2, ::2].reshape(BANDS, -1)
    return np.maximum(np.percentile(least, 2.0, axis=1), 0.05).astype(np.float32)


def resize(image: Floats, shape: tuple[int, ...], interpolation: int = cv2.INTER_LINEAR) -> Floats:
    """To [H, W] = shape."""
    return np.asarray(cv2.resize(image, (shape[1], shape[0]), interpolation=interpolation), np.float32)
