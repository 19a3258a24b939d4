"""The text mode of Optotune's ICC controllers on a pty, as far as the driver speaks it.

Its words are those of the ICC-1C; see `cameras/optotune_icc.py` for what is not verified of the others.
"""

from __future__ import annotations

from hybriddepth_ros.cameras.base import Clock
from hybriddepth_ros.emulation.optotune import EmulatedThermometer, OnCommand
from hybriddepth_ros.emulation.serial_device import EmulatedSerialDevice


class EmulatedTextController(EmulatedSerialDevice):
    """on_command is called from the device's thread when a current [mA] or a focal power [1/m] was set."""

    def __init__(
        self,
        *,
        serial_number: str = "ANAA1234",
        lens: str = "EL-16-40-TC",
        current_limit_ma: float = 500.0,
        power_range_diopters: tuple[float, float] = (-5.0, 5.0),
        on_command: OnCommand | None = None,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(clock)
        self.serial_number, self.lens = serial_number, lens
        self.current_limit_ma, self.power_range_diopters = current_limit_ma, power_range_diopters
        self.thermometer = EmulatedThermometer(self.clock)
        self.current_ma = self.focal_power_diopters = 0.0
        self._on_command = on_command

    def _power_up(self) -> None:
        self.current_ma = self.focal_power_diopters = 0.0

    def _break(self, answer: bytes) -> bytes:
        return bytes([answer[0] ^ 0x80]) + answer[1:]

    def _take(self, received: bytes) -> tuple[int, list[bytes]]:
        end = received.find(b"\r\n")
        if end < 0:
            return 0, []
        line = received[:end].decode("ascii", "replace").upper()
        if self._use("lost_commands"):
            line = "?" + line
        return end + 2, [self._obey(line).encode() + b"\r\n"]

    def _obey(self, line: str) -> str:
        name, _, value = line.partition("=")
        low, high = self.power_range_diopters
        answers = {
            "START": "OK",
            "DETECTDEVICE": self.lens,
            "GETDEVICESN": self.serial_number,
            "GETFPMIN": f"{low:.3f}",
            "GETFPMAX": f"{high:.3f}",
            "GETTEMP": f"{self.thermometer.temperature_c:.2f}",
            "GETCURRENT": f"{self.current_ma:.3f}",
            "GETFP": f"{self.focal_power_diopters:.3f}",
        }
        if name in answers and not value:
            return answers[name]
        if name not in ("SETCURRENT", "SETFP"):
            return "ERROR"
        try:
            wanted = float(value)
        except ValueError:
            return "ERROR"
        if name == "SETCURRENT":
            low, high = -self.current_limit_ma, self.current_limit_ma
        if not low <= wanted <= high:
            return "OL" if wanted < low else "OU"
        if name == "SETCURRENT":
            self.current_ma = wanted
        else:
            self.focal_power_diopters = wanted
        time_ns = self._record(name, wanted)
        if self._on_command is not None:
            self._on_command(time_ns, wanted)
        return "OK"
