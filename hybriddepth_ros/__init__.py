"""Metric depth with a per-pixel sigma from one camera's focus sweep. Importing this needs neither ROS nor a
GPU.
"""

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
