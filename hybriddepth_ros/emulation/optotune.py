"""Optotune's Lens Driver 4, as bytes on a pty: what its manual says it does, and what can go wrong.

It shares the CRC with the driver and nothing else, so that the two can disagree.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hybriddepth_ros.cameras.base import Clock
from hybriddepth_ros.cameras.optotune_protocol import crc16
from hybriddepth_ros.emulation.serial_device import EmulatedCommand, EmulatedSerialDevice, LensFaults

__all__ = ["EmulatedCommand", "EmulatedLensDriver", "EmulatedThermometer", "LensFaults", "LensProperties"]

OnCommand = Callable[[int, float], None]  # (time_ns, mA or diopters)

# Commands by how they begin: bytes without the CRC.
_LENGTHS = {
    b"Aw": 4,
    b"Ar": 4,
    b"CrMA": 6,
    b"CrUA": 6,
    b"CrLA": 6,
    b"MwDA": 4,
    b"MwCA": 4,
    b"MMA": 3,
    b"PwTA": 8,
    b"PwDA": 8,
    b"PrDA": 8,
    b"TCA": 3,
    b"IR": 10,
    b"X": 1,
    b"H": 1,
    b"V": 2,
}


@dataclass(frozen=True)
class LensProperties:
    """What the emulated driver and its lens are; focal powers [1/m], currents [mA].

    status: the byte that the focal power mode is answered with.
    """

    serial_number: str = "ABAA1234"
    device_id: str = "LD4-0001"
    firmware_type: str = "B"
    largest_current_ma: float = 292.84
    lower_limit_steps: int = -4095
    upper_limit_steps: int = 4095
    power_range_diopters: tuple[float, float] = (-2.0, 3.0)
    status: int = 0


class EmulatedThermometer:
    """A temperature [deg C] that drifts evenly [K/s] by a clock."""

    def __init__(self, clock: Clock, temperature_c: float = 25.0) -> None:
        self._clock = clock
        self._start_c, self._drift, self._start_ns = temperature_c, 0.0, clock.now_ns()

    @property
    def temperature_c(self) -> float:
        return self._start_c + self._drift * (self._clock.now_ns() - self._start_ns) * 1e-9

    def set(self, temperature_c: float, drift_k_per_s: float = 0.0) -> None:
        """From now on."""
        self._start_ns = self._clock.now_ns()
        self._start_c, self._drift = temperature_c, drift_k_per_s


class EmulatedLensDriver(EmulatedSerialDevice):
    """on_command is called from the device's thread when a current or a focal power was set."""

    def __init__(
        self,
        properties: LensProperties | None = None,
        *,
        on_command: OnCommand | None = None,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(clock)
        self.properties = properties or LensProperties()  # may be replaced while it runs
        self.thermometer = EmulatedThermometer(self.clock)
        self._on_command = on_command
        self._mode = 1
        self._current_steps = self._power_steps = 0

    @property
    def current_ma(self) -> float:
        """That flows through the lens in current mode."""
        return self._current_steps * self.properties.largest_current_ma / 4096

    @property
    def focal_power_diopters(self) -> float:
        """That it holds in focal power mode."""
        return self._power_steps / 200 - self._offset

    @property
    def at_rest(self) -> bool:
        """In current mode, without current."""
        return self._mode == 1 and self._current_steps == 0

    @property
    def _offset(self) -> int:
        return 5 if self.properties.firmware_type == "A" else 0

    def _power_up(self) -> None:
        self._mode, self._current_steps = 1, 0

    def _break(self, answer: bytes) -> bytes:
        return answer[:1] + bytes([answer[1] ^ 0x10]) + answer[2:]

    def _take(self, received: bytes) -> tuple[int, list[bytes]]:
        if b"Start".startswith(received[:5]):
            if len(received) < 5:
                return 0, []
            self._record("Start")
            return 5, [b"Ready\r\n"]
        name = next((name for name in _LENGTHS if received.startswith(name)), None)
        if name is None:
            may_grow = any(name.startswith(received) for name in _LENGTHS)
            return (0, []) if may_grow else (len(received), [_framed(b"E3")])
        length = _LENGTHS[name] + 2
        if len(received) < length:
            return 0, []
        command, crc = received[: length - 2], received[length - 2 : length]
        if self._use("lost_commands"):
            command = command[:-1] + bytes([command[-1] ^ 1])
        if crc16(command) != crc[0] + 256 * crc[1]:
            return length, [_framed(b"E1")]
        answer = self._obey(name.decode(), command[len(name) :])
        return length, [] if answer is None else [_framed(answer)]

    def _obey(self, name: str, values: bytes) -> bytes | None:
        """The answer to a command, without CRC and end; None = it has none."""
        properties = self.properties
        match name:
            case "Aw":
                self._current_steps = _number(values)
                self._moved(name, self.current_ma)
                return None
            case "PwDA":
                self._power_steps = _number(values)
                self._moved(name, self.focal_power_diopters)
                return None
            case "Ar":
                return b"A" + _two_bytes(self._current_steps)
            case "PrDA":
                return b"PD" + _two_bytes(self._power_steps)
            case "CrMA":
                return b"CMA" + _two_bytes(round(properties.largest_current_ma * 100))
            case "CrUA":
                return b"CUA" + _two_bytes(properties.upper_limit_steps)
            case "CrLA":
                return b"CLA" + _two_bytes(properties.lower_limit_steps)
            case "MwDA":
                self._mode = 1
                self._record(name)
                return b"MDA"
            case "MwCA":
                self._mode = 5
                self._record(name)
                return b"MCA" + bytes([properties.status]) + self._power_range()
            case "MMA":
                return b"MMA" + bytes([self._mode])
            case "PwTA":
                self._record(name, _number(values) / 16)
                return b"PT\0" + self._power_range()
            case "TCA":
                return b"TCA" + _two_bytes(round(self.thermometer.temperature_c / 0.0625))
            case "X":
                return b"X" + properties.serial_number.encode().ljust(8, b"\0")[:8]
            case "IR":
                return b"IR" + properties.device_id.encode().ljust(8, b"\0")[:8]
            case "H":
                return b"H" + properties.firmware_type.encode()
            case _:
                return b"V" + bytes([1, 11, 0, 3, 4, 5])

    def _moved(self, name: str, value: float) -> None:
        time_ns = self._record(name, value)
        if self._on_command is not None:
            self._on_command(time_ns, value)

    def _power_range(self) -> bytes:
        low, high = self.properties.power_range_diopters
        return b"".join(_two_bytes(round((power + self._offset) * 200)) for power in (high, low))


def _framed(data: bytes) -> bytes:
    crc = crc16(data)
    return data + bytes([crc & 0xFF, crc >> 8]) + b"\r\n"


def _number(values: bytes) -> int:
    number = 256 * values[0] + values[1]
    return number - 65536 if number >= 32768 else number


def _two_bytes(number: int) -> bytes:
    return bytes([(number >> 8) & 0xFF, number & 0xFF])
