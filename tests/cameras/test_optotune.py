"""The lens `optotune` against an emulated driver: what it does when all is well, and when it is not."""

import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from hybriddepth_ros.cameras.lens import lens_names, make_lens
from hybriddepth_ros.cameras.optotune import USB_IDS, OptotuneLens, OptotuneOptions
from hybriddepth_ros.cameras.optotune_link import UsbPort
from hybriddepth_ros.emulation.optotune import EmulatedLensDriver, LensFaults, LensProperties
from hybriddepth_ros.errors import LensError, ParameterError
from tests.cameras.conftest import ManualClock

HANG_S = 5.0  # what must take at most a second; only guards against hanging
TIMEOUT_MS = 60.0


@pytest.fixture
def driver(clock: ManualClock) -> Iterator[EmulatedLensDriver]:
    with EmulatedLensDriver(clock=clock) as emulated:
        yield emulated


def lens_on(driver: EmulatedLensDriver, clock: ManualClock, **options: object) -> OptotuneLens:
    """An unopened lens; every port of this machine is one of the emulated driver's."""
    defaults = {"port": driver.port, "answer_timeout_ms": TIMEOUT_MS}
    return OptotuneLens(OptotuneOptions(**{**defaults, **options}), clock, ports=lambda: [])  # type: ignore[arg-type]


def one_line(error: pytest.ExceptionInfo[LensError]) -> str:
    said = str(error.value)
    assert "\n" not in said
    return said


def eventually(holds: Callable[[], bool]) -> bool:
    """The driver obeys in its own thread, and of some commands nobody is told."""
    end_s = time.monotonic() + HANG_S
    while not holds() and time.monotonic() < end_s:
        time.sleep(0.002)
    return holds()


# All is well.


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


# Answers that are broken, cut, late or missing.


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
    assert lens.bad_answers == 0
    for current_ma in (11.0, 22.0, 33.0):
        driver.faults = faults
        lens.command(current_ma)
        assert driver.current_ma == pytest.approx(current_ma, abs=0.04)
    assert lens.bad_answers >= 3
    lens.close()


def test_a_late_answer_is_never_taken_for_that_to_a_later_question(
    driver: EmulatedLensDriver, clock: ManualClock
) -> None:
    """The temperature of before would look just like the temperature of now."""
    lens = lens_on(driver, clock, retries=3)
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
        lens = lens_on(driver, clock)
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


# Heat.


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


# Plugs and ports.


def test_a_pulled_plug_is_one_error_at_once(driver: EmulatedLensDriver, clock: ManualClock) -> None:
    lens = lens_on(driver, clock)
    lens.open()
    lens.command(10.0)
    driver.unplug()
    with pytest.raises(LensError, match="unplugged") as error:
        lens.command(20.0)
    one_line(error)
    with pytest.raises(LensError, match="closed"):
        lens.command(20.0)
    lens.close()


def test_a_plug_pulled_while_an_answer_is_awaited_ends_the_wait(
    driver: EmulatedLensDriver, clock: ManualClock
) -> None:
    lens = lens_on(driver, clock, answer_timeout_ms=2000.0, retries=20)
    lens.open()
    driver.faults = LensFaults(late=1, late_s=60.0)
    errors: list[str] = []

    def command() -> None:
        try:
            lens.command(60.0)
        except LensError as error:
            errors.append(str(error))

    thread = threading.Thread(target=command)
    thread.start()
    assert eventually(lambda: driver.current_ma > 0.0)
    driver.unplug()
    thread.join(HANG_S)
    assert not thread.is_alive()
    assert "unplugged" in errors[0]


def test_a_lens_plugged_in_again_is_found_by_its_number(
    driver: EmulatedLensDriver, clock: ManualClock
) -> None:
    options = OptotuneOptions(port=driver.port, serial_number="5573633", answer_timeout_ms=TIMEOUT_MS)
    ports: list[UsbPort] = []
    lens = OptotuneLens(options, clock, ports=lambda: ports)
    ports[:] = [
        UsbPort("/dev/null", 1, 2, "other"),
        UsbPort(driver.port, *USB_IDS["lens_driver_4"], "5573633"),
    ]
    lens.open()
    old = driver.port
    driver.unplug()
    with pytest.raises(LensError, match="unplugged"):
        lens.command(1.0)
    ports.clear()
    with pytest.raises(LensError):
        lens.open()
    driver.replug()
    assert driver.port != old
    ports.append(UsbPort(driver.port, *USB_IDS["lens_driver_4"], "5573633"))
    lens.open()
    lens.command(42.0)
    assert driver.current_ma == pytest.approx(42.0, abs=0.04)
    lens.close()


