"""The lens `optotune`: a liquid lens of Optotune on its Lens Driver 4 or 4i, or on an ICC-4C or ECC-1C.

Written and tested against an emulator and public documentation; no device was at hand. What public sources
do not confirm is refused unless the option `unverified` is true: the ICC-4C and ECC-1C as a whole, and focal
powers on a Lens Driver whose firmware is of a type other than A, B, C, E or F. Of the Lens Driver 4 these
remain assumptions: it answers in order, and `Ar` and `PrDA` read back what was commanded, not what comes.
`docs/optotune.md` lists which fact comes from where.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from hybriddepth_ros.cameras.base import Clock
from hybriddepth_ros.cameras.lens import FocusLens, LensState, register_lens
from hybriddepth_ros.cameras.optotune_driver4 import LensDriver4
from hybriddepth_ros.cameras.optotune_icc import TextController
from hybriddepth_ros.cameras.optotune_link import LensController, LensFacts, SerialLink, UsbPort, usb_ports
from hybriddepth_ros.errors import LensError
from hybriddepth_ros.parameters import parameter

USB_IDS = {"lens_driver_4": (0x03EB, 0x2018), "icc_4c": (0x0483, 0xA31E)}  # vendor, product
_UNITS = {"current": "mA", "focal_power": "1/m"}
_TEMPERATURE_AGE_NS = 1_000_000_000
_LOCK_S = 0.4  # how long `close` waits for a command under way, which it has cancelled
_REST_S = 0.2


@dataclass(frozen=True)
class OptotuneOptions:
    """Of a lens driver of Optotune; positions count in the unit of `mode`."""

    port: str = parameter("", "Serial port, such as /dev/ttyACM0; empty = found by USB")
    serial_number: str = parameter(
        "", "USB serial number of the driver, or the number that driver or lens tell; empty = any"
    )
    device: str = parameter(
        "lens_driver_4", "What drives the lens: Lens Driver 4 or 4i, or ICC-4C or ECC-1C", choices=USB_IDS
    )
    mode: str = parameter(
        "current",
        "What positions are: current [mA], or focal_power [1/m], which the driver holds",
        choices=_UNITS,
    )
    current_limit_ma: float = parameter(
        250.0,
        "Largest current either way, within the driver's own limits",
        unit="mA",
        minimum=1.0,
        maximum=500.0,
    )
    temperature_limit_c: float = parameter(
        65.0, "Above it the lens goes to rest and fails", unit="deg C", minimum=0.0, maximum=85.0
    )
    temperature_low_c: float = parameter(
        10.0,
        "Lowest temperature at which focal powers are to hold; a narrower range leaves more of them",
        unit="deg C",
        minimum=-40.0,
        maximum=60.0,
    )
    answer_timeout_ms: float = parameter(
        100.0, "How long an answer may take", unit="ms", minimum=5.0, maximum=2000.0
    )
    retries: int = parameter(
        2, "How often a broken or missing answer is asked for again", minimum=0, maximum=20
    )
    settle_ms: float = parameter(
        25.0,
        "From a command to standing still; 25 suits the EL-16-40-TC",
        unit="ms",
        minimum=0.0,
        maximum=1000.0,
    )
    unverified: bool = parameter(False, "Allow what public documentation does not confirm")


@register_lens("optotune", OptotuneOptions)
class OptotuneLens(FocusLens):
    """One thread talks to the device at a time; `close` cancels what another one waits for."""

    def __init__(
        self,
        options: OptotuneOptions,
        clock: Clock | None = None,
        ports: Callable[[], Sequence[UsbPort]] = usb_ports,
    ) -> None:
        _check(options)
        if clock is not None:
            self.clock = clock
        self._options = options
        self._ports = ports
        self._lock = threading.Lock()  # guards the conversation
        self._closing = threading.Event()
        self._link: SerialLink | None = None
        self._controller: LensController | None = None
        self._facts: LensFacts | None = None
        self._state = LensState(0.0)
        self._temperature_ns = 0
        self._bad_answers = 0

    @property
    def facts(self) -> LensFacts:
        """What the device told when it was opened."""
        if self._facts is None:
            raise LensError(f"lens {self._name}: not opened yet")
        return self._facts

    @property
    def bad_answers(self) -> int:
        """Broken, late or missing answers since it was opened last; each was asked for again."""
        return self._controller.bad_answers if self._controller else self._bad_answers

    def open(self) -> None:
        self.close()
        with self._lock:
            self._closing.clear()
            refusals = []
            for path, usb_number in self._candidates():
                try:
                    return self._take(path, usb_number)
                except _OtherDeviceError as error:
                    refusals.append(str(error))
            raise LensError("; ".join(refusals))

    def close(self) -> None:
        self._closing.set()
        link = self._link
        if link is not None:
            link.cancel()
        if self._lock.acquire(timeout=_LOCK_S):
            try:
                self._release()
            finally:
                self._lock.release()
        elif self._link is not None:
            # Another thread holds the lens and is held up: it finds the port closed, the lens gets no rest.
            self._link.close()

    def command(self, position: float) -> int:
        with self._lock, self._failing_at_rest():
            controller, (low, high) = self._open_controller(), self.facts.position_range
            if not low <= position <= high:
                expected = f"{low:g} to {high:g} {_UNITS[self._options.mode]}"
                raise _RefusedError(f"lens {self._name}: expected {expected}, got {position:g}")
            controller.set(position)
            acknowledged_ns = self.clock.now_ns()
            self._state = LensState(position, self._state.temperature_c)
            self._watch_temperature(controller)  # after the command, which it must not delay
        return acknowledged_ns

    @property
    def position_range(self) -> tuple[float, float]:
        return self.facts.position_range

    def state(self) -> LensState:
        if self._lock.acquire(blocking=False):
            try:
                with self._failing_at_rest():
                    self._watch_temperature(self._open_controller())
            finally:
                self._lock.release()
        return self._state

    @property
    def settle_ms(self) -> float | None:
        return self._options.settle_ms

    # Finding the device.

    @property
    def _name(self) -> str:
        return self._link.path if self._link else self._options.port or "optotune"

    def _candidates(self) -> list[tuple[str, str | None]]:
        """(path, USB serial number) of the ports where the device may be; one, where that is certain."""
        options = self._options
        ports = list(self._ports()) if options.serial_number or not options.port else []
        if options.serial_number:
            # A device that was plugged in again may have another port: its number is what counts.
            numbered = [port for port in ports if port.serial_number == options.serial_number]
            if numbered:
                return [(numbered[0].path, numbered[0].serial_number)]
        ids = USB_IDS[options.device]
        mine = [(p.path, p.serial_number) for p in ports if (p.vendor_id, p.product_id) == ids]
        if options.port:
            given = [(options.port, None)]
            return given + [port for port in mine if port[0] != options.port]
        if not mine:
            raise LensError(
                f"lens optotune: expected a {options.device} on USB ({ids[0]:04x}:{ids[1]:04x}), found none"
            )
        if len(mine) > 1 and not options.serial_number:
            found = ", ".join(f"{path} ({number})" for path, number in mine)
            raise LensError(
                f"lens optotune: expected one {options.device}, found {found}: give serial_number or port"
            )
        return mine

    def _take(self, path: str, usb_number: str | None) -> None:
        """Open the device on a port; what is none, or another, is only greeted and asked for its number."""
        wanted = self._options.serial_number
        try:
            try:
                self._link = link = SerialLink(path)
                controller = self._make_controller(link)
                numbers = controller.identify()
            except LensError as error:
                if wanted:  # it may still be on another port
                    raise _OtherDeviceError(str(error)) from None
                raise
            if wanted and wanted not in (usb_number, *numbers):
                found = ", ".join(numbers) or "none"
                raise _OtherDeviceError(f"lens {path}: expected serial number {wanted}, got {found}")
            self._controller = controller
            self._facts = facts = controller.start()
            self._state = LensState(facts.position, facts.temperature_c)
            self._temperature_ns = self.clock.now_ns()
            self._check_temperature()
            if self._closing.is_set():
                raise LensError(f"lens {path}: closed")
        except BaseException:
            self._release()
            raise

    def _make_controller(self, link: SerialLink) -> LensController:
        options = self._options
        timeout_s = options.answer_timeout_ms * 1e-3
        if options.device == "icc_4c":
            return TextController(
                link,
                options.mode,
                current_limit_ma=options.current_limit_ma,
                answer_timeout_s=timeout_s,
                retries=options.retries,
            )
        return LensDriver4(
            link,
            options.mode,
            current_limit_ma=options.current_limit_ma,
            temperature_range_c=(options.temperature_low_c, options.temperature_limit_c),
            answer_timeout_s=timeout_s,
            retries=options.retries,
            unverified=options.unverified,
        )

    # Talking to it; the lock is held.

    def _open_controller(self) -> LensController:
        if self._controller is None or self._link is None:
            raise _RefusedError(f"lens {self._name}: closed")
        return self._controller

    @contextmanager
    def _failing_at_rest(self) -> Iterator[None]:
        """After an error of the device the lens is at rest, if it still listens, and released."""
        try:
            yield
        except _RefusedError:
            raise
        except LensError:
            if not self._closing.is_set():  # else `close` does it
                self._release()
            raise

    def _watch_temperature(self, controller: LensController) -> None:
        now_ns = self.clock.now_ns()
        if now_ns - self._temperature_ns < _TEMPERATURE_AGE_NS:
            return
        self._state = LensState(self._state.position, controller.temperature_c())
        self._temperature_ns = now_ns
        self._check_temperature()

    def _check_temperature(self) -> None:
        temperature_c, limit_c = self._state.temperature_c, self._options.temperature_limit_c
        if temperature_c is not None and temperature_c > limit_c:
            raise LensError(
                f"lens {self._name}: expected at most {limit_c:g} deg C, got {temperature_c:.1f}:"
                " it was sent to rest"
            )

    def _release(self) -> None:
        link, controller = self._link, self._controller
        self._link = self._controller = None
        if link is None:
            return
        if controller is not None:
            link.resume()
            self._bad_answers = controller.bad_answers
            controller.rest(_REST_S)
        link.close()


class _RefusedError(LensError):
    """The lens was not even asked: it stays as it is."""


class _OtherDeviceError(LensError):
    """A lens driver, but not the one that was asked for."""


def _check(options: OptotuneOptions) -> None:
    if options.device == "icc_4c" and not options.unverified:
        raise LensError(
            "lens optotune: expected unverified: true for device icc_4c:"
            " public documentation does not confirm its text commands"
        )
    if not options.temperature_low_c < options.temperature_limit_c:
        raise LensError(
            "lens optotune: expected temperature_low_c below temperature_limit_c,"
            f" got {options.temperature_low_c:g} and {options.temperature_limit_c:g}"
        )
