"""How the energy of an image's fine structure falls with defocus: the curve that a focus measure must follow.

A focus measure is compared with what a lens does rather than with a parabola: for natural textures (power
spectrum 1/f^2) blurred by a disc, the energy left in each pass band is an integral over the disc's transfer
function. Depth from focus is then a fit of one unknown, the diopters, to all slices and bands at once.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]

BANDS = 3  # modified Laplacian at full, half and quarter resolution
MAX_BLUR_PX = 80.0
BLUR_STEP_PX = 0.25


@cache
def energy_response(in_focus_blur_px: float) -> tuple[Float64, Float64]:
    """(blur-disc diameters [C] px, energy left in each band [C, BANDS], 1 in focus).

    in_focus_blur_px: Gaussian sigma of the blur that no focus removes (pixels, demosaicing, aberration).
    """
    axis = (np.arange(96) + 0.5) / 192.0  # cycles per pixel, one quadrant
    fx, fy = np.meshgrid(axis, axis)
    radial = np.hypot(fx, fy)
    spectrum = np.exp(-((2.0 * np.pi * in_focus_blur_px * radial) ** 2)) / radial**2
    bands = np.stack([spectrum * _modified_laplacian_power(fx, fy, 2**b) for b in range(BANDS)])
    diameters = np.arange(0.0, MAX_BLUR_PX + BLUR_STEP_PX, BLUR_STEP_PX)
    # The disc's transfer function depends on diameter times frequency only: tabulate once, look up.
    table_argument = np.linspace(0.0, MAX_BLUR_PX * radial.max(), 4096)
    table = _disc_transfer(table_argument)
    energy = np.empty((len(diameters), BANDS))
    for row, diameter in enumerate(diameters):
        transfer = np.interp(diameter * radial, table_argument, table)
        energy[row] = (bands * transfer**2).sum(axis=(1, 2))
    return diameters, energy / energy[0]


def _modified_laplacian_power(fx: Float64, fy: Float64, step: int) -> Float64:
    """Power response of Ixx^2 + Iyy^2 on the image averaged over and sampled every step x step pixels."""
    averaged = _box_transfer(fx, step) * _box_transfer(fy, step)
    second_x = 2.0 - 2.0 * np.cos(2.0 * np.pi * step * fx)
    second_y = 2.0 - 2.0 * np.cos(2.0 * np.pi * step * fy)
    return averaged**2 * (second_x**2 + second_y**2)


def _box_transfer(frequency: Float64, width: int) -> Float64:
    return np.sinc(width * frequency) / np.sinc(frequency)


def _disc_transfer(argument: Float64) -> Float64:
    """Transfer function of a uniform disc at diameter * frequency [cycles]: the cosine transform of its chord
    lengths.
    """
    angle = (np.arange(128) + 0.5) * np.pi / 128.0
    position, weight = np.cos(angle), np.sin(angle) ** 2  # chord(x) dx with x = cos(angle)
    return (np.cos(np.pi * argument[:, None] * position) * weight).sum(axis=1) / weight.sum()
