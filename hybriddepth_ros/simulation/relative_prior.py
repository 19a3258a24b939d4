"""A relative inverse depth, wrong as learned priors are, and a focus estimate to join it with."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from hybriddepth_ros.errors import ParameterError
from hybriddepth_ros.image_files import to_grey
from hybriddepth_ros.models.base import FocusEstimate
from hybriddepth_ros.simulation.limits import require_within

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

_FIELD_REACH = 0.2  # of the longer side: standard deviation of what smooth fields are blurred with
_SURFACE_STEP = 0.01  # of the range of inverse depth, between neighbours on one surface
_SURFACE_TRIES = 40
_FINE_PX, _WINDOW_PX = 2.0, 4.0  # of the structure that focus shows in, and of what is averaged
_ENERGY = 100.0  # grey levels^2 of fine structure, at which sigma is 1.4 times the least
_LEAST_RANGE = 1e-6  # 1/m; what is flat to this has no structure to distort


@dataclass(frozen=True)
class PriorErrors:
    """How wrong a simulated prior is; lengths along depth are shares of the scene's range (5 to 95 %) of 1/z.

    scale_field [-], shift_field [-]: standard deviations of smooth factors and offsets over the image.
    edge_blur_px [px]: standard deviation of the blur. tilt [-]: half of what a wrong plane rises by across
    its surface; wrong_planes: how many surfaces are tilted, each `plane_area` (least, most) of the image [-].
    scale, shift [any]: the ranges of the affine that nobody tells the user.
    """

    scale_field: float = 0.12
    shift_field: float = 0.06
    edge_blur_px: float = 1.5
    tilt: float = 0.35
    wrong_planes: int = 1
    plane_area: tuple[float, float] = (0.04, 0.35)
    scale: tuple[float, float] = (0.2, 50.0)
    shift: tuple[float, float] = (-20.0, 20.0)

    def __post_init__(self) -> None:
        for name in ("scale_field", "shift_field", "tilt"):
            require_within(name, getattr(self, name), 0.0, 2.0)
        require_within("edge_blur_px", self.edge_blur_px, 0.0, 100.0)
        require_within("wrong_planes", self.wrong_planes, 0, 20)
        if not 0.0 < self.scale[0] <= self.scale[1]:
            raise ParameterError(f"scale: expected two rising numbers above 0, got {self.scale}")


@dataclass(frozen=True)
class SimulatedPrior:
    """relative [H, W] float32, large = near, any unit; tilted [H, W] bool: where its planes are wrong."""

    relative: Floats
    tilted: Mask


def simulate_prior(
    diopters: Floats, rng: np.random.Generator, errors: PriorErrors | None = None
) -> SimulatedPrior:
    """What a prior might make of a scene with this inverse depth [H, W] 1/m."""
    errors = errors or PriorErrors()
    low, high = np.percentile(diopters, (5.0, 95.0))
    extent = max(float(high - low), _LEAST_RANGE)
    relative = (diopters - np.float32(low)) / np.float32(extent)  # 0..1, but for its tails
    relative = relative * (1.0 + errors.scale_field * smooth_field(rng, diopters.shape))
    relative += errors.shift_field * smooth_field(rng, diopters.shape)
    tilted = np.zeros(diopters.shape, np.bool_)
    for _ in range(errors.wrong_planes):
        surface = _some_surface(rng, diopters, extent, errors.plane_area)
        relative += errors.tilt * _plane_over(rng, surface)
        tilted |= surface
    if errors.edge_blur_px:
        relative = np.asarray(cv2.GaussianBlur(relative, (0, 0), errors.edge_blur_px), np.float32)
    gain = np.exp(rng.uniform(*np.log(errors.scale)))
    return SimulatedPrior((gain * relative + rng.uniform(*errors.shift)).astype(np.float32), tilted)


def smooth_field(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """[H, W] of mean 0 and standard deviation 1, that changes over a fifth of the image."""
    height, width = shape[:2]
    factor = max(height, width) / 64.0
    small = max(round(height / factor), 2), max(round(width / factor), 2)
    field = cv2.GaussianBlur(rng.standard_normal(small), (0, 0), 64.0 * _FIELD_REACH)
    field = (field - field.mean()) / max(float(field.std()), 1e-12)
    return np.asarray(cv2.resize(field, (width, height), interpolation=cv2.INTER_CUBIC), np.float32)


def _some_surface(
    rng: np.random.Generator, diopters: Floats, extent: float, area: tuple[float, float]
) -> Mask:
    """One connected surface: grown from a random pixel across small steps, until one of the right size."""
    height, width = diopters.shape
    step = _SURFACE_STEP * extent
    best, best_miss = np.zeros(diopters.shape, np.bool_), np.inf
    for _ in range(_SURFACE_TRIES):
        mask = np.zeros((height + 2, width + 2), np.uint8)
        seed = (int(rng.integers(width)), int(rng.integers(height)))
        cv2.floodFill(diopters.copy(), mask, seed, 0, step, step, 4 | cv2.FLOODFILL_MASK_ONLY | (1 << 8))
        grown = mask[1:-1, 1:-1].astype(np.bool_)
        share = float(grown.mean())
        miss = max(area[0] - share, share - area[1], 0.0)
        if miss < best_miss:
            best, best_miss = grown, miss
        if miss == 0.0:
            break
    return best


def _plane_over(rng: np.random.Generator, surface: Mask) -> Floats:
    """0 outside of the surface; on it a plane that rises by 2 across it, through 0 in its middle half."""
    rows, columns = np.nonzero(surface)
    plane = np.zeros(surface.shape, np.float32)
    if not rows.size:
        return plane
    angle = rng.uniform(0.0, 2.0 * np.pi)
    along = np.cos(angle) * columns + np.sin(angle) * rows
    half = max(0.5 * float(np.ptp(along)), 1.0)
    plane[rows, columns] = (along - along.min()) / half - rng.uniform(0.5, 1.5)
    return plane


def simulated_focus(
    diopters: Floats,
    image: npt.NDArray[np.uint8],
    rng: np.random.Generator,
    sigma_range: tuple[float, float] = (0.015, 0.5),
) -> FocusEstimate:
    """A focus estimate whose sigma is right: small where `image` [H, W, 3] has texture, large elsewhere.

    sigma_range 1/m. The errors are smooth, as those of estimates from windows are.
    """
    grey = to_grey(image).astype(np.float32)
    fine = np.square(grey - cv2.GaussianBlur(grey, (0, 0), _FINE_PX))
    energy = cv2.GaussianBlur(fine, (0, 0), _WINDOW_PX)
    least, most = sigma_range
    sigma = least * np.sqrt(1.0 + _ENERGY / np.maximum(energy, np.float32(1e-3)))
    white = rng.standard_normal(grey.shape).astype(np.float32)
    smooth = np.asarray(cv2.GaussianBlur(white, (0, 0), _WINDOW_PX), np.float32)
    noise = smooth / max(float(smooth.std()), 1e-12)
    sigma = np.clip(sigma, least, most).astype(np.float32)
    return FocusEstimate((diopters + sigma * noise).astype(np.float32), sigma, 1.0)
