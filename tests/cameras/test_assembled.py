"""An assembled camera: what it says of a frame, and of its own parts."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from hybriddepth_ros.cameras import CameraFrame, Clock
from hybriddepth_ros.cameras import base as camera_base
from hybriddepth_ros.cameras.assembled import AssembledCamera, AssemblyOptions
from hybriddepth_ros.cameras.calibration import CameraCalibration, FocusTable
from hybriddepth_ros.emulation.timed_parts import true_positions
from hybriddepth_ros.errors import CameraError, LensError
from hybriddepth_ros.focal_stack import CameraIntrinsics
from tests.emulation.timed_pair import Pair

OWN = CameraIntrinsics(21.0, 22.0, 11.0, 0.5, 24, 2)


def test_a_frame_carries_the_focus_that_was_commanded_before_its_last_row_ended() -> None:
    pair = Pair.of(jitter_ms=0.0)
    with pair.camera() as camera:
        assert np.isnan(camera.read().focus_diopters)
        settled_ns = camera.command_focus(2.0)
        assert settled_ns == pair.clock.now_ns() + round(1e6 * pair.options.settle_ms)
        assert [camera.read().focus_diopters for _ in range(6)] == 6 * [2.0]


def test_a_motor_of_coarse_steps_is_believed_where_it_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = Pair.of(position_range=(0.0, 5.0))
    command = type(pair.lens).command
    monkeypatch.setattr(type(pair.lens), "command", lambda lens, to: command(lens, round(2.0 * to) / 2.0))
    with pair.camera() as camera:
        for asked, stops in ((1.2, 1.0), (1.3, 1.5), (1.3, 1.5), (4.0, 4.0)):
            settled_ns = camera.command_focus(asked)
            frame = camera.read()
            while frame.exposure_start_ns < settled_ns:
                frame = camera.read()
            assert (frame.focus_diopters, frame.actuator_position) == (pytest.approx(stops), stops)
            assert true_positions(frame.image) == (stops, stops)


def test_intrinsics_that_the_source_knows_are_used_where_nothing_was_calibrated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pair = Pair.of()
    with pair.camera() as camera:
        assert camera.read().camera.fx == pytest.approx(12.0 / np.tan(np.radians(32.5)))
        monkeypatch.setattr(type(pair.source), "camera", property(lambda self: OWN))
        assert camera.read().camera == OWN


def test_a_lens_that_is_gone_is_told_at_the_next_frame() -> None:
    pair = Pair.of()
    with pair.camera() as camera:
        camera.read()
        pair.lens.plug.pull()
        with pytest.raises(LensError, match="lens timed: expected a device, found none"):
            camera.read()


def test_what_was_opened_is_closed_when_the_other_half_is_missing() -> None:
    pair = Pair.of()
    pair.source.plug.pull()
    with pytest.raises(CameraError, match="camera timed: expected a device"):
        pair.camera().open()
    with pytest.raises(LensError, match="closed"):
        pair.lens.command(1.0)


def test_an_end_of_exposure_that_nobody_gave_lies_as_far_behind_the_stamp() -> None:
    image = np.zeros((2, 24), np.uint8)
    frame = CameraFrame(image, 0, 100, 130, 1.0, 1.0, OWN)
    assert frame.exposure_end_ns == 160
    assert CameraFrame(image, 0, 100, 130, 1.0, 1.0, OWN, exposure_end_ns=190).exposure_end_ns == 190


def test_the_clock_tells_how_far_it_was_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """And is not deceived by the scheduler, which strikes between two readings but not each time."""
    steady, ahead, strikes = [10**12], [10**18], iter([5_000_000, 0, 0, 7_000_000, 0, 0])

    class Time:
        @staticmethod
        def monotonic_ns() -> int:
            steady[0] += 100
            return steady[0]

        @staticmethod
        def time_ns() -> int:
            now = steady[0] + ahead[0]
            steady[0] += next(strikes)
            return now

    monkeypatch.setattr(camera_base, "time", Time)
    before = Clock().offset_ns()
    ahead[0] += 3_000_000
    assert Clock().offset_ns() - before == pytest.approx(3_000_000, abs=1_000)
    assert not Clock().wait(threading.Event(), 0.0)


@pytest.mark.parametrize("falling", [False, True])
def test_a_table_of_another_lens_is_refused_with_both_ranges(falling: bool) -> None:
    pair = Pair.of(position_range=(0.0, 5.0))
    within, beyond = FocusTable(((0.0, 0.1), (5.0, 4.0))), FocusTable(((0.0, 0.0), (255.0, 4.0)))
    known = CameraCalibration(
        OWN, focus_table=within if falling else beyond, focus_table_falling=beyond if falling else None
    )
    made = AssembledCamera("timed", pair.source, pair.lens, AssemblyOptions(), known)
    with pytest.raises(CameraError, match=r"focus_table within the 0 to 5 that .* reaches, got 0 to 255 \("):
        made.open()
    with pytest.raises(LensError, match="closed"):
        pair.lens.command(1.0)


def test_moves_beyond_the_lens_are_refused() -> None:
    with Pair.of().camera() as camera, pytest.raises(CameraError, match="focus of 0 to 5 diopters, got"):
        camera.command_focus(5.5)
