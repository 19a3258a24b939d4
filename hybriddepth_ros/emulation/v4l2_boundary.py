"""Where emulated V4L2 devices stand in for the kernel: linuxpy's open, ioctl and select.

Only paths and file descriptors of emulated devices are diverted; all others go where they went.
"""

from __future__ import annotations

import io
import math
import os
import select as real_select
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import linuxpy.io
import linuxpy.video.device as video
from linuxpy.util import to_fd

from hybriddepth_ros.cameras.base import Clock
from hybriddepth_ros.emulation.v4l2_driver import EmulatedDriver, OpenFile

_LONGEST_NAP_NS = 10_000_000  # real files are looked at so often while an emulated one is waited for
_READABLE = real_select.POLLIN | real_select.POLLERR | real_select.POLLHUP


class _File(io.FileIO):
    """An open emulated device; its descriptor is of memory that can be mapped."""

    def __init__(self, fd: int, path: str, on_close: Callable[[], None]) -> None:
        super().__init__(fd, "rb+")
        self.name = path
        self._on_close = on_close

    def close(self) -> None:
        if not self.closed:
            self._on_close()
        super().close()


class Boundary:
    """Diverts one emulated device while its `installed` lasts. Several nest: the last in is the first out."""

    def __init__(self, path: str, driver: EmulatedDriver, clock: Clock) -> None:
        self.path, self.driver, self.clock = path, driver, clock
        self.files: dict[int, OpenFile] = {}

    @contextmanager
    def installed(self) -> Iterator[None]:
        places = (
            (linuxpy.io.IO, "open", staticmethod(self._opener(linuxpy.io.IO.open))),
            (linuxpy.io.IO, "select", _Select(linuxpy.io.IO.select, self)),
            (video, "ioctl", self._ioctl(video.ioctl)),
            (video, "iter_video_files", self._lister(video.iter_video_files)),
        )
        before = [(owner, name, owner.__dict__[name]) for owner, name, _ in places]
        for owner, name, value in places:
            setattr(owner, name, value)
        try:
            yield
        finally:
            for owner, name, value in before:
                setattr(owner, name, value)

    def _opener(self, otherwise: Callable[..., Any]) -> Callable[..., Any]:
        def open_device(path: Any, rw: bool = False, blocking: bool = False) -> Any:
            if str(path) != self.path:
                return otherwise(path, rw, blocking=blocking)
            fd = os.memfd_create("emulated_v4l2", os.MFD_CLOEXEC)
            os.set_blocking(fd, blocking)
            try:
                opened = self.driver.open(fd)
            except BaseException:
                os.close(fd)
                raise
            self.files[fd] = opened

            def release() -> None:
                self.files.pop(fd, None)
                self.driver.release(opened)

            return _File(fd, self.path, release)

        return open_device

    def _ioctl(self, otherwise: Callable[..., Any]) -> Callable[..., Any]:
        def ioctl(fd: Any, request: int, *arguments: Any) -> Any:
            file = self.files.get(to_fd(fd))
            if file is None:
                return otherwise(fd, request, *arguments)
            argument = arguments[0] if arguments else None
            self.driver.ioctl(file, int(request), argument)
            return argument

        return ioctl

    def _lister(self, otherwise: Callable[..., Iterable[Path]]) -> Callable[..., Iterable[Path]]:
        def iter_video_files(path: Any = "/dev") -> Iterable[Path]:
            yield from otherwise(path)
            if self.driver.present:
                yield Path(self.path)

        return iter_video_files


class _Select:
    """The module `select` for emulated and real descriptors alike."""

    def __init__(self, otherwise: Any, boundary: Boundary) -> None:
        self._otherwise, self._boundary = otherwise, boundary

    def poll(self) -> _Poll:
        return _Poll(self._otherwise.poll(), self._boundary)

    def select(
        self, readers: Any, writers: Any, exceptional: Any, timeout: float | None = None
    ) -> tuple[list[Any], list[Any], list[Any]]:
        if not any(to_fd(reader) in self._boundary.files for reader in readers):
            return self._otherwise.select(readers, writers, exceptional, timeout)
        poll = self.poll()
        for reader in readers:
            poll.register(to_fd(reader), real_select.POLLIN)
        ready = dict(poll.poll(None if timeout is None else 1e3 * timeout))
        return [reader for reader in readers if ready.get(to_fd(reader), 0) & _READABLE], [], []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._otherwise, name)


class _Poll:
    """A poll object that asks an emulated device's clock how long it has waited."""

    def __init__(self, otherwise: Any, boundary: Boundary) -> None:
        self._otherwise, self._boundary = otherwise, boundary
        self._emulated: dict[int, OpenFile] = {}

    def register(self, fd: Any, events: int = real_select.POLLIN) -> None:
        file = self._boundary.files.get(to_fd(fd))
        if file is None:
            self._otherwise.register(fd, events)
        else:
            self._emulated[to_fd(fd)] = file

    def poll(self, timeout_ms: float | None = None) -> list[tuple[int, int]]:
        if not self._emulated:
            return self._otherwise.poll(timeout_ms)
        clock, driver = self._boundary.clock, self._boundary.driver
        never = threading.Event()
        until_ns = math.inf if timeout_ms is None else clock.now_ns() + round(1e6 * timeout_ms)
        while True:
            events = {fd: driver.poll_events(file) for fd, file in self._emulated.items()}
            ready = self._otherwise.poll(0) + [(fd, event) for fd, event in events.items() if event]
            now_ns = clock.now_ns()
            if ready or now_ns >= until_ns:
                return ready
            wake_ns = min(until_ns, max(driver.next_event_ns, now_ns + 1), now_ns + _LONGEST_NAP_NS)
            clock.wait(never, (wake_ns - now_ns) * 1e-9)
