"""Scenes and the thin-lens renderer: for the simulated camera, for training, and for tests.

What brings PyTorch is imported when first asked for: the stack renderer and the papers' own synthesis.
"""

import importlib
from typing import TYPE_CHECKING, Any

from hybriddepth_ros.simulation.renderer import breathing_intrinsics, render, render_depth
from hybriddepth_ros.simulation.scene import Quad, Scene, Thing, desk_scene, plane_at
from hybriddepth_ros.simulation.sensor import develop

if TYPE_CHECKING:
    from hybriddepth_ros.simulation.exposure import Exposure, develop_stack
    from hybriddepth_ros.simulation.gather import published_defocus
    from hybriddepth_ros.simulation.layers import LayeredScene
    from hybriddepth_ros.simulation.point_spread import PointSpread
    from hybriddepth_ros.simulation.stack_renderer import CameraMotion, StackOptics, render_stack

_WITH_TORCH = {
    "CameraMotion": "stack_renderer",
    "Exposure": "exposure",
    "LayeredScene": "layers",
    "PointSpread": "point_spread",
    "StackOptics": "stack_renderer",
    "develop_stack": "exposure",
    "published_defocus": "gather",
    "render_stack": "stack_renderer",
}

__all__ = [
    "CameraMotion",
    "Exposure",
    "LayeredScene",
    "PointSpread",
    "Quad",
    "Scene",
    "StackOptics",
    "Thing",
    "breathing_intrinsics",
    "desk_scene",
    "develop",
    "develop_stack",
    "plane_at",
    "published_defocus",
    "render",
    "render_depth",
    "render_stack",
]


def __getattr__(name: str) -> Any:
    if name not in _WITH_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_WITH_TORCH[name]}"), name)
