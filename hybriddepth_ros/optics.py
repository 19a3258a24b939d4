"""Thin-lens optics in diopters: blur, depth of field, and the planning of a focus sweep.

Distances are in metres from the lens along Z, focus and inverse depth in diopters (1/m, infinity = 0), blur in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ThinLens:
    """A lens and the pixels behind it: focal_length_mm [mm], f_number [-], pixel_pitch_um [um] of the images as used."""

    focal_length_mm: float
    f_number: float
    pixel_pitch_um: float
