"""What adaptive foci are worth: accuracy against the number of slices, for even and for adaptive sweeps.

.venv/bin/python benchmarks/adaptive_sweep.py [--scenes 6] [--models classical sweepnet] [--chart FILE]

Closed loop: the first sweep is even over what the driver sweeps by default, the second is planned from its
estimate, the third from the second's. Scenes lie somewhere within that, as a robot's do: the simulated desk
seen from several places, and random scenes of random extent. `even over the scene` is what a person who knows
the scene's nearest and farthest point would set by hand. The planner's constants were chosen on other
scenes of these kinds (the desk of seeds 100 to 107, random scenes of `SceneBank(77)`).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from hybriddepth_ros import FocalSlice, FocalStack
from hybriddepth_ros.adaptive_sweep import candidate_foci, demand_of, plan_foci
from hybriddepth_ros.chart_style import COLOURS, chart_figure, label_axis
from hybriddepth_ros.estimator import DepthEstimator, EstimatorOptions, load_estimator, to_metres
from hybriddepth_ros.evaluation.metrics import depth_metrics
from hybriddepth_ros.focal_stack import CameraIntrinsics
from hybriddepth_ros.image_files import ImageRGB
from hybriddepth_ros.models import FocusEstimate
from hybriddepth_ros.optics import ThinLens, blur_px_per_diopter
from hybriddepth_ros.simulation import desk_scene, develop, render, render_depth

Floats = npt.NDArray[np.float32]

NEAREST, FARTHEST = 1.0 / 0.33, 1.0 / 3.0  # 1/m, of the even sweep
COUNTS = (3, 4, 5, 6, 7, 8, 9)
BLUR_PX_PER_DIOPTER = 12.0  # of the simulated camera at its 640 px, here in a smaller picture
EVEN, BY_HAND, SECOND, THIRD = "even", "even over the scene", "adaptive, 2nd sweep", "adaptive, 3rd sweep"
MEASURES = ("AbsRel, every pixel", "AbsRel, even's pixels", "median sigma / depth", "coverage")
CHARTED = (0, 2, 3)
# Every pixel is scored, whatever the estimator would leave out; else fewer pixels would be better ones.
EVERY_PIXEL = EstimatorOptions(
    register=False, min_depth=0.01, max_depth=1000.0, max_relative_sigma=10.0, max_sigma_diopters=10.0
)
PUBLISHED = EstimatorOptions()


@dataclass(frozen=True)
class View:
    """A still camera before a scene: its picture at a focus [1/m], and the true depth [H, W] m."""

    name: str
    picture: Callable[[float], ImageRGB]
    depth: Floats
    lens: ThinLens

    @property
    def within(self) -> npt.NDArray[np.bool_]:
        """Which pixels [H, W] are of surfaces within the even sweep."""
        return (self.depth <= 1.0 / FARTHEST) & (self.depth >= 1.0 / NEAREST)


def lens_for(width: int) -> ThinLens:
    """One of 25 mm with the simulated camera's field of view, for images of this width [px]."""
    focal_px = 0.5 * width / np.tan(np.radians(0.5 * 52.35))
    aperture_mm = 1e3 * BLUR_PX_PER_DIOPTER / focal_px
    return ThinLens(25.0, 25.0 / aperture_mm, 25.0e3 / focal_px)


def desk_views(count: int, size: tuple[int, int]) -> Iterator[View]:
    """The desk from places up to 0.4 m nearer and turned by up to 20 degrees, without breathing."""
    height, width = size
    lens = lens_for(width)
    focal_px = lens.focal_length_px
    camera = CameraIntrinsics(focal_px, focal_px, 0.5 * (width - 1), 0.5 * (height - 1), width, height)
    for seed in range(count):
        rng = np.random.default_rng(seed)
        pose = np.eye(4)
        pose[:3, 3] = rng.uniform((-0.1, -0.1, 0.0), (0.1, 0.05, 0.15))
        turn = np.radians(rng.uniform((-8.0, -20.0, -5.0), (8.0, 20.0, 5.0)))
        pose[:3, :3] = cv2.Rodrigues(turn)[0]
        scene = desk_scene(seed)

        def picture(focus: float, scene: Any = scene, pose: Any = pose, seed: int = seed) -> ImageRGB:
            linear, _ = render(scene, pose, camera, lens, focus)
            return develop(linear, np.random.default_rng((seed, round(1e4 * focus))))

        yield View(f"desk {seed}", picture, render_depth(scene, pose, camera), lens)


