"""From a focal stack to metric depth with a sigma: the pipeline, readable from top to bottom."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from hybriddepth_ros.focal_stack import CameraIntrinsics, FocalStack, ImageRGB
from hybriddepth_ros.parameters import parameter
from hybriddepth_ros.registration import Registration


@dataclass(frozen=True)
class EstimatorOptions:
    """How a stack becomes depth; shared by the command line, the Python API and the depth node."""

    reference: str = parameter(
        "middle",
        "slice whose frame and stamp the depth takes: middle of the focus order, first, last (newest)",
        choices=("middle", "first", "last"),
        dynamic=True,
    )
    register: bool = parameter(True, "align the slices (camera motion, focus breathing) before estimating", dynamic=True)
    max_residual_px: float = parameter(
        1.5, "a slice whose alignment residual exceeds this is dropped", unit="px", minimum=0.1, maximum=50.0, dynamic=True
    )
    min_depth: float = parameter(0.05, "nearer estimates are no estimate", unit="m", minimum=0.01, maximum=100.0, dynamic=True)
    max_depth: float = parameter(20.0, "farther estimates are no estimate", unit="m", minimum=0.1, maximum=1000.0, dynamic=True)
    max_sigma_diopters: float = parameter(
        0.25, "an estimate less certain than this (1 sigma) is no estimate", unit="1/m", minimum=0.001, maximum=10.0, dynamic=True
    )


@dataclass(frozen=True)
class DepthEstimate:
    """Depth in the (rectified) frame of the reference slice.

    depth, sigma [H, W] float32 m along Z, NaN = no estimate; all_in_focus [H, W, 3] uint8 RGB in the same frame;
    camera: rectified intrinsics of that frame, or None; stamp_ns of the reference slice; registration: how each slice was
    aligned; timings_ms: time per stage.
    """

    depth: npt.NDArray[np.float32]
    sigma: npt.NDArray[np.float32]
    all_in_focus: ImageRGB
    registration: Registration
    camera: CameraIntrinsics | None = None
    stamp_ns: int = 0
    timings_ms: dict[str, float] = field(default_factory=dict)


class DepthEstimator:
    """FocalStack in, DepthEstimate out. Holds the model (and its weights); safe to call from one thread at a time."""

    def __init__(self, model_name: str, device: str, options: EstimatorOptions) -> None:
        raise NotImplementedError

    def __call__(self, stack: FocalStack) -> DepthEstimate:
        raise NotImplementedError


def load_estimator(model: str = "classical", device: str = "auto", options: EstimatorOptions | None = None) -> DepthEstimator:
    """The estimator for a model by name; ModelError for an unknown one. device: auto (cuda if there is one), cpu, cuda."""
    return DepthEstimator(model, device, options or EstimatorOptions())
