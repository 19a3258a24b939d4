#!/usr/bin/env python3
"""Draws docs/images/sweepnet_failures.png: where sweepnet is wrong on frames of a folder of RGB-D images.

    .venv/bin/python scripts/failure_picture.py RGBD PROTOCOL:FRAME...

Only depths are drawn; the photographs are not ours to publish.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from hybriddepth_ros import load_estimator
from hybriddepth_ros.evaluation.protocols import load_protocol
from hybriddepth_ros.evaluation.rgbd_folder import RgbdFolder
from hybriddepth_ros.pictures import depth_panel, depth_scale, draw_panels, error_panel, sigma_scale

TARGET = Path(__file__).resolve().parents[1] / "docs" / "images" / "sweepnet_failures.png"


def main(folder: str, chosen: list[str]) -> None:
    estimator, panels = load_estimator(device="cpu"), []
    for protocol, _, name in (text.partition(":") for text in chosen):
        source = RgbdFolder(folder, load_protocol(protocol))
        frame = source.load(source.names().index(name))
        truth = frame.depth_m().astype(np.float32)
        estimate = estimator(frame.stack, frame.reference)
        off = estimate.depth - truth
        meters = sigma_scale(estimate.sigma, np.abs(off))
        panels += [
            depth_panel("truth", truth, depth_scale(truth), "no truth"),
            depth_panel("sweepnet", estimate.depth, depth_scale(truth)),
            error_panel("error / truth: blue = too near", off / truth),
            depth_panel("|error|", np.abs(off), meters, "no estimate or no truth"),
            depth_panel("1 sigma", estimate.sigma, meters),
        ]
    TARGET.write_bytes(draw_panels(panels, columns=5, width_in=2.9))
    print(TARGET)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
