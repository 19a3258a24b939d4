"""The person at the terminal: told where to hold the board, shown the sharpness, asked to press Enter."""

from __future__ import annotations

import select
import sys
import termios
from collections.abc import Callable
from typing import TextIO

from hybriddepth_ros.calibration.rig import Placement
from hybriddepth_ros.errors import ParameterError

_BAR = 40  # characters


class TerminalOperator:
    """An :class:`Operator` that is a person; `answers`: where lines are read from (a terminal or a pipe)."""

    def __init__(self, answers: TextIO | None = None) -> None:
        from rich.console import Console

        self._answers = answers or sys.stdin
        self._console = Console(highlight=False)

    def place(self, wanted: Placement, live_sharpness: Callable[[], float]) -> float | None:
        from rich.live import Live

        question = (
            "distance in m (nothing = leave it out), then Enter" if wanted.typed else "Enter when ready"
        )
        self._console.print(f"\n[bold]{wanted.text}[/bold]\n[dim]{question}; Ctrl-C keeps what is done[/dim]")
        self._forget_typed()
        best = 0.0
        with Live(console=self._console, transient=True, refresh_per_second=10) as live:
            while not self._answered():
                value = live_sharpness()
                best = max(best, value, 1e-9)
                filled = round(_BAR * value / best)
                live.update(f"sharpness {value:9.5f}  {'█' * filled}{'·' * (_BAR - filled)}")
        answer = self._answers.readline()
        if not answer:
            raise KeyboardInterrupt  # the end of the input: nobody is there any more
        return self._distance(answer.strip(), wanted, live_sharpness)

    def _distance(self, answer: str, wanted: Placement, live_sharpness: Callable[[], float]) -> float | None:
        if not answer:
            return None
        try:
            distance = float(answer.replace(",", "."))
            if not 0.02 <= distance <= 1000.0:
                raise ParameterError(answer)
        except (ValueError, ParameterError):
            self._console.print(f"expected a distance in metres, got {answer!r}")
            return self.place(wanted, live_sharpness)
        return distance

    def _forget_typed(self) -> None:
        """What was typed before the question is no answer to it; a pipe's lines are."""
        if self._answers.isatty():
            termios.tcflush(self._answers.fileno(), termios.TCIFLUSH)

    def _answered(self) -> bool:
        return bool(select.select([self._answers], [], [], 0.0)[0])

    def say(self, text: str) -> None:
        self._console.print(text)
