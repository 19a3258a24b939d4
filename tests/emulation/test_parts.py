"""The emulated camera's parts: their timing, on a clock that nobody waits for."""

import pytest

from hybriddepth_ros.cameras.base import FrameTimeout
from hybriddepth_ros.emulation.bench import EmulatedBench
from hybriddepth_ros.emulation.parts import EmulatedMotor, EmulatedSource, VirtualClock
from hybriddepth_ros.emulation.truth import EmulatedTruth
from hybriddepth_ros.errors import CameraError, LensError

TRUTH = EmulatedTruth.from_seed(2)


@pytest.fixture
def parts() -> tuple[EmulatedSource, EmulatedMotor, VirtualClock]:
    bench, clock = EmulatedBench(TRUTH), VirtualClock()
    source, motor = EmulatedSource(bench, clock), EmulatedMotor(bench, clock)
    source.open()
    motor.open()
    return source, motor, clock


def test_frames_arrive_their_latency_after_mid_exposure(
    parts: tuple[EmulatedSource, EmulatedMotor, VirtualClock],
) -> None:
    source, _, clock = parts
    first, second = source.read(), source.read()
    assert 1e-6 * (clock.now_ns() - second.stamp_ns) == pytest.approx(TRUTH.latency_ms, abs=1e-3)
    assert 1e-6 * (second.exposure_end_ns - second.exposure_start_ns) == pytest.approx(TRUTH.exposure_ms)
    assert 1e-9 * (second.stamp_ns - first.stamp_ns) == pytest.approx(1.0 / TRUTH.frame_rate_hz, abs=1e-6)
    assert second.image.shape == (480, 640, 3) and source.size == (640, 480)


def test_a_slow_reader_finds_the_newest_frame_and_a_gap(
    parts: tuple[EmulatedSource, EmulatedMotor, VirtualClock],
) -> None:
    source, _, clock = parts
    source.read()
    clock.wait(source._closed, 5.02 / TRUTH.frame_rate_hz)
    frame = source.read()
    assert frame.sequence == 5
    assert clock.now_ns() - frame.stamp_ns < 1e6 * TRUTH.latency_ms + 1e9 / TRUTH.frame_rate_hz


def test_impatience_and_closing_are_told(
    parts: tuple[EmulatedSource, EmulatedMotor, VirtualClock],
) -> None:
    source, motor, _ = parts
    with pytest.raises(FrameTimeout):
        source.read(timeout_s=0.001)
    source.close()
    with pytest.raises(CameraError, match="closed"):
        source.read()
    motor.close()
    with pytest.raises(LensError, match="closed"):
        motor.command(10.0)


def test_the_motor_takes_whole_steps_within_its_range(
    parts: tuple[EmulatedSource, EmulatedMotor, VirtualClock],
) -> None:
    _, motor, clock = parts
    assert motor.command(10.4) == clock.now_ns()
    assert motor.state().position == 10.0
    with pytest.raises(LensError, match="0 to 255, got 256"):
        motor.command(256.0)
