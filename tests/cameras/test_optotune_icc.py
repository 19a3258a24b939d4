"""The text mode of the ICC controllers, refused unless allowed, against an emulated one."""

from collections.abc import Iterator

import pytest

from hybriddepth_ros.cameras.optotune import OptotuneLens, OptotuneOptions
from hybriddepth_ros.emulation.optotune_icc import EmulatedTextController
from hybriddepth_ros.emulation.serial_device import LensFaults
from hybriddepth_ros.errors import LensError
from tests.cameras.conftest import ManualClock

TIMEOUT_MS = 100.0


@pytest.fixture
def controller(clock: ManualClock) -> Iterator[EmulatedTextController]:
    with EmulatedTextController(clock=clock) as emulated:
        yield emulated


def lens_on(controller: EmulatedTextController, clock: ManualClock, **options: object) -> OptotuneLens:
    given = {
        "port": controller.port,
        "device": "icc_4c",
        "unverified": True,
        "answer_timeout_ms": TIMEOUT_MS,
        "retries": 8,
        **options,
    }
    return OptotuneLens(OptotuneOptions(**given), clock, ports=lambda: [])  # type: ignore[arg-type]


def test_what_nobody_verified_is_refused_in_one_line() -> None:
    with pytest.raises(LensError, match="expected unverified: true for device icc_4c") as error:
        OptotuneLens(OptotuneOptions(device="icc_4c"))
    assert "\n" not in str(error.value)


def test_a_current_reaches_the_lens_and_rest_follows(
    controller: EmulatedTextController, clock: ManualClock
) -> None:
    lens = lens_on(controller, clock)
    lens.open()
    assert lens.position_range == (-250.0, 250.0)
    assert lens.facts.firmware == "EL-16-40-TC"
    clock.pass_ms(2)
    assert lens.command(-120.5) == clock.ns
    assert controller.current_ma == -120.5
    lens.close()
    assert controller.current_ma == 0.0


def test_a_focal_power_reaches_the_lens(controller: EmulatedTextController, clock: ManualClock) -> None:
    lens = lens_on(controller, clock, mode="focal_power")
    lens.open()
    assert lens.position_range == (-5.0, 5.0)
    lens.command(1.375)
    assert controller.focal_power_diopters == 1.375
    lens.close()


@pytest.mark.parametrize(
    "faults",
    [
        LensFaults(bad_crc=1),
        LensFaults(truncated=1),
        LensFaults(late=1, late_s=2.5e-3 * TIMEOUT_MS),
    ],
)
def test_a_fault_that_passes_is_counted_and_got_over(
    faults: LensFaults, controller: EmulatedTextController, clock: ManualClock
) -> None:
    lens = lens_on(controller, clock)
    lens.open()
    for current_ma in (10.0, 20.0, 30.0):
        controller.faults = faults
        lens.command(current_ma)
        assert controller.current_ma == current_ma
    assert lens.bad_answers >= 3
    lens.close()


def test_a_late_answer_is_never_taken_for_that_to_a_later_question(
    controller: EmulatedTextController, clock: ManualClock
) -> None:
    lens = lens_on(controller, clock)
    lens.open()
    for temperature_c in (30.0, 40.0, 50.0):
        controller.faults = LensFaults(late=1, late_s=2.5e-3 * TIMEOUT_MS)
        clock.pass_ms(1500)
        lens.state()
        controller.thermometer.set(temperature_c)
        clock.pass_ms(1500)
        assert lens.state().temperature_c == temperature_c
    lens.close()


def test_a_refusal_is_told_with_what_it_means(controller: EmulatedTextController, clock: ManualClock) -> None:
    controller.current_limit_ma = 100.0
    lens = lens_on(controller, clock)
    lens.open()
    with pytest.raises(LensError, match=r"SETCURRENT=200\.000, got OU: above its limits"):
        lens.command(200.0)
    lens.close()


def test_a_controller_without_a_lens_is_refused(
    controller: EmulatedTextController, clock: ManualClock
) -> None:
    controller.lens = "NO"
    with pytest.raises(LensError, match="expected a lens on it, got NO"):
        lens_on(controller, clock).open()


def test_a_lens_that_gets_too_hot_is_sent_to_rest(
    controller: EmulatedTextController, clock: ManualClock
) -> None:
    lens = lens_on(controller, clock, temperature_limit_c=50.0)
    lens.open()
    lens.command(90.0)
    controller.thermometer.set(60.0)
    clock.pass_ms(2000)
    with pytest.raises(LensError, match=r"expected at most 50 deg C, got 60\.0"):
        lens.state()
    assert controller.current_ma == 0.0


def test_a_lens_driver_is_no_text_controller(clock: ManualClock) -> None:
    from hybriddepth_ros.emulation.optotune import EmulatedLensDriver

    with (
        EmulatedLensDriver(clock=clock) as driver,
        pytest.raises(LensError, match="answers START with OK"),
    ):
        OptotuneLens(
            OptotuneOptions(port=driver.port, device="icc_4c", unverified=True, answer_timeout_ms=TIMEOUT_MS),
            clock,
        ).open()


def test_a_silent_controller_and_a_pulled_plug_are_one_error_each(
    controller: EmulatedTextController, clock: ManualClock
) -> None:
    lens = lens_on(controller, clock)
    lens.open()
    controller.faults = LensFaults(silent=True)
    with pytest.raises(LensError, match="expected an answer within 100 ms"):
        lens.command(5.0)
    controller.faults = LensFaults()
    lens.open()
    controller.unplug()
    with pytest.raises(LensError, match="unplugged"):
        lens.command(5.0)
    with pytest.raises(LensError, match="closed"):
        lens.command(5.0)
