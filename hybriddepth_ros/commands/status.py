"""The line that tells how a running graph is doing: rates, latency, and what was dropped and why."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hybriddepth_ros.ros.graph import DepthGraph

_LOSSES = ("dropped", "refused", "lost", "exceptions", "failures")
_REWRITE = "\r\x1b[2K"  # to the line's begin, and nothing in it


def losses(graph: DepthGraph) -> dict[str, int]:
    """`node: cause` -> count, of everything that either node dropped, refused or failed at."""
    found = {}
    for node in (graph.focus_sweep, graph.depth):
        for cause, count in {**node.status()[2], **node.counters.snapshot()}.items():
            if isinstance(count, int) and count > 0 and any(word in cause for word in _LOSSES):
                found[f"{node.get_name()}: {cause}"] = count
    return found


def describe(graph: DepthGraph) -> str:
    """One line about both nodes, cheap enough for once per second."""
    from hybriddepth_ros.ros.slice_pipeline import NOT_NEEDED

    sweep: Mapping[str, Any] = graph.focus_sweep.status()[2]
    depth: Mapping[str, Any] = graph.depth.status()[2]
    counts = graph.depth.counters.snapshot()
    parts = [f"{sweep.get('slice rate [Hz]', 0.0):5.1f} slices/s", f"{depth['depth rate [Hz]']:5.1f} depth/s"]
    if "latency p50 [ms]" in depth:
        parts.append(f"latency {depth['latency p50 [ms]']:.0f} ms (p95 {depth['latency p95 [ms]']:.0f})")
    elif "estimate running [s]" in depth:
        parts.append(f"first estimate running for {depth['estimate running [s]']:.0f} s")
    elif counts.get("stacks not needed") or counts.get(NOT_NEEDED):
        parts.append("idle: nobody subscribes to depth")
    dropped = losses(graph)
    if dropped:
        worst = max(dropped, key=lambda cause: dropped[cause])
        parts.append(f"lost {sum(dropped.values())} (most: {worst} {dropped[worst]})")
    return "  ".join(parts)


class StatusLine:
    """A line that is rewritten in place on a terminal, and printed every `quiet_s` elsewhere (a log, CI)."""

    def __init__(self, quiet_s: float = 10.0) -> None:
        self._terminal = sys.stdout.isatty()
        self._period_s = 1.0 if self._terminal else quiet_s
        self._next = time.monotonic() + min(1.0, self._period_s)

    @property
    def due(self) -> bool:
        return time.monotonic() >= self._next

    def rest(self, after_s: float) -> None:
        """Not due again before `after_s`."""
        self._next = time.monotonic() + after_s

    def show(self, text: str) -> None:
        """Shows the text now; `due` says when to come again."""
        self.rest(self._period_s)
        start, end = (_REWRITE, "") if self._terminal else ("", "\n")
        print(f"{start}{text}", end=end, flush=True)

    def tell(self, text: str) -> None:
        """A line that stays."""
        print(f"{_REWRITE if self._terminal else ''}{text}", flush=True)

    def __enter__(self) -> StatusLine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._terminal:
            print(flush=True)
