"""Thin-lens optics in diopters: blur, depth of field, and the planning of a focus sweep.

Distances are in metres from the lens along Z, focus and inverse depth in diopters (1/m, infinity = 0,
beyond it negative), blur in pixels. The lens moves as a whole (unit focusing), as phone focus motors do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from hybriddepth_ros.errors import ParameterError

Array: TypeAlias = Any  # float, numpy array or torch tensor: what goes in decides what comes out

MIN_SWEEP_BLUR_PX = 2.0  # a focus cue that moves less than this over the whole sweep drowns in pixel noise


@dataclass(frozen=True)
class ThinLens:
    """A lens and its pixels: focal_length_mm [mm], f_number [-], pixel_pitch_um [um] of the image used."""

    focal_length_mm: float
    f_number: float
    pixel_pitch_um: float

    def __post_init__(self) -> None:
        for name in ("focal_length_mm", "f_number", "pixel_pitch_um"):
            _require_positive(f"lens.{name}", getattr(self, name))

    @property
    def focal_length_m(self) -> float:
        """Focal length [m]."""
        return self.focal_length_mm * 1e-3

    @property
    def focal_length_px(self) -> float:
        """Focal length in pixels: fx of an image focused at infinity."""
        return self.focal_length_mm * 1e3 / self.pixel_pitch_um

    @property
    def aperture_mm(self) -> float:
        """Diameter of the entrance pupil [mm]."""
        return self.focal_length_mm / self.f_number


def diopters_from_metres(metres: Array) -> Array:
    """Inverse distance in 1/m; inf metres = 0 diopters."""
    return _reciprocal(metres)


def metres_from_diopters(diopters: Array) -> Array:
    """Distance in metres; 0 diopters = inf, and a focus beyond infinity is a negative distance."""
    return _reciprocal(diopters)


def circle_of_confusion(depth_diopters: Array, focus_diopters: Array, lens: ThinLens) -> Array:
    """Blur-disc diameter on the sensor, in pixels.

    depth_diopters [..., H, W] 1/m; source: HybridDepth eq. 5, rewritten in diopters, where it is linear.
    """
    return abs(depth_diopters - focus_diopters) * blur_px_per_diopter(lens, focus_diopters)


def blur_px_per_diopter(lens: ThinLens, focus_diopters: Array = 0.0) -> Array:
    """Pixels of blur diameter per diopter out of focus: f^2 / (N p (1 - f D_f))."""
    return lens.aperture_mm * lens.focal_length_px * 1e-3 * breathing_scale(lens, focus_diopters)


def breathing_scale(lens: ThinLens, focus_diopters: Array, reference_diopters: Array = 0.0) -> Array:
    """Image size at one focus over that at another (ratio): the sensor is f / (1 - f D_f) behind the lens."""
    return _clearance(lens, reference_diopters) / _clearance(lens, focus_diopters)


def magnification(lens: ThinLens, focus_diopters: Array) -> Array:
    """Size on the sensor over size of the object, at the distance in focus (ratio)."""
    return lens.focal_length_m * focus_diopters / _clearance(lens, focus_diopters)


class DepthOfField(NamedTuple):
    """Where blur reaches the limit [1/m]; far_diopters < 0 lies beyond infinity."""

    near_diopters: float
    far_diopters: float

    @property
    def width_diopters(self) -> float:
        """Total width [1/m]."""
        return self.near_diopters - self.far_diopters


def depth_of_field_diopters(lens: ThinLens, focus_diopters: float, coc_limit_px: float = 1.0) -> DepthOfField:
    """The range of inverse depth [1/m] whose blur diameter stays within `coc_limit_px`."""
    _require_positive("coc_limit_px", coc_limit_px)
    half_width = coc_limit_px / blur_px_per_diopter(lens, focus_diopters)
    return DepthOfField(focus_diopters + half_width, focus_diopters - half_width)


def hyperfocal_distance(lens: ThinLens, coc_limit_px: float = 1.0) -> float:
    """Nearest focus distance [m] that keeps infinity within `coc_limit_px`: f^2 / (N c) + f."""
    _require_positive("coc_limit_px", coc_limit_px)
    return blur_px_per_diopter(lens) / coc_limit_px + lens.focal_length_m


def sigma_metres(depth: Array, sigma_diopters: Array) -> Array:
    """1 sigma in metres of a depth [m] known to `sigma_diopters` [1/m]: z^2 sigma_D."""
    return depth * depth * sigma_diopters


@dataclass(frozen=True)
class SweepPlan:
    """Focus positions of a sweep, from far to near.

    focus_diopters [1/m], spacing_diopters [1/m] between neighbours; total_blur_px: how far the blur of the
    nearest object moves over the sweep, None without a lens; warnings: one line each.
    """

    focus_diopters: tuple[float, ...]
    spacing_diopters: float
    total_blur_px: float | None
    warnings: tuple[str, ...]


def plan_sweep(
    near_m: float, far_m: float, count: int, lens: ThinLens | None = None, coc_limit_px: float = 1.0
) -> SweepPlan:
    """`count` focus positions from `far_m` (may be inf) to `near_m` [m], evenly in diopters.

    With a lens it warns of slices further apart than the depth of field and of a blur too small to measure.
    """
    _require_positive("near_m", near_m)
    _require_positive("coc_limit_px", coc_limit_px)
    if not _is_number(far_m) or not far_m > near_m:
        raise ParameterError(f"far_m: expected more than near_m ({near_m:g} m), or inf, got {far_m!r}")
    if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count < 2:
        raise ParameterError(f"count: expected a whole number of at least 2 slices, got {count!r}")
    if lens is not None and near_m <= lens.focal_length_m:
        raise ParameterError(
            f"near_m: expected more than the focal length {lens.focal_length_m:g} m, got {near_m!r}"
        )
    far, near = float(diopters_from_metres(far_m)), float(diopters_from_metres(near_m))
    focus = tuple(float(value) for value in np.linspace(far, near, count))
    spacing = (near - far) / (count - 1)
    if lens is None:
        return SweepPlan(focus, spacing, None, ())
    total_blur = float(circle_of_confusion(near, far, lens))
    depth_of_field = depth_of_field_diopters(
        lens, near, coc_limit_px
    ).width_diopters  # narrowest at the near end
    warnings = []
    if spacing > depth_of_field * (1.0 + 1e-9):
        enough = math.ceil((near - far) / depth_of_field * (1.0 - 1e-9)) + 1
        warnings.append(
            f"slices are {spacing:.3g} 1/m apart, more than the depth of field of {depth_of_field:.3g} 1/m at"
            f" {near_m:g} m ({coc_limit_px:g} px): depths between are sharp in none; {enough} slices would do"
        )
    if total_blur < MIN_SWEEP_BLUR_PX:
        warnings.append(
            f"the whole sweep ({near - far:.3g} 1/m) moves blur by {total_blur:.2g} px, less than the"
            f" {MIN_SWEEP_BLUR_PX:g} px that can be measured: take a wider aperture or a nearer range"
        )
    return SweepPlan(focus, spacing, total_blur, tuple(warnings))


def _reciprocal(values: Array) -> Array:
    if isinstance(values, (int, float)):
        return 1.0 / values if values else math.inf
    with np.errstate(divide="ignore"):
        return 1.0 / (values + 0.0)  # + 0.0: minus zero is infinity too, not minus infinity


def _clearance(lens: ThinLens, focus_diopters: Array) -> Array:
    """1 - f D_f (ratio), which a lens that forms an image keeps positive."""
    clearance = 1.0 - lens.focal_length_m * focus_diopters
    # Tensors are left unchecked: looking at one on a GPU would wait for it.
    if isinstance(clearance, (float, np.ndarray, np.floating)) and np.any(clearance <= 0.0):
        nearest = f"{1.0 / lens.focal_length_m:.4g} 1/m"
        raise ParameterError(
            f"focus_diopters: expected less than {nearest} (the focal length), got {focus_diopters!r}"
        )
    return clearance


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def _require_positive(name: str, value: Any) -> None:
    if not _is_number(value) or not 0.0 < value < math.inf:
        raise ParameterError(f"{name}: expected a finite number above 0, got {value!r}")
