"""One measured figure beside its baseline and its target, and on what it was measured."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RATIO, VALUE = "ratio", "value"


@dataclass(frozen=True)
class Row:
    """value and baseline in `unit`, of the same run; ratio: as the figure's definition says.

    target: "<= 0.35" or ">= 25", of the `target_of`: ratio or value; "" = none.
    """

    name: str
    value: float
    unit: str
    baseline: float | None = None
    ratio: float | None = None
    target: str = ""
    target_of: str = VALUE

    @property
    def met(self) -> bool | None:
        """Whether the target was met, None without one."""
        if not self.target:
            return None
        found = self.ratio if self.target_of == RATIO else self.value
        sign, limit = self.target.split()
        if found is None:
            return False
        return found <= float(limit) if sign == "<=" else found >= float(limit)

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        row: dict[str, Any] = {
            "name": self.name,
            "value": self.value,
            "unit": self.unit,
            "baseline": self.baseline,
            "ratio": self.ratio,
        }
        if self.target:
            row |= {"target": self.target, "target_of": self.target_of, "met": self.met}
        return row


def against(name: str, value: float, unit: str, baseline: float, target: str = "", of: str = RATIO) -> Row:
    """A row whose ratio is value / baseline."""
    return Row(name, value, unit, baseline, value / baseline, target, of)


def document(rows: list[Row], notes: list[str]) -> dict[str, Any]:
    """What `--json` writes. notes: one line for each thing that was left out."""
    return {
        "machine": machine(),
        "commit": commit(),
        "results": [row.plain() for row in rows],
        "left_out": notes,
    }


def machine() -> str:
    """Processor and cores that this process may use, as a reader needs them to compare figures."""
    return f"{processor()}, {len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}"


def processor() -> str:
    """The CPU's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def commit() -> str:
    """Of the checkout that the package lies in, "+" after it if files differ; else the package's version."""
    from hybriddepth_ros import __version__

    folder = Path(__file__).resolve().parents[2]
    try:
        found = _git(folder, "rev-parse", "--short", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no", "--", ":!docs")
    except (OSError, subprocess.CalledProcessError):
        return __version__
    return f"{found}+" if changed else found


def _git(folder: Path, *arguments: str) -> str:
    ran = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return ran.stdout.strip()
