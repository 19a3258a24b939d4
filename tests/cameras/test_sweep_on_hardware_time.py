"""The sweep on an emulated pair that knows the truth: ten thousand slices in both modes, and each rule."""

from __future__ import annotations

import itertools
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from hybriddepth_ros.cameras import FocusSweep, SweepOptions, SweptFrame
from hybriddepth_ros.cameras.calibration import CameraCalibration, FocusTable, write_calibration
from hybriddepth_ros.errors import CameraError, LensError
from hybriddepth_ros.focal_stack import CameraIntrinsics
from tests.emulation.timed_pair import Pair, shows

FOCI = (0.5, 1.2, 2.2, 3.1, 4.0)


def sweep_of(pair: Pair, count: int, foci: tuple[float, ...] = FOCI, **options: Any) -> list[SweptFrame]:
    with pair.camera() as camera:
        return list(itertools.islice(FocusSweep(camera, foci, SweepOptions(**options)).frames(), count))


def rate_hz(frames: list[SweptFrame]) -> float:
    return 1e9 * (len(frames) - 1) / (frames[-1].frame.stamp_ns - frames[0].frame.stamp_ns)


def check_whole_and_true(frames: list[SweptFrame], foci: tuple[float, ...] = FOCI) -> None:
    """In order, none missing, each truly at its focus, and its record in order of time."""
    first = frames[0].sweep_id
    for number, swept in enumerate(frames):
        sweep, index = divmod(number, len(foci))
        assert (swept.sweep_id, swept.slice_index) == (first + sweep, index)
        assert shows(swept, foci[index]), (number, swept)
        assert swept.commanded_ns < swept.settled_ns <= swept.frame.exposure_start_ns
    stamps = [swept.frame.stamp_ns for swept in frames]
    assert stamps == sorted(set(stamps))


@pytest.mark.parametrize(
    ("slices", "timing"),
    [
        (10_000, {"dropped": 0.005}),
        (2_000, {"dropped": 0.0}),
        (2_000, {"dropped": 0.005, "delivery_ms": 35.0, "jitter_ms": 12.0}),
        (2_000, {"dropped": 0.005, "move_ms": 9.0}),
    ],
)
def test_ten_thousand_slices_at_the_physical_limit_and_none_with_a_wrong_focus(
    slices: int, timing: dict[str, float]
) -> None:
    pair = Pair.of(**timing)
    frames = sweep_of(pair, slices, mode="free_running")
    check_whole_and_true(frames)
    assert 0.95 < rate_hz(frames) / pair.options.slice_rate_limit_hz <= 1.0001


def test_ten_thousand_slices_that_wait_for_delivery_are_as_true_and_reach_that_mode_s_limit() -> None:
    pair = Pair.of(frame_rate_hz=30.0, dropped=0.005)
    frames = sweep_of(pair, 10_000, mode="stop_and_go")
    check_whole_and_true(frames)
    assert 0.95 < rate_hz(frames) / 30.0 < 1.001


def test_where_delivery_takes_longer_than_a_frame_only_free_running_reaches_the_limit() -> None:
    rates = {
        mode: rate_hz(sweep_of(Pair.of(delivery_ms=30.0), 500, mode=mode))
        for mode in ("stop_and_go", "free_running")
    }
    assert rates["free_running"] > 0.97 * 60.0
    assert rates["stop_and_go"] < 0.5 * rates["free_running"]


HYSTERESIS = 0.15


