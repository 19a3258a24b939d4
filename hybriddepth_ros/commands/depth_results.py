"""What `hybriddepth depth` writes and prints of one estimate."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hybriddepth_ros.commands.output import OutputFolder
from hybriddepth_ros.commands.versions import versions
from hybriddepth_ros.estimator import DepthEstimate, DepthEstimator
from hybriddepth_ros.focal_stack import CameraIntrinsics, FocalStack
from hybriddepth_ros.image_files import encode_png
from hybriddepth_ros.pictures import Panel, depth_panel, draw_panels, sigma_panel
from hybriddepth_ros.point_cloud import PointCloudOptions, project, write_ply
from hybriddepth_ros.report import number


def summarise(
    stack: FocalStack,
    estimate: DepthEstimate,
    estimator: DepthEstimator,
    elapsed_ms: float,
) -> dict[str, Any]:
    """What summary.json says; depths, sigmas in metres, residuals in pixels of the full image."""
    registration = estimate.registration
    known = estimate.depth[np.isfinite(estimate.depth)]
    percentiles = (1, 5, 25, 50, 75, 95, 99)
    depth_at = np.percentile(known, percentiles) if known.size else [math.nan] * len(percentiles)
    return {
        "stack": stack.name,
        "model": estimator.model_name,
        "weights": estimator.weights,
        "prior": estimator.prior_name,
        "prior_weights": estimator.prior_weights,
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
        "removed_px": {
            name: {"limit": getattr(estimator.options, name), "pixels": count}
            for name, count in estimate.removed.items()
        },
        "depth_percentiles_m": dict(zip(map(str, percentiles), depth_at, strict=True)),
        "median_sigma_m": float(np.median(estimate.sigma[np.isfinite(estimate.sigma)]))
        if known.size
        else math.nan,
        "blur_px_per_diopter": estimate.blur_px_per_diopter,
        "timings_ms": {**estimate.timings_ms, "total": elapsed_ms},
        "versions": versions(),
    }


def write_results(
    folder: OutputFolder, estimate: DepthEstimate, summary: dict[str, Any], fov_deg: float
) -> None:
    """Stages every file; a stack without intrinsics gets a cloud as wide as `fov_deg` [degrees] says."""
    camera = estimate.camera or guess_camera(estimate.depth.shape, fov_deg)
    summary["camera"] = {
        **{name: getattr(camera, name) for name in ("fx", "fy", "cx", "cy")},
        "source": "stack" if estimate.camera else f"guessed: horizontal field of view of {fov_deg:g} degrees",
    }
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


def print_summary(stack: FocalStack, estimate: DepthEstimate, summary: dict[str, Any], out: Path) -> None:
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
            number(entry["residual_before_px"], 2, "px"),
            number(entry["residual_after_px"], 2, "px"),
            note,
        )
    console = Console(highlight=False)
    console.print(table)
    at = summary["depth_percentiles_m"]
    print(
        f"estimated   {summary['valid_share']:.1%} of the pixels, {summary['model']} on {summary['device']}"
    )
    if not summary["valid_share"]:
        print("depth       none: no pixel is certain enough and between min_depth and max_depth.")
        for line in _why_none(summary):
            print(f"            {line}")
        print(f"written     {out}")
        return
    print(f"depth       {at['5']:.2f} m (5 %)  {at['50']:.2f} m (median)  {at['95']:.2f} m (95 %)")
    print(f"sigma       {summary['median_sigma_m'] * 100:.1f} cm (median)")
    print(f"time        {summary['timings_ms']['total']:.0f} ms")
    if estimate.camera is None:
        print("points.ply  the stack has no intrinsics: its width is a guess, see --fov-deg; depth is not")
    print(f"written     {out}")


def _why_none(summary: dict[str, Any]) -> list[str]:
    """What to look at where there is no estimate at all: the limits on sigma, if they removed most of it."""
    width, height = summary["size_px"]
    units = {"max_sigma_diopters": " 1/m", "max_relative_sigma": ""}
    removed = {name: summary["removed_px"][name] for name in units}
    worst = max(removed, key=lambda name: removed[name]["pixels"])
    if removed[worst]["pixels"] < width * height / 2:
        return ["Are the focus distances in metres, and do the images differ in focus?"]
    return [
        *(
            f"{name}, {entry['limit']:g}{units[name]}: removed {entry['pixels']} of {width * height} pixels."
            for name, entry in removed.items()
            if entry["pixels"]
        ),
        f"Smaller steps of focus make sigma smaller; a larger limit, -p {worst}:=..., shows what is there.",
    ]


def guess_camera(shape: tuple[int, ...], fov_deg: float) -> CameraIntrinsics:
    """A pinhole with this horizontal field of view, square pixels and the principal point in the middle."""
    height, width = shape[:2]
    focal_px = 0.5 * width / math.tan(math.radians(fov_deg) / 2)
    return CameraIntrinsics(focal_px, focal_px, (width - 1) / 2, (height - 1) / 2, width, height)