def random_views(count: int, size: tuple[int, int]) -> Iterator[View]:
    """Random scenes over a random part, a sixth to all, of what is swept."""
    import torch

    from hybriddepth_ros.simulation import Exposure, StackOptics, develop_stack, render_stack
    from hybriddepth_ros.simulation.procedural_scenes import SceneBank

    lens = lens_for(size[1])
    blur = float(blur_px_per_diopter(lens))
    bank, rng = SceneBank(11), np.random.default_rng(11)
    seed = -1
    while count > 0:
        seed += 1
        extent = rng.uniform(1.0 / 6.0, 1.0) * (NEAREST - FARTHEST)
        far = rng.uniform(FARTHEST, NEAREST - extent)
        scene = bank.scene(size, (blur * far, blur * (far + extent)))

        def picture(focus: float, scene: Any = scene, seed: int = seed) -> ImageRGB:
            linear = render_stack(scene, [blur * focus], StackOptics(1.0))
            noise = torch.Generator().manual_seed(seed * 100_003 + round(1e4 * focus))
            developed = develop_stack(linear, Exposure(), noise)
            return np.ascontiguousarray(developed[0].permute(1, 2, 0).numpy())

        depth = blur / np.maximum(scene.depth_diopters.numpy(), 1e-6)
        view = View(f"random {seed}", picture, depth.astype(np.float32), lens)
        if view.within.mean() > 0.9:  # scenes may reach beyond the part that they are drawn for
            count -= 1
            yield view


@dataclass(frozen=True)
class Estimate:
    """depth and sigma [H, W] m of every pixel, and those that the depth node would publish, NaN elsewhere."""

    depth: Floats
    sigma: Floats
    published_depth: Floats
    published_sigma: Floats


def estimate_of(estimator: DepthEstimator, view: View, foci: Sequence[float]) -> Estimate:
    slices = tuple(FocalSlice(view.picture(focus), focus) for focus in foci)
    every = estimator(FocalStack(slices, lens=view.lens, name=view.name))
    focus = FocusEstimate(1.0 / every.depth, every.sigma / every.depth**2, every.blur_px_per_diopter)
    published_depth, published_sigma, _ = to_metres(focus, PUBLISHED)
    return Estimate(every.depth, every.sigma, published_depth, published_sigma)


def planned(view: View, estimate: Estimate, count: int) -> tuple[float, ...]:
    """The next sweep's foci; the same as the driver's."""
    demand = demand_of(estimate.published_depth, estimate.published_sigma)
    blur = float(blur_px_per_diopter(view.lens))
    if demand is None:
        return tuple(np.linspace(FARTHEST, NEAREST, count))
    return plan_foci(demand, candidate_foci(FARTHEST, NEAREST, blur), count, blur)


def measured(view: View, estimate: Estimate, even: Estimate) -> tuple[float, ...]:
    """MEASURES, of the pixels whose true depth lies within the even sweep.

    The second is of those of them that `even` would publish: the same pixels for every way to choose foci.
    """
    within = view.within
    of_even = within & np.isfinite(even.published_depth)
    return (
        depth_metrics(estimate.depth, view.depth, within)["abs_rel"],
        depth_metrics(estimate.depth, view.depth, of_even)["abs_rel"] if of_even.any() else np.nan,
        float(np.nanmedian((estimate.sigma / estimate.depth)[within])),
        float(np.isfinite(estimate.published_depth[within]).mean()),
    )


