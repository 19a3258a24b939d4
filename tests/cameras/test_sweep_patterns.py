"""The order of the foci: there and back, whole stacks each way, on a clock of their own."""

import itertools

import pytest

from hybriddepth_ros.cameras import FocusSweep
from hybriddepth_ros.cameras.sweep_engine import APPROACHES, SWEEP_MODES, SweepOptions
from hybriddepth_ros.cameras.sweep_patterns import Triangle
from hybriddepth_ros.errors import CameraError
from hybriddepth_ros.ros.assembler import StackAssembler
from tests.cameras.conftest import FOCI, ManualClock, commands_of, small_camera


@pytest.mark.parametrize("mode", SWEEP_MODES)
@pytest.mark.parametrize("approach", APPROACHES)
def test_a_triangle_goes_there_and_back_and_every_pass_is_a_whole_stack(
    clock: ManualClock, mode: str, approach: str
) -> None:
    dropped: list[str] = []
    assembler = StackAssembler[float](lambda cause, slices: dropped.append(cause))
    with small_camera(clock) as camera:
        sweep = FocusSweep(camera, FOCI, SweepOptions(mode, approach), Triangle())
        frames = list(itertools.islice(sweep.frames(), 12))
    assert [(f.sweep_id, f.slice_index, f.slice_count) for f in frames] == [
        (n // 3, n % 3, 3) for n in range(12)
    ]
    there, back = list(FOCI), list(FOCI[::-1])
    assert [f.frame.focus_diopters for f in frames] == [*there, *back, *there, *back]
    stacks = [
        stack
        for f in frames
        for stack in assembler.add(
            f.sweep_id, f.slice_index, f.slice_count, f.frame.stamp_ns, f.frame.focus_diopters
        )
    ]
    assert stacks == [there, back, there, back] and not dropped


def test_the_lens_stands_still_where_a_triangle_turns_and_never_flies_back(clock: ManualClock) -> None:
    with small_camera(clock) as camera:
        commands = commands_of(camera)
        frames = list(itertools.islice(FocusSweep(camera, FOCI, pattern=Triangle()).frames(), 9))
    assert commands[:7] == [FOCI[0], FOCI[1], FOCI[2], FOCI[1], FOCI[0], FOCI[1], FOCI[2]]
    sequences = [f.frame.sequence for f in frames]
    assert sequences == list(range(sequences[0], sequences[0] + 9))  # no frame is lost at a turn


def test_a_focus_held_between_passes_leaves_the_triangle_going(clock: ManualClock) -> None:
    with small_camera(clock) as camera:
        sweep = FocusSweep(camera, FOCI, pattern=Triangle())
        frames = sweep.frames()
        first = [next(frames) for _ in range(2)]
        sweep.hold(1.0)
        first.append(next(frames))
        held = [next(frames) for _ in range(2)]
        sweep.resume()
        after = list(itertools.islice((f for f in frames if f.slice_count == 3), 6))
    assert [f.frame.focus_diopters for f in first] == list(FOCI)
    assert {(f.frame.focus_diopters, f.slice_count) for f in held} == {(1.0, 1)}
    assert [f.frame.focus_diopters for f in after] == [*FOCI[::-1], *FOCI]


def test_a_pattern_that_asks_for_what_the_lens_cannot_reach_ends_the_sweep(clock: ManualClock) -> None:
    with small_camera(clock) as camera:
        sweep = FocusSweep(camera, FOCI, pattern=lambda foci: (*foci, 99.0))
        with pytest.raises(CameraError, match=r"positions of 0 to .* got 99"):
            next(sweep.frames())
