"""Slices in, whole sweeps out. Knows numbers only, neither ROS nor images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")

MAX_SLICES = 16  # of a stack; what a camera without a fixed pattern sends is cut there


class SliceGaps:
    """How many slices did not come, by the numbers of those that did."""

    def __init__(self) -> None:
        self._last: tuple[int, int, int] | None = None  # sweep_id, slice_index, slice_count

    def before(self, sweep_id: int, slice_index: int, slice_count: int) -> int:
        """How many are missing before this slice, of its own sweep and of the end of the one before.

        One that comes late was counted as missing; whole sweeps are not counted, as a capture takes their
        numbers too, nor are sweeps without a number of slices.
        """
        if not slice_index < slice_count <= MAX_SLICES:
            return 0
        last, this = self._last, (sweep_id, slice_index, slice_count)
        if last is None:
            self._last = this  # joined in the middle of a sweep
            return 0
        if sweep_id == last[0] - 1:
            return 0  # late
        if sweep_id != last[0]:
            self._last = this
            return last[2] - last[1] - 1 + slice_index
        if slice_index > last[1] or slice_index == 0:
            self._last = this
        return max(slice_index - last[1] - 1, 0)


class StackAssembler(Generic[Item]):
    """Gathers the slices of one sweep until it is whole, and hands them on in the order of exposure.

    min_slices: a sweep of which slices are missing when the next one begins is handed on if it has at least
    so many (0 = never); `on_drop(cause, slices)` is told of everything that is thrown away. A sweep without
    a number of slices is whole when the next one begins or none comes (`finish`), or once it has MAX_SLICES.
    """

    def __init__(self, on_drop: Callable[[str, int], None], min_slices: int = 0) -> None:
        self.min_slices = min_slices
        self._on_drop = on_drop
        self._sweep_id = -1
        self._last_stamp_ns = 0
        self._open_ended = False  # the sweep at hand has no number of slices
        self._slices: dict[int, tuple[int, Item]] = {}  # place in the sweep -> (stamp [ns], item)

    def add(
        self, sweep_id: int, slice_index: int, slice_count: int, stamp_ns: int, item: Item
    ) -> list[list[Item]]:
        """The stacks that this slice completes, or shows to be over: mostly none."""
        same_sweep = sweep_id == self._sweep_id
        if same_sweep and stamp_ns == self._last_stamp_ns:
            self._on_drop("duplicate slice", 1)
            return []
        place = slice_index if slice_count else len(self._slices)
        fits = same_sweep and place not in self._slices
        if stamp_ns < self._last_stamp_ns and not (fits and slice_count):
            # no straggler, but a bag that loops or a clock that was set: what was gathered is of another time
            self._on_drop("stamps jumped back", len(self._slices))
            self.reset()
            fits = False
        stacks = []
        if not fits:
            stacks = self.finish()
            self._sweep_id = sweep_id
            self._open_ended = slice_count == 0
            place = slice_index if slice_count else 0
        self._last_stamp_ns = stamp_ns
        self._slices[place] = (stamp_ns, item)
        if len(self._slices) >= (slice_count or MAX_SLICES):
            stacks.append(self._take())
        return stacks

    def reset(self) -> None:
        """Forget everything."""
        self._slices = {}
        self._sweep_id = -1
        self._last_stamp_ns = 0

    def finish(self) -> list[list[Item]]:
        """Close the sweep at hand because another begins, or no more slices come: the stack that it is, if it
        is one.
        """
        slices = self._take()
        if (self._open_ended and len(slices) >= 2) or 2 <= self.min_slices <= len(slices):
            return [slices]
        if slices:
            self._on_drop("incomplete sweep", len(slices))
        return []

    def _take(self) -> list[Item]:
        slices, self._slices = self._slices, {}
        return [item for _, item in sorted(slices.values(), key=lambda entry: entry[0])]
