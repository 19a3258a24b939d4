"""Slices from the sweep to the depth node in one process: a reference is handed on, nothing is copied."""

from __future__ import annotations

from collections.abc import Callable

from hybriddepth_msgs.msg import FocalSlice

Take = Callable[[FocalSlice], None]


class LocalSlices:
    """One who gives, one who takes. What is given must not be changed afterwards by either."""

    def __init__(self) -> None:
        self._take: Take | None = None

    def connect(self, take: Take) -> Callable[[], None]:
        """Have `take` called with every slice, in the thread that gives it; returns what ends that."""
        self._take = take
        return self._disconnect

    def _disconnect(self) -> None:
        self._take = None

    @property
    def wanted(self) -> bool:
        return self._take is not None

    def give(self, message: FocalSlice) -> None:
        """To whoever takes it now."""
        take = self._take
        if take is not None:
            take(message)
