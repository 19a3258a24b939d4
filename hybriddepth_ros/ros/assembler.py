"""Slices in, whole sweeps out. Knows numbers only, neither ROS nor images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class StackAssembler(Generic[Item]):
    """Gathers the slices of one sweep, in the order of exposure, until the sweep is whole.

    min_slices: a sweep of which slices are missing when the next one begins is handed on if it has at least
    so many (0 = never); `on_drop(cause, slices)` is told of everything that is thrown away.
    """

    def __init__(self, on_drop: Callable[[str, int], None], min_slices: int = 0) -> None:
        self.min_slices = min_slices
        self._on_drop = on_drop
        self._sweep_id = -1
        self._last_stamp_ns = 0
        self._slices: dict[int, Item] = {}
        self._emitted = False

    def add(
        self, sweep_id: int, slice_index: int, slice_count: int, stamp_ns: int, item: Item
    ) -> list[list[Item]]:
        """The stacks that this slice completes, or shows to be over: mostly none."""
        if stamp_ns < self._last_stamp_ns:
            # a bag that loops or a clock that was set: nothing gathered so far belongs to what comes
            self._on_drop("stamps jumped back", len(self._slices))
            self.reset()
        if sweep_id == self._sweep_id and stamp_ns == self._last_stamp_ns and slice_index in self._slices:
            self._on_drop("duplicate slice", 1)
            return []
        stacks = []
        if sweep_id != self._sweep_id or slice_index in self._slices:
            stacks = self._finish(whole=slice_count == 0)
            self._sweep_id = sweep_id
        self._last_stamp_ns = stamp_ns
        self._slices[slice_index] = item
        if slice_count and len(self._slices) >= slice_count and not self._emitted:
            self._emitted = True
            stacks.append(list(self._slices.values()))
        return stacks

    def reset(self) -> None:
        """Forget everything."""
        self._slices = {}
        self._sweep_id = -1
        self._last_stamp_ns = 0
        self._emitted = False

    def _finish(self, whole: bool) -> list[list[Item]]:
        """Close the sweep at hand because another begins; `whole`: it had no fixed number of slices."""
        slices, emitted = list(self._slices.values()), self._emitted
        self._slices, self._emitted = {}, False
        if emitted or not slices:
            return []
        if (whole and len(slices) >= 2) or 2 <= self.min_slices <= len(slices):
            return [slices]
        self._on_drop("incomplete sweep", len(slices))
        return []
