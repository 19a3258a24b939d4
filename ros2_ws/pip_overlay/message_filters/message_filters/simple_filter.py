"""SimpleFilter: what every filter is, a list of callbacks."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any


class SimpleFilter:
    """Hands messages to the callbacks that registered."""

    def __init__(self) -> None:
        self.callbacks: dict[int, tuple[Callable[..., Any], tuple[Any, ...]]] = {}
        self._next_connection = itertools.count()

    def registerCallback(self, cb: Callable[..., Any], *args: Any) -> int:  # noqa: N802
        """Call `cb(*messages, *args)` for each output from now on; gives the number to unregister it by."""
        connection = next(self._next_connection)
        self.callbacks[connection] = (cb, args)
        return connection

    def unregisterCallback(self, conn: int) -> None:  # noqa: N802
        """Stop calling the callback of that number; an unknown number is no error."""
        self.callbacks.pop(conn, None)

    def signalMessage(self, *msg: Any) -> None:  # noqa: N802
        """Call every callback with `msg`."""
        for cb, args in tuple(self.callbacks.values()):
            cb(*msg, *args)
