"""Metric depth with a per-pixel sigma from one camera's focus sweep. Importing needs neither ROS nor a GPU.

Names are imported when they are first used: parsing a command line does not wait for OpenCV.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hybriddepth_ros.errors import HybridDepthError
    from hybriddepth_ros.estimator import DepthEstimate, DepthEstimator, EstimatorOptions, load_estimator
    from hybriddepth_ros.focal_stack import CameraIntrinsics, FocalSlice, FocalStack
    from hybriddepth_ros.optics import ThinLens

__version__ = "0.1.0"

__all__ = [
    "CameraIntrinsics",
    "DepthEstimate",
    "DepthEstimator",
    "EstimatorOptions",
    "FocalSlice",
    "FocalStack",
    "HybridDepthError",
    "ThinLens",
    "load_estimator",
]

_HOMES = {
    "errors": ("HybridDepthError",),
    "estimator": ("DepthEstimate", "DepthEstimator", "EstimatorOptions", "load_estimator"),
    "focal_stack": ("CameraIntrinsics", "FocalSlice", "FocalStack"),
    "optics": ("ThinLens",),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
