"""Focal stacks per second that `render_stack` makes: 10 slices of 192x192 from three layers, on one thread.

.venv/bin/python benchmarks/render_stack.py [--device cuda] [--size 192]

The baseline is one depth-independent Gaussian blur (7x7, separable) of the same number of pixels.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import torch
import torch.nn.functional as F
from measure import median_ms, report

from hybriddepth_ros.simulation import (
    CameraMotion,
    Exposure,
    LayeredScene,
    PointSpread,
    StackOptics,
    develop_stack,
    render_stack,
)

SLICES = 10
LAYERS = 3
FOCUS = torch.linspace(0.2, 2.0, SLICES).tolist()


def layered_scene(size: int, device: str) -> LayeredScene:
    """Noise on three slanted surfaces, two with round outlines; at 12 px m they blur by up to 23 px."""
    generator = torch.Generator().manual_seed(0)
    color = torch.rand(LAYERS, 3, size, size, generator=generator)
    y, x = torch.meshgrid(torch.linspace(-1, 1, size), torch.linspace(-1, 1, size), indexing="ij")
    radius = torch.hypot(x, y)
    coverage = torch.stack([torch.ones_like(x), *(((r - radius) * 40 + 0.5).clamp(0, 1) for r in (0.7, 0.4))])
    diopters = torch.stack([0.4 + 0.2 * x, 1.1 + 0.2 * y, 1.9 + 0.2 * x])
    return LayeredScene(*(values.to(device) for values in (color, coverage, diopters)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--size", type=int, default=192, help="height and width [px]")
    options = parser.parse_args()
    torch.set_num_threads(1)
    device = options.device
    scene = layered_scene(options.size, device)
    generator = torch.Generator(device).manual_seed(0)
    pixels = torch.rand(SLICES * 3, 1, options.size, options.size, device=device)
    kernel = torch.exp(-(torch.linspace(-2, 2, 7, device=device) ** 2))
    kernel /= kernel.sum()

    def timed(work: Callable[[], object]) -> float:
        def run() -> None:
            work()
            if device != "cpu":
                torch.cuda.synchronize()

        with torch.inference_mode():
            return median_ms(run)

    def blur() -> torch.Tensor:
        rows = F.conv2d(pixels, kernel[None, None, None], padding=(0, 3))
        return F.conv2d(rows, kernel[None, None, :, None], padding=(3, 0))

    disc = StackOptics(blur_px_per_diopter=12.0)
    astigmatic = replace(disc, point_spread=PointSpread(exponent=4.0, ellipticity=0.1))
    breathing = replace(disc, breathing_percent_per_diopter=1.0)
    motion = CameraMotion.random(SLICES, 0.3, 0.05, torch.Generator().manual_seed(0))
    linear = render_stack(scene, FOCUS, disc)
    cases: dict[str, Callable[[], object]] = {
        "disc": lambda: render_stack(scene, FOCUS, disc),
        "gaussian": lambda: render_stack(scene, FOCUS, replace(disc, point_spread=PointSpread(2.0))),
        "astigmatic": lambda: render_stack(scene, FOCUS, astigmatic),
        "breathing_and_motion": lambda: render_stack(scene, FOCUS, breathing, motion),
        "develop": lambda: develop_stack(linear, Exposure(sharpening=0.5, jpeg_quality=90), generator),
    }
    baseline = timed(blur)
    rows: list[dict[str, Any]] = []
    for name, work in cases.items():
        value = timed(work)
        rows.append(
            {
                "name": f"render_stack/{device}/{name}",
                "value": round(1e3 / value, 2),
                "unit": "stacks/s",
                "ms": round(value, 2),
                "gaussian_blur_ms": round(baseline, 2),
                "ratio": round(value / baseline, 1),
            }
        )
    report(rows)


if __name__ == "__main__":
    main()
