"""An unopened lens `optotune` on an emulated driver, and what its tests share."""

import os
import time
from collections.abc import Callable

import pytest

from hybriddepth_ros.cameras.optotune import OptotuneLens, OptotuneOptions
from hybriddepth_ros.emulation.optotune import EmulatedLensDriver
from hybriddepth_ros.errors import LensError
from tests.cameras.conftest import ManualClock

HANG_S = 5.0  # what must take at most a second; only guards against hanging
TIMEOUT_MS = 100.0
RETRIES = 8  # so that a machine that stalls for longer than the time-out fails no test


def lens_on(driver: EmulatedLensDriver, clock: ManualClock, **options: object) -> OptotuneLens:
    """An unopened lens; every port of this machine is one of the emulated driver's."""
    defaults = {"port": driver.port, "answer_timeout_ms": TIMEOUT_MS, "retries": RETRIES}
    return OptotuneLens(OptotuneOptions(**{**defaults, **options}), clock, ports=lambda: [])  # type: ignore[arg-type]


def one_line(error: pytest.ExceptionInfo[LensError]) -> str:
    said = str(error.value)
    assert "\n" not in said
    return said


def eventually(holds: Callable[[], bool]) -> bool:
    """The driver obeys in its own thread, and of some commands nobody is told."""
    end_s = time.monotonic() + HANG_S
    while not holds() and time.monotonic() < end_s:
        time.sleep(0.002)
    return holds()


def fill(port: str) -> None:
    """Write until the port takes no more; the kernel makes room behind our back, so more than once."""
    descriptor = os.open(port, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    full = 0
    try:
        while full < 10:
            try:
                os.write(descriptor, b"\0" * 16)
                full = 0
            except BlockingIOError:
                full += 1
                time.sleep(0.01)
    finally:
        os.close(descriptor)
