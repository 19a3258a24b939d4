"""Depth models, one file each; `load_model` finds one by name and imports it then."""

from hybriddepth_ros.models.base import (
    AlignedStack,
    DepthModel,
    FocusEstimate,
    check_device,
    load_model,
    model_names,
)

__all__ = ["AlignedStack", "DepthModel", "FocusEstimate", "check_device", "load_model", "model_names"]
