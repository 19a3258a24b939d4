"""A thread that always works on the newest item: a robot wants the present, not a backlog."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class NewestFirstWorker(Generic[Item]):
    """Runs `work(item)` in one thread; `offer` never blocks and pushes the oldest waiting item out when full.

    `on_error` is called with what `work` raised; the thread goes on, whatever becomes of that.
    """

    def __init__(
        self,
        work: Callable[[Item], None],
        on_error: Callable[[Exception], None],
        capacity: int = 1,
        name: str = "worker",
    ) -> None:
        self._work = work
        self._on_error = on_error
        self._waiting: deque[Item] = deque()
        self._capacity = capacity
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def offer(self, item: Item) -> int:
        """Queue an item; returns how many older ones had to go."""
        with self._changed:
            if self._closed:
                return 0
            self._waiting.append(item)
            dropped = max(len(self._waiting) - self._capacity, 0)
            for _ in range(dropped):
                self._waiting.popleft()
            self._changed.notify()
        return dropped

    @property
    def waiting(self) -> int:
        """How many items wait."""
        return len(self._waiting)

    @property
    def alive(self) -> bool:
        """Whether it still works, or was closed."""
        return self._closed or self._thread.is_alive()

    def close(self, timeout_s: float = 10.0) -> int:
        """Drop what waits and end the thread after the item in hand; returns how many were dropped."""
        with self._changed:
            self._closed = True
            dropped = len(self._waiting)
            self._waiting.clear()
            self._changed.notify()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout_s)
        return dropped

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return
                item = self._waiting.popleft()
            try:
                self._work(item)
            except Exception as error:
                try:
                    self._on_error(error)
                except Exception:
                    logging.getLogger(__name__).exception("could not report %r", error)
            del item  # an image held while waiting for the next is memory held for nothing
