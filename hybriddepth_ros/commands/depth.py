"""`hybriddepth depth`: a focal stack on disk becomes depth, sigma, pictures and a point cloud on disk."""

from __future__ import annotations

import io
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import numpy.typing as npt
import typer

from hybriddepth_ros.commands.options import parse_assignments
from hybriddepth_ros.commands.output import OutputFolder
from hybriddepth_ros.parameters import from_mapping

if TYPE_CHECKING:
    from hybriddepth_ros import CameraIntrinsics, DepthEstimate, DepthEstimator, FocalStack

FILES = ("depth.npy", "sigma.npy", "aif.png", "depth.png", "points.ply", "summary.json")


def depth(
    stack: Annotated[
        Path,
        typer.Argument(
            metavar="STACK",
            help="Folder of images whose names end in the focus distance in metres (image_3_0.90.jpg; inf is "
            "allowed), or a stack.yaml.",
        ),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for the results.  [default: out/<name of the stack>]")
    ] = None,
    model: Annotated[str, typer.Option("--model", help="Depth model, by its name.")] = "classical",
    device: Annotated[
        str, typer.Option("--device", help="Where the model runs: auto, cpu, cuda, cuda:1 ...")
    ] = "auto",
    parameter: Annotated[
        list[str] | None,
        typer.Option(
            "-p", metavar="NAME:=VALUE", help="An option of the estimator (max_depth:=5); may be repeated."
        ),
    ] = None,
    fov_deg: Annotated[
        float,
        typer.Option(
            "--fov-deg",
            min=1.0,
            max=170.0,
            help="Horizontal field of view [degrees] for the point cloud, where the stack has no intrinsics.",
        ),
    ] = 65.0,
) -> int:
    """Depth in metres with a sigma per pixel from a focal stack: a folder of images, or a stack.yaml.

    Writes depth.npy and sigma.npy (float32 metres, NaN = no estimate), aif.png (all in focus), depth.png,
    points.ply and summary.json, and prints how well each slice could be aligned.
    """
    from hybriddepth_ros.estimator import EstimatorOptions, load_estimator
    from hybriddepth_ros.focal_stack import FocalStack

    options = from_mapping(EstimatorOptions, parse_assignments(parameter or ()), where="-p")
    estimator = load_estimator(model, device, options)
    out = out or Path("out") / stack.resolve().name.removesuffix(".yaml")
    with OutputFolder(out, FILES) as folder:  # refused here rather than after the computation
        focal_stack = FocalStack.load(stack)
        began = time.perf_counter()
        estimate = estimator(focal_stack)
        elapsed_ms = (time.perf_counter() - began) * 1e3
        camera = estimate.camera or guess_camera(estimate.depth.shape, fov_deg)
        summary = summarise(focal_stack, estimate, estimator, camera, elapsed_ms)
        write_results(folder, estimate, camera, summary)
    _print_summary(focal_stack, estimate, summary, out)
    return 0


def guess_camera(shape: tuple[int, ...], fov_deg: float) -> CameraIntrinsics:
    """A pinhole with this horizontal field of view, square pixels and the principal point in the middle."""
    from hybriddepth_ros.focal_stack import CameraIntrinsics

    height, width = shape[:2]
    focal_px = 0.5 * width / math.tan(math.radians(fov_deg) / 2)
    return CameraIntrinsics(focal_px, focal_px, (width - 1) / 2, (height - 1) / 2, width, height)


