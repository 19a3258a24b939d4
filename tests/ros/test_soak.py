"""A minute of slices at 30/s with a subscriber that comes and goes, and what one run from outside says."""

from __future__ import annotations

import pytest

from hybriddepth_ros.ros.bench_feed import Run, feeding
from hybriddepth_ros.ros.slice_pipeline import ENDS, unaccounted
from hybriddepth_ros.ros.soak import soak


@pytest.mark.slow
def test_a_minute_loses_no_slice_uncounted_and_no_memory() -> None:
    # A leak of one image of each slice would be 58 kB x 30/s x 40 s = 69 MB.
    result = soak(60.0, 160, 120, settle_s=20.0, most_growth_mb=15.0)
    assert result["not_counted"] == 0, result
    assert result["memory_growth_mb"] < 15.0, result
    assert result["passed"], result
    assert result["subscriber_came"] == 10
    assert result["counted"]["slices not needed"] > 0
    assert result["estimates"] > 100
    assert result["slices_received"] <= result["slices_sent"]


def test_a_run_from_outside_the_node_sees_each_slice_come_back_as_depth() -> None:
    with feeding({"model": "classical", "update": "slice"}, 160, 120, 3) as (feed, process):
        run = feed.run(3.0, 9)
        assert process.cpu_s > 0.0 and process.memory_mb > 10.0
    assert run.sent == 9
    assert 1 <= len(run.latencies_ms) <= 7  # the first two of a sweep wait for the third
    assert all(latency > 0.0 for latency in run.latencies_ms)


def test_drops_are_the_depth_images_that_did_not_come() -> None:
    assert Run(20, [1.0] * 20, 10.0).dropped_share(1) == 0.0
    assert Run(20, [1.0] * 3, 10.0).dropped_share(5) == pytest.approx(0.25)


def test_a_slice_without_an_end_is_not_accounted_for() -> None:
    assert unaccounted({"slices received": 5, ENDS[0]: 2, ENDS[1]: 1, "dropped: slice too old": 9}) == 2
