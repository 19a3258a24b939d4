"""The emulated link carries no more than its rate, never sooner than its delay, and in order."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybriddepth_ros.emulation.link import PACKET_BYTES, Link, LinkOptions
from hybriddepth_ros.errors import ParameterError

messages = st.lists(
    st.tuples(st.floats(0.0, 0.2), st.integers(1, 1_000_000)), min_size=1, max_size=60
)  # pause before it [s], size [B]


def sent(link: Link, traffic: list[tuple[float, int]]) -> list[tuple[float, int, float | None]]:
    now, result = 100.0, []
    for pause, size in traffic:
        now += pause
        result.append((now, size, link.send(now, size)))
    return result


@given(messages, st.floats(1.0, 1000.0), st.floats(0.0, 50.0), st.floats(0.0, 50.0), st.integers(0, 9))
def test_what_arrives_is_in_order_late_enough_and_within_the_rate(
    traffic: list[tuple[float, int]], rate: float, delay: float, jitter: float, seed: int
) -> None:
    link = Link(LinkOptions(rate_mbit=rate, delay_ms=delay, jitter_ms=jitter), seed)
    arrived = [(now, size, at) for now, size, at in sent(link, traffic) if at is not None]
    times = [at for _, _, at in arrived]
    assert times == sorted(times)
    for now, size, at in arrived:
        assert at >= now + size * 8e-6 / rate + delay * 1e-3 - 1e-9
    busy = sum(size for _, size, _ in arrived) * 8e-6 / rate
    assert times == [] or times[-1] - arrived[0][0] >= busy - 1e-6


@given(messages, st.integers(1, 2_000_000))
def test_no_more_waits_than_the_queue_holds(traffic: list[tuple[float, int]], queue: int) -> None:
    rate = 8.0  # 1 MB/s
    link = Link(LinkOptions(rate_mbit=rate, queue_bytes=queue))
    for now, size, at in sent(link, traffic):
        if at is not None and size * 1e-6 < at - now - 1e-9:  # it had to wait
            assert (at - now) * 1e6 <= queue + 1e-3


def test_a_message_larger_than_the_queue_passes_while_nothing_waits() -> None:
    link = Link(LinkOptions(rate_mbit=8.0, queue_bytes=10))
    assert link.send(0.0, 1_000_000) == pytest.approx(1.0)
    assert link.send(0.5, 1_000_000) is None
    assert link.send(1.0, 1_000_000) == pytest.approx(2.0)


def test_a_message_of_many_packets_is_lost_more_often_than_one_of_few() -> None:
    """1 % of packets: a JPEG of 70 packets comes through half the time, a raw slice of 626 hardly ever."""
    link = Link(LinkOptions(packet_loss=0.01), seed=1)

    def share(packets: int) -> float:
        return sum(link.send(0.0, packets * PACKET_BYTES) is not None for _ in range(2000)) / 2000

    assert share(1) == pytest.approx(0.99, abs=0.01)
    assert share(70) == pytest.approx(0.99**70, abs=0.04)
    assert share(626) < 0.01


def test_a_link_that_is_cut_loses_all_and_is_fresh_when_it_is_mended() -> None:
    link = Link(LinkOptions(rate_mbit=8.0, delay_ms=5.0))
    link.send(0.0, 3_000_000)
    link.cut()
    assert link.send(0.1, 1000) is None
    link.mend()
    assert link.send(0.2, 1000) == pytest.approx(0.2 + 0.001 + 0.005)


@pytest.mark.parametrize(
    "options", [{"rate_mbit": -1.0}, {"packet_loss": 1.5}, {"delay_ms": math.nan}, {"jitter_ms": math.inf}]
)
def test_a_link_that_cannot_be_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(ParameterError, match=f"link: {next(iter(options))}: expected"):
        LinkOptions(**options)  # type: ignore[arg-type]
