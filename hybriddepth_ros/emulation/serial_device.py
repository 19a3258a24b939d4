"""A device on a serial port that is a pty: its thread, its faults, and pulling its plug."""

from __future__ import annotations

import errno
import os
import select
import threading
import time
import tty
from abc import ABC, abstractmethod
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from hybriddepth_ros.cameras.base import Clock

_POLL_S = 0.05


@dataclass(frozen=True)
class LensFaults:
    """What goes wrong from now on.

    bad_crc, truncated: so many of the next answers are broken, or lose their end; late, late_s: so many of
    the next come later by so much, and hold up those behind them; lost_commands: so many of the next commands
    arrive broken; silent: hears and answers nothing; blocked: takes no bytes at all, so that writes block.
    """

    bad_crc: int = 0
    truncated: int = 0
    late: int = 0
    late_s: float = 0.0
    lost_commands: int = 0
    silent: bool = False
    blocked: bool = False


@dataclass(frozen=True)
class EmulatedCommand:
    """A command that was obeyed, by its first letters, and the value that it carried, if any."""

    time_ns: int
    name: str
    value: float | None = None


class EmulatedSerialDevice(ABC):
    """Runs from `__enter__` to `__exit__`; its methods may be called by any thread while it runs.

    Answers leave in the order of their questions.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self._lock = threading.RLock()  # guards all below
        self._faults = LensFaults()
        self._commands: list[EmulatedCommand] = []
        self._answers: deque[tuple[float, bytes]] = deque()  # (when due, monotonic [s]; bytes)
        self._received = b""
        self._master = self._slave = -1
        self._port = ""
        self._stop = threading.Event()
        self._wake_read, self._wake_write = -1, -1
        self._thread: threading.Thread | None = None

    @abstractmethod
    def _take(self, received: bytes) -> tuple[int, list[bytes]]:
        """How many bytes are one command, 0 = too few yet, and the answers to it."""

    @abstractmethod
    def _break(self, answer: bytes) -> bytes:
        """An answer of which bytes arrived wrong."""

    @abstractmethod
    def _power_up(self) -> None:
        """What a device forgets when it is unplugged."""

    @property
    def port(self) -> str:
        """The path to open; another one after `replug`."""
        return self._port

    @property
    def faults(self) -> LensFaults:
        """What is still to go wrong."""
        with self._lock:
            return self._faults

    @faults.setter
    def faults(self, faults: LensFaults) -> None:
        with self._lock:
            self._faults = faults
        self._wake()

    @property
    def commands(self) -> tuple[EmulatedCommand, ...]:
        """What it has obeyed, in order."""
        with self._lock:
            return tuple(self._commands)

    def unplug(self) -> None:
        """The port is gone for whoever has it open."""
        with self._lock:
            self._close_pty()
            self._answers.clear()
            self._received = b""
        self._wake()

    def replug(self) -> None:
        """Plugged in again, under another path."""
        with self._lock:
            old = self._port
            self._close_pty()
            self._open_pty()
            if self._port == old:  # the kernel gave the same number again: take the next
                held = self._master, self._slave
                self._open_pty()
                for descriptor in held:
                    os.close(descriptor)
            self._power_up()
        self._wake()

    def __enter__(self) -> Self:
        self._wake_read, self._wake_write = os.pipe()
        self._open_pty()
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, name="emulated_lens", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._wake()
        if self._thread is not None:
            self._thread.join()
        self.unplug()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _record(self, name: str, value: float | None = None) -> int:
        now_ns = self.clock.now_ns()
        self._commands.append(EmulatedCommand(now_ns, name, value))
        return now_ns

    def _use(self, fault: str) -> bool:
        """Whether a fault that is counted is due now; it is one fewer then."""
        left = getattr(self._faults, fault)
        if left > 0:
            self._faults = replace(self._faults, **{fault: left - 1})
        return bool(left > 0)

    # The port.

    def _open_pty(self) -> None:
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self._port = os.ttyname(self._slave)

    def _close_pty(self) -> None:
        for descriptor in (self._master, self._slave):
            if descriptor >= 0:
                os.close(descriptor)
        self._master = self._slave = -1

    def _wake(self) -> None:
        if self._wake_write >= 0:
            with suppress(OSError):
                os.write(self._wake_write, b"w")

    # The thread.

    def _run(self) -> None:
        while not self._stop.is_set():
            with self._lock:
                self._send_what_is_due()
                listening = self._master >= 0 and not self._faults.blocked
                watched = [self._wake_read] + ([self._master] if listening else [])
                wait_s = self._answers[0][0] - time.monotonic() if self._answers else _POLL_S
            with suppress(OSError, ValueError):  # unplugged while it waited
                readable, _, _ = select.select(watched, [], [], max(0.0, min(wait_s, _POLL_S)))
                if self._wake_read in readable:
                    os.read(self._wake_read, 64)
            with self._lock:
                if self._master >= 0 and not self._faults.blocked:
                    self._hear()

    def _hear(self) -> None:
        try:
            got = os.read(self._master, 4096)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.EIO:  # EIO: nobody has the port open
                raise
            return
        if self._faults.silent:
            return
        self._received += got
        while self._received:
            length, answers = self._take(self._received)
            if length == 0:
                return
            self._received = self._received[length:]
            for answer in answers:
                self._queue(answer)

    def _queue(self, answer: bytes) -> None:
        due_s = time.monotonic()
        if self._use("late"):
            due_s += self._faults.late_s
        if self._answers:
            due_s = max(due_s, self._answers[-1][0])
        if self._use("bad_crc"):
            answer = self._break(answer)
        if self._use("truncated"):
            answer = answer[: len(answer) // 2]
        self._answers.append((due_s, answer))

    def _send_what_is_due(self) -> None:
        while self._answers and self._answers[0][0] <= time.monotonic():
            _, answer = self._answers.popleft()
            if self._master >= 0:
                with suppress(BlockingIOError):  # nobody reads, and a real device drops it too
                    os.write(self._master, answer)