def run(view: View, estimator: DepthEstimator, count: int) -> dict[str, tuple[float, ...]]:
    """The measures of each way to choose so many foci."""
    truth = 1.0 / view.depth[np.isfinite(view.depth)]
    by_hand = np.linspace(*np.clip((truth.min(), truth.max()), FARTHEST, NEAREST), count)
    even = estimate = estimate_of(estimator, view, np.linspace(FARTHEST, NEAREST, count).tolist())
    results = {EVEN: measured(view, even, even)}
    for name in (SECOND, THIRD):
        estimate = estimate_of(estimator, view, planned(view, estimate, count))
        results[name] = measured(view, estimate, even)
    results[BY_HAND] = measured(view, estimate_of(estimator, view, by_hand.tolist()), even)
    return results


Table = dict[str, npt.NDArray[np.float64]]  # way to choose -> [COUNTS, scenes, MEASURES]


def views_of(scenes: int, size: tuple[int, int]) -> list[View]:
    return [*desk_views(scenes, size), *random_views(scenes, size)]


def results_of(
    model: str, count: int, scenes: int, size: tuple[int, int]
) -> list[dict[str, tuple[float, ...]]]:
    """One of `run` per view."""
    estimator = load_estimator(model, device="cpu", options=EVERY_PIXEL)
    return [run(view, estimator, count) for view in views_of(scenes, size)]


def table_of(rows: Sequence[list[dict[str, tuple[float, ...]]]]) -> Table:
    return {name: np.array([[view[name] for view in row] for row in rows]) for name in rows[0][0]}


def print_table(model: str, table: Table) -> None:
    """Means over the scenes; of the second sweep's AbsRel over the even one's the geometric mean, and in how
    many scenes it is below 1.
    """
    names = (EVEN, BY_HAND, SECOND, THIRD)
    print(f"\n{model}, {table[EVEN].shape[1]} scenes; {' / '.join(MEASURES)}\n")
    print(f"| slices | {' | '.join(names)} | 2nd / even | better scenes |")
    print("|---|" + "---|" * (len(names) + 2))
    for row, count in enumerate(COUNTS):
        cells = []
        for name in names:
            every, same, sigma, coverage = np.nanmean(table[name][row], axis=0)
            cells.append(f"{every:.3f} / {same:.3f} / {sigma:.3f} / {100.0 * coverage:.0f} %")
        ratio = table[SECOND][row, :, 0] / table[EVEN][row, :, 0]
        cells.append(f"{np.exp(np.log(ratio).mean()):.2f}")
        cells.append(str(int((ratio < 1.0).sum())))
        print(f"| {count} | {' | '.join(cells)} |")


def draw(tables: dict[str, Table], file: Path) -> None:
    figure, axes = chart_figure(len(CHARTED) * len(tables), 2.9, 2.9)
    for column, axis in enumerate(axes):
        model, measure = list(tables)[column // len(CHARTED)], CHARTED[column % len(CHARTED)]
        highest = 0.0
        for colour, name in zip(COLOURS, (EVEN, BY_HAND, SECOND, THIRD), strict=False):
            values = np.nanmean(tables[model][name][:, :, measure], axis=1)
            highest = max(highest, float(values.max()))
            axis.plot(COUNTS, values, color=colour, marker="o", markersize=3, linewidth=1.3, label=name)
        axis.set_title(model, fontsize=9)
        axis.set_ylim(0.0, 1.05 * highest)
        label_axis(axis, "slices", MEASURES[measure], legend=column == 0)
    figure.savefig(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=6, help="of the desk, and as many random ones")
    parser.add_argument("--size", type=int, nargs=2, default=(240, 320), help="height and width [px]")
    parser.add_argument("--models", nargs="+", default=["sweepnet", "classical"])
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--chart", type=Path, help="PNG file to draw")
    options = parser.parse_args()
    size = (options.size[0], options.size[1])
    tables = {}
    with ProcessPoolExecutor(options.jobs, get_context("spawn")) as pool:
        for model in options.models:
            jobs = [pool.submit(results_of, model, count, options.scenes, size) for count in COUNTS]
            tables[model] = table_of([job.result() for job in jobs])
            print_table(model, tables[model])
            sys.stdout.flush()
    if options.chart is not None:
        draw(tables, options.chart)


if __name__ == "__main__":
    main()
