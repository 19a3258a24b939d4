"""Made once, by whichever thread, and what it was made of is let go."""

from __future__ import annotations

import threading
import weakref

import numpy as np
import pytest

from hybriddepth_ros.once import Once


def test_it_is_made_when_asked_for_and_only_then() -> None:
    calls: list[int] = []
    once = Once(lambda: calls.append(1) or len(calls))  # type: ignore[func-returns-value]
    assert not calls
    assert [once(), once()] == [1, 1] and calls == [1]


def test_several_threads_get_the_same() -> None:
    begun = threading.Barrier(4)
    once: Once[object] = Once(object)
    got: list[object] = []

    def ask() -> None:
        begun.wait()
        got.append(once())

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10.0)
    assert len(got) == 4 and len(set(map(id, got))) == 1


def test_what_it_was_made_of_is_let_go() -> None:
    images = np.zeros(10)
    held = weakref.ref(images)
    once = Once(lambda images=images: float(images.sum()))  # type: ignore[misc]
    del images
    assert held() is not None
    assert once() == 0.0
    assert held() is None


def test_after_an_error_it_is_tried_again() -> None:
    answers = iter([ZeroDivisionError("first"), 7])

    def make() -> int:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    once = Once(make)
    with pytest.raises(ZeroDivisionError):
        once()
    assert once() == 7
