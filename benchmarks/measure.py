"""What every benchmark shares: medians, and a plain copy of the same bytes as the machine's yardstick."""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np


def median_ms(work: Callable[[], object], runs: int = 30, warm_up: int = 3) -> float:
    """Median wall time of one call, in milliseconds."""
    for _ in range(warm_up):
        work()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


def copy_ms(size_bytes: int) -> float:
    """Median time of a plain cv2 copy of this many bytes."""
    source = np.random.default_rng(0).integers(0, 256, (max(size_bytes // 1024, 1), 1024), np.uint8)
    target = np.empty_like(source)
    return median_ms(lambda: cv2.copyTo(source, None, target), runs=50)


def report(results: list[dict[str, Any]]) -> None:
    """Print the results with machine and commit as JSON."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent,
    ).stdout.strip()
    machine = f"{platform.machine()}, {cv2.getNumberOfCPUs()} cores"
    print(json.dumps({"machine": machine, "commit": commit, "results": results}, indent=2))


def result(name: str, value_ms: float, baseline_ms: float) -> dict[str, Any]:
    """One row: a time, the copy of the same bytes in the same run, and their ratio."""
    return {
        "name": name,
        "value": round(value_ms, 3),
        "unit": "ms",
        "baseline": round(baseline_ms, 4),
        "ratio": round(value_ms / baseline_ms, 1),
    }
