"""The one thread pool of the project, for kernels that release the GIL."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_lock = threading.Lock()
_inside = threading.local()
_pool: ThreadPoolExecutor | None = None
_pool_size = 0


def thread_count(threads: int | None = None) -> int:
    """Number of threads: the argument, else BODYREG_THREADS, else the CPU cores this process may use.

    Raises:
        ValueError: the argument or the variable is not a whole number of at least 1.
    """
    if threads is None:
        text = os.environ.get("BODYREG_THREADS", "").strip()
        if not text:
            return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        if not text.isdigit():
            raise ValueError(f"BODYREG_THREADS is {text!r}. Set it to a whole number of at least 1.")
        threads = int(text)
    if threads < 1:
        raise ValueError(f"{threads} threads were asked for. Ask for at least 1.")
    return threads


def map_threads(fn: Callable[[Item], Result], items: Iterable[Item], threads: int | None = None) -> list[Result]:
    """Apply `fn` to every item on the pool; results in the order of the items, as `[fn(x) for x in items]`.

    At most `threads` calls run at once. The first exception, in the order of the items, is raised after the running
    calls have ended; items not yet begun are dropped. Calls made from inside a call run in its own thread, so nesting
    cannot deadlock. With one thread, or one item, nothing leaves the calling thread.
    """
    work = list(items)
    count = min(thread_count(threads), len(work))
    if count <= 1 or getattr(_inside, "active", False):
        return [fn(item) for item in work]
    results: list[Result] = [None] * len(work)  # type: ignore[list-item]
    errors: dict[int, BaseException] = {}
    claim = iter(range(len(work)))
    claim_lock = threading.Lock()

    def worker() -> None:
        _inside.active = True
        try:
            while True:
                with claim_lock:
                    index = None if errors else next(claim, None)
                if index is None:
                    return
                try:
                    results[index] = fn(work[index])
                except BaseException as error:  # handed to the caller below
                    with claim_lock:
                        errors[index] = error
        finally:
            _inside.active = False

    futures = _submit(worker, count - 1)
    worker()
    for future in futures:
        # A worker still queued has nothing left to do; one that runs is waited for.
        if not future.cancel():
            future.result()
    if errors:
        raise errors[min(errors)]
    return results


def _submit(worker: Callable[[], None], times: int) -> list[Future[None]]:
    global _pool, _pool_size
    with _lock:  # so that no other caller replaces the pool between the look-up and the submission
        if _pool is None or _pool_size < times:
            if _pool is not None:
                _pool.shutdown(wait=False)
            _pool, _pool_size = ThreadPoolExecutor(times, thread_name_prefix="bodyreg"), times
        return [_pool.submit(worker) for _ in range(times)]


def _forget_pool() -> None:
    # Threads do not survive a fork; a child (data-loader worker) starts its own pool when it needs one.
    global _pool, _pool_size, _lock, _inside
    _pool, _pool_size, _lock, _inside = None, 0, threading.Lock(), threading.local()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)
