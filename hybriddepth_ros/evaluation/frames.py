"""What an evaluation is fed with: a focal stack, the ground truth of one slice, and where it holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from hybriddepth_ros.errors import DatasetError
from hybriddepth_ros.evaluation.metrics import is_depth
from hybriddepth_ros.focal_stack import FocalStack
from hybriddepth_ros.image_files import ImageRGB

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Unit = Literal["m", "disparity"]


@dataclass(frozen=True, eq=False)
class MetricTruth:
    """Depth along Z: values [H, W] float32 m; 0, negative and not finite mean that there is none."""

    values: Floats

    @property
    def unit(self) -> Unit:
        """That of `values`."""
        return "m"

    def depth_m(self) -> Floats:
        """[H, W] float32 m, NaN where there is none."""
        return np.where(is_depth(self.values), self.values, np.float32(np.nan))


@dataclass(frozen=True, eq=False)
class DisparityTruth:
    """Disparity: values [H, W] float32 px; 0, negative and not finite mean that there is none.

    baseline_focal_m_px [m px]: baseline times focal length; depth [m] is this over the disparity.
    """

    values: Floats
    baseline_focal_m_px: float

    @property
    def unit(self) -> Unit:
        """That of `values`."""
        return "disparity"

    def depth_m(self) -> Floats:
        """[H, W] float32 m, NaN where there is none."""
        usable = is_depth(self.values)
        depth = self.baseline_focal_m_px / np.where(usable, self.values, 1.0)
        return np.where(usable, depth, np.nan).astype(np.float32)

    def disparity(self, depth_m: Floats) -> Floats:
        """Depths [m], an estimate say, in the unit of `values`; NaN where there is none."""
        usable = is_depth(depth_m)
        disparity = self.baseline_focal_m_px / np.where(usable, depth_m, 1.0)
        return np.where(usable, disparity, np.nan).astype(np.float32)


GroundTruth: TypeAlias = MetricTruth | DisparityTruth


@dataclass(frozen=True, eq=False)
class EvaluationFrame:
    """One stack with its ground truth, all of one size.

    truth: in the frame of the slice `reference`; valid [H, W] bool: the pixels that count, each of which has
    a truth. oracle: the focus distances came from the ground truth, so that the stack gives the depth range
    away. confidence [H, W] float32, at least 0: weights of the pixels, or None. sharp [H, W, 3] uint8 RGB:
    the image that the stack was made of, None where it was taken by a camera.
    """

    name: str
    stack: FocalStack
    truth: GroundTruth
    valid: Mask
    oracle: bool = False
    confidence: Floats | None = None
    reference: int = 0
    sharp: ImageRGB | None = None

    def __post_init__(self) -> None:
        size = self.stack.slices[0].image.shape[:2]
        maps: list[tuple[str, npt.NDArray[np.generic] | None, type[np.generic]]] = [
            ("truth", self.truth.values, np.float32),
            ("valid", self.valid, np.bool_),
            ("confidence", self.confidence, np.float32),
        ]
        for name, values, dtype in maps:
            if values is not None and (values.shape != size or values.dtype != dtype):
                expected = f"{dtype.__name__} {list(size)}, as its slices are"
                raise DatasetError(
                    f"{self.name}: {name}: expected {expected}, got {values.dtype} {list(values.shape)}"
                )
        if not self.valid.any():
            raise DatasetError(f"{self.name}: expected a ground truth that holds somewhere, got none")
        if not is_depth(self.truth.values[self.valid]).all():
            raise DatasetError(f"{self.name}: expected a finite truth above 0 wherever it is valid")
        if not 0 <= self.reference < len(self.stack.slices):
            count = len(self.stack.slices)
            raise DatasetError(
                f"{self.name}: reference: expected a slice of 0 to {count - 1}, got {self.reference}"
            )

    @property
    def unit(self) -> Unit:
        """That of the truth's values."""
        return self.truth.unit

    def depth_m(self) -> Floats:
        """The truth that counts: [H, W] float32 m, NaN where it is not valid."""
        return np.where(self.valid, self.truth.depth_m(), np.float32(np.nan))


class FrameSource(Protocol):
    """Frames in a fixed order, loaded one by one."""

    @property
    def name(self) -> str:
        """What the source is called in a report."""

    @property
    def oracle(self) -> bool:
        """Whether its focus distances come from the ground truth."""

    def __len__(self) -> int:
        """How many frames it has."""

    def names(self) -> list[str]:
        """The frames' names, in order."""

    def load(self, index: int) -> EvaluationFrame:
        """The frame, or a HybridDepthError whose one line says what is wrong with it."""
