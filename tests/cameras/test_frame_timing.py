"""A camera's rhythm, learned from its frames."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hybriddepth_ros.cameras import CameraFrame
from hybriddepth_ros.cameras.frame_timing import FrameTiming
from hybriddepth_ros.focal_stack import CameraIntrinsics

INTRINSICS = CameraIntrinsics(8.0, 8.0, 3.5, 2.5, 8, 6)
BASE_NS = 1_700_000_000_000_000_000


def frame(sequence: int, start_ns: int, span_ns: int = 9_000_000) -> CameraFrame:
    return CameraFrame(
        np.zeros((6, 8), np.uint8),
        sequence,
        start_ns,
        start_ns + span_ns // 2,
        1.0,
        1.0,
        INTRINSICS,
        exposure_end_ns=start_ns + span_ns,
    )


@given(
    period_ms=st.floats(2.0, 200.0),
    span=st.floats(0.01, 2.0),
    stray_ms=st.floats(0.0, 0.4),
    gaps=st.lists(st.integers(1, 3), min_size=6, max_size=60),
    after=st.floats(0.0, 4.0),
    seed=st.integers(0, 99),
)
def test_the_end_that_is_told_is_no_earlier_than_the_true_one_and_hardly_later(
    period_ms: float, span: float, stray_ms: float, gaps: list[int], after: float, seed: int
) -> None:
    random = np.random.default_rng(seed)
    timing, number = FrameTiming(), 0
    span_ns = round(span * period_ms * 1e6)
    strays = random.uniform(0.0, 0.05 * stray_ms, len(gaps) + 1)

    def start_ns(sequence: int, stray: float = 0.0) -> int:
        return BASE_NS + round((sequence * period_ms + stray) * 1e6)

    for gap, stray in zip(gaps, strays, strict=False):
        number += gap
        timing.add(frame(number, start_ns(number, stray), span_ns))
    asked_ns = start_ns(number) + round((1.0 + after) * period_ms * 1e6)
    told_ns = timing.end_of_first_from(asked_ns)
    assert told_ns is not None
    coming = number + 1
    while start_ns(coming) < asked_ns:
        coming += 1
    assert told_ns >= start_ns(coming) + span_ns
    slack_ns = 400_000 + 4e6 * 0.05 * stray_ms
    assert told_ns <= start_ns(coming) + span_ns + slack_ns or told_ns <= (
        start_ns(coming + 1) + span_ns + slack_ns  # it begins too close to the time asked to be sure of
    )


def test_nothing_is_told_before_three_frames() -> None:
    timing = FrameTiming()
    for number in range(3):
        assert timing.end_of_first_from(BASE_NS) is None
        timing.add(frame(number, BASE_NS + number * 20_000_000))
    assert timing.end_of_first_from(BASE_NS) == BASE_NS + 60_000_000 + 9_000_000 + 100_000
    assert timing.span_ns == 9_000_000


def test_a_rhythm_that_breaks_is_learned_anew() -> None:
    starts = [0, 20, 40, 60, 95]  # ms: the last comes 15 ms late
    timing = FrameTiming()
    for number, start in enumerate(starts):
        timing.add(frame(number, BASE_NS + start * 1_000_000))
    assert timing.end_of_first_from(BASE_NS) is None
    for number in range(5, 8):
        timing.add(frame(number, BASE_NS + (95 + (number - 4) * 10) * 1_000_000))
    assert timing.end_of_first_from(BASE_NS + 126_000_000) == BASE_NS + 135_000_000 + 9_100_000


def test_a_driver_without_sequence_numbers_is_never_predicted() -> None:
    timing = FrameTiming()
    for number in range(10):
        timing.add(frame(0, BASE_NS + number * 20_000_000))
    assert timing.end_of_first_from(BASE_NS) is None
