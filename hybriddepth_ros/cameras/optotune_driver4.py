"""A conversation with a Lens Driver 4 or 4i, in which no answer is taken for that to another question.

The driver answers in the order in which it is asked, and some answers look alike. So when one is missing or
broken, a question follows whose answer looks like none that is still due: once that has come, nothing older
can. Only then is the first question asked again.
"""

from __future__ import annotations

import time

from hybriddepth_ros.cameras import optotune_protocol as protocol
from hybriddepth_ros.cameras.optotune_link import LensController, LensFacts, SerialLink
from hybriddepth_ros.cameras.optotune_protocol import Query
from hybriddepth_ros.errors import LensError

_BARRIERS = (
    protocol.FIRMWARE_TYPE,
    protocol.LENS_SERIAL,
    protocol.MODE,
    protocol.DEVICE_ID,
    protocol.FIRMWARE_VERSION,
)
_QUIET_S = 0.02  # a whole but wrong answer, and nothing after it for so long: it was broken


class LensDriver4(LensController):
    """mode: `current` [mA] or `focal_power` [1/m]; temperature_range_c: that focal powers are to hold in."""

    def __init__(
        self,
        link: SerialLink,
        mode: str,
        *,
        current_limit_ma: float,
        temperature_range_c: tuple[float, float],
        answer_timeout_s: float,
        retries: int,
        unverified: bool,
    ) -> None:
        self._link = link
        self._focal_power = mode == "focal_power"
        self._current_limit_ma = current_limit_ma
        self._temperature_range_c = temperature_range_c
        self._timeout_s = answer_timeout_s
        self._retries = retries
        self._unverified = unverified
        self._due: list[Query] = []  # asked, and not known to be answered
        self._complaint = ""  # the last that the driver had
        self._largest_ma = 0.0
        self._offset_diopters = 0.0

    # What a lens is asked for.

    def identify(self) -> tuple[str, ...]:
        self._greet()
        numbers = (
            protocol.text(self._ask(protocol.LENS_SERIAL)[1:]),
            protocol.text(self._ask(protocol.DEVICE_ID)[2:]),
        )
        return tuple(number for number in numbers if number)

    def start(self) -> LensFacts:
        firmware_type = protocol.text(self._ask(protocol.FIRMWARE_TYPE)[1:])
        self._offset_diopters = self._power_offset(firmware_type)
        self._largest_ma = protocol.signed_value(self._ask(protocol.LARGEST_CURRENT), 3) / 100.0
        if self._largest_ma <= 0.0:
            raise self._error(f"expected a largest current above 0 mA, got {self._largest_ma:g}")
        self._enter(protocol.ENTER_CURRENT_MODE, protocol.CURRENT_MODE)
        self._set_current(0)
        position_range, position = self._current_range(), 0.0
        if self._focal_power:
            position_range = self._enter_focal_power_mode()
            position = self._power(protocol.signed_value(self._ask(protocol.FOCAL_POWER), 2))
        return LensFacts(
            firmware=f"{firmware_type} {self._version()}".strip(),
            position_range=position_range,
            position=position,
            temperature_c=self.temperature_c(),
        )

    def set(self, position: float) -> None:
        if self._focal_power:
            self._set_power(protocol.focal_power_steps(position, self._offset_diopters))
        else:
            self._set_current(protocol.current_steps(position, self._largest_ma))

    def temperature_c(self) -> float:
        return protocol.signed_value(self._ask(protocol.TEMPERATURE), 3) * protocol.TEMPERATURE_STEP_C

    def rest(self, within_s: float) -> bool:
        end_s = time.monotonic() + within_s
        try:
            while time.monotonic() < end_s:
                # Asked blindly: even a driver whose answers are lost obeys.
                for command in (protocol.ENTER_CURRENT_MODE.command, protocol.set_current(0)):
                    self._link.write(protocol.framed(command))
                self._link.write(protocol.framed(protocol.CURRENT.command))
                answer = self._await(protocol.CURRENT, min(self._timeout_s, end_s - time.monotonic()))
                if answer is not None and protocol.signed_value(answer, 1) == 0:
                    return True
        except LensError:
            pass
        return False

    # Its parts.

    def _greet(self) -> None:
        """The handshake. What an earlier program left unread is dropped first."""
        self._link.drain(_QUIET_S)
        got = b""
        for _ in range(self._retries + 1):
            self._link.write(protocol.HANDSHAKE)
            end_s = time.monotonic() + self._timeout_s
            while time.monotonic() < end_s:
                got += self._link.read()
                if protocol.HANDSHAKE_ANSWER in got:
                    self._link.drain(_QUIET_S)
                    return
        raise self._error(f"expected a Lens Driver 4 that answers 'Ready', got {got[:24]!r}")

    def _power_offset(self, firmware_type: str) -> float:
        known = protocol.POWER_OFFSET_DIOPTERS
        if firmware_type in known or not self._focal_power:
            return known.get(firmware_type, 0.0)
        if not self._unverified:
            raise self._error(
                f"expected firmware of type {', '.join(known)} for focal powers, got {firmware_type!r}:"
                " how it counts them is not documented (unverified: true tries it as type B)"
            )
        return 0.0

    def _version(self) -> str:
        numbers = self._ask(protocol.FIRMWARE_VERSION)
        build, revision = protocol.signed_value(numbers, 3), protocol.signed_value(numbers, 5)
        return f"{numbers[1]}.{numbers[2]}.{build}.{revision}"

    def _current_range(self) -> tuple[float, float]:
        """What the driver's own limits and the option allow [mA]."""
        low, high = (
            protocol.current_ma(protocol.signed_value(self._ask(query), 3), self._largest_ma)
            for query in (protocol.LOWER_LIMIT, protocol.UPPER_LIMIT)
        )
        low, high = max(low, -self._current_limit_ma), min(high, self._current_limit_ma)
        if not low < high:
            raise self._error(f"expected a range of currents, got {low:g} to {high:g} mA")
        return low, high

    def _enter(self, query: Query, mode: int) -> bytes:
        answer = self._ask(query)
        entered = self._ask(protocol.MODE)[3]
        if entered != mode:
            raise self._error(f"expected mode {mode} after {query.command.decode()}, got {entered}")
        return answer

    def _enter_focal_power_mode(self) -> tuple[float, float]:
        """The focal powers [1/m] that it can hold within the temperatures."""
        limits = self._ask(protocol.set_temperature_limits(*self._temperature_range_c))
        self._check_status(limits[2], "the temperature limits")
        entered = self._enter(protocol.ENTER_FOCAL_POWER_MODE, protocol.FOCAL_POWER_MODE)
        self._check_status(entered[3], "focal power mode")
        high, low = (self._power(protocol.signed_value(entered, at)) for at in (4, 6))
        if not low < high:
            raise self._error(
                f"expected a range of focal powers, got {low:g} to {high:g} 1/m: is a lens on it?"
            )
        return low, high

    def _check_status(self, status: int, doing: str) -> None:
        complaints = protocol.complaints(status)
        if complaints:
            raise self._error(f"expected it to take {doing}, status {status:#04x}: {'; '.join(complaints)}")

    def _power(self, steps: int) -> float:
        return protocol.focal_power_diopters(steps, self._offset_diopters)

    # The conversation.

    def _set_current(self, steps: int) -> None:
        got = self._set(protocol.set_current(steps), protocol.CURRENT, steps)
        if got != steps:
            wanted_ma, got_ma = (protocol.current_ma(s, self._largest_ma) for s in (steps, got))
            raise self._error(
                f"expected a current of {wanted_ma:.2f} mA, it reads back {got_ma:.2f}{self._complained()}"
            )

    def _set_power(self, steps: int) -> None:
        got = self._set(protocol.set_focal_power(steps), protocol.FOCAL_POWER, steps)
        if got != steps:
            raise self._error(
                f"expected a focal power of {self._power(steps):.3f} 1/m,"
                f" it reads back {self._power(got):.3f}{self._complained()}"
            )

    def _set(self, command: bytes, query: Query, steps: int) -> int:
        """Set and read back, again when the two differ: a command that arrives broken is not obeyed."""
        got = steps
        for _ in range(self._retries + 1):
            self._link.write(protocol.framed(command))
            got = protocol.signed_value(self._ask(query), query.data_length - 2)
            if got == steps:
                break
            self.bad_answers += 1
        return got

    def _ask(self, query: Query) -> bytes:
        """The data of the answer to this very question."""
        for _ in range(self._retries + 1):
            answer = self._exchange(query)
            if answer is not None:
                self._due.clear()
                return answer
            self._find_the_thread()
        raise self._error(
            f"expected an answer to {query.command[:4].decode('latin-1').rstrip(chr(0))},"
            f" got {self._retries + 1} broken or missing ones{self._complained()}"
        )

    def _find_the_thread(self) -> None:
        """Returns when no answer is due any more."""
        for barrier in _BARRIERS:
            if any(barrier.is_like(query) for query in self._due):
                continue
            if self._exchange(barrier) is not None:
                self._due.clear()
                return
        raise self._error(f"expected an answer within {self._timeout_s * 1e3:g} ms{self._complained()}")

    def _exchange(self, query: Query) -> bytes | None:
        self._due.append(query)
        self._link.write(protocol.framed(query.command))
        answer = self._await(query, self._timeout_s)
        if answer is None:
            self.bad_answers += 1
        return answer

    def _await(self, query: Query, timeout_s: float) -> bytes | None:
        """The next answer that fits, or None; what came before it is dropped."""
        received = b""
        end_s = time.monotonic() + timeout_s
        last_s = time.monotonic()
        while time.monotonic() < end_s:
            got = self._link.read()
            now_s = time.monotonic()
            if got:
                received += got
                last_s = now_s
                found = protocol.find_answer(received, query)
                if found is not None:
                    return found[0]
                self._complaint = protocol.error_in(received) or self._complaint
            broken = len(received) >= query.answer_length and received.endswith(protocol.END)
            if broken and now_s - last_s > _QUIET_S:
                return None
        return None

    def _complained(self) -> str:
        return f"; it complained {self._complaint}" if self._complaint else ""

    def _error(self, said: str) -> LensError:
        return LensError(f"lens {self._link.path}: {said}")
