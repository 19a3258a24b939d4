"""The sweep: its logic step by step on a clock of its own, its threads on the real one."""

import random
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from hybriddepth_ros.cameras import FocusSweep, FrameTimeout, SweptFrame
from hybriddepth_ros.cameras.simulated import SimulatedCamera
from hybriddepth_ros.errors import CameraError
from hybriddepth_ros.simulation import desk_scene, develop, render
from tests.cameras.conftest import FOCI, ManualClock, commands_of, small_camera

PATIENCE_S = 30.0


def take(frames: Iterator[SweptFrame], count: int) -> list[SweptFrame]:
    return [next(frames) for _ in range(count)]


def places(frames: list[SweptFrame]) -> list[tuple[int, int, float]]:
    return [(f.sweep_id, f.slice_index, f.frame.focus_diopters) for f in frames]


def test_every_frame_of_the_camera_is_used_when_there_is_time_to_settle(clock: ManualClock) -> None:
    """8 ms exposure, 8 ms readout and 6 ms to settle fit into 33 ms: 30 slices/s from a 30 fps camera."""
    with small_camera(clock) as camera:
        sweep = FocusSweep(camera, FOCI)
        frames = take(sweep.frames(), 12)
    assert places(frames) == [(n // 3, n % 3, FOCI[n % 3]) for n in range(12)]
    assert all(f.slice_count == 3 and f.settled for f in frames)
    assert np.diff([f.frame.sequence for f in frames]).tolist() == 11 * [1]
    statistics = sweep.statistics
    assert (statistics.slices, statistics.sweeps) == (12, 4)
    assert (statistics.frames_discarded, statistics.frames_lost) == (0, 0)
    assert statistics.achieved_rate_hz == pytest.approx(30.0)
    assert statistics.possible_rate_hz == 30.0


def test_frames_exposed_before_the_lens_stands_still_are_discarded_and_counted(clock: ManualClock) -> None:
    """With 25 ms to settle every second exposure begins too early."""
    with small_camera(clock, settle_ms=25.0) as camera:
        sweep = FocusSweep(camera, FOCI)
        frames = take(sweep.frames(), 6)
    assert places(frames) == [(n // 3, n % 3, FOCI[n % 3]) for n in range(6)]
    assert np.diff([f.frame.sequence for f in frames]).tolist() == 5 * [2]
    assert sweep.statistics.frames_discarded == 5
    assert sweep.statistics.possible_rate_hz == 15.0


def test_the_next_focus_is_commanded_before_a_frame_is_handed_on(clock: ManualClock) -> None:
    with small_camera(clock) as camera:
        commands = commands_of(camera)
        frames = FocusSweep(camera, FOCI).frames()
        for n in range(7):
            next(frames)
            assert commands == [FOCI[i % 3] for i in range(n + 2)]


def test_no_frame_is_ever_tagged_with_a_focus_that_it_does_not_show(clock: ManualClock) -> None:
    """A reader that stalls at random for up to four frames, a slow lens: pictures must be their tag's."""
    rng = random.Random(5)
    with small_camera(clock, settle_ms=14.0) as camera:
        camera.prepare(FOCI)
        pictures = {}
        for focus in FOCI:
            linear, _ = render(desk_scene(0), np.eye(4), camera._intrinsics(focus), camera.lens, focus)
            pictures[focus] = develop(linear)
        read = camera.read

        def slow_read(timeout_s: float = 1.0) -> object:
            clock.pass_ms(rng.choice([0, 0, 0, 3, 9, 15, 40, 130]))
            return read(timeout_s)

        camera.read = slow_read  # type: ignore[method-assign,assignment]
        sweep = FocusSweep(camera, FOCI)
        frames = take(sweep.frames(), 300)
    assert places(frames) == [(n // 3, n % 3, FOCI[n % 3]) for n in range(300)]
    for swept in frames:
        assert np.array_equal(swept.frame.image, pictures[FOCI[swept.slice_index]])
    statistics = sweep.statistics
    assert statistics.frames_discarded > 0 and statistics.frames_lost > 0
    first, last = frames[0].frame.sequence, frames[-1].frame.sequence
    assert last - first + 1 == 300 + statistics.frames_discarded + statistics.frames_lost


def test_what_passed_before_the_sweep_began_is_not_counted_as_lost(clock: ManualClock) -> None:
    with small_camera(clock) as camera:
        clock.pass_ms(5000)
        sweep = FocusSweep(camera, FOCI)
        take(sweep.frames(), 3)
    assert (sweep.statistics.frames_lost, sweep.statistics.frames_discarded) == (0, 0)


def test_hold_and_resume_take_effect_between_sweeps(clock: ManualClock) -> None:
    with small_camera(clock) as camera:
        sweep = FocusSweep(camera, FOCI)
        frames = sweep.frames()
        take(frames, 1)
        sweep.hold(1.7)
        assert sweep.held_diopters == 1.7
        assert places(take(frames, 2)) == [(0, 1, FOCI[1]), (0, 2, FOCI[2])]
        held = take(frames, 3)
        assert places(held) == [(1, 0, 1.7), (2, 0, 1.7), (3, 0, 1.7)]
        assert all(f.slice_count == 1 for f in held)
        assert np.diff([f.frame.sequence for f in held]).tolist() == [
            1,
            1,
        ]  # not commanded, not settling again
        sweep.resume()
        after = take(frames, 4)  # the lens was already on its way to one more held frame
        assert places(after) == [(4, 0, 1.7), *((5, n, FOCI[n]) for n in range(3))]


def test_hold_tells_the_first_sweep_of_its_focus(clock: ManualClock) -> None:
    with small_camera(clock) as camera:
        sweep = FocusSweep(camera, FOCI)
        frames = sweep.frames()
        take(frames, 2)
        first = sweep.hold(1.7)
        assert first == sweep.hold(1.1) == 1
        assert [f.sweep_id >= first for f in take(frames, 2)] == [False, True]


def test_a_slow_camera_is_given_time_for_its_slices(clock: ManualClock) -> None:
    with small_camera(clock, frame_rate=0.1) as camera:
        assert FocusSweep(camera, FOCI).time_for_s(1) > 4 * 10.0


def test_positions_change_between_sweeps(clock: ManualClock) -> None:
    with small_camera(clock) as camera:
        sweep = FocusSweep(camera, FOCI)
        frames = sweep.frames()
        take(frames, 2)
        sweep.set_positions((2.0, 1.0))
        assert places(take(frames, 5)) == [
            (0, 2, FOCI[2]),
            (1, 0, 2.0),
            (1, 1, 1.0),
            (2, 0, 2.0),
            (2, 1, 1.0),
        ]


@pytest.mark.parametrize("positions", [(), (0.5, 9.0), (float("nan"),)])
def test_positions_that_cannot_be_are_refused(positions: tuple[float, ...], clock: ManualClock) -> None:
    camera = small_camera(clock)
    with pytest.raises(CameraError, match="focus sweep: expected"):
        FocusSweep(camera, positions)
    sweep = FocusSweep(camera, FOCI)
    with pytest.raises(CameraError, match="focus sweep: expected"):
        sweep.set_positions(positions)


def test_a_camera_that_stops_delivering_ends_the_sweep_with_the_reason(clock: ManualClock) -> None:
    with small_camera(clock) as camera:
        frames = FocusSweep(camera, FOCI, frame_timeout_s=1.0).frames()
        take(frames, 2)

        def silent(timeout_s: float = 1.0) -> None:
            raise FrameTimeout("camera simulated: no frame within 0.1 s")

        camera.read = silent  # type: ignore[method-assign,assignment]
        with pytest.raises(CameraError, match="nor any within 1 s"):
            next(frames)


# In a thread, by the real clock: order and counts, no durations.


@pytest.fixture
def fast_camera() -> Iterator[SimulatedCamera]:
    camera = small_camera(frame_rate=100.0, exposure_ms=1.0, readout_ms=1.0, settle_ms=1.0)
    camera.prepare(FOCI)
    with camera:
        yield camera


def test_the_thread_delivers_sweeps_in_order(fast_camera: SimulatedCamera) -> None:
    with FocusSweep(fast_camera, FOCI, queue_sweeps=100) as sweep:
        frames = [sweep.read(PATIENCE_S) for _ in range(30)]
    assert places(frames) == [(n // 3, n % 3, FOCI[n % 3]) for n in range(30)]
    stamps = [f.frame.stamp_ns for f in frames]
    assert stamps == sorted(stamps)
    assert abs(stamps[-1] - time.time_ns()) < 60e9


def test_a_slow_reader_loses_whole_sweeps(fast_camera: SimulatedCamera) -> None:
    with FocusSweep(fast_camera, FOCI, queue_sweeps=1) as sweep:
        first = sweep.read(PATIENCE_S)
        while sweep.statistics.sweeps_dropped < 3:
            time.sleep(0.01)
        frames = [first] + [sweep.read(PATIENCE_S) for _ in range(8)]
        dropped = sweep.statistics.frames_dropped
    assert [f.slice_index for f in frames] == 3 * [0, 1, 2]
    assert frames[2].sweep_id == 0 and frames[3].sweep_id >= 3
    assert dropped >= 9


def test_capture_returns_a_stack_of_its_own(fast_camera: SimulatedCamera) -> None:
    with FocusSweep(fast_camera, FOCI, queue_sweeps=1000) as sweep:
        captured = sweep.capture((2.1, 0.7), PATIENCE_S)
        usual = sweep.capture(timeout_s=PATIENCE_S)
        after = sweep.read(PATIENCE_S)
        seen = {after.sweep_id}
        while max(seen) < usual[0].sweep_id:
            seen.add(sweep.read(PATIENCE_S).sweep_id)
    assert [f.frame.focus_diopters for f in captured] == [2.1, 0.7]
    assert [(f.slice_index, f.slice_count) for f in captured] == [(0, 2), (1, 2)]
    assert [f.frame.focus_diopters for f in usual] == list(FOCI)
    assert captured[0].sweep_id not in seen and usual[0].sweep_id not in seen


def test_a_second_capture_is_refused_and_one_without_a_sweep_too(fast_camera: SimulatedCamera) -> None:
    sweep = FocusSweep(fast_camera, FOCI)
    with pytest.raises(CameraError, match="not running"):
        sweep.capture()
    sweep.start()
    many = [float(f) for f in np.linspace(0.5, 2.2, 400)]
    results: list[object] = []

    def capture() -> None:
        try:
            results.append(sweep.capture(many, PATIENCE_S))
        except CameraError as error:
            results.append(error)

    worker = threading.Thread(target=capture)
    worker.start()
    while sweep._capture is None:
        time.sleep(0.001)
    with pytest.raises(CameraError, match="another capture is running"):
        sweep.capture()
    sweep.stop()
    worker.join(PATIENCE_S)
    assert "the focus sweep ended" in str(results[0])
    with pytest.raises(CameraError, match="not running"):
        sweep.capture()


def test_capture_that_ran_out_of_time_gives_the_lens_back(fast_camera: SimulatedCamera) -> None:
    many = [float(f) for f in np.linspace(0.5, 2.2, 2000)]
    with FocusSweep(fast_camera, FOCI, queue_sweeps=1000) as sweep:
        first = sweep.read(PATIENCE_S)
        with pytest.raises(CameraError, match="no complete stack"):
            sweep.capture(many, 0.1)
        captured = sweep.capture((2.1, 0.7), PATIENCE_S)
        assert [f.frame.focus_diopters for f in captured] == [2.1, 0.7]
        assert sweep.statistics.slices < len(many)
        while sweep.read(PATIENCE_S).sweep_id <= captured[0].sweep_id:
            pass
        assert first.sweep_id < captured[0].sweep_id


def test_stop_ends_a_waiting_reader_and_leaves_no_thread() -> None:
    with small_camera(frame_rate=0.2) as camera:
        sweep = FocusSweep(camera, FOCI)
        sweep.start()
        time.sleep(0.05)
        before = time.monotonic()
        sweep.stop()
        sweep.stop()
        assert time.monotonic() - before < 5.0
        assert not any(t.name == "focus_sweep" for t in threading.enumerate())
        with pytest.raises(CameraError):
            while True:
                sweep.read(PATIENCE_S)


def test_what_ends_the_thread_reaches_the_reader(fast_camera: SimulatedCamera) -> None:
    sweep = FocusSweep(fast_camera, FOCI)
    sweep.start()
    sweep.read(PATIENCE_S)
    fast_camera.close()
    with pytest.raises(CameraError, match="focus sweep ended: camera simulated: closed") as raised:
        while True:
            sweep.read(PATIENCE_S)
    assert isinstance(raised.value.__cause__, CameraError)
    sweep.stop()


def test_a_sweep_is_started_once(fast_camera: SimulatedCamera) -> None:
    with FocusSweep(fast_camera, FOCI) as sweep, pytest.raises(CameraError, match="already started"):
        sweep.start()
