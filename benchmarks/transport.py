"""What it costs to send slices as JPEG or PNG: bytes, time, and depth.

.venv/bin/python benchmarks/transport.py [--scenes 6] [--rgbd FOLDER] [--stack FOLDER ...] [--markdown]

Stacks of 5 slices of 640x480: the desk of the simulated camera (with noise), RGB-D frames made into stacks by
the protocols `rooms` and `tables` (--rgbd), and stacks that a camera took (--stack, without a truth: only the
difference to raw counts). Every slice goes through `compress` and `decompress` as between two machines.
`added` is the AbsRel of the depth against that of the raw slices, over pixels that both have: how far JPEG
moves a depth, whether towards the truth or away. Medians over stacks, of per-stack figures.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import cv2
import numpy as np
import numpy.typing as npt
from measure import median_ms, report

from hybriddepth_ros.cameras.simulated import SimulatedCamera, SimulatedCameraOptions
from hybriddepth_ros.errors import DatasetError
from hybriddepth_ros.estimator import DepthEstimate, DepthEstimator, EstimatorOptions, load_estimator
from hybriddepth_ros.evaluation.datasets import open_source
from hybriddepth_ros.evaluation.metrics import depth_metrics, is_depth, sigma_coverage
from hybriddepth_ros.evaluation.protocols import load_protocol
from hybriddepth_ros.focal_stack import CameraIntrinsics, FocalSlice, FocalStack
from hybriddepth_ros.image_compression import JPEG, PNG, RAW, compress, decompress
from hybriddepth_ros.simulation import breathing_intrinsics, desk_scene, develop, render

QUALITIES = (30, 50, 70, 80, 90, 95, 100)
MODELS = ("classical", "sweepnet")
SLICES_PER_SECOND = 30.0
RUNS = 5  # timings of one slice

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Case:
    """truth [H, W] m, NaN where unknown; None of a stack that a camera took."""

    source: str
    stack: FocalStack
    truth: Floats | None
    reference: int = 2


def desk_cases(count: int) -> Iterator[Case]:
    """The simulated camera's desk, held still."""
    options = SimulatedCameraOptions()
    fx = float(0.5 * options.width / np.tan(np.radians(0.5 * options.horizontal_fov_deg)))
    center = (0.5 * (options.width - 1), 0.5 * (options.height - 1))
    at_infinity = CameraIntrinsics(fx, fx, *center, options.width, options.height)
    for seed in range(count):
        camera = SimulatedCamera(replace(options, seed=seed))
        scene, slices, truth = desk_scene(seed), [], None
        foci = camera.default_focus_diopters
        for index, focus in enumerate(foci):
            wide = breathing_intrinsics(at_infinity, focus, options.breathing_percent_per_diopter)
            linear, depth = render(scene, np.eye(4), wide, camera.lens, focus)
            image = develop(linear, np.random.default_rng((seed, index)))
            slices.append(FocalSlice(image=image, focus_diopters=focus, stamp_ns=index, camera=wide))
            if index == len(foci) // 2:
                truth = depth
        yield Case("desk", FocalStack(slices=tuple(slices), lens=camera.lens, name=f"desk {seed}"), truth)


def rgbd_cases(folder: Path) -> Iterator[Case]:
    """Real textures, blurred by the two lenses of the protocols; each with the frames within its range."""
    for name in ("rooms", "tables"):
        try:
            source = open_source(folder, load_protocol(name))
        except DatasetError as error:
            print(error, file=sys.stderr)
            continue
        for index in range(len(source)):
            frame = source.load(index)
            truth = np.where(frame.valid, frame.truth.values, np.float32(np.nan))
            yield Case(f"RGB-D, {name}", frame.stack, truth, frame.reference)


def camera_cases(folders: list[Path]) -> Iterator[Case]:
    for folder in folders:
        stack = FocalStack.from_folder(folder)
        slices = [
            replace(s, image=cv2.resize(s.image, (640, 480), interpolation=cv2.INTER_AREA), camera=None)
            for s in stack.slices
        ]
        yield Case("phone", replace(stack, slices=tuple(slices), lens=None), None)


def sent(stack: FocalStack, codec: str, quality: int) -> tuple[FocalStack, float]:
    """The stack as it arrives, and the mean bytes of a slice."""
    if codec == RAW:
        return stack, float(np.mean([s.image.nbytes for s in stack.slices]))
    files = [compress(s.image, "rgb8", codec, quality) for s in stack.slices]
    slices = [
        replace(s, image=decompress(data, "rgb8", codec)) for s, data in zip(stack.slices, files, strict=True)
    ]
    return replace(stack, slices=tuple(slices)), float(np.mean([len(data) for data in files]))