def test_without_a_port_the_only_device_of_its_kind_is_taken(
    driver: EmulatedLensDriver, clock: ManualClock
) -> None:
    ports = [UsbPort("/dev/ttyS0"), UsbPort(driver.port, *USB_IDS["lens_driver_4"], "1")]
    lens = OptotuneLens(OptotuneOptions(answer_timeout_ms=TIMEOUT_MS), clock, ports=lambda: ports)
    lens.open()
    lens.close()
    ports.append(UsbPort("/dev/ttyACM9", *USB_IDS["lens_driver_4"], "2"))
    with pytest.raises(LensError, match=r"found .*ttyACM9 \(2\): give serial_number or port"):
        lens.open()
    ports.clear()
    with pytest.raises(LensError, match=r"expected a lens_driver_4 on USB \(03eb:2018\), found none"):
        lens.open()


def test_of_two_devices_the_one_with_the_right_lens_is_taken_and_the_other_left_alone(
    driver: EmulatedLensDriver, clock: ManualClock
) -> None:
    with EmulatedLensDriver(replace(driver.properties, serial_number="OTHER"), clock=clock) as other:
        ports = [
            UsbPort(device.port, *USB_IDS["lens_driver_4"], str(n))
            for n, device in enumerate((other, driver))
        ]
        options = OptotuneOptions(serial_number="ABAA1234", answer_timeout_ms=TIMEOUT_MS)
        lens = OptotuneLens(options, clock, ports=lambda: ports)
        lens.open()
        lens.command(12.0)
        assert driver.current_ma == pytest.approx(12.0, abs=0.04)
        assert {command.name for command in other.commands} == {"Start"}
        lens.close()


def test_the_number_of_the_lens_finds_it_when_its_port_has_changed(
    driver: EmulatedLensDriver, clock: ManualClock
) -> None:
    """The port of before is gone, and on another one a driver is in use by somebody else."""
    with EmulatedLensDriver(LensProperties(serial_number="OTHER"), clock=clock) as other:
        holder = lens_on(other, clock)
        holder.open()
        ports = [UsbPort(device.port, *USB_IDS["lens_driver_4"]) for device in (other, driver)]
        options = OptotuneOptions(port="/dev/gone", serial_number="ABAA1234", answer_timeout_ms=TIMEOUT_MS)
        lens = OptotuneLens(options, clock, ports=lambda: ports)
        lens.open()
        lens.command(7.0)
        assert driver.current_ma == pytest.approx(7.0, abs=0.04)
        lens.close()
        holder.command(3.0)
        holder.close()


def test_a_wrong_serial_number_is_refused_with_both(driver: EmulatedLensDriver, clock: ManualClock) -> None:
    with pytest.raises(LensError, match="expected serial number ZZZ, got ABAA1234, LD4-0001") as error:
        lens_on(driver, clock, serial_number="ZZZ").open()
    one_line(error)
    assert {command.name for command in driver.commands} == {"Start"}


def test_without_pyserial_the_command_that_installs_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "serial", None)
    with pytest.raises(LensError, match="pip install pyserial") as error:
        OptotuneLens(OptotuneOptions(port="/dev/ttyACM0")).open()
    one_line(error)


def test_opening_and_closing_leaves_no_descriptor_open(
    driver: EmulatedLensDriver, clock: ManualClock
) -> None:
    lens = lens_on(driver, clock)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        lens.open()
        lens.close()
    driver.unplug()
    with pytest.raises(LensError):
        lens.open()
    driver.replug()
    assert eventually(lambda: len(os.listdir("/proc/self/fd")) == before)


def test_a_port_that_does_not_exist_is_one_line() -> None:
    with pytest.raises(LensError, match="/dev/nothing: expected a serial port") as error:
        OptotuneLens(OptotuneOptions(port="/dev/nothing")).open()
    one_line(error)


@pytest.mark.parametrize("answer", [b"", b"login: ", b"\xff\x00" * 500])
def test_another_device_on_the_port_is_refused_with_what_it_said(answer: bytes, clock: ManualClock) -> None:
    class Another(EmulatedLensDriver):
        def _take(self, received: bytes) -> tuple[int, list[bytes]]:
            self._record(received.decode("latin-1"))
            return len(received), [answer]

    with Another(clock=clock) as driver:
        with pytest.raises(LensError, match="expected a Lens Driver 4 that answers 'Ready', got b'") as error:
            lens_on(driver, clock).open()
        one_line(error)
        assert set("".join(command.name for command in driver.commands)) <= set("Start")  # and nothing else


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "steps"}, "expected one of current, focal_power"),
        ({"retries": -1}, "retries: expected 0 to 20"),
        ({"prt": "/dev/x"}, "did you mean port"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        make_lens("optotune", options)


def test_temperature_limits_that_cross_are_refused() -> None:
    with pytest.raises(LensError, match="temperature_low_c below temperature_limit_c, got 30 and 20"):
        make_lens("optotune", {"temperature_low_c": 30.0, "temperature_limit_c": 20.0})


# Closing never takes long.


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


def fill(port: str) -> None:
    """Write until the port takes no more; the kernel makes room behind our back, so more than once."""
    descriptor = os.open(port, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    full = 0
    try:
        while full < 10:
            try:
                os.write(descriptor, b"\0" * 16)
                full = 0
            except BlockingIOError:
                full += 1
                time.sleep(0.01)
    finally:
        os.close(descriptor)
