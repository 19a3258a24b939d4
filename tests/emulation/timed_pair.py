"""An emulated pair as one camera, and the judge of its frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hybriddepth_ros.cameras.assembled import AssembledCamera, AssemblyOptions
from hybriddepth_ros.cameras.sweep_queue import SweptFrame
from hybriddepth_ros.emulation.timed_parts import (
    TimedLens,
    TimedOptions,
    TimedSource,
    VirtualTime,
    true_positions,
)


@dataclass
class Pair:
    options: TimedOptions
    clock: VirtualTime
    lens: TimedLens
    source: TimedSource

    @classmethod
    def of(cls, **options: Any) -> Pair:
        made, clock = TimedOptions(**options), VirtualTime()
        lens = TimedLens(made, clock)
        return cls(made, clock, lens, TimedSource(made, clock, lens))

    def camera(self, **assembly: Any) -> AssembledCamera:
        """The lens counts in diopters, and nobody knows of its hysteresis."""
        return AssembledCamera(
            "timed", self.source, self.lens, AssemblyOptions(**{"focus_in_diopters": True, **assembly})
        )


def shows(swept: SweptFrame, focus_diopters: float, tolerance: float = 1e-9) -> bool:
    """Whether the lens truly stood at this focus during the whole exposure, and the frame says so."""
    lowest, highest = true_positions(swept.frame.image)
    return (
        swept.frame.focus_diopters == focus_diopters
        and abs(lowest - focus_diopters) <= tolerance
        and abs(highest - focus_diopters) <= tolerance
    )
