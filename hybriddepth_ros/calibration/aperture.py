"""Blur per diopter: how wide the disc is that turns the sharp image of the board into one out of focus."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from hybriddepth_ros.calibration.board import BoardSpec, Grey
from hybriddepth_ros.calibration.captures import Sweep
from hybriddepth_ros.calibration.sharpness import board_region
from hybriddepth_ros.calibration.sweeps import CameraAt, MeasuredSweep, Values
from hybriddepth_ros.errors import CalibrationError
from hybriddepth_ros.focal_stack import CameraIntrinsics
from hybriddepth_ros.simulation.disc_blur import blur_disc, disc_reach

Floats = npt.NDArray[np.float32]

_WIDEST_PX = 30.0
_NARROWEST_PX = 2.5  # narrower discs hardly differ from a pixel
_LEAST_DEFOCUS = 0.1  # 1/m
_PER_SWEEP = 12  # images that are looked at
_FEWEST = 4
_NOISE_BLUR_PX = 1.0  # sigma of a blur of both images before they are compared: noise looks like sharpness
_TOLERANCE_PX = 0.05
_GOLDEN = 0.5 * (np.sqrt(5.0) - 1.0)


@dataclass(frozen=True)
class ApertureResult:
    """px_per_diopter: blur diameter per diopter out of focus, and its 1 sigma, by the sweeps' scatter.

    Per image [N]: defocus, signed [1/m]; diameter [px]; sweep: whose it is.
    """

    px_per_diopter: float
    sigma: float
    defocus: Values
    diameter: Values
    sweep: Values


def solve_aperture(
    sweeps: Sequence[Sweep],
    measured: Sequence[MeasuredSweep],
    focus: Sequence[Values],
    board: BoardSpec,
    camera_at: CameraAt,
) -> ApertureResult:
    """From sweeps of the board; `focus`: of each sweep's shots [1/m]. CalibrationError for too few images."""
    rows = []
    for number, (sweep, curve, foci) in enumerate(zip(sweeps, measured, focus, strict=True)):
        diopters = curve.diopters(board, camera_at)
        if curve.reference is None or diopters is None:
            continue
        corners = curve.corners[curve.reference]
        assert corners is not None
        images = [shot.image for shot in sweep.shots]
        sharp = _Sharp(images[curve.reference], camera_at(float(foci[curve.reference])))
        defocus = foci - diopters
        far_enough = np.flatnonzero(np.abs(defocus) > _LEAST_DEFOCUS)
        order = far_enough[np.argsort(np.abs(defocus[far_enough]))]
        for index in order[: 2 * _PER_SWEEP : 2]:
            region = board_region(corners)
            width = sharp.disc_that_gives(images[index], camera_at(float(foci[index])), region)
            if _NARROWEST_PX < width < 0.95 * _WIDEST_PX:
                rows.append((float(defocus[index]), width, float(number)))
    if len(rows) < _FEWEST:
        raise CalibrationError(
            f"aperture: expected {_FEWEST} images of the board out of focus by {_NARROWEST_PX:g} px or more,"
            f" got {len(rows)}"
        )
    defocus, diameter, origin = (np.array(column) for column in zip(*rows, strict=True))
    slope, sigma = fit_slope(np.abs(defocus), diameter, origin)
    return ApertureResult(slope, sigma, defocus, diameter, origin)


def fit_slope(x: Values, y: Values, origin: Values) -> tuple[float, float]:
    """(slope of y = slope x [N], its 1 sigma): robust, and with errors common to all points of one origin."""
    slope = float(np.median(y / x))
    for _ in range(10):
        residual = y - slope * x
        spread = max(1.4826 * float(np.median(np.abs(residual))), 1e-9)
        weight = 1.0 / np.maximum(1.0, np.abs(residual) / (2.0 * spread))  # Huber
        slope = float((weight * x * y).sum() / (weight * x * x).sum())
    each = [float((x * y)[origin == o].sum() / (x * x)[origin == o].sum()) for o in np.unique(origin)]
    if len(each) > 1:
        return slope, float(np.std(each, ddof=1) / np.sqrt(len(each)))
    return slope, float(np.std(y - slope * x) / np.sqrt((x * x).sum()))


class _Sharp:
    """The sharpest image of the board, as light, to be blurred until it looks like another."""

    def __init__(self, image: Grey, camera: CameraIntrinsics) -> None:
        self._light, self._camera = _light(image), camera

    def disc_that_gives(self, image: Grey, camera: CameraIntrinsics, region: Values) -> float:
        """Diameter [px] of the disc that makes `image` of the sharp one, within an outline in the latter."""
        scale = camera.fx / self._camera.fx
        shift = np.array([[scale, 0.0, (1.0 - scale) * camera.cx], [0.0, scale, (1.0 - scale) * camera.cy]])
        size = (image.shape[1], image.shape[0])
        grown = cv2.warpAffine(
            self._light, shift, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
        )
        margin = disc_reach(_WIDEST_PX)
        x, y, width, height = cv2.boundingRect((scale * region + shift[:, 2]).astype(np.float32))
        x0, y0 = max(x, margin), max(y, margin)
        x1, y1 = min(x + width, size[0] - margin), min(y + height, size[1] - margin)
        wanted = _smooth(_light(image)[y0:y1, x0:x1])

        def misfit(diameter: float) -> float:
            reach = disc_reach(diameter)
            part = grown[y0 - reach : y1 + reach, x0 - reach : x1 + reach, None]
            blurred = _smooth(blur_disc(np.ascontiguousarray(part), diameter).reshape(wanted.shape))
            gain = float((blurred * wanted).sum() / (blurred * blurred).sum())
            return float(((wanted - gain * blurred) ** 2).mean())

        return least(misfit, 0.0, _WIDEST_PX, _TOLERANCE_PX)


def least(function: Callable[[float], float], low: float, high: float, tolerance: float) -> float:
    """Where a function with one valley between low and high is least: golden section."""
    a, b = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_a, at_b = function(a), function(b)
    while high - low > tolerance:
        if at_a < at_b:
            high, b, at_b = b, a, at_a
            a = high - _GOLDEN * (high - low)
            at_a = function(a)
        else:
            low, a, at_a = a, b, at_b
            b = low + _GOLDEN * (high - low)
            at_b = function(b)
    return 0.5 * (low + high)


def _light(image: Grey) -> Floats:
    """Linear light [H, W] of an sRGB image: blur adds light, not grey levels."""
    encoded = np.arange(256) / 255.0
    table = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    return table.astype(np.float32)[image]


def _smooth(light: Floats) -> Floats:
    return np.asarray(cv2.GaussianBlur(light, (0, 0), _NOISE_BLUR_PX), np.float32)
