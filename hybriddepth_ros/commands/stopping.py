"""The one place where SIGINT and SIGTERM become "stop, please"."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class StopRequest:
    """An event that a signal sets. A second signal, as `ros2 launch` and a terminal send, changes nothing."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self.signal_number = 0

    def __bool__(self) -> bool:
        return self.event.is_set()

    @property
    def exit_code(self) -> int:
        """0 when nothing asked to stop, else what a shell expects: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + self.signal_number if self.signal_number else 0

    @contextlib.contextmanager
    def interrupting(self) -> Iterator[None]:
        """In the block a signal raises KeyboardInterrupt at once: for work that never looks at the event."""

        def interrupt(number: int, frame: FrameType | None) -> None:
            again = bool(self)
            self._on_signal(number, frame)
            if not again:
                raise KeyboardInterrupt

        former = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            if self:  # asked for just before
                raise KeyboardInterrupt
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self.signal_number = self.signal_number or number
        self.event.set()


@contextlib.contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Within the block SIGINT and SIGTERM only set the event; afterwards the former handlers are back.

    Unless a stop was asked for: then the process is about to end, and another Ctrl-C must not disturb that.

    Enter it before ROS is imported: an interrupt while an extension module loads would leave it broken.
    """
    request = StopRequest()
    former = {number: signal.signal(number, request._on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in former.items():
            signal.signal(number, signal.SIG_IGN if request else handler)
