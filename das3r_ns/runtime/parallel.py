"""Work for several processor cores whose result does not depend on how many there are."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch


def thread_count() -> int:
    """As many threads as torch uses, which users can set, but no more than there are cores."""
    return min(torch.get_num_threads(), os.cpu_count() or 1)


def parallel_for(work: Callable[[int], None], count: int) -> None:
    """Call `work` for 0 .. count - 1, about in this order, on `thread_count` threads.

    Each call must write only what is its own, so that the number of threads changes nothing. It pays where `work`
    lets go of the interpreter: OpenCV, Numba's `nogil` and large NumPy arrays do. The first error is raised when all
    that had begun is done.
    """
    threads = min(thread_count(), count)
    if threads <= 1:
        for i in range(count):
            work(i)
        return
    failed = threading.Event()

    def unless_failed(i: int) -> None:
        if failed.is_set():
            return
        try:
            work(i)
        except BaseException:
            failed.set()  # the others learn of it before the caller does
            raise

    with ThreadPoolExecutor(threads) as pool:
        try:
            for done in [pool.submit(unless_failed, i) for i in range(count)]:
                done.result()
        except BaseException:
            failed.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def in_parts(work: Callable[[int, int], None], count: int) -> None:
    """Call `work(first, last)` for ranges that cover 0 .. count - 1: `parallel_for` for work of a few milliseconds
    each, whose calls would take as long as the work. The same rules hold, whatever the ranges."""
    parts = max(min(4 * thread_count(), count), 1) if thread_count() > 1 else 1
    parallel_for(lambda k: work(count * k // parts, count * (k + 1) // parts), parts)
