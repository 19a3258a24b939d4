"""Which device the lens `optotune` takes, and what it does when the plug is pulled."""

import os
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from hybriddepth_ros.cameras.lens import make_lens
from hybriddepth_ros.cameras.optotune import USB_IDS, OptotuneLens, OptotuneOptions
from hybriddepth_ros.cameras.optotune_link import UsbPort
from hybriddepth_ros.emulation.optotune import EmulatedLensDriver, LensFaults, LensProperties
from hybriddepth_ros.errors import LensError, ParameterError
from tests.cameras.conftest import ManualClock
from tests.cameras.optotune_rig import HANG_S, RETRIES, TIMEOUT_MS, eventually, lens_on, one_line


@pytest.fixture
def driver(clock: ManualClock) -> Iterator[EmulatedLensDriver]:
    with EmulatedLensDriver(clock=clock) as emulated:
        yield emulated


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
    options = OptotuneOptions(
        port=driver.port, serial_number="5573633", answer_timeout_ms=TIMEOUT_MS, retries=RETRIES
    )
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
    lens = OptotuneLens(
        OptotuneOptions(answer_timeout_ms=TIMEOUT_MS, retries=RETRIES), clock, ports=lambda: ports
    )
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
        options = OptotuneOptions(serial_number="ABAA1234", answer_timeout_ms=TIMEOUT_MS, retries=RETRIES)
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
        options = OptotuneOptions(
            port="/dev/gone", serial_number="ABAA1234", answer_timeout_ms=TIMEOUT_MS, retries=RETRIES
        )
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
