"""Scenes and the thin-lens renderer: for the simulated camera, for training, and for tests."""

from hybriddepth_ros.simulation.renderer import breathing_intrinsics, render, render_depth
from hybriddepth_ros.simulation.scene import Quad, Scene, Thing, desk_scene, plane_at
from hybriddepth_ros.simulation.sensor import develop

__all__ = [
    "Quad",
    "Scene",
    "Thing",
    "breathing_intrinsics",
    "desk_scene",
    "develop",
    "plane_at",
    "render",
    "render_depth",
]