def scored(estimate: DepthEstimate, raw: DepthEstimate, truth: Floats | None) -> dict[str, float]:
    values = {
        "added": depth_metrics(estimate.depth, raw.depth)["abs_rel"],
        "valid": float(is_depth(estimate.depth).mean()),
    }
    both = is_depth(estimate.depth) & is_depth(raw.depth)
    values["bias"] = float(np.median(estimate.depth[both] / raw.depth[both] - 1.0)) if both.any() else np.nan
    if truth is not None:
        values["abs_rel"] = depth_metrics(estimate.depth, truth)["abs_rel"]
        values["abs_rel_common"] = depth_metrics(estimate.depth, truth, both)["abs_rel"]
        coverage = sigma_coverage(estimate.depth, estimate.sigma, truth)
        values["within_1_sigma"], values["within_2_sigma"] = coverage[1.0], coverage[2.0]
    return values


def codecs() -> list[tuple[str, str, int]]:
    rows = [(f"jpeg {quality}", JPEG, quality) for quality in QUALITIES]
    return [("raw", RAW, 0), ("png", PNG, 0), *reversed(rows)]


def measure(cases: Iterator[Case], models: dict[str, DepthEstimator]) -> list[dict[str, Any]]:
    figures: dict[tuple[str, str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for case in cases:
        print(f"{case.source}: {case.stack.name}", file=sys.stderr)
        raw: dict[str, DepthEstimate] = {}
        first = case.stack.slices[0].image
        for name, codec, quality in codecs():
            stack, size = sent(case.stack, codec, quality)
            link = figures[case.source, name, ""]
            link["bytes"].append(size)
            if codec != RAW:
                data = compress(first, "rgb8", codec, quality)
                link["encode_ms"].append(median_ms(lambda: compress(first, "rgb8", codec, quality), RUNS, 1))  # noqa: B023
                link["decode_ms"].append(median_ms(lambda: decompress(data, "rgb8", codec), RUNS, 1))  # noqa: B023
            for model, estimator in models.items():
                estimate = estimator(stack)
                raw.setdefault(model, estimate)
                for key, value in scored(estimate, raw[model], case.truth).items():
                    figures[case.source, name, model][key].append(value)
    rows = []
    for (source, name, model), values in figures.items():
        row: dict[str, Any] = {"source": source, "transport": name, "model": model}
        row |= {key: float(np.nanmedian(found)) for key, found in values.items()}
        if "bytes" in row:
            row["mbit_per_s"] = row["bytes"] * 8e-6 * SLICES_PER_SECOND
        row["stacks"] = max(len(found) for found in values.values())
        rows.append(row)
    return rows


def markdown(rows: list[dict[str, Any]]) -> str:
    """One table per source."""
    lines = []
    for source in dict.fromkeys(row["source"] for row in rows):
        mine = {(row["transport"], row["model"]): row for row in rows if row["source"] == source}
        count = next(iter(mine.values()))["stacks"]
        lines += ["", f"{source}, {count} stacks:", ""]
        heads = ["transport", "kB per slice", "Mbit/s at 30/s", "encode, decode [ms]"]
        for model in MODELS:
            heads += [f"{model}: added", "AbsRel", "within 1, 2 sigma"]
        lines += ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
        for name in dict.fromkeys(row["transport"] for row in mine.values()):
            link = mine[name, ""]
            times = f"{link['encode_ms']:.1f}, {link['decode_ms']:.1f}" if "encode_ms" in link else ""
            cells = [name, f"{link['bytes'] / 1e3:.0f}", f"{link['mbit_per_s']:.0f}", times]
            for model in MODELS:
                row = mine[name, model]
                known = "abs_rel" in row
                cells += [
                    f"{100 * row['added']:.2f} %",
                    f"{100 * row['abs_rel']:.2f} %" if known else "",
                    f"{100 * row['within_1_sigma']:.0f}, {100 * row['within_2_sigma']:.0f} %"
                    if known
                    else "",
                ]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=6, help="desks of the simulated camera")
    parser.add_argument("--rgbd", type=Path, help="folder of RGB-D frames, as for `hybriddepth evaluate`")
    parser.add_argument("--stack", type=Path, nargs="*", default=[], help="STACK folders of a camera")
    parser.add_argument("--markdown", action="store_true", help="tables instead of JSON")
    options = parser.parse_args()

    def cases() -> Iterator[Case]:
        yield from desk_cases(options.scenes)
        if options.rgbd:
            yield from rgbd_cases(options.rgbd)
        yield from camera_cases(options.stack)

    models = {name: load_estimator(name, "cpu", EstimatorOptions()) for name in MODELS}
    rows = measure(cases(), models)
    print(markdown(rows)) if options.markdown else report(rows)


if __name__ == "__main__":
    main()
