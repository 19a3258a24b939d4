"""Does the focus move at all? Some cameras take focus commands, read them back, and do nothing."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from hybriddepth_ros.cameras.lens import FocusLens
from hybriddepth_ros.cameras.source import ImageSource
from hybriddepth_ros.errors import CameraError

_ROUNDS = 2  # through all positions: what differs between rounds is noise and motion, not focus
_FRAMES = 3  # whose median counts at one position
_LEAST_CHANGE = 0.1  # of the sharpness, from one focus to another
_TIMES_REPEATABILITY = 3.0
_LONGEST_WAIT_S = 5.0


def laplacian_variance(image: npt.NDArray[np.uint8]) -> float:
    """Sharpness: variance of the Laplacian of an image [H, W] or [H, W, 3], in squared grey levels."""
    grey = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return float(cv2.Laplacian(grey, cv2.CV_32F).var())


def check_focus_moves(source: ImageSource, lens: FocusLens, settle_ms: float = 500.0) -> tuple[float, ...]:
    """Move an open lens between its ends; CameraError if the image stays as sharp as it was.

    Needs a scene with texture, nobody moving in it, and takes 3 to 4 s. Returns the sharpness at the near
    end, the middle and the far end; the lens is sent back to where it was.
    """
    low, high = lens.position_range
    before = lens.state().position
    positions = (low, 0.5 * (low + high), high)
    try:
        rounds = np.array(
            [[_sharpness_at(source, lens, p, settle_ms) for p in positions] for _ in range(_ROUNDS)]
        )
    finally:
        if low <= before <= high:
            lens.command(before)
    mean = rounds.mean(axis=0)
    change = float(np.ptp(mean))
    repeatability = float(np.ptp(rounds, axis=0).max())
    if change <= max(_LEAST_CHANGE * float(mean.max()), _TIMES_REPEATABILITY * repeatability):
        told = ", ".join(f"{value:.3g} at {p:g}" for value, p in zip(mean, positions, strict=True))
        raise CameraError(
            "focus check: the lens took its commands but the image did not change: expected the sharpness"
            f" of a scene with texture to differ, got {told}"
        )
    return tuple(float(value) for value in mean)


def _sharpness_at(source: ImageSource, lens: FocusLens, position: float, settle_ms: float) -> float:
    settled_ns = lens.command(position) + round(settle_ms * 1e6)
    until_ns = settled_ns + round(_LONGEST_WAIT_S * 1e9)
    seen: list[float] = []
    while len(seen) < _FRAMES:
        frame = source.read()
        if frame.exposure_start_ns >= settled_ns:
            seen.append(laplacian_variance(frame.image))
        elif source.clock.now_ns() > until_ns:
            raise CameraError(f"focus check: expected frames within {_LONGEST_WAIT_S:g} s of a command")
    return float(np.median(seen))
