"""A conversation with an ICC-4C or ECC-1C in the text mode that it is in when switched on.

A line, CR LF, answered by a line: `START` -> `OK`, `SETCURRENT=mA`, `GETCURRENT`, `SETFP=diopters`, `GETFP`,
`GETFPMIN`, `GETFPMAX`, `GETTEMP`, `DETECTDEVICE`, `GETDEVICESN`; refusals are `NO` (no lens), `OL` and `OU`
(below, above the limits) and `ERROR`.

Not verified for the ICC-4C and the ECC-1C: these words are those of the ICC-1C's text mode, as a public
driver (elhananby/optotune-lens) speaks it. The vendor's Python SDK confirms of the ICC-4C only that it begins
in a text mode with `Start`, `GoPro` and `Reset`. So the device is refused unless the option `unverified` is
true. It is driven on the first channel only; the binary `pro` mode is not spoken. Lines carry no CRC: what is
set is read back, but a temperature that arrives broken and is still a number is believed.
"""

from __future__ import annotations

import math
import time

from hybriddepth_ros.cameras.optotune_link import LensController, LensFacts, SerialLink
from hybriddepth_ros.errors import LensError

_QUIET_S = 0.02
_REFUSALS = {
    "NO": "no lens that can do it",
    "OL": "below its limits",
    "OU": "above its limits",
    "ERROR": "not understood",
}
_TOLERANCE = 0.01  # of what it reads back [mA, 1/m]; it tells two or three decimals


class TextController(LensController):
    """mode: `current` [mA] or `focal_power` [1/m]."""

    def __init__(
        self, link: SerialLink, mode: str, *, current_limit_ma: float, answer_timeout_s: float, retries: int
    ) -> None:
        self._link = link
        self._focal_power = mode == "focal_power"
        self._current_limit_ma = current_limit_ma
        self._timeout_s = answer_timeout_s
        self._retries = retries
        self._received = b""
        self._known: dict[str, str] = {}  # questions whose answer never changes: they tell where we are

    # What a lens is asked for.

    def identify(self) -> tuple[str, ...]:
        self._link.drain(_QUIET_S)
        greeted = self._exchange("START")
        if greeted != "OK":
            raise self._error(
                f"expected a controller that answers START with OK, got {(greeted or '')[:24]!r}"
            )
        # Only when these are known, a missing answer can be told from a late one.
        for question in ("DETECTDEVICE", "GETDEVICESN"):
            answer = self._exchange(question)
            if answer is None:
                raise self._silent()
            self._known[question] = answer
        if self._known["DETECTDEVICE"] in _REFUSALS:
            raise self._error(f"expected a lens on it, got {self._known['DETECTDEVICE']}")
        number = self._known["GETDEVICESN"]
        return () if number in _REFUSALS else (number,)

    def start(self) -> LensFacts:
        self._set("SETCURRENT", "GETCURRENT", 0.0)
        position_range, position = (-self._current_limit_ma, self._current_limit_ma), 0.0
        if self._focal_power:
            position_range = (self._number("GETFPMIN"), self._number("GETFPMAX"))
            position = self._number("GETFP")
        return LensFacts(
            firmware=self._known["DETECTDEVICE"],
            position_range=position_range,
            position=position,
            temperature_c=self.temperature_c(),
        )

    def set(self, position: float) -> None:
        if self._focal_power:
            self._set("SETFP", "GETFP", position)
        else:
            self._set("SETCURRENT", "GETCURRENT", position)

    def temperature_c(self) -> float:
        return self._number("GETTEMP")

    def rest(self, within_s: float) -> bool:
        end_s = time.monotonic() + within_s
        try:
            while time.monotonic() < end_s:
                self._link.drain(_QUIET_S, max(0.0, end_s - time.monotonic()))
                self._write("SETCURRENT=0.000")
                if self._await(min(self._timeout_s, end_s - time.monotonic())) == "OK":
                    return True
        except LensError:
            pass
        return False

    # The conversation.

    def _set(self, setter: str, getter: str, value: float) -> None:
        answer = self._ask(f"{setter}={value:.3f}")
        if answer != "OK":
            raise self._error(
                f"expected to set {setter}={value:.3f}, got {answer}: {_REFUSALS.get(answer, '')}"
            )
        got = self._number(getter)
        if abs(got - value) > _TOLERANCE:
            raise self._error(f"expected {setter}={value:.3f}, it reads back {got:.3f}")

    def _number(self, question: str) -> float:
        answer = self._ask(question)
        try:
            number = float(answer)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise self._error(
                f"expected a number for {question}, got {answer!r} {_REFUSALS.get(answer, '')}".rstrip()
            )
        return number

    def _ask(self, question: str) -> str:
        for _ in range(self._retries + 1):
            answer = self._exchange(question)
            if answer is not None and _is_clean(answer):
                return answer
            self.bad_answers += 1
            self._find_the_thread()
        raise self._error(f"expected an answer to {question}, got {self._retries + 1} broken or missing ones")

    def _find_the_thread(self) -> None:
        """Returns when no answer is due any more: a question was answered that only it has that answer to."""
        for question, answer in self._known.items():
            if answer in _REFUSALS:
                continue
            self._write(question)
            end_s = time.monotonic() + self._timeout_s
            while time.monotonic() < end_s:
                if self._await(end_s - time.monotonic()) == answer:
                    return
        raise self._silent()

    def _exchange(self, question: str) -> str | None:
        self._write(question)
        return self._await(self._timeout_s)

    def _write(self, line: str) -> None:
        self._received = b""
        self._link.write(line.encode("ascii") + b"\r\n")

    def _await(self, timeout_s: float) -> str | None:
        """The next line, or None."""
        end_s = time.monotonic() + timeout_s
        while b"\r\n" not in self._received:
            if time.monotonic() >= end_s:
                return None
            self._received += self._link.read()
        line, self._received = self._received.split(b"\r\n", 1)
        return line.decode("ascii", "replace").strip()

    def _silent(self) -> LensError:
        return self._error(f"expected an answer within {self._timeout_s * 1e3:g} ms")

    def _error(self, said: str) -> LensError:
        return LensError(f"lens {self._link.path}: {said}")


def _is_clean(line: str) -> bool:
    return bool(line) and all(" " <= letter <= "~" for letter in line)
