"""The worker does the newest first, never blocks who offers, and outlives what it runs."""

import threading

from hybriddepth_ros.ros.worker import NewestFirstWorker
from tests.ros.helpers import wait_for


def test_while_one_is_in_hand_the_newest_waits_and_the_rest_is_dropped() -> None:
    done: list[int] = []
    begun, go_on = threading.Event(), threading.Event()

    def work(item: int) -> None:
        begun.set()
        go_on.wait(10.0)
        done.append(item)

    worker: NewestFirstWorker[int] = NewestFirstWorker(work, lambda error: None, capacity=1)
    assert worker.offer(0) == 0
    assert begun.wait(10.0)
    assert [worker.offer(item) for item in (1, 2, 3)] == [0, 1, 1]
    go_on.set()
    assert wait_for(lambda: done == [0, 3])
    worker.close()


def test_an_exception_is_handed_on_and_the_next_item_is_done() -> None:
    done: list[int] = []
    errors: list[Exception] = []

    def work(item: int) -> None:
        if item == 1:
            raise ValueError("one")
        done.append(item)

    worker: NewestFirstWorker[int] = NewestFirstWorker(work, errors.append, capacity=2)
    worker.offer(1)
    assert wait_for(lambda: errors)
    worker.offer(2)
    assert wait_for(lambda: done == [2])
    worker.close()


def test_it_outlives_an_exception_while_one_is_reported() -> None:
    done: list[int] = []

    def work(item: int) -> None:
        if item == 1:
            raise ValueError("one")
        done.append(item)

    def report(error: Exception) -> None:
        raise OSError("no log")

    worker: NewestFirstWorker[int] = NewestFirstWorker(work, report)
    worker.offer(1)
    assert wait_for(lambda: not worker._waiting)
    worker.offer(2)
    assert wait_for(lambda: done == [2]) and worker.alive
    worker.close()


def test_what_is_offered_after_close_is_not_kept() -> None:
    worker: NewestFirstWorker[object] = NewestFirstWorker(lambda item: None, lambda error: None)
    worker.close()
    assert worker.offer(object()) == 0 and not worker._waiting


def test_close_ends_the_thread_and_may_be_called_twice() -> None:
    before = threading.active_count()
    worker: NewestFirstWorker[int] = NewestFirstWorker(lambda item: None, lambda error: None)
    worker.close()
    worker.close()
    assert wait_for(lambda: threading.active_count() <= before)
