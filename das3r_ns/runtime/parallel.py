"""Work for several processor cores whose result does not depend on how many there are."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager

import torch

from das3r_ns.runtime.shared_cores import available_cores, processes_at_work

MIN_PARALLEL_S = 1e-3
"""Work that takes less than this in all is not worth waking other threads for."""
MIN_PART_S = 2e-4
"""A part takes at least this long: handing it to a thread takes some 20 microseconds."""
PARTS_A_THREAD = 4
"""So many that threads which fall behind (another process on their core) hold up the others by little."""

_pool: ThreadPoolExecutor | None = None
_pool_lock = threading.Lock()
_worker = threading.local()


def thread_count() -> int:
    """As many threads as torch uses, which users can set (OMP_NUM_THREADS), but no more than this process's share of
    the cores: those that it may run on, divided by the predictions that run on this machine."""
    return max(min(torch.get_num_threads(), available_cores() // processes_at_work()), 1)


@contextmanager
def torch_threads() -> Iterator[None]:
    """Within it torch uses `thread_count` threads, where it would use one for each core that others use as well."""
    before = torch.get_num_threads()
    torch.set_num_threads(thread_count())
    try:
        yield
    finally:
        torch.set_num_threads(before)


def parallel_for(work: Callable[[int], None], count: int) -> None:
    """Call `work` for 0 .. count - 1, about in this order, on `thread_count` threads, the caller's among them.

    Each call must write only what is its own, so that the number of threads changes nothing. It pays where `work`
    lets go of the interpreter: OpenCV, Numba's `nogil` and large NumPy arrays do. The first error is raised when all
    that had begun is done. Within `work`, further calls run on the thread that makes them.
    """
    threads = min(thread_count(), count)
    if threads <= 1 or getattr(_worker, "busy", False):
        for i in range(count):
            work(i)
        return
    failed = threading.Event()
    numbers = iter(range(count))  # shared: each thread takes the next one

    def take_turns() -> None:
        _worker.busy = True
        try:
            for i in numbers:
                if failed.is_set():
                    return
                work(i)
        except BaseException:
            failed.set()  # the others learn of it before the caller does
            raise
        finally:
            _worker.busy = False

    others = [_threads().submit(take_turns) for _ in range(threads - 1)]
    try:
        take_turns()
    finally:
        for other in others:
            other.cancel()  # those that never began: all is done already
        wait(others)
    for other in others:
        if not other.cancelled():
            other.result()


def in_parts(work: Callable[[int, int], None], count: int) -> None:
    """Call `work(first, last)` for ranges that cover 0 .. count - 1: `parallel_for` for short work of many items. The
    same rules hold, whatever the ranges.

    A bundle adjustment makes thousands of such calls, most of a millisecond or two: the caller's thread times a first
    range, and the rest is divided into parts that are worth a thread each, or not divided at all.
    """
    threads = thread_count()
    if threads <= 1 or count < 2 or getattr(_worker, "busy", False):
        work(0, count)
        return
    done = max(count // (PARTS_A_THREAD * threads), 1)
    start = time.perf_counter()
    work(0, done)
    left_s = (time.perf_counter() - start) / done * (count - done)
    if left_s < MIN_PARALLEL_S:
        work(done, count)
        return
    ranges = list(_ranges(done, count, min(int(left_s / MIN_PART_S), PARTS_A_THREAD * threads, count - done)))
    parallel_for(lambda k: work(*ranges[k]), len(ranges))


def _ranges(first: int, last: int, parts: int) -> Iterator[tuple[int, int]]:
    for k in range(parts):
        yield first + (last - first) * k // parts, first + (last - first) * (k + 1) // parts


def _threads() -> ThreadPoolExecutor:
    """One pool for the process, begun at first use: to start threads anew for every call took longer than the calls."""
    global _pool
    with _pool_lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="das3r")
        return _pool


def _forget_pool() -> None:
    """A forked child has none of the threads."""
    global _pool, _pool_lock
    _pool, _pool_lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)
