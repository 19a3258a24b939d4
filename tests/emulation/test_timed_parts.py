"""The emulated pair must be right itself: what it says of its lens is what the sweep is judged by."""

from __future__ import annotations

import pytest

from hybriddepth_ros.cameras import FrameTimeout
from hybriddepth_ros.emulation.timed_parts import true_positions, truthful_image
from hybriddepth_ros.errors import CameraError, LensError
from tests.emulation.timed_pair import Pair

MS = 1_000_000
STILL = {"jitter_ms": 0.0, "stray_ms": 0.0, "drift_ppm": 0.0}


def test_the_lens_waits_then_moves_evenly_then_stands() -> None:
    pair = Pair.of(command_ms=1.0, dead_ms=2.0, move_ms=4.0)
    pair.lens.open()
    sent_ns = pair.clock.steady_ns
    began_ns = pair.lens.command(2.0)
    assert began_ns == sent_ns + MS
    at = [pair.lens.position_at(began_ns + ms * MS) for ms in (0, 2, 3, 4, 6, 50)]
    assert at == [0.0, 0.0, 0.5, 1.0, 2.0, 2.0]
    assert pair.lens.extremes(began_ns, began_ns + 3 * MS) == (0.0, 0.5)
    assert pair.lens.extremes(began_ns + 6 * MS, began_ns + 9 * MS) == (2.0, 2.0)
    assert pair.lens.extremes(began_ns - MS, began_ns + 90 * MS) == (0.0, 2.0)


def test_coming_from_above_it_stops_short_by_the_hysteresis() -> None:
    pair = Pair.of(hysteresis=0.25)
    pair.lens.open()
    for position, stands_at in ((3.0, 3.0), (1.0, 1.25), (1.0, 1.25), (2.0, 2.0)):
        pair.lens.command(position)
        pair.clock.pass_ns(100 * MS)
        assert pair.lens.position_at(pair.clock.steady_ns) == stands_at


def test_a_new_command_turns_a_lens_that_moves_where_it_is() -> None:
    pair = Pair.of(command_ms=1.0, dead_ms=1.0, move_ms=4.0)
    pair.lens.open()
    pair.lens.command(4.0)
    pair.clock.pass_ns(2 * MS)
    began_ns = pair.lens.command(0.0)  # it takes it up a millisecond later, three into the move
    assert pair.lens.position_at(began_ns + MS) == 3.0
    assert pair.lens.position_at(began_ns + 3 * MS) == 1.5


def test_pictures_say_where_the_lens_was_from_the_first_row_to_the_last() -> None:
    assert true_positions(truthful_image(0.1, 2.5)) == (0.1, 2.5)
    pair = Pair.of(frame_rate_hz=50.0, exposure_ms=4.0, readout_ms=6.0, delivery_ms=3.0, **STILL)
    pair.lens.open()
    pair.source.open()
    opened_ns = pair.clock.steady_ns
    pair.clock.pass_ns(8 * MS)
    pair.lens.command(1.0)  # at 8.3 ms; it moves from 9.3 to 12.3, the last row ends at 10
    first, second = pair.source.read(), pair.source.read()
    assert first.exposure_start_ns == opened_ns and first.exposure_end_ns == opened_ns + 10 * MS
    assert true_positions(first.image) == (0.0, pytest.approx(0.7 / 3.0))
    assert true_positions(second.image) == (1.0, 1.0)
    assert second.exposure_start_ns == opened_ns + 20 * MS
    assert pair.clock.steady_ns == opened_ns + 33 * MS  # when it was delivered


def test_what_finds_no_free_buffer_is_a_gap() -> None:
    pair = Pair.of(frame_rate_hz=100.0, buffers=2, **STILL)
    pair.source.open()
    pair.clock.pass_ns(200 * MS)
    sequences = [pair.source.read().sequence for _ in range(4)]
    assert sequences[:2] == [0, 1] and sequences[2] > 15 and sequences[3] == sequences[2] + 1


def test_lost_late_and_silent_frames() -> None:
    pair = Pair.of(frame_rate_hz=100.0, delivery_ms=1.0, **STILL)
    pair.source.open()
    assert pair.source.read().sequence == 0
    pair.source.drop_next(2)
    assert pair.source.read().sequence == 3
    before_ns = pair.clock.steady_ns
    pair.source.delay_next(1, 0.05)  # one is on its way already
    assert [pair.source.read().sequence for _ in range(2)] == [4, 5]
    assert pair.clock.steady_ns - before_ns == 70 * MS
    pair.source.fall_silent(0.2)
    with pytest.raises(FrameTimeout, match=r"no frame within 0\.15 s"):
        pair.source.read(0.15)
    assert pair.source.read().sequence > 20


def test_plugs_come_out_and_are_taken_by_others() -> None:
    pair = Pair.of()
    pair.lens.open()
    pair.lens.plug.pull(1.0)
    for call in (lambda: pair.lens.command(1.0), pair.lens.state, pair.lens.open):
        with pytest.raises(LensError, match="lens timed: expected a device, found none"):
            call()
    pair.lens.plug.occupy(2.0)
    pair.clock.pass_ns(1_500 * MS)
    with pytest.raises(LensError, match="got busy"):
        pair.lens.open()
    pair.clock.pass_ns(600 * MS)
    pair.lens.open()
    pair.source.open()
    pair.source.plug.pull()
    with pytest.raises(CameraError, match="camera timed: expected a device, found none"):
        pair.source.read()


def test_a_clock_that_is_set_moves_stamps_and_not_the_sensor() -> None:
    pair = Pair.of(**STILL)
    pair.source.open()
    first = pair.source.read()
    pair.clock.set_by(-10.0)
    second = pair.source.read()
    step_ns = second.exposure_start_ns - first.exposure_start_ns
    assert step_ns == round(1e9 / 60) - 10_000_000_000
    assert pair.clock.offset_ns() == -10_000_000_000
