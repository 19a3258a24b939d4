"""Peak memory of CrossDepth's fusion, and of the whole model, per image size.

    python benchmarks/crossdepth_memory.py

Each size in a fresh process: resident memory at its highest, and how much of it came with the call. Beside it
what one dense attention takes (4 heads, one float32 per pair of tokens); the published code does eight per
image.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from measure import report

from hybriddepth_ros.models import CrossAttentionFusion, CrossDepth

SIZES = ((224, 224), (384, 576), (480, 640))
SLICES = 5
THREADS = 2


def resident_megabytes(field: str) -> float:
    """VmRSS (now) or VmHWM (highest) of this process, in MB. ru_maxrss would show the parent's."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError(f"/proc/self/status has no {field}")


def measure_one(height: int, width: int, whole: bool) -> str:
    """`peak before seconds` of one call in this process."""
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    maps = [0.5 + torch.rand(1, 1, height, width) for _ in range(3)]
    with torch.inference_mode():
        if whole:
            model = CrossDepth(invert_depth=True).eval()
            inputs = (torch.rand(1, 3, height, width), torch.randn(1, SLICES, 3, height, width))
            focus = torch.linspace(0.4, 2.5, SLICES)[None]
            before, start = resident_megabytes("VmRSS"), time.perf_counter()
            model(*inputs, focus)
        else:
            fusion = CrossAttentionFusion().eval()
            before, start = resident_megabytes("VmRSS"), time.perf_counter()
            fusion(*maps)
    return f"{resident_megabytes('VmHWM'):.0f} {before:.0f} {time.perf_counter() - start:.2f}"


def main() -> None:
    """Print the table as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", nargs=2, type=int, metavar=("HEIGHT", "WIDTH"), help="this size, here")
    parser.add_argument("--whole", action="store_true", help="with --one: the whole model")
    options = parser.parse_args()
    if options.one:
        print(measure_one(*options.one, options.whole))
        return
    results: list[dict[str, Any]] = []
    for height, width in SIZES:
        tokens = (height // 4) * (width // 4)
        for part in ("fusion", "whole"):
            command = [sys.executable, __file__, "--one", str(height), str(width)]
            finished = subprocess.run(
                [*command, *(["--whole"] if part == "whole" else [])],
                capture_output=True,
                text=True,
                check=True,
            )
            peak, before, seconds = (float(word) for word in finished.stdout.split())
            results.append(
                {
                    "name": f"crossdepth {part} {height}x{width}",
                    "peak_mb": peak,
                    "added_mb": round(peak - before),
                    "one_dense_attention_mb": round(4 * tokens**2 * 4 / 1e6),
                    "seconds": seconds,
                }
            )
    report(results)


if __name__ == "__main__":
    main()
