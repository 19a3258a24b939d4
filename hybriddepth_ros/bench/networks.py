"""Time of the paper's network, made ready to run, against its plain schedule in PyTorch in the same run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hybriddepth_ros.bench.plain_networks import plain
from hybriddepth_ros.bench.rows import Row
from hybriddepth_ros.models import HybridDepth, for_inference
from hybriddepth_ros.models.focal_volume import FocusDepth, enlarged, padded, regress
from hybriddepth_ros.models.inputs import to_device

HEIGHT, WIDTH, SLICES = 480, 640, 5
NEEDED_GB = 5.0
GPU_TARGETS = {"hybriddepth_with_transfers": "<= 10", "hybriddepth_rolling": "<= 5"}


def network_rows(rounds: int, patience_s: float) -> list[Row]:
    """hybriddepth_float32 and hybriddepth_reduced (bfloat16 on a GPU, int8 else) [ms], of drawn weights; on a
    GPU also hybriddepth_with_transfers, the latter from images in the machine's memory to depth there.

    hybriddepth_rolling: one new slice of a still scene, a whole sweep of them divided by its slices.

    baseline: eager PyTorch in the plain schedule; ratio: baseline / value. No rows where one eager call takes
    so long that all would take more than `patience_s`.
    """
    device = "cuda" if cuda_is_here() else "cpu"
    torch.manual_seed(0)
    network = HybridDepth(invert_depth=True).eval()
    eager: Any = plain(network).to(device)
    inputs = made_inputs(device)
    calls: dict[str, Callable[[], object]] = {"eager": lambda: eager(*inputs)}
    with torch.inference_mode():
        if 2.0 * (rounds + 1) * timed(calls["eager"], inputs[0].device) > patience_s:
            return []
        whole = for_inference(network, device)
        reduced = for_inference(network, device, "bfloat16" if device == "cuda" else "int8")
        calls["hybriddepth_float32"] = lambda: whole(*inputs)
        calls["hybriddepth_reduced"] = lambda: reduced(*inputs)
        by_slice = reduced if device == "cuda" else whole  # int8 adds ranges up over all slices
        kept = [by_slice.focal_volume.features(padded(inputs[1][:, index])) for index in range(SLICES)]
        calls["hybriddepth_rolling"] = lambda: rolling_sweep(by_slice, kept, *inputs)
        if device == "cuda":
            given = [each.cpu().numpy() for each in inputs]
            calls["hybriddepth_with_transfers"] = lambda: reduced(
                *(to_device(each, device) for each in given)
            ).depth.cpu()
        times = medians_s(calls, inputs[0].device, rounds)
    times["hybriddepth_rolling"] /= SLICES
    eager_ms = 1e3 * times.pop("eager")
    targets = GPU_TARGETS if device == "cuda" else {}
    return [
        Row(name, 1e3 * s, "ms", eager_ms, eager_ms / (1e3 * s), targets.get(name, ""), "value")
        for name, s in times.items()
    ]


def rolling_sweep(
    network: HybridDepth,
    kept: list[tuple[Tensor, ...]],
    rgb: Tensor,
    stack: Tensor,
    focus_distances: Tensor,
) -> None:
    """What `models.published_rolling` has the network do for a sweep of new slices of a still scene.

    kept: each slice's features; the rest: inputs as HybridDepth's.
    """
    volume = network.focal_volume
    for index in range(SLICES):
        kept[index] = volume.features(padded(stack[:, index]))
        if index == 0:
            relative = network.relative_depth(rgb)
        cost = volume.cost_of(*map(torch.cat, zip(*kept, strict=True)))
        network.fuse(relative, FocusDepth(*regress(enlarged(cost, HEIGHT, WIDTH), focus_distances)))


def cuda_is_here() -> bool:
    """Whether PyTorch has a GPU to run on."""
    return torch.cuda.is_available()


def medians_s(
    calls: Mapping[str, Callable[[], object]], device: torch.device, rounds: int
) -> dict[str, float]:
    """Name -> median wall time [s]. Rounds go from call to call, so that a slow minute hits all of them."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for index in range(rounds + 1):
        for name, call in calls.items():
            seconds = timed(call, device)
            if index:  # the first round chooses algorithms and touches memory
                times[name].append(seconds)
    return {name: statistics.median(values) for name, values in times.items()}


def timed(call: Callable[[], object], device: torch.device) -> float:
    """Wall time of one call [s]."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def made_inputs(device: str, height: int = HEIGHT, width: int = WIDTH) -> tuple[Tensor, Tensor, Tensor]:
    """rgb, a stack of it at rising blur, and focus distances [m]."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, height // 8, width // 8, generator=generator)
    fine = torch.rand(1, 3, height, width, generator=generator)
    smooth = nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0.0, 1.0)
    rgb = 0.7 * smooth + 0.3 * fine
    slices = list(_blurred(rgb))
    stack = (torch.stack(slices, dim=1) - 0.45) / 0.225
    return rgb.to(device), stack.to(device), torch.linspace(0.4, 2.5, SLICES)[None].to(device)


def _blurred(rgb: Tensor) -> Iterator[Tensor]:
    image = rgb
    for _ in range(SLICES):
        yield image
        image = nn.functional.avg_pool2d(image, 3, stride=1, padding=1)


def available_gb() -> float:
    """Memory that this machine could give [GB]; infinite where it does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return float("inf")
    found = next((line for line in lines if line.startswith("MemAvailable")), None)
    return float(found.split()[1]) * 1024e-9 if found else float("inf")
