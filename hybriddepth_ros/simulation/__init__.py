"""Scenes and the thin-lens renderer: for the simulated camera, for training, and for tests.

The papers' own synthesis is imported when first asked for: it brings PyTorch.
"""

import importlib
from typing import TYPE_CHECKING, Any

from hybriddepth_ros.simulation.renderer import breathing_intrinsics, render, render_depth
from hybriddepth_ros.simulation.scene import Quad, Scene, Thing, desk_scene, plane_at
from hybriddepth_ros.simulation.sensor import develop

if TYPE_CHECKING:
    from hybriddepth_ros.simulation.gather import published_defocus

__all__ = [
    "Quad",
    "Scene",
    "Thing",
    "breathing_intrinsics",
    "desk_scene",
    "develop",
    "plane_at",
    "published_defocus",
    "render",
    "render_depth",
]


def __getattr__(name: str) -> Any:
    if name != "published_defocus":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.gather").published_defocus
