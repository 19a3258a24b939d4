"""Focal slices and stacks: images of one scene taken at different focus.

Frames follow REP 103's optical convention: x right, y down, z forward. Focus is in diopters (1/m, 0 = infinity).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hybriddepth_ros.errors import StackError
from hybriddepth_ros.optics import ThinLens

ImageRGB = npt.NDArray[np.uint8]  # [H, W, 3] RGB


@dataclass(frozen=True)
class CameraIntrinsics:
    """Pinhole intrinsics of one image, in pixels; `distortion` is plumb_bob (k1, k2, p1, p2, k3) or empty."""

    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int
    distortion: tuple[float, ...] = ()

    @property
    def matrix(self) -> npt.NDArray[np.float64]:
        """K [3, 3]."""
        return np.array([[self.fx, 0.0, self.cx], [0.0, self.fy, self.cy], [0.0, 0.0, 1.0]])


@dataclass(frozen=True)
class FocalSlice:
    """One image and the focus it was taken at.

    image [H, W, 3] uint8 RGB; focus_diopters [1/m]; stamp_ns: mid-exposure [ns], 0 = unknown;
    camera: intrinsics at this focus (they follow the breathing), or None.
    """

    image: ImageRGB
    focus_diopters: float
    stamp_ns: int = 0
    camera: CameraIntrinsics | None = None


@dataclass(frozen=True)
class FocalStack:
    """Slices of one sweep in the order of capture: at least two, of one size, at different focus."""

    slices: tuple[FocalSlice, ...]
    camera: CameraIntrinsics | None = None
    lens: ThinLens | None = None
    name: str = "stack"

    def __post_init__(self) -> None:
        raise NotImplementedError

    @property
    def focus_diopters(self) -> npt.NDArray[np.float32]:
        """[S] 1/m, in the order of capture."""
        return np.array([s.focus_diopters for s in self.slices], np.float32)

    @classmethod
    def from_folder(cls, path: str | Path) -> FocalStack:
        raise NotImplementedError
