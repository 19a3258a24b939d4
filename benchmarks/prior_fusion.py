"""What a prior adds to depth from focus, and what each part of joining the two is worth.

.venv/bin/python benchmarks/prior_fusion.py [--scenes 10] [--size 480 640] [--rgbd FOLDER]

The prior is simulated: ground truth under a random affine, smooth factors and offsets, blurred edges and one
tilted surface. Focus is `classical` on rendered stacks, or `simulated`: truth with correlated noise whose
sigma is right, small on texture and large elsewhere. Every pixel counts, also those that the estimator would
leave out; depths are cut off at 20 m.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import cv2
import numpy as np
import numpy.typing as npt
import torch
from measure import median_ms

from hybriddepth_ros.all_in_focus import all_in_focus
from hybriddepth_ros.evaluation.metrics import depth_metrics, sigma_coverage
from hybriddepth_ros.models import AlignedStack, FocusEstimate, load_model
from hybriddepth_ros.models.prior_alignment import AlignmentOptions, align_prior
from hybriddepth_ros.models.prior_fusion import fuse
from hybriddepth_ros.simulation import Exposure, LayeredScene, StackOptics, develop_stack, render_stack
from hybriddepth_ros.simulation.procedural_scenes import SceneBank
from hybriddepth_ros.simulation.relative_prior import simulate_prior, simulated_focus
from hybriddepth_ros.simulation.rgbd_scenes import scene_from_rgbd

BLUR_PX_PER_DIOPTER = 12.0 / 640  # per pixel of width: the lens of the simulated camera
SLICES = 8
NEAREST, FARTHEST = 2.5, 0.3  # 1/m, of the sweep over procedural scenes
MARGIN = 0.1  # of a frame's range, by which the sweep over it is longer
MOST_DEPTH = 20.0  # m
OPTIONS = {
    "one scale and shift, unweighted": AlignmentOptions(piecewise=False, weighted=False),
    "one scale and shift": AlignmentOptions(piecewise=False),
    "piecewise, unweighted": AlignmentOptions(weighted=False),
    "piecewise": AlignmentOptions(),
}


@dataclass(frozen=True)
class Case:
    """One scene: inverse depth [H, W] 1/m, where it is true, its sharp image, and what `classical` says."""

    source: str
    diopters: npt.NDArray[np.float32]
    valid: npt.NDArray[np.bool_]
    image: npt.NDArray[np.uint8]
    classical: FocusEstimate


def procedural_cases(count: int, size: tuple[int, int]) -> Iterator[Case]:
    bank, blur = SceneBank(7), BLUR_PX_PER_DIOPTER * size[1]
    for _ in range(count):
        scene = bank.scene(size, (blur * FARTHEST, blur * NEAREST))
        yield photographed("procedural", scene, np.ones(size, np.bool_), (FARTHEST, NEAREST), blur)


def rgbd_cases(folder: Path, size: tuple[int, int]) -> Iterator[Case]:
    blur = BLUR_PX_PER_DIOPTER * size[1]
    for frame in json.loads((folder / "manifest.json").read_text()):
        rgb = cv2.cvtColor(cv2.imread(str(folder / frame["rgb"])), cv2.COLOR_BGR2RGB)
        depth = cv2.imread(str(folder / frame["depth"]), cv2.IMREAD_UNCHANGED).astype(np.float32) * 1e-3
        rgb = cv2.resize(rgb, size[::-1], interpolation=cv2.INTER_AREA)
        depth = cv2.resize(depth, size[::-1], interpolation=cv2.INTER_NEAREST)
        far, near = np.percentile(1.0 / depth[depth > 0], (2, 98))
        margin = MARGIN * (near - far)
        scene, valid = scene_from_rgbd(rgb, depth, blur)
        yield photographed("RGB-D", scene, valid.numpy(), (max(far - margin, 0.0), near + margin), blur)


def photographed(
    source: str,
    scene: LayeredScene,
    valid: npt.NDArray[np.bool_],
    sweep: tuple[float, float],
    blur: float,
) -> Case:
    """A scene in pixels of blur, as `classical` sees it."""
    focus = np.linspace(*sweep, SLICES).astype(np.float32)
    linear = render_stack(scene, (blur * focus).tolist(), StackOptics(1.0))
    developed = develop_stack(linear, Exposure(), torch.Generator().manual_seed(0))
    images = np.ascontiguousarray(developed.permute(0, 2, 3, 1).numpy())
    stack = AlignedStack(images, np.ones(images.shape[:3], np.bool_), focus, blur, SLICES // 2)
    estimate = load_model("classical")(stack)
    diopters = (scene.depth_diopters.numpy() / blur).astype(np.float32)
    return Case(source, diopters, valid, all_in_focus(stack, estimate.diopters, blur), estimate)


def scored(case: Case, diopters: npt.NDArray[np.float32], sigma: npt.NDArray[np.float32]) -> list[float]:
    """abs_rel, and the share of pixels within one and two sigma, both as inverse depth."""
    usable = case.valid & (case.diopters > 1.0 / MOST_DEPTH)
    depth = 1.0 / np.maximum(diopters, 1.0 / MOST_DEPTH)
    error = depth_metrics(depth, np.where(usable, 1.0 / np.maximum(case.diopters, 1e-3), np.nan))["abs_rel"]
    # a large constant keeps all values above zero, below which the measure sees no estimate
    within = sigma_coverage(
        diopters + 1e3, sigma, np.where(usable, case.diopters + 1e3, np.nan).astype(float)
    )
    return [error, within[1.0], within[2.0]]


def measured(case: Case, focus: FocusEstimate, relative: npt.NDArray[np.float32]) -> dict[str, list[float]]:
    rows = {"focus alone": scored(case, focus.diopters, focus.sigma_diopters)}
    for name, options in OPTIONS.items():
        aligned = align_prior(focus, relative, options)
        if aligned is None:  # what the estimator does then
            rows[f"prior, {name}"] = rows[f"fused, {name}"] = rows["focus alone"]
            continue
        rows[f"prior, {name}"] = scored(case, aligned.diopters, aligned.sigma_diopters)
        fused = fuse(focus, aligned)
        rows[f"fused, {name}"] = scored(case, fused.diopters, fused.sigma_diopters)
    return rows


def print_tables(results: dict[tuple[str, str], list[dict[str, list[float]]]]) -> None:
    for (source, focus), rows in results.items():
        print(f"\n{source}, focus: {focus}, {len(rows)} scenes\n")
        print("| | abs_rel, mean | median | better than focus | within 1 sigma | 2 sigma |")
        print("|---|---|---|---|---|---|")
        alone = np.array([row["focus alone"][0] for row in rows])
        for name in rows[0]:
            values = np.array([row[name] for row in rows])
            better = "" if name == "focus alone" else f"{int((values[:, 0] < alone).sum())}"
            means, median = values.mean(axis=0), np.median(values[:, 0])
            print(f"| {name} | {means[0]:.4f} | {median:.4f} | {better} | {means[1]:.2f} | {means[2]:.2f} |")


def time_of(work: Callable[[], object]) -> str:
    """Wall and processor time: on a busy machine they differ."""
    wall = median_ms(work, runs=10)
    began = time.process_time()
    for _ in range(5):
        work()
    return f"{wall:.0f} ms, {(time.process_time() - began) / 5 * 1e3:.0f} ms of processor time"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=10)
    parser.add_argument("--size", type=int, nargs=2, default=(480, 640), help="height and width [px]")
    parser.add_argument("--rgbd", type=Path, help="folder of colour and depth images with a manifest.json")
    options = parser.parse_args()
    size = (options.size[0], options.size[1])

    results: dict[tuple[str, str], list[dict[str, list[float]]]] = defaultdict(list)
    cases = list(procedural_cases(options.scenes, size))
    if options.rgbd is not None:
        cases += rgbd_cases(options.rgbd, size)
    for index, case in enumerate(cases):
        rng = np.random.default_rng(index)
        relative = simulate_prior(case.diopters, rng).relative
        for name, focus in (
            ("classical", case.classical),
            ("simulated", simulated_focus(case.diopters, case.image, rng)),
        ):
            results[case.source, name].append(measured(case, focus, relative))
    print_tables(results)
    aligned = align_prior(focus, relative)
    print(f"\nalignment: {time_of(lambda: align_prior(focus, relative))}")
    if aligned is not None:
        print(f"fusion: {time_of(lambda: fuse(focus, aligned))}")


if __name__ == "__main__":
    main()
