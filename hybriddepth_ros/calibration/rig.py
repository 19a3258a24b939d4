"""A camera's parts as the steps use them: a picture at a position, a sweep, and whoever moves the board."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt

from hybriddepth_ros.calibration.board import BoardSpec, Grey, Points, find_corners
from hybriddepth_ros.calibration.captures import Shot, Sweep
from hybriddepth_ros.calibration.curves import fit_peak
from hybriddepth_ros.calibration.sharpness import board_region, central_region, region_sharpness
from hybriddepth_ros.cameras.lens import FocusLens
from hybriddepth_ros.cameras.source import ImageSource, RawFrame
from hybriddepth_ros.errors import CalibrationError

ASSUMED_SETTLE_MS = 400.0  # of a lens that nobody has measured yet
_SETTLE_MARGIN_MS = 10.0
_MOST_FRAMES = 200  # that may be read before one shows the settled lens
_LEAST_RUN_UP = 0.02  # of the range
_COARSE, _FINE = 25, 11  # positions of a sweep
_FINE_REACH = 1.5  # widths of the coarse peak that the fine sweep covers to either side


@dataclass(frozen=True)
class Placement:
    """Where the board is wanted. x_share, y_share: its middle in the image, -1..1 from edge to edge.

    typed: the distance has to be measured by hand, the board is too small in the image to tell it.
    """

    text: str
    distance_m: float
    x_share: float = 0.0
    y_share: float = 0.0
    tilt_x_deg: float = 0.0
    tilt_y_deg: float = 0.0
    turn_deg: float = 0.0
    typed: bool = False


class Operator(Protocol):
    """Whoever moves the board: a person at the terminal, or the emulated bench itself."""

    def place(self, wanted: Placement, live_sharpness: Callable[[], float]) -> float | None:
        """Returns when the board stands; the distance [m] if it was measured by hand."""

    def say(self, text: str) -> None:
        """Tells what is going on."""


class Rig:
    """Image source and lens, both open; settle_ms: how long the lens is given to come to rest."""

    def __init__(self, source: ImageSource, lens: FocusLens, board: BoardSpec) -> None:
        self.source, self.lens, self.board = source, lens, board
        self.settle_ms = ASSUMED_SETTLE_MS
        self.position = lens.position_range[0]
        self._delivery_ms = 0.0  # from the start of an exposure to its frame, at best
        self._never = threading.Event()

    @property
    def position_range(self) -> tuple[float, float]:
        """(lowest, highest) actuator position."""
        return self.lens.position_range

    def know_settle(self, measured_ms: float) -> None:
        """From now on the lens is given what it was measured to take, and a margin."""
        self.settle_ms = measured_ms + _SETTLE_MARGIN_MS

    def wait(self, seconds: float) -> None:
        """On the clock of the source."""
        self.source.clock.wait(self._never, seconds)

    def command(self, position: float) -> int:
        """Sends the lens to a position, or the end of its range before it; the time [ns] of the command."""
        commanded_ns = self.lens.command(float(np.clip(position, *self.position_range)))
        self.position = self.lens.state().position  # a motor of whole steps has rounded it
        return commanded_ns

    def read(self) -> tuple[Grey, RawFrame]:
        """The next frame, and its image in grey."""
        frame = self.source.read(timeout_s=2.0)
        delivery_ms = 1e-6 * (self.source.clock.now_ns() - frame.exposure_start_ns)
        self._delivery_ms = min(self._delivery_ms or delivery_ms, delivery_ms)
        return as_grey(frame.image), frame

    def shot(self, position: float, approach: int = 1) -> Shot:
        """A picture at a position, with the lens at rest."""
        commanded_ns = self.command(position)
        # No frame can come earlier that began with the lens at rest.
        self.wait(1e-3 * (self.settle_ms + self._delivery_ms) + 1.0 / self.source.frame_rate_hz)
        for _ in range(_MOST_FRAMES):
            image, frame = self.read()
            if frame.exposure_start_ns >= commanded_ns + self.settle_ms * 1e6:
                return Shot(image, self.position, approach)
        raise CalibrationError(f"camera: {_MOST_FRAMES} frames came, none stamped after the lens had settled")

    def live_sharpness(self) -> float:
        """Of the middle of the next frame."""
        image, _ = self.read()
        return region_sharpness(image, central_region((image.shape[1], image.shape[0])))

    def shots(self, positions: Iterable[float], approach: int) -> list[Shot]:
        """Pictures at positions, each approached from the same side; the first from well beyond.

        The end of the range, which nothing lies beyond, cannot be approached so: what is nearer to it than
        the play of a mechanism may be is left out.
        """
        low, high = self.position_range
        beyond, run_up = (low if approach > 0 else high), 0.1 * (high - low)
        ordered = sorted(
            (p for p in positions if approach * (p - beyond) >= _LEAST_RUN_UP * (high - low)),
            reverse=approach < 0,
        )
        self.command(ordered[0] - approach * run_up)
        self.wait(1e-3 * self.settle_ms)
        return [self.shot(position, approach) for position in ordered]

    def sweep(self, distance_m: float | None = None) -> Sweep:
        """Over the whole range with rising positions, then finely over the peak, rising and falling."""
        low, high = self.position_range
        coarse = self.shots(np.linspace(low, high, _COARSE), 1)
        x = np.array([shot.actuator for shot in coarse])
        y = curve_of(coarse, self.board)
        peak = fit_peak(x, y, float(y.min()), share=0.3)
        middle, width = (
            (peak.position, peak.width) if peak else (float(x[int(y.argmax())]), (high - low) / 16)
        )
        reach = _FINE_REACH * float(np.clip(width, (high - low) / 40, (high - low) / 8))
        fine = np.linspace(max(low, middle - reach), min(high, middle + reach), _FINE)
        return Sweep((*coarse, *self.shots(fine, 1), *self.shots(fine, -1)), distance_m)


def curve_of(shots: Iterable[Shot], board: BoardSpec) -> Points:
    """Sharpness [N] of shots within the board where it is seen in the sharpest, else within the middle."""
    images = [shot.image for shot in shots]
    middle = central_region((images[0].shape[1], images[0].shape[0]))
    values = np.array([region_sharpness(image, middle) for image in images])
    corners = find_corners(images[int(values.argmax())], board)
    if corners is None:
        return values
    region = board_region(corners)
    return np.array([region_sharpness(image, region) for image in images])


def as_grey(image: npt.NDArray[np.uint8]) -> Grey:
    """[H, W] of an image [H, W] or [H, W, 3] RGB."""
    return np.asarray(image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
