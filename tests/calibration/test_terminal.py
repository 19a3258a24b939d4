"""The person at the terminal: Enter goes on, a distance is a number, the end of the input stops."""

import os
import pty
from collections.abc import Callable
from typing import TextIO

import pytest

from hybriddepth_ros.calibration.rig import Placement
from hybriddepth_ros.calibration.terminal import TerminalOperator

Typed = Callable[[str], TextIO]


@pytest.fixture
def typed() -> Typed:
    def make(text: str) -> TextIO:
        reading, writing = os.pipe()
        os.write(writing, text.encode())
        os.close(writing)
        return os.fdopen(reading, buffering=1)

    return make


def test_enter_goes_on(typed: Typed, capsys: pytest.CaptureFixture[str]) -> None:
    operator = TerminalOperator(typed("\n"))
    assert operator.place(Placement("Hold it still.", 0.5), lambda: 0.1) is None
    assert "Hold it still." in capsys.readouterr().out


def test_a_distance_is_read_and_nonsense_refused(typed: Typed, capsys: pytest.CaptureFixture[str]) -> None:
    operator = TerminalOperator(typed("far\n1,25\n"))
    assert operator.place(Placement("Wall.", 1.3, typed=True), lambda: 0.1) == 1.25
    assert "expected a distance in metres, got 'far'" in capsys.readouterr().out


def test_the_end_of_the_input_stops(typed: Typed) -> None:
    with pytest.raises(KeyboardInterrupt):
        TerminalOperator(typed("")).place(Placement("Anyone?", 0.5), lambda: 0.1)


def test_an_enter_typed_ahead_is_no_answer(capsys: pytest.CaptureFixture[str]) -> None:
    keyboard, terminal = pty.openpty()
    os.write(keyboard, b"0.7\n")  # before the question
    asked = 0

    def sharpness() -> float:
        nonlocal asked
        asked += 1
        if asked == 3:
            os.write(keyboard, b"1.5\n")
        return 0.1

    with os.fdopen(terminal, buffering=1) as answers:
        assert TerminalOperator(answers).place(Placement("Wall.", 1.3, typed=True), sharpness) == 1.5
    os.close(keyboard)
    assert asked >= 3