@pytest.fixture(scope="session")
def both_branches(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A calibration that knows of the hysteresis."""
    path = tmp_path_factory.mktemp("calibration") / "camera.yaml"
    camera = CameraIntrinsics(20.0, 20.0, 11.5, 0.5, 24, 2)
    rising = FocusTable(((0.0, 0.0), (5.0, 5.0)))
    falling = FocusTable(((0.0, HYSTERESIS), (5.0 - HYSTERESIS, 5.0)))
    write_calibration(path, CameraCalibration(camera, focus_table=rising, focus_table_falling=falling))
    return str(path)


@settings(max_examples=40, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@example(  # a slice is lost while the lens is on its way below the next one
    mode="free_running",
    approach="rising",
    foci=[10, 11],
    rate=143.0,
    exposure=0.5,
    readout=1.0,
    delivery=80.0,
    jitter=30.0,
    stray=1.0,
    dropped=0.0,
    buffers=1,
    command=10.0,
    dead=6.0,
    move=60.0,
    drift=0.0,
    seed=2,
)
@given(
    mode=st.sampled_from(["stop_and_go", "free_running"]),
    approach=st.sampled_from(["any", "rising"]),
    foci=st.lists(st.integers(10, 50), min_size=1, max_size=7, unique=True),
    rate=st.floats(5.0, 200.0),
    exposure=st.floats(0.05, 1.0),
    readout=st.floats(0.0, 1.0),
    delivery=st.floats(0.0, 80.0),
    jitter=st.floats(0.0, 30.0),
    stray=st.floats(0.0, 3.0),
    dropped=st.floats(0.0, 0.1),
    buffers=st.integers(1, 5),
    command=st.floats(0.05, 10.0),
    dead=st.floats(0.0, 10.0),
    move=st.floats(0.1, 60.0),
    drift=st.floats(-3e4, 3e4),
    seed=st.integers(0, 1000),
)
def test_whatever_the_timing_no_frame_shows_another_focus_than_its_own(
    both_branches: str,
    mode: str,
    approach: str,
    foci: list[int],
    rate: float,
    exposure: float,
    readout: float,
    delivery: float,
    jitter: float,
    stray: float,
    dropped: float,
    buffers: int,
    command: float,
    dead: float,
    move: float,
    drift: float,
    seed: int,
) -> None:
    pair = Pair.of(
        frame_rate_hz=rate,
        exposure_ms=exposure * 1e3 / rate,
        readout_ms=readout * 1e3 / rate,
        delivery_ms=delivery,
        jitter_ms=jitter,
        stray_ms=stray,
        dropped=dropped,
        buffers=buffers,
        command_ms=command,
        dead_ms=dead,
        move_ms=move,
        drift_ppm=drift,
        hysteresis=HYSTERESIS,
        seed=seed,
    )
    positions = tuple(0.1 * focus for focus in foci)
    options = SweepOptions(mode, approach)
    # from below one table is enough; any way needs both
    known = {"calibration": both_branches, "focus_in_diopters": False} if approach == "any" else {}
    with pair.camera(**known) as camera:
        frames = list(itertools.islice(FocusSweep(camera, positions, options).frames(), 60))
    first = frames[0].sweep_id
    for number, swept in enumerate(frames):
        sweep, index = divmod(number, len(positions))
        assert (swept.sweep_id, swept.slice_index) == (first + sweep, index)
        assert shows(swept, positions[index], 1e-6)


def test_a_lens_that_comes_from_below_shows_no_hysteresis_and_one_that_does_not_shows_it() -> None:
    foci = (0.7, 4.0, 1.2, 3.3)
    for mode in ("stop_and_go", "free_running"):
        rising = sweep_of(Pair.of(hysteresis=0.1), 200, foci, mode=mode, approach="rising")
        check_whole_and_true(rising, foci)
        any_way = sweep_of(Pair.of(hysteresis=0.1), 200, foci, mode=mode, approach="any")
        wrong = {swept.slice_index for swept in any_way[4:] if not shows(swept, foci[swept.slice_index])}
        assert wrong == {0, 2}  # the falling moves


def test_a_falling_move_goes_below_by_the_overshoot_and_settles_from_the_last_command() -> None:
    pair = Pair.of()
    told: list[tuple[int, float]] = []
    command = pair.lens.command

    def spy(position: float) -> int:
        at_ns = command(position)
        told.append((at_ns, position))
        return at_ns

    pair.lens.command = spy  # type: ignore[method-assign]
    options = {"approach": "rising", "overshoot_diopters": 0.25}
    frames = sweep_of(pair, 3, (1.0, 2.0, 1.5), **options)
    assert [position for _, position in told[:6]] == [0.75, 1.0, 2.0, 1.25, 1.5, 0.75]
    settle_ns = round(1e6 * pair.options.settle_ms)
    assert [swept.settled_ns for swept in frames] == [told[n][0] + settle_ns for n in (1, 2, 4)]
    assert told[1][0] >= told[0][0] + settle_ns  # it waits until the lens is down there


def test_what_cannot_be_approached_from_below_is_refused() -> None:
    with Pair.of().camera() as camera:
        sweep = FocusSweep(camera, (0.3, 1.0), SweepOptions(approach="rising", overshoot_diopters=0.25))
        with pytest.raises(CameraError, match=r"positions of 0.25 to 5 diopters, got 0.2"):
            sweep.hold(0.2)


def test_both_branches_of_a_calibration_are_used_by_direction(tmp_path: Any) -> None:
    """The lens stops 0.1 above its target when it comes from above: the falling table says so."""
    rising = FocusTable(((0.0, 0.0), (5.0, 5.0)))
    falling = FocusTable(((0.0, 0.1), (4.9, 5.0)))
    camera = CameraIntrinsics(20.0, 20.0, 11.5, 0.5, 24, 2)
    path = tmp_path / "camera.yaml"
    both = CameraCalibration(camera, focus_table=rising, focus_table_falling=falling)
    foci = (0.7, 4.0, 1.2, 3.3)
    right = {}
    for name, calibration in (("both", both), ("one", replace(both, focus_table_falling=None))):
        write_calibration(path, calibration)
        pair = Pair.of(hysteresis=0.1)
        with pair.camera(calibration=str(path), focus_in_diopters=False) as made:
            frames = list(itertools.islice(FocusSweep(made, foci).frames(), 44))[4:]
        right[name] = {s.slice_index for s in frames if shows(s, foci[s.slice_index], 1e-6)}
    assert right == {"both": {0, 1, 2, 3}, "one": {1, 3}}


def test_telling_the_focus_again_moves_no_lens_with_hysteresis(tmp_path: Any) -> None:
    pair = Pair.of(hysteresis=0.1)
    path = tmp_path / "camera.yaml"
    camera = CameraIntrinsics(20.0, 20.0, 11.5, 0.5, 24, 2)
    tables = FocusTable(((0.0, 0.0), (5.0, 5.0))), FocusTable(((0.0, 0.1), (4.9, 5.0)))
    write_calibration(path, CameraCalibration(camera, focus_table=tables[0], focus_table_falling=tables[1]))
    with pair.camera(calibration=str(path)) as made:
        made.command_focus(3.0)
        made.command_focus(1.0)
        position = pair.lens.state().position
        settled_ns = made.command_focus(1.0)
        assert pair.lens.state().position == position != 1.0
        assert settled_ns == made.command_focus(1.0)


@pytest.mark.parametrize("mode", ["stop_and_go", "free_running"])
def test_the_record_of_a_frame_reaches_whoever_reads_it(mode: str) -> None:
    pair = Pair.of(warm_c=31.5)
    for swept in sweep_of(pair, 20, mode=mode):
        frame = swept.frame
        assert swept.settled_ns - swept.commanded_ns == pytest.approx(
            1e6 * (pair.options.command_ms + pair.options.settle_ms), abs=1e3
        )
        assert frame.temperature_c == 31.5
        assert frame.exposure_end_ns - frame.exposure_start_ns == 9_000_000
        assert frame.stamp_ns == (frame.exposure_start_ns + frame.exposure_end_ns) // 2
        assert frame.actuator_position == frame.focus_diopters == FOCI[swept.slice_index]


@pytest.mark.parametrize("mode", ["stop_and_go", "free_running"])
def test_statistics_tell_achieved_over_possible(mode: str) -> None:
    pair = Pair.of(jitter_ms=0.0, delivery_ms=2.0)
    with pair.camera() as camera:
        sweep = FocusSweep(camera, FOCI, SweepOptions(mode=mode))
        list(itertools.islice(sweep.frames(), 200))
    statistics = sweep.statistics
    assert statistics.possible_rate_hz == pytest.approx(60.0)
    assert statistics.rate_ratio == pytest.approx(statistics.achieved_rate_hz / 60.0)
    assert statistics.rate_ratio > 0.97


def test_slices_that_the_driver_lost_are_taken_again_in_order() -> None:
    pair = Pair.of()
    with pair.camera() as camera:
        sweep = FocusSweep(camera, FOCI, SweepOptions(mode="free_running"))
        frames = sweep.frames()
        taken = list(itertools.islice(frames, 52))
        for _ in range(10):
            pair.source.drop_next(1)
            taken += itertools.islice(frames, 12)
    check_whole_and_true(taken)
    assert sweep.statistics.slices_retaken == sweep.statistics.frames_lost == 10


def test_stale_frames_in_the_driver_s_queue_are_discarded_and_counted() -> None:
    for mode in ("stop_and_go", "free_running"):
        pair = Pair.of(buffers=4)
        with pair.camera() as camera:
            sweep = FocusSweep(camera, FOCI, SweepOptions(mode=mode))
            frames = sweep.frames()
            taken = list(itertools.islice(frames, 5))
            discarded = sweep.statistics.frames_discarded
            sweep.set_positions(tuple(reversed(FOCI)))
            pair.clock.pass_ns(500_000_000)  # the reader was away: the buffers are full
            taken += itertools.islice(frames, 5)
        assert sweep.statistics.frames_discarded >= discarded + 2
        assert [swept.frame.focus_diopters for swept in taken] in (
            [*FOCI, *reversed(FOCI)],
            [*FOCI, *FOCI],  # the next sweep had begun
        )
        assert all(shows(swept, swept.frame.focus_diopters) for swept in taken)


@pytest.mark.parametrize("mode", ["stop_and_go", "free_running"])
def test_holding_uses_every_frame_in_both_modes(mode: str) -> None:
    pair = Pair.of()
    with pair.camera() as camera:
        sweep = FocusSweep(camera, FOCI, SweepOptions(mode=mode))
        frames = sweep.frames()
        list(itertools.islice(frames, 7))
        first = sweep.hold(1.7)
        held = [swept for swept in itertools.islice(frames, 40) if swept.sweep_id >= first]
        assert sweep.statistics.possible_rate_hz == 60.0
        sweep.resume()
        after = list(itertools.islice(frames, 20))[-10:]
    assert len(held) > 25 and all(shows(swept, 1.7) for swept in held)
    numbers = [swept.frame.sequence for swept in held]
    assert numbers == list(range(numbers[0], numbers[0] + len(held)))
    assert {swept.frame.focus_diopters for swept in after} == set(FOCI)


def test_a_capture_that_is_given_up_leaves_no_wrong_window_behind() -> None:
    """Its moves were already sent when nobody waited for it any more, and frames before them were lost."""
    pair = Pair.of(delivery_ms=60.0, dropped=0.15)
    with pair.camera() as camera:
        sweep = FocusSweep(camera, FOCI, SweepOptions(mode="free_running"))
        frames = sweep.frames()
        taken = list(itertools.islice(frames, 50))
        for round_ in range(200):
            future: Future[list[SweptFrame]] = Future()
            sweep._capture, sweep._capture_positions = future, (4.9, 0.2, 2.7)
            taken += itertools.islice(frames, 3 + round_ % 4)
            future.cancel()
            sweep._capture, sweep._capture_positions = None, ()
            taken += itertools.islice(frames, 1 + round_ % 7)
    assert len(taken) > 400 and all(shows(swept, FOCI[swept.slice_index]) for swept in taken)


def test_a_clock_that_is_set_before_the_first_frame_is_noticed_too() -> None:
    pair = Pair.of()
    with pair.camera() as camera:
        command = camera.command_focus

        def and_set_the_clock(focus_diopters: float) -> int:
            settled_ns = command(focus_diopters)
            pair.clock.set_by(5.0)
            return settled_ns

        camera.command_focus = and_set_the_clock  # type: ignore[method-assign]
        with pytest.raises(CameraError, match="the system's clock was set"):
            next(FocusSweep(camera, FOCI).frames())


@pytest.mark.parametrize("seconds", [-3600.0, -0.004, 0.003, 86400.0])
def test_a_clock_that_is_set_ends_the_sweep_with_the_reason(seconds: float) -> None:
    pair = Pair.of()
    with pair.camera() as camera:
        frames = FocusSweep(camera, FOCI, SweepOptions(mode="free_running")).frames()
        list(itertools.islice(frames, 9))
        pair.clock.set_by(seconds)
        with pytest.raises(CameraError, match=rf"the system's clock was set by \{seconds:+.3f} s"):
            next(frames)


@pytest.mark.parametrize(
    ("ahead_ms", "said"),
    [
        (1000, r"ending in the future by 9\d\d\.\d ms: exposure or readout time\?"),
        (-5000, r"begun before the lens stood still by \d+\.\d ms: settle time\?"),
    ],
)
def test_frames_with_impossible_stamps_count_for_nothing_and_end_the_sweep_with_the_reason(
    ahead_ms: int, said: str
) -> None:
    pair = Pair.of()
    with pair.camera() as camera:
        read = pair.source.read

        def displaced(timeout_s: float = 1.0) -> Any:
            raw = read(timeout_s)
            start_ns, end_ns = (
                t + ahead_ms * 1_000_000 for t in (raw.exposure_start_ns, raw.exposure_end_ns)
            )
            return replace(raw, exposure_start_ns=start_ns, exposure_end_ns=end_ns)

        pair.source.read = displaced  # type: ignore[method-assign]
        why = said.partition(" by ")[0]
        stood = "expected one of them to be exposed while the lens stood still"
        with pytest.raises(CameraError, match=rf"(\d+) frames came, {stood}: \1 {why}; the newest {said}"):
            next(FocusSweep(camera, FOCI).frames())


@pytest.mark.parametrize("mode", ["stop_and_go", "free_running"])
def test_a_lens_that_gets_too_hot_ends_the_sweep_and_goes_to_rest(mode: str) -> None:
    pair = Pair.of()
    with pair.camera() as camera:
        frames = FocusSweep(camera, FOCI, SweepOptions(mode=mode)).frames()
        list(itertools.islice(frames, 8))
        assert pair.lens.position_at(pair.clock.steady_ns) > 1.0
        pair.lens.heat(71.0, 10.0)
        with pytest.raises(LensError, match="expected at most 60 deg C, got 71"):
            next(frames)
    pair.clock.pass_ns(1_000_000_000)
    assert pair.lens.position_at(pair.clock.steady_ns) == pair.lens.rest


def test_modes_and_approaches_are_named_when_they_are_wrong() -> None:
    with pytest.raises(CameraError, match="mode as one of stop_and_go, free_running, got 'fast'"):
        SweepOptions(mode="fast")
    with pytest.raises(CameraError, match="approach as one of any, rising, got 'falling'"):
        SweepOptions(approach="falling")
