"""Whole sweeps come out once, in order; everything else is dropped and told."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybriddepth_ros.ros.assembler import MAX_SLICES, SliceGaps, StackAssembler


def assembler(min_slices: int = 0) -> tuple[StackAssembler[int], Counter[str]]:
    dropped: Counter[str] = Counter()
    return StackAssembler(lambda cause, slices: dropped.update({cause: slices}), min_slices), dropped


def feed(
    target: StackAssembler[int], slices: list[tuple[int, int]], count: int = 3, start: int = 0
) -> list[list[int]]:
    """(sweep, index) pairs, one nanosecond apart; the items are the stamps."""
    stacks = []
    for stamp, (sweep, index) in enumerate(slices, start=start + 1):
        stacks += target.add(sweep, index, count, stamp, stamp)
    return stacks


def test_a_whole_sweep_comes_out_once_in_order_of_exposure() -> None:
    target, dropped = assembler()
    assert feed(target, [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]) == [[1, 2, 3], [4, 5, 6]]
    assert not dropped


def test_a_sweep_with_a_missing_slice_is_dropped_and_counted() -> None:
    target, dropped = assembler()
    assert feed(target, [(0, 0), (0, 2), (1, 0), (1, 1), (1, 2)]) == [[3, 4, 5]]
    assert dropped == {"incomplete sweep": 2}


def test_a_sweep_with_a_missing_slice_is_used_if_enough_are_left() -> None:
    target, dropped = assembler(min_slices=2)
    assert feed(target, [(0, 0), (0, 2), (1, 1), (2, 0)]) == [[1, 2]]
    assert dropped == {"incomplete sweep": 1}


def test_a_slice_that_arrives_twice_counts_once() -> None:
    target, dropped = assembler()
    assert target.add(0, 0, 2, 10, 1) == []
    assert target.add(0, 0, 2, 10, 1) == []
    assert target.add(0, 1, 2, 20, 2) == [[1, 2]]
    assert dropped == {"duplicate slice": 1}


def test_a_sweep_that_begins_again_under_the_same_number_is_another() -> None:
    """The sweep node was restarted in the middle of its first sweep."""
    target, dropped = assembler()
    assert feed(target, [(0, 0), (0, 1), (0, 0), (0, 1), (0, 2)]) == [[3, 4, 5]]
    assert dropped == {"incomplete sweep": 2}


def test_stamps_that_jump_back_start_afresh() -> None:
    target, dropped = assembler()
    feed(target, [(5, 0), (5, 1)], start=1000)
    assert feed(target, [(5, 0), (5, 1), (5, 2)]) == [[1, 2, 3]]
    assert dropped == {"stamps jumped back": 2}


def test_a_camera_without_a_fixed_pattern_gives_a_stack_when_the_next_sweep_begins() -> None:
    target, _ = assembler()
    assert feed(target, [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0)], count=0) == [[1, 2, 3, 4]]


@given(counts=st.lists(st.sampled_from([0, 3]), min_size=1, max_size=6))
def test_of_whole_sweeps_the_last_one_too_is_a_stack_once_no_more_come(counts: list[int]) -> None:
    target, dropped = assembler()
    stacks: list[list[int]] = []
    for sweep, count in enumerate(counts):
        stacks += feed(target, [(sweep, 0), (sweep, 1), (sweep, 2)], count, start=3 * sweep)
    stacks += target.finish()
    assert stacks == [[3 * i + 1, 3 * i + 2, 3 * i + 3] for i in range(len(counts))]
    assert not dropped and target.finish() == []


def test_a_sweep_that_is_cut_off_at_the_end_is_dropped_and_counted() -> None:
    target, dropped = assembler()
    assert feed(target, [(0, 0), (0, 1)]) == [] == target.finish()
    assert feed(target, [(1, 0)], count=0, start=9) == [] == target.finish()
    assert dropped == {"incomplete sweep": 3}


@pytest.mark.parametrize("index", [0, None])
def test_a_camera_whose_sweep_never_ends_gives_stacks_of_the_most_slices(index: int | None) -> None:
    """A free-running camera: the number of the sweep stands still, the index too or it grows for ever."""
    target, dropped = assembler()
    slices = [(0, stamp if index is None else index) for stamp in range(1000)]
    stacks = feed(target, slices, count=0)
    assert [len(stack) for stack in stacks] == [MAX_SLICES] * (1000 // MAX_SLICES)
    assert len(target._slices) < MAX_SLICES and not dropped


def test_a_stack_that_was_handed_on_is_not_kept() -> None:
    target, _ = assembler()
    assert feed(target, [(0, 0), (0, 1), (0, 2)]) and not target._slices


def test_a_straggler_finds_its_place() -> None:
    target, dropped = assembler()
    stacks = [target.add(0, index, 3, stamp, stamp) for index, stamp in ((0, 10), (2, 30), (1, 20))]
    assert stacks == [[], [], [[10, 20, 30]]] and not dropped


def test_a_bag_of_one_sweep_may_loop() -> None:
    target, dropped = assembler()
    for _ in range(3):
        assert feed(target, [(4, 0), (4, 1), (4, 2)]) == [[1, 2, 3]]
    assert not dropped


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), max_size=40))
def test_no_stack_ever_mixes_sweeps_or_repeats_a_slice(slices: list[tuple[int, int]]) -> None:
    target, dropped = assembler()
    stacks = feed(target, slices)
    for stack in stacks:
        sweeps, indices = zip(*(slices[stamp - 1] for stamp in stack), strict=True)
        assert len(set(sweeps)) == 1 and sorted(indices) == [0, 1, 2]
        assert stack == sorted(stack)
    assert 3 * len(stacks) + sum(dropped.values()) <= len(slices)


def missing(*slices: tuple[int, int], count: int = 4) -> int:
    gaps = SliceGaps()
    return sum(gaps.before(sweep, index, count) for sweep, index in slices)


def test_slices_that_did_not_come_are_counted_wherever_they_would_have_been() -> None:
    whole = [(sweep, index) for sweep in range(3, 6) for index in range(4)]
    assert missing(*whole) == missing(*whole[2:]) == 0  # joined in the middle
    for gone in range(1, len(whole) - 1):
        assert missing(*whole[:gone], *whole[gone + 1 :]) == 1
    assert missing((3, 0), (3, 3), (4, 2)) == 2 + 2


def test_what_comes_late_twice_or_from_another_sweep_number_is_not_missing_again() -> None:
    assert missing((3, 0), (3, 2), (3, 1), (3, 3)) == 1
    assert missing((3, 2), (3, 3), (4, 0), (3, 1), (4, 1)) == 0
    assert missing((3, 0), (3, 0), (3, 1), (3, 1), (3, 2), (3, 3), (4, 0)) == 0
    assert missing((3, 2), (3, 3), (5, 0), (5, 1)) == 0  # a capture had the number between
    assert missing((0, 2), (0, 3), (0, 0), (0, 1), (0, 2)) == 0  # started anew
    assert missing((0, 0), (5, 0), (9, 0), count=0) == 0 and missing((0, 0), (1, 9)) == 0
    assert missing((0, 0), (1, 60_000), count=65_535) == 0  # no sweep has so many
