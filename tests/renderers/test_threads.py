"""The thread pool: order, exceptions, nesting, settings."""

from __future__ import annotations

import threading
import time

import pytest

from renderers.threads import map_threads, thread_count


def test_results_keep_the_order_of_the_items() -> None:
    def slow_first(i: int) -> int:
        time.sleep(0.002 * (5 - i % 5))
        return i * i

    for threads in (1, 2, 5, 40):
        assert map_threads(slow_first, range(20), threads) == [i * i for i in range(20)]
    assert map_threads(slow_first, [], 4) == []


def test_several_threads_run_at_once() -> None:
    both = threading.Barrier(2, timeout=10)
    assert len(map_threads(lambda _: both.wait(), range(2), 2)) == 2  # deadlocks (and raises) on one thread


@pytest.mark.parametrize("threads", [1, 3])
def test_the_first_exception_is_raised(threads: int) -> None:
    def fail(i: int) -> int:
        if i >= 4:
            raise KeyError(i)
        return i

    with pytest.raises(KeyError, match="4"):
        map_threads(fail, range(50), threads)
    assert map_threads(abs, [-1, -2], threads) == [1, 2]  # and the pool still works


def test_nested_calls_finish() -> None:
    inner = map_threads(lambda i: sum(map_threads(lambda j: i * j, range(10), 4)), range(30), 4)
    assert inner == [45 * i for i in range(30)]


def test_thread_count_comes_from_argument_then_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BODYREG_THREADS", "3")
    assert thread_count() == 3 and thread_count(2) == 2
    monkeypatch.delenv("BODYREG_THREADS")
    assert thread_count() >= 1
    monkeypatch.setenv("BODYREG_THREADS", "many")
    with pytest.raises(ValueError, match="BODYREG_THREADS is 'many'"):
        thread_count()
    with pytest.raises(ValueError, match="0 threads"):
        thread_count(0)
