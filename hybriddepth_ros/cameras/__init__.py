"""Cameras with a movable focus, one file per device; `make_camera` finds one by name."""

from hybriddepth_ros.cameras.base import (
    CameraFrame,
    Clock,
    FocusCamera,
    FrameTimeout,
    camera_config_type,
    camera_names,
    make_camera,
    register_camera,
)
from hybriddepth_ros.cameras.sweep import FocusSweep, SweepOptions, SweepStatistics, SweptFrame

__all__ = [
    "CameraFrame",
    "Clock",
    "FocusCamera",
    "FocusSweep",
    "FrameTimeout",
    "SweepOptions",
    "SweepStatistics",
    "SweptFrame",
    "camera_config_type",
    "camera_names",
    "make_camera",
    "register_camera",
]
