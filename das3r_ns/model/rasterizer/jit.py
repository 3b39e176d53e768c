"""How the kernels of this room are compiled and spread over threads.

Every kernel takes a half-open range `[start, stop)` of items, releases the GIL and writes only what belongs to its own
items, so a Python thread pool drives it. We do not use Numba's `parallel=True`: its default layer (workqueue) crashes
the process when two threads call it at once, as training and nerfstudio's viewer do, and its OpenMP layer aborts in
forked workers. The pool here serves any number of callers, survives a fork, and compiles in a fraction of the time.
Blocks have a fixed size, so sums over blocks do not depend on the number of threads: results are the same bit for bit.

Compiled code is kept on disk beside the module (or in `NUMBA_CACHE_DIR`). Numba renews it when the file that holds the
kernel changes, but not when only a file does that it imports from: then delete `__pycache__/*.nb?` by hand.
"""

from __future__ import annotations

import inspect
import itertools
import os
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

# No "nnan" or "ninf": the kernels compare with NaN and infinity to cull broken Gaussians.
_FASTMATH = {"contract", "nsz", "arcp", "reassoc"}


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile `function` with Numba: GIL released, C division rules, code cached on disk where a folder is writable."""
    function = inspect.unwrap(function)  # under test jaxtyping wraps it, and Numba needs the bare one
    options: dict[str, Any] = {"nogil": True, "fastmath": _FASTMATH, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # numba found no writable folder, neither beside the module nor in the user's cache
        warnings.warn(
            "No writable folder for compiled rasterizer code, so every process compiles it anew (about 10 s). "
            "Point NUMBA_CACHE_DIR to a writable folder to avoid that.",
            stacklevel=2,
        )
        return numba.njit(**options)(function)


def as_array(tensor: Shaped[Tensor, "..."]) -> np.ndarray:
    """The tensor's values as a C-contiguous NumPy array; shares memory where the tensor is contiguous already."""
    return tensor.detach().contiguous().numpy()


class _Pool:
    """Helper threads, started at first use and anew after a fork or a change of `torch.set_num_threads`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._executor: ThreadPoolExecutor | None = None
        self._size = 0

    def get(self, size: int) -> ThreadPoolExecutor:
        with self._lock:
            if self._executor is None or self._size < size:
                if self._executor is not None:
                    self._executor.shutdown(wait=False)
                self._executor = ThreadPoolExecutor(size, thread_name_prefix="das3r-rasterizer")
                self._size = size
            return self._executor


_pool = _Pool()


def _forget_pool() -> None:
    global _pool
    _pool = _Pool()  # threads do not survive a fork


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)


def in_blocks(task: Callable[[int, int], object], num_items: int, block: int) -> None:
    """Call `task(start, stop)` for every block of `block` items, on as many threads as torch uses.

    The caller works too and never waits for a helper that has not begun, so calls from several threads, or from
    within a task, cannot lock each other out.

    Raises:
        Exception: whatever a task raised.
    """
    starts = range(0, num_items, block)
    threads = min(torch.get_num_threads(), len(starts))
    if threads <= 1:
        for start in starts:
            task(start, min(start + block, num_items))
        return
    ticket = itertools.count()  # `next` on it is atomic

    def work() -> None:
        while (i := next(ticket)) < len(starts):
            task(starts[i], min(starts[i] + block, num_items))

    helpers: list[Future[None]] = []
    try:
        for _ in range(threads - 1):
            helpers.append(_pool.get(threads - 1).submit(work))
    except RuntimeError:
        pass  # the interpreter is shutting down, or another thread has just replaced the pool: work with fewer
    try:
        work()
    finally:
        for helper in helpers:
            if not helper.cancel():
                helper.result()
