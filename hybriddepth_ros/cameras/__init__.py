"""Cameras with a movable focus, one file per device; `make_camera` finds one by name."""

from hybriddepth_ros.cameras.base import (
    CameraFrame,
    FocusCamera,
    camera_config_type,
    camera_names,
    make_camera,
    register_camera,
)

__all__ = ["CameraFrame", "FocusCamera", "camera_config_type", "camera_names", "make_camera", "register_camera"]