def summarise(
    stack: FocalStack,
    estimate: DepthEstimate,
    estimator: DepthEstimator,
    camera: CameraIntrinsics,
    elapsed_ms: float,
) -> dict[str, Any]:
    """What summary.json says; depths, sigmas in metres, residuals in pixels of the full image."""
    from hybriddepth_ros.commands.versions import versions

    registration = estimate.registration
    known = estimate.depth[np.isfinite(estimate.depth)]
    percentiles = (1, 5, 25, 50, 75, 95, 99)
    depth_at = np.percentile(known, percentiles) if known.size else [math.nan] * len(percentiles)
    return {
        "stack": stack.name,
        "model": estimator.model_name,
        "device": estimator.device,
        "size_px": list(estimate.depth.shape[::-1]),
        "reference_slice": registration.reference,
        "slices": [
            {
                "focus_distance_m": 1.0 / focus if focus > 0 else None,
                "focus_diopters": focus,
                "residual_before_px": registration.residual_before_px[i],
                "residual_after_px": registration.residual_px[i],
                "used": bool(registration.used[i]),
            }
            for i, focus in enumerate(stack.focus_diopters)
        ],
        "slices_dropped": int((~registration.used).sum()),
        "valid_share": float(np.isfinite(estimate.depth).mean()),
        "depth_percentiles_m": dict(zip(map(str, percentiles), depth_at, strict=True)),
        "median_sigma_m": float(np.median(estimate.sigma[np.isfinite(estimate.sigma)]))
        if known.size
        else math.nan,
        "blur_px_per_diopter": estimate.blur_px_per_diopter,
        "camera": {
            "fx": camera.fx,
            "fy": camera.fy,
            "cx": camera.cx,
            "cy": camera.cy,
            "source": "stack" if estimate.camera else "guessed from --fov-deg",
        },
        "timings_ms": {**estimate.timings_ms, "total": elapsed_ms},
        "versions": versions(),
    }


def write_results(
    folder: OutputFolder, estimate: DepthEstimate, camera: CameraIntrinsics, summary: dict[str, Any]
) -> None:
    """Stages every file of FILES."""
    from hybriddepth_ros.pictures import Panel, depth_panel, draw_panels, encode_png, sigma_panel
    from hybriddepth_ros.point_cloud import PointCloudOptions, project, write_ply

    folder.write_bytes("depth.npy", _npy(estimate.depth))
    folder.write_bytes("sigma.npy", _npy(estimate.sigma))
    folder.write_bytes("aif.png", encode_png(estimate.all_in_focus))
    panels = [
        Panel("all in focus", estimate.all_in_focus),
        depth_panel("depth", estimate.depth),
        sigma_panel("1 sigma", estimate.sigma),
    ]
    folder.write_bytes("depth.png", draw_panels(panels, columns=3))
    cloud = project(
        estimate.depth, estimate.sigma, estimate.all_in_focus, camera, PointCloudOptions(organised=False)
    )
    write_ply(folder.staged_path("points.ply"), cloud)
    folder.write_json("summary.json", summary)


def _npy(array: npt.NDArray[np.float32]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def _print_summary(stack: FocalStack, estimate: DepthEstimate, summary: dict[str, Any], out: Path) -> None:
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    registration = estimate.registration
    table = Table(
        box=SIMPLE, title=f"{stack.name}: alignment to slice {registration.reference}", title_justify="left"
    )
    for heading in ("slice", "focus", "residual before", "after", ""):
        table.add_column(heading, justify="left" if not heading else "right")
    for i, entry in enumerate(summary["slices"]):
        distance = entry["focus_distance_m"]
        note = "reference" if i == registration.reference else "" if entry["used"] else "dropped"
        table.add_row(
            str(i),
            "inf" if distance is None else f"{distance:.2f} m",
            f"{entry['residual_before_px']:.2f} px",
            f"{entry['residual_after_px']:.2f} px",
            note,
        )
    console = Console(highlight=False)
    console.print(table)
    at = summary["depth_percentiles_m"]
    print(
        f"estimated   {summary['valid_share']:.1%} of the pixels, {summary['model']} on {summary['device']}"
    )
    print(f"depth       {at['5']:.2f} m (5 %)  {at['50']:.2f} m (median)  {at['95']:.2f} m (95 %)")
    print(f"sigma       {summary['median_sigma_m'] * 100:.1f} cm (median)")
    print(f"time        {summary['timings_ms']['total']:.0f} ms")
    if estimate.camera is None:
        print("points.ply  the stack has no intrinsics: its width is a guess, see --fov-deg; depth is not")
    print(f"written     {out}")
