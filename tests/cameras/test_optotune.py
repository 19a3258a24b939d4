"""The lens `optotune` on an emulated driver: what it does when all is well, and when it gets too hot."""

import math
import threading
from collections.abc import Iterator

import pytest

from hybriddepth_ros.cameras.lens import lens_names, make_lens
from hybriddepth_ros.cameras.optotune import OptotuneLens
from hybriddepth_ros.emulation.optotune import EmulatedLensDriver, LensFaults, LensProperties
from hybriddepth_ros.errors import LensError
from tests.cameras.conftest import ManualClock
from tests.cameras.optotune_rig import HANG_S, eventually, lens_on, one_line


@pytest.fixture
def driver(clock: ManualClock) -> Iterator[EmulatedLensDriver]:
    with EmulatedLensDriver(clock=clock) as emulated:
        yield emulated


def test_the_lens_is_found_by_name() -> None:
    assert "optotune" in lens_names()
    assert isinstance(make_lens("optotune", {"port": "/dev/ttyACM7"}), OptotuneLens)


def test_a_current_reaches_the_lens_before_command_returns(
    driver: EmulatedLensDriver, clock: ManualClock
) -> None:
    lens = lens_on(driver, clock)
    lens.open()
    for current_ma in (100.0, -37.5, 250.0, 0.0):
        clock.pass_ms(3)
        assert lens.command(current_ma) == clock.ns
        assert driver.current_ma == pytest.approx(current_ma, abs=0.04)
        assert lens.state().position == current_ma
    lens.close()


@pytest.mark.parametrize("firmware_type", ["A", "B", "F"])
def test_a_focal_power_reaches_the_lens_whatever_its_firmware_counts_in(
    firmware_type: str, driver: EmulatedLensDriver, clock: ManualClock
) -> None:
    driver.properties = LensProperties(firmware_type=firmware_type)
    lens = lens_on(driver, clock, mode="focal_power", temperature_low_c=15.0, temperature_limit_c=40.0)
    lens.open()
    assert lens.position_range == (-2.0, 3.0)
    limits = next(command.value for command in driver.commands if command.name == "PwTA")
    assert limits == 40.0  # the upper one is sent first
    lens.command(1.25)
    assert driver.focal_power_diopters == 1.25
    lens.close()
    assert driver.at_rest


def test_firmware_that_counts_in_an_unknown_way_is_refused_unless_allowed(
    driver: EmulatedLensDriver, clock: ManualClock
) -> None:
    driver.properties = LensProperties(firmware_type="Q")
    with pytest.raises(LensError, match="unverified: true") as error:
        lens_on(driver, clock, mode="focal_power").open()
    assert "'Q'" in one_line(error)
    lens_on(driver, clock, mode="current").open()
    lens = lens_on(driver, clock, mode="focal_power", unverified=True)
    lens.open()
    lens.close()


def test_the_device_tells_what_it_is(driver: EmulatedLensDriver, clock: ManualClock) -> None:
    driver.properties = LensProperties(firmware_type="F", largest_current_ma=200.0, lower_limit_steps=0)
    lens = lens_on(driver, clock)
    lens.open()
    assert lens.facts.firmware == "F 1.11.3.1029"
    low, high = lens.position_range
    assert (low, high) == (0.0, pytest.approx(200.0, abs=0.1))
    assert lens.facts.temperature_c == 25.0
    assert lens.settle_ms == 25.0
    lens.close()


@pytest.mark.parametrize("position", [-251.0, 251.0, math.nan, math.inf])
def test_a_current_out_of_range_is_refused_and_the_lens_goes_on(
    position: float, driver: EmulatedLensDriver, clock: ManualClock
) -> None:
    lens = lens_on(driver, clock)
    lens.open()
    lens.command(10.0)
    with pytest.raises(LensError, match="expected -250 to 250 mA, got"):
        lens.command(position)
    assert driver.current_ma == pytest.approx(10.0, abs=0.04)
    lens.command(20.0)
    lens.close()


def test_closing_sends_the_lens_to_rest_and_may_be_done_twice(
    driver: EmulatedLensDriver, clock: ManualClock
) -> None:
    lens = lens_on(driver, clock)
    lens.close()
    lens.open()
    lens.command(120.0)
    assert not driver.at_rest
    lens.close()
    assert driver.at_rest
    lens.close()
    with pytest.raises(LensError, match="closed"):
        lens.command(1.0)
    with pytest.raises(LensError, match="closed"):
        lens.state()
    lens.open()
    lens.command(5.0)
    lens.close()


def test_two_drivers_cannot_have_one_port(driver: EmulatedLensDriver, clock: ManualClock) -> None:
    lens = lens_on(driver, clock)
    lens.open()
    with pytest.raises(LensError, match="expected a serial port"):
        lens_on(driver, clock).open()
    lens.command(5.0)
    lens.close()


def test_an_emulated_optic_can_follow(clock: ManualClock) -> None:
    seen: list[tuple[int, float]] = []
    with EmulatedLensDriver(on_command=lambda ns, ma: seen.append((ns, ma)), clock=clock) as driver:
        lens = lens_on(driver, clock)
        lens.open()
        seen.clear()
        acknowledged_ns = lens.command(50.0)
        assert seen == [(acknowledged_ns, pytest.approx(50.0, abs=0.04))]
        lens.close()


def test_a_lens_that_gets_too_hot_is_sent_to_rest(driver: EmulatedLensDriver, clock: ManualClock) -> None:
    lens = lens_on(driver, clock, temperature_limit_c=50.0)
    lens.open()
    lens.command(200.0)
    driver.thermometer.set(45.0, drift_k_per_s=1.0)
    clock.pass_ms(4000)
    lens.command(201.0)
    assert lens.state().temperature_c == pytest.approx(49.0, abs=0.05)
    clock.pass_ms(2000)
    with pytest.raises(LensError, match=r"expected at most 50 deg C, got 51\.0: it was sent to rest"):
        lens.command(202.0)
    assert driver.at_rest
    with pytest.raises(LensError, match="expected at most 50 deg C"):
        lens.open()
    driver.thermometer.set(30.0)
    lens.open()
    lens.close()


def test_the_temperature_is_asked_for_once_a_second_at_most(
    driver: EmulatedLensDriver, clock: ManualClock
) -> None:
    lens = lens_on(driver, clock)
    lens.open()
    driver.thermometer.set(33.0)
    clock.pass_ms(999)
    assert lens.state().temperature_c == 25.0
    clock.pass_ms(1)
    assert lens.state().temperature_c == 33.0
    lens.close()


def test_asking_for_the_state_waits_for_no_command(driver: EmulatedLensDriver, clock: ManualClock) -> None:
    lens = lens_on(driver, clock, answer_timeout_ms=1000.0)
    lens.open()
    driver.faults = LensFaults(late=1, late_s=0.5)
    thread = threading.Thread(target=lens.command, args=(60.0,))
    thread.start()
    assert eventually(lambda: driver.current_ma > 0.0)
    clock.pass_ms(5000)
    assert lens.state().position == 0.0  # of before: the command is not acknowledged yet
    assert thread.is_alive()
    thread.join(HANG_S)
    assert lens.state().position == 60.0
    lens.close()
