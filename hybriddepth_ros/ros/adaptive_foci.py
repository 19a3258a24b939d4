"""`sweep: adaptive`: foci where the last estimates want them, and a full sweep every few seconds. Needs no
rclpy.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hybriddepth_ros.adaptive_sweep import FocusDemand, candidate_foci, plan_foci
from hybriddepth_ros.cameras import FocusCamera
from hybriddepth_ros.errors import CameraError
from hybriddepth_ros.optics import blur_px_per_diopter


@dataclass(frozen=True)
class _Planned:
    foci: tuple[float, ...]
    asked_s: float


class AdaptiveFoci:
    """A Pattern that plans for the newest demand; the full sweep where there is none, or none new.

    slice_count: of a planned sweep; full_sweep_period_s: time from one full sweep to the next, and how old a
    demand may be. `take` may be called from any thread. CameraError for a camera whose lens is not known.
    """

    def __init__(
        self,
        camera: FocusCamera,
        focus_range_diopters: tuple[float, float],
        slice_count: int,
        full_sweep_period_s: float,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        if camera.lens is None:
            raise CameraError(
                "sweep: adaptive plans by the lens's blur, expected a camera whose calibration or options say"
                " it, got one without"
            )
        self._blur = float(blur_px_per_diopter(camera.lens))
        told_apart: dict[float, float] = {}  # by what the lens makes of it: a motor may have coarse steps
        for focus in candidate_foci(*focus_range_diopters, self._blur):
            told_apart.setdefault(camera.nearest_focus(focus), focus)
        self._candidates = tuple(sorted(told_apart.values()))
        self._count = min(slice_count, len(self._candidates))
        self._period_s, self._now_s = full_sweep_period_s, now_s
        self._planned: _Planned | None = None
        self._last_full_s = -float("inf")
        self.full_sweeps = self.adaptive_sweeps = 0

    def take(self, demand: FocusDemand) -> None:
        """Plan the next sweeps for this demand."""
        asked_s = self._now_s()
        self._planned = _Planned(plan_foci(demand, self._candidates, self._count, self._blur), asked_s)

    def __call__(self, foci: tuple[float, ...]) -> Sequence[float]:
        now_s, planned = self._now_s(), self._planned
        due = now_s - self._last_full_s >= self._period_s
        if due or planned is None or now_s - planned.asked_s > self._period_s:
            self._last_full_s = now_s
            self.full_sweeps += 1
            return foci
        self.adaptive_sweeps += 1
        return planned.foci
