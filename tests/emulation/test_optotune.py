"""The emulated lens driver, spoken to in bytes that were written down by hand and not by our driver."""

import os
import select
from collections.abc import Iterator

import pytest
import serial

from hybriddepth_ros.emulation.optotune import EmulatedLensDriver, LensFaults, LensProperties
from hybriddepth_ros.emulation.optotune_icc import EmulatedTextController

WAIT_S = 5.0
# A current of 0x0100 steps; the CRCs come from the polynomial 0x8005, bit by bit, not from our function.
SET_CURRENT = bytes.fromhex("41 77 01 00") + bytes.fromhex("a5 b6")
ASK_TYPE = b"H" + bytes.fromhex("00 36")


@pytest.fixture
def driver() -> Iterator[EmulatedLensDriver]:
    with EmulatedLensDriver() as emulated:
        yield emulated


def talk(port: serial.Serial, sent: bytes, expected: int) -> bytes:
    port.write(sent)
    return bytes(port.read(expected))


def test_it_greets(driver: EmulatedLensDriver) -> None:
    with serial.Serial(driver.port, timeout=WAIT_S) as port:
        assert talk(port, b"Start", 7) == b"Ready\r\n"


def test_it_obeys_a_current_without_an_answer_and_records_it(driver: EmulatedLensDriver) -> None:
    with serial.Serial(driver.port, timeout=WAIT_S) as port:
        answer = talk(port, SET_CURRENT + ASK_TYPE, 6)
    assert answer[:2] == b"HB"
    assert [(command.name, command.value) for command in driver.commands] == [("Aw", driver.current_ma)]
    assert driver.current_ma == pytest.approx(256 * 292.84 / 4096)


def test_it_complains_of_a_bad_crc_and_does_not_obey(driver: EmulatedLensDriver) -> None:
    with serial.Serial(driver.port, timeout=WAIT_S) as port:
        assert talk(port, SET_CURRENT[:-1] + b"\0", 6)[:2] == b"E1"
        assert talk(port, b"?", 6)[:2] == b"E3"
    assert driver.at_rest
    assert driver.commands == ()


def test_commands_may_come_byte_by_byte(driver: EmulatedLensDriver) -> None:
    with serial.Serial(driver.port, timeout=WAIT_S) as port:
        for byte in SET_CURRENT:
            port.write(bytes([byte]))
        assert talk(port, ASK_TYPE, 6)[:2] == b"HB"
    assert not driver.at_rest


def test_faults_are_used_up_in_order(driver: EmulatedLensDriver) -> None:
    with serial.Serial(driver.port, timeout=WAIT_S) as port:
        right = talk(port, ASK_TYPE, 6)
        driver.faults = LensFaults(bad_crc=1)
        broken = talk(port, ASK_TYPE, 6)
        assert len(broken) == 6 and broken != right
        driver.faults = LensFaults(truncated=1)
        assert talk(port, ASK_TYPE, 3) == right[:3]
        assert driver.faults == LensFaults()
        assert talk(port, ASK_TYPE, 6) == right


def test_a_late_answer_holds_up_those_behind_it(driver: EmulatedLensDriver) -> None:
    with serial.Serial(driver.port, timeout=WAIT_S) as port:
        driver.faults = LensFaults(late=1, late_s=0.1)
        assert talk(port, ASK_TYPE + b"Start", 13)[6:] == b"Ready\r\n"


def test_unplugging_hangs_up_and_replugging_gives_another_port(driver: EmulatedLensDriver) -> None:
    with serial.Serial(driver.port, timeout=WAIT_S) as port:
        talk(port, SET_CURRENT + ASK_TYPE, 6)
        old = driver.port
        driver.unplug()
        with pytest.raises((OSError, serial.SerialException)):
            talk(port, b"Start", 7)
    driver.replug()
    assert driver.port != old
    assert driver.at_rest  # it lost its power meanwhile
    with serial.Serial(driver.port, timeout=WAIT_S) as port:
        assert talk(port, b"Start", 7) == b"Ready\r\n"


def test_a_silent_device_hears_nothing(driver: EmulatedLensDriver) -> None:
    driver.faults = LensFaults(silent=True)
    with serial.Serial(driver.port, timeout=0.2) as port:
        assert talk(port, SET_CURRENT + b"Start", 7) == b""
    assert driver.commands == ()


def test_its_properties_may_change_while_it_runs(driver: EmulatedLensDriver) -> None:
    driver.properties = LensProperties(firmware_type="A")
    with serial.Serial(driver.port, timeout=WAIT_S) as port:
        assert talk(port, ASK_TYPE, 6)[:2] == b"HA"


def test_nothing_is_left_open_behind_it() -> None:
    before = len(os.listdir("/proc/self/fd"))
    with EmulatedLensDriver() as driver:
        driver.replug()
        driver.unplug()
        driver.replug()
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_text_controller_answers_lines_and_refuses_what_it_does_not_know() -> None:
    seen: list[float] = []
    with (
        EmulatedTextController(on_command=lambda _, value: seen.append(value)) as controller,
        serial.Serial(controller.port, timeout=WAIT_S) as port,
    ):
        for line, answer in (
            (b"START", b"OK"),
            (b"SETFP=1.5", b"OK"),
            (b"GETFP", b"1.500"),
            (b"SETFP=9", b"OU"),
            (b"SETCURRENT=-501", b"OL"),
            (b"SETCURRENT=x", b"ERROR"),
            (b"DANCE", b"ERROR"),
        ):
            port.write(line + b"\r\n")
            assert port.read_until(b"\r\n") == answer + b"\r\n", line
    assert seen == [1.5]


def test_a_blocked_device_takes_no_more_than_the_port_holds(driver: EmulatedLensDriver) -> None:
    driver.faults = LensFaults(blocked=True)
    descriptor = os.open(driver.port, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        with pytest.raises(BlockingIOError):
            for _ in range(1000):
                os.write(descriptor, bytes(1024))
        assert not select.select([], [descriptor], [], 0.0)[1]
    finally:
        os.close(descriptor)
