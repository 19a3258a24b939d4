#!/usr/bin/env python3
"""Draws docs/images/depth.png: the simulated scene and its depth, below them depth and sigma of phone stacks.

    .venv/bin/python scripts/readme_picture.py STACK...

Of the phone stacks only what was estimated is drawn; the photographs are not ours to publish.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from hybriddepth_ros import FocalSlice, FocalStack, load_estimator
from hybriddepth_ros.cameras import make_camera
from hybriddepth_ros.cameras.sweep import FocusSweep
from hybriddepth_ros.pictures import Panel, depth_panel, draw_panels, sigma_panel

TARGET = Path(__file__).resolve().parents[1] / "docs" / "images" / "depth.png"


def simulated_stack() -> FocalStack:
    """One sweep of the default simulated camera."""
    with make_camera("simulated", {}) as camera, FocusSweep(camera, camera.default_focus_diopters) as sweep:
        frames = [swept.frame for swept in sweep.capture()]
    slices = tuple(FocalSlice(f.image, f.focus_diopters, f.stamp_ns, f.camera) for f in frames)
    return FocalStack(slices, lens=camera.lens, name="simulated")


def resized(values: npt.NDArray[np.float32], size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """[H, W] at another (width, height); no value is mixed with a missing one."""
    return np.asarray(cv2.resize(values, size, interpolation=cv2.INTER_NEAREST), np.float32)


def main(stack_folders: list[str]) -> None:
    estimator = load_estimator()
    simulated = estimator(simulated_stack())
    height, width = simulated.depth.shape
    panels = [
        Panel("simulated scene, all in focus", simulated.all_in_focus),
        depth_panel("its depth", simulated.depth),
    ]
    for folder in stack_folders:
        phone = estimator(FocalStack.load(folder))
        panels.append(depth_panel("a hand-held phone's stack: depth", resized(phone.depth, (width, height))))
        panels.append(sigma_panel("and its 1 sigma", resized(phone.sigma, (width, height))))
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_bytes(draw_panels(panels, columns=2, width_in=4.0))
    print(TARGET)


if __name__ == "__main__":
    main(sys.argv[1:])
