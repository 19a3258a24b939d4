import threading

import pytest

from hybriddepth_ros.cameras import FrameTimeout, SweptFrame
from hybriddepth_ros.cameras.sweep_queue import SweepQueue
from hybriddepth_ros.errors import CameraError


def put_sweep(queue: SweepQueue, sweep_id: int, count: int = 3) -> None:
    for index in range(count):
        queue.put(SweptFrame(None, sweep_id, index, count, True))  # type: ignore[arg-type]


def drain(queue: SweepQueue) -> list[tuple[int, int]]:
    seen = []
    while True:
        try:
            frame = queue.get(0.0)
        except FrameTimeout:
            return seen
        seen.append((frame.sweep_id, frame.slice_index))


def test_frames_come_in_order() -> None:
    queue = SweepQueue(2)
    put_sweep(queue, 0)
    put_sweep(queue, 1)
    assert drain(queue) == [(s, i) for s in (0, 1) for i in range(3)]
    assert queue.frames_dropped == 0


def test_a_full_queue_drops_the_oldest_sweep_whole_and_counts_it() -> None:
    queue = SweepQueue(2)
    for sweep in range(5):
        put_sweep(queue, sweep)
    assert drain(queue) == [(s, i) for s in (2, 3, 4) for i in range(3)]
    assert (queue.frames_dropped, queue.sweeps_dropped) == (6, 2)


def test_a_sweep_that_is_being_read_is_not_cut_short() -> None:
    queue = SweepQueue(1)
    put_sweep(queue, 0)
    assert queue.get(0.0).slice_index == 0
    for sweep in (1, 2, 3):
        put_sweep(queue, sweep)
    assert drain(queue)[:2] == [(0, 1), (0, 2)]
    assert queue.frames_dropped % 3 == 0


def test_after_closing_the_rest_is_read_and_then_the_cause_raised() -> None:
    queue = SweepQueue()
    put_sweep(queue, 0, 1)
    cause = ValueError("the lens fell off")
    queue.close(cause)
    queue.close(None)
    assert queue.get(0.0).sweep_id == 0
    for _ in range(2):
        with pytest.raises(CameraError, match="the lens fell off") as raised:
            queue.get(0.0)
        assert raised.value.__cause__ is cause


def test_closing_wakes_a_reader() -> None:
    queue = SweepQueue()
    timer = threading.Timer(0.05, queue.close, args=(None,))
    timer.start()
    with pytest.raises(CameraError, match="stopped"):
        queue.get(30.0)
    timer.join()
