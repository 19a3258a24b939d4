"""The focus measure: how much fine structure each slice shows where, and how far that can be trusted.

Sum-modified-Laplacian energy (Nayar and Nakagawa 1994) in three pass bands, on a grid a few pixels coarse.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from hybriddepth_ros.models.focus_response import BANDS
from hybriddepth_ros.warping import at_resolution, move_image

Floats = npt.NDArray[np.floating[Any]]  # float32 in images

GRID_PX = 4  # focus is measured on a grid this coarse: the windows below are wider
WINDOW_SIGMA = 1.5  # Gaussian window of the energies [grid px]
CORE_SIGMA = 0.5  # and of what counts as a pixel's own [grid px]
UNMOVED_PX = 0.5  # of the whole image: by less nothing is moved; the grid is 4 px, its windows wider
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


@dataclass(frozen=True)
class SliceMeasure:
    """What is measured of one slice by itself, as FocusMeasure, in its own frame and exposure.

    energies [BANDS, h, w]; core [h, w]: energy at the centre of the window; clipped [h, w]: share of the cell
    that is over- or underexposed; cells [12, 16]: brightness; half [H / 2, W / 2]: grey levels.
    """

    energies: Floats
    core: Floats
    clipped: Floats
    cells: Floats
    half: Floats

    def moved(self, transform: npt.NDArray[np.float64], size: tuple[int, int]) -> SliceMeasure:
        """As it is seen from another frame: transform [3, 3] turns its pixels (images of W, H px) into this
        slice's.
        """
        # Where to look is found once for all that lie on one grid.
        together = np.asarray(cv2.merge([*self.energies, self.core, self.clipped]), np.float32)
        images = cv2.split(_warp(together, transform, size))
        *energies, core, clipped = (np.asarray(image, np.float32) for image in images)
        return SliceMeasure(np.stack(energies), core, clipped, self.cells, _warp(self.half, transform, size))


def _warp(image: Floats, transform: npt.NDArray[np.float64], size: tuple[int, int]) -> Floats:
    """An image of a lower resolution; transform and size are those of the whole."""
    height, width = image.shape[:2]
    on_grid = at_resolution(transform, size, (height, width))
    within_px = UNMOVED_PX * width / size[0]
    return np.asarray(move_image(image, on_grid, cv2.INTER_LINEAR, within_px), np.float32)


def measure_focus(greys: Sequence[npt.NDArray[np.uint8]]) -> FocusMeasure:
    """FocusMeasure of S images [H, W]."""
    return join_measures([measure_slice(grey) for grey in greys])


def measure_slice(grey: npt.NDArray[np.uint8]) -> SliceMeasure:
    """SliceMeasure of an image [H, W]."""
    height, width = grey.shape
    shape = (max(height // GRID_PX, 1), max(width // GRID_PX, 1))
    energies, core = np.empty((BANDS, *shape), np.float32), np.empty(shape, np.float32)
    kernel = np.array([[1.0, -2.0, 1.0]], np.float32)
    half = level = grey.astype(np.float32)
    for band in range(BANDS):
        if band:
            level = resize(level, (max(height >> band, 1), max(width >> band, 1)), cv2.INTER_AREA)
        second_x, second_y = cv2.filter2D(level, -1, kernel), cv2.filter2D(level, -1, kernel.T)
        energy = np.asarray(second_x * second_x + second_y * second_y, np.float32)
        energy = resize(energy, shape, cv2.INTER_AREA)
        cv2.GaussianBlur(energy, (0, 0), WINDOW_SIGMA, dst=energies[band])
        if band == 1:
            half = level
            cv2.GaussianBlur(energy, (3, 3), CORE_SIGMA, dst=core)
    limits = ((grey <= CLIPPED[0]) | (grey >= CLIPPED[1])).view(np.uint8)
    clipped = resize(limits.astype(np.float32), shape, cv2.INTER_AREA)
    cells = cv2.resize(grey, (16, 12), interpolation=cv2.INTER_AREA)
    return SliceMeasure(energies, core, clipped, np.asarray(cells, np.float32), half)


def join_measures(slices: Sequence[SliceMeasure]) -> FocusMeasure:
    """FocusMeasure of S slices that lie over each other."""
    gains = exposure_gains(np.stack([item.cells for item in slices]))
    powers = [np.float32(gain**-2) for gain in gains]
    energies = np.stack([item.energies * power for item, power in zip(slices, powers, strict=True)])
    core = largest([item.core * power for item, power in zip(slices, powers, strict=True)])
    clipped = largest([item.clipped for item in slices])
    noise = noise_floor(energies)
    most = energies[:, 1].max(axis=0)
    own_share = np.maximum(core - noise[1], 0.0) / np.maximum(most, noise[1])
    clipped = np.asarray(cv2.GaussianBlur(clipped, (0, 0), WINDOW_SIGMA), np.float32)
    return FocusMeasure(energies, noise, own_share, clipped)


def largest(images: Sequence[Floats]) -> Floats:
    """The largest of S images at each pixel."""
    return np.asarray(functools.reduce(np.maximum, images), np.float32)


def exposure_gains(cells: Floats) -> npt.NDArray[np.float64]:
    """Each slice's brightness [S] over the middle one's, by cells [S, 12, 16]; defocus moves light about but
    keeps its sum.
    """
    lit = cells + 1.0
    return np.asarray(np.median(lit / lit[len(lit) // 2], axis=(1, 2)), np.float64)


def noise_floor(energies: Floats) -> Floats:
    """Energy of the noise alone in each band [BANDS]: what the least textured, most blurred places show."""
    least = energies.min(axis=0)[:, ::2, ::2].reshape(BANDS, -1)
    return np.maximum(np.percentile(least, 2.0, axis=1), 0.05).astype(np.float32)


def resize(image: Floats, shape: tuple[int, ...], interpolation: int = cv2.INTER_LINEAR) -> Floats:
    """To [H, W] = shape."""
    return np.asarray(cv2.resize(image, (shape[1], shape[0]), interpolation=interpolation), np.float32)
