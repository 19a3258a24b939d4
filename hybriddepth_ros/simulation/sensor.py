"""From light to numbers: what a sensor and its processing make of a linear image."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

FULL_WELL_ELECTRONS = 12000.0
READ_NOISE_ELECTRONS = 6.0


def develop(
    linear: Floats,
    rng: np.random.Generator | None = None,
    full_well_electrons: float = FULL_WELL_ELECTRONS,
    read_noise_electrons: float = READ_NOISE_ELECTRONS,
) -> npt.NDArray[np.uint8]:
    """8-bit sRGB [H, W, 3] of a linear image; with `rng`, shot noise and read noise are in it."""
    if rng is not None:
        # The normal limit of the Poisson law: above ten electrons nobody can tell, and it is ten times
        # faster.
        read_noise = read_noise_electrons / full_well_electrons
        variance = np.maximum(linear, 0) * np.float32(1 / full_well_electrons) + np.float32(read_noise**2)
        noise = np.sqrt(variance) * rng.standard_normal(linear.shape, np.float32)
        linear = np.asarray(linear + noise, np.float32)
    index = np.clip(linear * (_SRGB.size - 1) + 0.5, 0, _SRGB.size - 1).astype(np.uint16)
    return _SRGB[index]


def encode_srgb(linear: Any) -> Any:
    """sRGB 0..1 of linear light 0..1, numpy array or torch tensor."""
    dark = linear <= 0.0031308
    return dark * (12.92 * linear) + ~dark * (1.055 * linear ** (1 / 2.4) - 0.055)


def _srgb_table(size: int = 16384) -> npt.NDArray[np.uint8]:
    return np.round(255 * encode_srgb(np.linspace(0.0, 1.0, size))).astype(np.uint8)


_SRGB = _srgb_table()
