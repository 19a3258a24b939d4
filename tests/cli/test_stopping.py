"""What a signal does to a command: a request while things are open, an interruption where nothing is."""

import os
import signal

import pytest

from hybriddepth_ros.commands.stopping import stop_on_signals


def test_a_signal_is_a_request_until_work_may_be_interrupted() -> None:
    former = signal.getsignal(signal.SIGINT)
    try:
        with stop_on_signals() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert stop and stop.exit_code == 130
            with pytest.raises(KeyboardInterrupt), stop.interrupting():
                raise AssertionError("a stop that was asked for before must end the work")
    finally:
        signal.signal(signal.SIGINT, former)


def test_a_signal_interrupts_work_that_does_not_look() -> None:
    former = signal.getsignal(signal.SIGINT)
    try:
        with stop_on_signals() as stop:
            with pytest.raises(KeyboardInterrupt), stop.interrupting():
                os.kill(os.getpid(), signal.SIGINT)
                raise AssertionError("not reached")
            os.kill(os.getpid(), signal.SIGINT)  # a second one changes nothing
            assert stop.exit_code == 130
    finally:
        signal.signal(signal.SIGINT, former)
