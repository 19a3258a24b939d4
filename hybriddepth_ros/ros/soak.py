"""Hours of slices with a subscriber that comes and goes: memory must not grow, and no slice may be lost
without being counted.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

from hybriddepth_ros.errors import HybridDepthError
from hybriddepth_ros.ros.bench_feed import Feed, feeding
from hybriddepth_ros.ros.dds import set_dds_profile
from hybriddepth_ros.ros.slice_pipeline import ENDS, ESTIMATED, RECEIVED, unaccounted

RATE_HZ = 30.0
HERE_S, AWAY_S = 4.0, 2.0  # how long the subscriber stays, and is gone
SAMPLE_S = 1.0
SETTLED_TIMEOUT_S = 15.0
MOST_GROWTH_MB = 5.0


def soak(
    seconds: float,
    width: int = 640,
    height: int = 480,
    settle_s: float = 60.0,
    most_growth_mb: float = MOST_GROWTH_MB,
) -> dict[str, Any]:
    """Runs it, and says whether it went well (`passed`), with the figures.

    settle_s: how long memory may do what it likes first. Growth is from the median of the samples of the
    tenth of the time after that to the median of the last tenth.
    """
    if seconds < 1.5 * settle_s:
        settle_s = seconds / 3.0
    set_dds_profile()
    memory_mb: list[float] = []
    with feeding({"model": "classical", "update": "slice"}, width, height, listen=False) as (feed, process):
        begin = time.monotonic()
        next_sample = settle_s
        comings, arrived, listening = 0, 0, False
        while (now := time.monotonic() - begin) < seconds:
            if not process.running:
                raise HybridDepthError(f"soak: the node ended after {now:.0f} s")
            wanted = now % (HERE_S + AWAY_S) < HERE_S
            if wanted != listening:
                listening = wanted
                arrived += _forgotten(feed)
                comings += wanted
                feed.listen() if wanted else feed.listen_no_more()
            if now >= next_sample:
                memory_mb.append(process.memory_mb)
                next_sample += SAMPLE_S
            feed.send()
            time.sleep(max(begin + feed.sent / RATE_HZ - time.monotonic(), 0.0))
        counts = _settled_counts(feed)
        arrived += _forgotten(feed)
    tenth = max(len(memory_mb) // 10, 1)
    growth_mb = statistics.median(memory_mb[-tenth:]) - statistics.median(memory_mb[:tenth])
    lost = unaccounted(counts)
    return {
        "seconds": seconds,
        "rate_hz": RATE_HZ,
        "image": f"{width}x{height}",
        "subscriber_came": comings,
        "slices_sent": feed.sent,
        "slices_received": counts.get(RECEIVED, 0),
        "estimates": counts.get(ESTIMATED, 0),
        "depth_images_arrived": arrived,
        "counted": {name: counts[name] for name in ENDS if counts.get(name) and name != ESTIMATED},
        "not_counted": lost,
        "memory_mb": memory_mb[-1],
        "memory_growth_mb": growth_mb,
        "most_growth_mb": most_growth_mb,
        "settle_s": settle_s,
        "here_s": HERE_S,
        "away_s": AWAY_S,
        "passed": lost == 0 and growth_mb < most_growth_mb and counts.get(ESTIMATED, 0) > 0,
    }


def _forgotten(feed: Feed) -> int:
    arrived = feed.arrived
    feed.forget()
    return arrived


def _settled_counts(feed: Feed) -> dict[str, int]:
    """The counters once the node has nothing in hand; what they are after a while, if that never comes."""
    end = time.monotonic() + SETTLED_TIMEOUT_S
    time.sleep(2.5)  # the diagnostics of a second in which nothing was sent
    while unaccounted(feed.counts) and time.monotonic() < end:
        time.sleep(0.2)
    return feed.counts
