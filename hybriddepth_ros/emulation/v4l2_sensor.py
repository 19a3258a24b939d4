"""The emulated camera behind the driver: controls with their automatics, and frames on a clock.

Nothing runs in the background: whenever the driver is asked, what would have happened until then is worked
out from the clock.
"""

from __future__ import annotations

import errno
import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from hybriddepth_ros.emulation.v4l2_parts import (
    EXPOSURE_ABSOLUTE,
    EXPOSURE_AUTO,
    EXPOSURE_AUTO_PRIORITY,
    FOCUS_ABSOLUTE,
    MENU,
    EmulatedControl,
    Faults,
)

_EXPOSURE_UNIT_NS = 100_000
_AUTOMATIC_TAKES_NS = 500_000_000
_EXPOSURE_MANUAL = 1
_NO_CONTROL_MS = 10.0  # exposure of a camera that does not let it be set

OnControl = Callable[[int, int, int], None]


@dataclass(frozen=True)
class Exposure:
    """A frame under way; times [ns] of the camera's clock."""

    number: int
    start_ns: int
    first_row_end_ns: int
    end_ns: int
    delivery_ns: int


class EmulatedSensor:
    """Controls, and the frames that a free-running rolling shutter exposes."""

    def __init__(
        self,
        controls: Iterable[EmulatedControl],
        faults: Faults,
        on_control: OnControl | None,
        readout_ms: float,
        transfer_ms: float,
    ) -> None:
        self.controls = {control.id: control for control in sorted(controls, key=lambda c: c.id)}
        self.faults = faults
        self._on_control = on_control
        self._readout_ns = round(readout_ms * 1e6)
        self._transfer_ns = round(transfer_ms * 1e6)
        self.rate_hz = 30.0
        self._running_since_ns: int | None = None
        self._next_start_ns = 0
        self._next_number = 0
        self._under_way: deque[Exposure] = deque()

    # Controls

    def read(self, control_id: int, now_ns: int) -> int:
        """OSError EINVAL for one that it does not have."""
        control = self._find(control_id)
        if control_id == FOCUS_ABSOLUTE and self.faults.focus_reads_back is not None:
            return self.faults.focus_reads_back
        if not self.inactive(control) or self._running_since_ns is None:
            return control.value
        done = min(1.0, (now_ns - self._running_since_ns) / _AUTOMATIC_TAKES_NS)
        return round(control.value + done * (control.found - control.value))

    def write(self, control_id: int, value: int, now_ns: int) -> None:
        """As drivers do: a number is brought into its range; an inactive control is refused by EACCES."""
        control = self._find(control_id)
        if self.inactive(control):
            raise OSError(errno.EACCES, "the control is set automatically")
        if control.kind == MENU:
            if not control.minimum <= value <= control.maximum:
                raise OSError(errno.ERANGE, "no such menu item")
            if value not in control.items:
                raise OSError(errno.EINVAL, "no such menu item")
        else:
            steps = round(
                (min(max(value, control.minimum), control.maximum) - control.minimum) / control.step
            )
            value = min(control.minimum + steps * control.step, control.maximum)
        control.value = value
        if self._on_control and not (control_id == FOCUS_ABSOLUTE and self.faults.focus_ignored):
            self._on_control(control_id, value, now_ns)

    def inactive(self, control: EmulatedControl) -> bool:
        if control.automatic is None:
            return False
        automatic, manual = control.automatic
        return automatic in self.controls and self.controls[automatic].value != manual

    def _find(self, control_id: int) -> EmulatedControl:
        if control_id not in self.controls:
            raise OSError(errno.EINVAL, "no such control")
        return self.controls[control_id]

    # Frames

    def start(self, now_ns: int) -> None:
        self._running_since_ns = self._next_start_ns = now_ns
        self._next_number = 0
        self._under_way.clear()

    def stop(self) -> None:
        self._running_since_ns = None
        self._under_way.clear()

    @property
    def next_event_ns(self) -> float:
        """When something will change by itself."""
        if self._under_way:
            return self._under_way[0].delivery_ns
        return math.inf if self._running_since_ns is None else self._next_start_ns

    def advance(self, now_ns: int) -> list[Exposure]:
        """The frames that have arrived since it was last asked. To be asked before any control is changed."""
        while self._running_since_ns is not None and self._next_start_ns <= now_ns:
            self._begin_frame()
        arrived = []
        while self._under_way and self._under_way[0].delivery_ns <= now_ns:
            arrived.append(self._under_way.popleft())
        return arrived

    def _begin_frame(self) -> None:
        start_ns = self._next_start_ns
        period_ns = round(1e9 / self.rate_hz)
        automatic = self._value(EXPOSURE_AUTO, _EXPOSURE_MANUAL) != _EXPOSURE_MANUAL
        if automatic and self._value(EXPOSURE_AUTO_PRIORITY, 0):
            period_ns *= 2  # a dark room, for which it takes longer frames
        if EXPOSURE_ABSOLUTE in self.controls:
            exposure_ns = _EXPOSURE_UNIT_NS * self.read(EXPOSURE_ABSOLUTE, start_ns)
        else:
            exposure_ns = round(_NO_CONTROL_MS * 1e6)
        first_row_end = start_ns + min(exposure_ns, period_ns)
        end = first_row_end + self._readout_ns
        self._under_way.append(
            Exposure(self._next_number, start_ns, first_row_end, end, end + self._transfer_ns)
        )
        self._next_number += 1
        self._next_start_ns += period_ns

    def _value(self, control_id: int, otherwise: int) -> int:
        control = self.controls.get(control_id)
        return otherwise if control is None else control.value
