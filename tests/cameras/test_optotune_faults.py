"""The lens `optotune` when answers are broken, late or missing; closing takes no time even then."""

import threading
import time
from collections.abc import Iterator

import pytest

from hybriddepth_ros.emulation.optotune import EmulatedLensDriver, LensFaults, LensProperties
from hybriddepth_ros.errors import LensError
from tests.cameras.conftest import ManualClock
from tests.cameras.optotune_rig import HANG_S, TIMEOUT_MS, eventually, fill, lens_on, one_line


@pytest.fixture
def driver(clock: ManualClock) -> Iterator[EmulatedLensDriver]:
    with EmulatedLensDriver(clock=clock) as emulated:
        yield emulated


@pytest.mark.parametrize(
    "faults",
    [
        LensFaults(bad_crc=1),
        LensFaults(bad_crc=2),
        LensFaults(truncated=1),
        LensFaults(late=1, late_s=2.5e-3 * TIMEOUT_MS),
        LensFaults(lost_commands=1),
        LensFaults(bad_crc=1, truncated=1),
    ],
)
def test_a_fault_that_passes_is_counted_and_got_over(
    faults: LensFaults, driver: EmulatedLensDriver, clock: ManualClock
) -> None:
    lens = lens_on(driver, clock)
    lens.open()
    before = lens.bad_answers
    for current_ma in (11.0, 22.0, 33.0):
        driver.faults = faults
        lens.command(current_ma)
        assert driver.current_ma == pytest.approx(current_ma, abs=0.04)
    assert lens.bad_answers >= before + 3
    lens.close()


def test_a_late_answer_is_never_taken_for_that_to_a_later_question(
    driver: EmulatedLensDriver, clock: ManualClock
) -> None:
    """The temperature of before would look just like the temperature of now."""
    lens = lens_on(driver, clock)
    lens.open()
    for temperature_c in (30.0, 40.0, 50.0):
        driver.faults = LensFaults(late=1, late_s=2.5e-3 * TIMEOUT_MS)
        clock.pass_ms(1500)
        lens.state()  # asked for while it was as before, and answered too late
        driver.thermometer.set(temperature_c)
        clock.pass_ms(1500)
        assert lens.state().temperature_c == temperature_c
    assert lens.bad_answers >= 3
    lens.close()


def test_no_question_is_asked_whose_answer_could_be_an_older_one(clock: ManualClock) -> None:
    """The serial number is due, then the firmware's type too: only the mode looks like neither."""

    class Forgetful(EmulatedLensDriver):
        asked: tuple[str, ...] = ()

        def _obey(self, name: str, values: bytes) -> bytes | None:
            first = name not in self.asked
            self.asked += (name,)
            return None if first and name in ("X", "H") else super()._obey(name, values)

    with Forgetful(clock=clock) as driver:
        lens = lens_on(driver, clock, answer_timeout_ms=400.0)
        lens.open()
        assert driver.asked[:4] == ("X", "H", "MMA", "X")
        lens.close()


@pytest.mark.parametrize(
    "faults",
    [
        LensFaults(bad_crc=999),
        LensFaults(truncated=999),
        LensFaults(silent=True),
        LensFaults(lost_commands=999),
    ],
)
def test_a_fault_that_stays_is_one_error_and_the_lens_is_released(
    faults: LensFaults, driver: EmulatedLensDriver, clock: ManualClock
) -> None:
    lens = lens_on(driver, clock)
    lens.open()
    lens.command(80.0)
    driver.faults = faults
    with pytest.raises(LensError, match="expected an answer") as error:
        lens.command(90.0)
    assert driver.port in one_line(error)
    assert lens.bad_answers > 0
    with pytest.raises(LensError, match="closed"):
        lens.command(90.0)
    driver.faults = LensFaults()
    lens.open()
    lens.command(70.0)
    assert driver.current_ma == pytest.approx(70.0, abs=0.04)
    lens.close()


def test_a_driver_whose_answers_are_lost_still_goes_to_rest(
    driver: EmulatedLensDriver, clock: ManualClock
) -> None:
    lens = lens_on(driver, clock)
    lens.open()
    lens.command(80.0)
    driver.faults = LensFaults(truncated=999)
    with pytest.raises(LensError):
        lens.command(90.0)
    assert eventually(lambda: driver.at_rest)


def test_a_setting_that_is_not_taken_is_told_with_both_values(clock: ManualClock) -> None:
    class Stuck(EmulatedLensDriver):
        def _obey(self, name: str, values: bytes) -> bytes | None:
            return None if name == "Aw" else super()._obey(name, values)

    with Stuck(clock=clock) as driver:
        lens = lens_on(driver, clock)
        lens.open()
        with pytest.raises(LensError, match=r"expected a current of 49\.\d+ mA, it reads back 0\.00"):
            lens.command(50.0)


def test_a_mode_that_is_not_entered_is_told(clock: ManualClock) -> None:
    class Stubborn(EmulatedLensDriver):
        def _obey(self, name: str, values: bytes) -> bytes | None:
            return b"MMA\x06" if name == "MMA" else super()._obey(name, values)

    with Stubborn(clock=clock) as driver, pytest.raises(LensError, match="expected mode 1 after MwDA, got 6"):
        lens_on(driver, clock).open()


def test_a_driver_without_its_lens_is_told_from_its_status(
    driver: EmulatedLensDriver, clock: ManualClock
) -> None:
    driver.properties = LensProperties(status=0b10)
    with pytest.raises(LensError, match=r"0x02: no or faulty EEPROM"):
        lens_on(driver, clock, mode="focal_power").open()
    assert driver.at_rest


@pytest.mark.parametrize("faults", [LensFaults(silent=True), LensFaults(blocked=True)])
def test_closing_a_device_that_does_nothing_takes_no_longer_than_a_second(
    faults: LensFaults, driver: EmulatedLensDriver, clock: ManualClock
) -> None:
    lens = lens_on(driver, clock, answer_timeout_ms=2000.0)
    lens.open()
    lens.command(10.0)
    driver.faults = faults
    if faults.blocked:
        fill(driver.port)
    started_s = time.monotonic()
    lens.close()
    assert time.monotonic() - started_s < HANG_S


def test_a_write_that_blocks_is_an_error_and_no_wait(driver: EmulatedLensDriver, clock: ManualClock) -> None:
    lens = lens_on(driver, clock)
    lens.open()
    driver.faults = LensFaults(blocked=True)
    fill(driver.port)
    started_s = time.monotonic()
    with pytest.raises(LensError, match="cannot write"):
        lens.command(10.0)
    assert time.monotonic() - started_s < HANG_S


def test_closing_ends_a_command_that_waits(driver: EmulatedLensDriver, clock: ManualClock) -> None:
    lens = lens_on(driver, clock, answer_timeout_ms=2000.0, retries=20)
    lens.open()
    driver.faults = LensFaults(silent=True)
    errors: list[str] = []
    begun = threading.Event()

    def command() -> None:
        begun.set()
        try:
            lens.command(60.0)
        except LensError as error:
            errors.append(str(error))

    thread = threading.Thread(target=command)
    thread.start()
    begun.wait(HANG_S)
    started_s = time.monotonic()
    lens.close()
    assert time.monotonic() - started_s < HANG_S
    thread.join(HANG_S)
    assert "closed" in errors[0]
