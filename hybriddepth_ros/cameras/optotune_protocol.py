"""The bytes that Optotune's Lens Driver 4 and 4i understand; nothing here opens a port.

A command is letters, values (big endian), then a CRC-16/ARC, low byte first. An answer is the same and ends
in CR LF. `Aw` (current) and `PwDA` (focal power) are obeyed without an answer: what was set is asked for with
the query that belongs to it. Sources: public excerpts of the vendor's manual "Electrical Lens Driver 4" of
2014 and, where they agree on lengths and scales, public drivers used on hardware (OrganicIrradiation/opto,
elhananby/optotune-lens, LidkeLab/matlab-instrument-control, funalab/LensDriver). Of the letters that an
answer begins with only the first is relied on, since the sources tell only some of the others.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

HANDSHAKE = b"Start"  # the one command without a CRC
HANDSHAKE_ANSWER = b"Ready\r\n"
END = b"\r\n"
CURRENT_STEPS = 4096  # of the largest current; the manual's formula, some drivers count 4095
POWER_STEPS_PER_DIOPTER = 200
TEMPERATURE_STEP_C = 0.0625
CURRENT_MODE, FOCAL_POWER_MODE = 1, 5
POWER_OFFSET_DIOPTERS = {"A": 5.0, "B": 0.0, "C": 0.0, "E": 0.0, "F": 0.0}  # by the firmware's type

# Bits of the status byte, from the lowest.
STATUS_BITS = (
    "not all hardware is available",
    "no or faulty EEPROM in the lens",
    "no temperature limits were received",
    "the focal power cannot be reached",
    "focal powers are inverted within the temperature limits",
    "the temperature is outside the product's specification",
    "the focal power is outside the guaranteed range",
    "the temperature is outside the limits that were set",
)
# What these two say is of the last focal power, not of the mode that is being entered.
_OF_THE_LAST_COMMAND = 0b0100_1000


@dataclass(frozen=True)
class Query:
    """A command that is answered: its bytes without the CRC, and the length [bytes] of its answer's data."""

    command: bytes
    data_length: int

    @property
    def answer_length(self) -> int:
        """With CRC and CR LF."""
        return self.data_length + 4

    def is_like(self, other: Query) -> bool:
        """An answer to one might be taken for an answer to the other."""
        return (self.command[:1], self.data_length) == (other.command[:1], other.data_length)


FIRMWARE_TYPE = Query(b"H", 2)
FIRMWARE_VERSION = Query(b"V\0", 7)
LENS_SERIAL = Query(b"X", 9)
DEVICE_ID = Query(b"IR" + bytes(8), 10)
LARGEST_CURRENT = Query(b"CrMA\0\0", 5)
UPPER_LIMIT = Query(b"CrUA\0\0", 5)
LOWER_LIMIT = Query(b"CrLA\0\0", 5)
CURRENT = Query(b"Ar\0\0", 3)
FOCAL_POWER = Query(b"PrDA" + bytes(4), 4)
TEMPERATURE = Query(b"TCA", 5)
MODE = Query(b"MMA", 4)
ENTER_CURRENT_MODE = Query(b"MwDA", 3)
ENTER_FOCAL_POWER_MODE = Query(b"MwCA", 8)


def set_temperature_limits(low_c: float, high_c: float) -> Query:
    """Between these [deg C] focal powers are to be reached; the answer tells which ones can be."""
    return Query(b"PwTA" + struct.pack(">hh", *(_steps(c, TEMPERATURE_STEP_C) for c in (high_c, low_c))), 7)


def set_current(steps: int) -> bytes:
    """The command for a current [4096ths of the largest]."""
    return b"Aw" + struct.pack(">h", steps)


def set_focal_power(steps: int) -> bytes:
    """The command for a focal power, in the steps of `focal_power_steps`."""
    return b"PwDA" + struct.pack(">h", steps) + bytes(2)


def crc16(data: bytes) -> int:
    """CRC-16/ARC: polynomial 0x8005 reflected (0xA001), initial value 0; 0xBB3D of b"123456789"."""
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0xA001 if crc & 1 else 0)
    return crc


def framed(command: bytes) -> bytes:
    """A command with its CRC, low byte first."""
    return command + crc16(command).to_bytes(2, "little")


def unframed(answer: bytes) -> bytes | None:
    """The data of an answer; None when its end or its CRC is wrong."""
    data, crc, end = answer[:-4], answer[-4:-2], answer[-2:]
    if end != END or not data or crc16(data) != int.from_bytes(crc, "little"):
        return None
    return data


def find_answer(received: bytes, query: Query) -> tuple[bytes, int] | None:
    """The data of the first whole answer to a query, and where [bytes] it ends in what was received."""
    length = query.answer_length
    for start in range(len(received) - length + 1):
        if received[start : start + 1] == query.command[:1]:
            data = unframed(received[start : start + length])
            if data is not None:
                return data, start + length
    return None


def error_in(received: bytes) -> str | None:
    """What the driver complains about, if it does: `N`, or `E`, a code and a CRC."""
    if received.endswith(b"N\r\n") and len(received) == 3:
        return "N (bad CRC)"
    if len(received) == 6 and received[:1] == b"E" and unframed(received) is not None:
        code = received[1]
        return f"E{chr(code) if chr(code).isdigit() else code}"
    return None


def current_steps(current_ma: float, largest_ma: float) -> int:
    """A current [mA] in steps; the largest itself is one step less than the scale has."""
    steps = _steps(current_ma, largest_ma / CURRENT_STEPS)
    return max(-CURRENT_STEPS + 1, min(CURRENT_STEPS - 1, steps))


def current_ma(steps: int, largest_ma: float) -> float:
    """Steps as a current [mA]."""
    return steps * largest_ma / CURRENT_STEPS


def focal_power_steps(diopters: float, offset_diopters: float) -> int:
    """A focal power [1/m] in steps of 1/200; the offset is the firmware type's."""
    return _steps(diopters + offset_diopters, 1.0 / POWER_STEPS_PER_DIOPTER)


def focal_power_diopters(steps: int, offset_diopters: float) -> float:
    """Steps as a focal power [1/m]."""
    return steps / POWER_STEPS_PER_DIOPTER - offset_diopters


def signed_value(data: bytes, at: int) -> int:
    """The two bytes from `at`, as a signed number."""
    return int.from_bytes(data[at : at + 2], "big", signed=True)


def text(data: bytes) -> str:
    """What an answer tells in letters, without what is not printable."""
    return "".join(chr(byte) for byte in data if 32 < byte < 127)


def complaints(status: int) -> tuple[str, ...]:
    """What a status byte says against entering a mode; empty = nothing."""
    status &= ~_OF_THE_LAST_COMMAND
    return tuple(said for bit, said in enumerate(STATUS_BITS) if status >> bit & 1)


def _steps(value: float, step: float) -> int:
    return round(value / step)
