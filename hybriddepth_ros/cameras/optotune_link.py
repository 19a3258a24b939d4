"""The serial port of a lens driver: found by what USB tells, opened, and never waited on for long."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from hybriddepth_ros.errors import LensError, one_line

if TYPE_CHECKING:
    import serial

BAUD_RATE = 115200
_WRITE_TIMEOUT_S = 0.1  # a device that takes no bytes blocks a write no longer than this
_READ_SLICE_S = 0.02  # how long a read may overlook that it was cancelled
_RELEASE_S = 0.2  # a kernel that waits for unsent bytes may close a port later than that, without us


@dataclass(frozen=True)
class LensFacts:
    """What a lens driver tells when it is opened.

    firmware: type and version; position_range and position in the units of its mode; temperature_c: of the
    lens [deg C].
    """

    firmware: str
    position_range: tuple[float, float]
    position: float
    temperature_c: float


class LensController(ABC):
    """One protocol, over one open port; used by one thread at a time. Raises LensError."""

    bad_answers = 0  # broken, late or missing ones, each of which was asked for again

    @abstractmethod
    def identify(self) -> tuple[str, ...]:
        """Greet the device; the serial numbers of driver and lens, whichever it tells. It changes nothing."""

    @abstractmethod
    def start(self) -> LensFacts:
        """Set the mode and read it back; the lens was without current before it."""

    @abstractmethod
    def set(self, position: float) -> None:
        """Move the lens; returns when the device has acknowledged that very position."""

    @abstractmethod
    def temperature_c(self) -> float:
        """Of the lens [deg C]."""

    @abstractmethod
    def rest(self, within_s: float) -> bool:
        """No current through the lens; whether the device confirmed it within that time. Never raises."""


@dataclass(frozen=True)
class UsbPort:
    """A serial port, and what USB tells of the device behind it; None = it is not of USB."""

    path: str
    vendor_id: int | None = None
    product_id: int | None = None
    serial_number: str | None = None


def usb_ports() -> Sequence[UsbPort]:
    """The serial ports of this machine."""
    import_serial()
    from serial.tools import list_ports

    return [UsbPort(port.device, port.vid, port.pid, port.serial_number) for port in list_ports.comports()]


def import_serial() -> None:
    """LensError with the command that installs pyserial, where it is missing."""
    try:
        import serial  # noqa: F401
    except ImportError:
        raise LensError("lens optotune: expected the package pyserial: run `pip install pyserial`") from None


class SerialLink:
    """An open port that fails with one LensError; `cancel` ends from any thread what waits on it."""

    def __init__(self, path: str) -> None:
        import_serial()
        import serial

        self.path = path
        self._cancelled = threading.Event()
        self._closing = threading.Lock()
        try:
            self._port: serial.Serial | None = serial.Serial(
                path, BAUD_RATE, timeout=_READ_SLICE_S, write_timeout=_WRITE_TIMEOUT_S, exclusive=True
            )
        except (OSError, ValueError) as error:
            hint = "; is this user in the group dialout?" if "Permission" in str(error) else ""
            raise LensError(f"lens {path}: expected a serial port: {one_line(error)}{hint}") from None

    def write(self, data: bytes) -> None:
        """LensError when the device is gone or takes no bytes."""
        port = self._open_port()
        try:
            port.write(data)
        except Exception as error:
            self._fail(error, "write")

    def read(self) -> bytes:
        """What has come; waits shortly when that is nothing."""
        port = self._open_port()
        try:
            return bytes(port.read(max(1, port.in_waiting)))
        except Exception as error:
            self._fail(error, "read")

    def drain(self, quiet_s: float, at_most_s: float = 1.0) -> int:
        """Drop what comes until nothing did for `quiet_s`; how many bytes that was."""
        dropped = 0
        now_s = time.monotonic()
        quiet_until_s, end_s = now_s + quiet_s, now_s + at_most_s
        while time.monotonic() < min(quiet_until_s, end_s):
            got = self.read()
            if got:
                dropped += len(got)
                quiet_until_s = time.monotonic() + quiet_s
        return dropped

    def cancel(self) -> None:
        """Reads and writes fail from now on."""
        self._cancelled.set()

    def resume(self) -> None:
        """They work again."""
        self._cancelled.clear()

    def close(self) -> None:
        """Release the port; safe to call twice, from any thread."""
        self.cancel()
        with self._closing:
            port, self._port = self._port, None
        if port is None:
            return
        # The kernel may wait half a minute for bytes that the device does not take, so it is not waited for.
        closer = threading.Thread(target=_release, args=(port,), name="optotune_close", daemon=True)
        closer.start()
        closer.join(_RELEASE_S)

    def _open_port(self) -> serial.Serial:
        port = self._port
        if port is None or self._cancelled.is_set():
            raise LensError(f"lens {self.path}: closed")
        return port

    def _fail(self, error: Exception, doing: str) -> NoReturn:
        # pyserial raises OSError, its own kind of it, and termios.error or TypeError when the port is going.
        raise LensError(
            f"lens {self.path}: expected a lens driver, cannot {doing} (unplugged?): {one_line(error)}"
        ) from None


def _release(port: serial.Serial) -> None:
    with suppress(Exception):  # it may be gone, and then closing is all that is left to do
        port.reset_output_buffer()
    with suppress(Exception):
        port.close()
