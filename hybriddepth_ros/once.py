"""What is made when it is first asked for, and kept instead of what it is made of."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Made = TypeVar("Made")


class Once(Generic[Made]):
    """Calls `make` once, whichever thread asks first, and forgets it with all that it holds."""

    def __init__(self, make: Callable[[], Made]) -> None:
        self._make: Callable[[], Made] | None = make
        self._made: list[Made] = []
        self._lock = threading.Lock()

    def __call__(self) -> Made:
        """What was made; an error of `make` leaves everything as it was."""
        with self._lock:
            if self._make is not None:
                self._made = [self._make()]
                self._make = None
            return self._made[0]
