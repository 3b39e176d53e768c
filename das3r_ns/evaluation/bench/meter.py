"""How long a stage took and how much memory it needed at its peak, on the CPU and on the GPU."""

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass
class Cost:
    """What a stage took. Filled when the stage ends."""

    seconds: float = 0.0
    peak_memory_gb: float = 0.0
    """Of this process, resident, while the stage ran."""
    peak_gpu_memory_gb: float | None = None
    """Allocated by torch; None without a GPU."""


@contextmanager
def metered() -> Iterator[Cost]:
    """Measure the `with` block."""
    cost = Cost()
    has_gpu = torch.cuda.is_available()
    if has_gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    _reset_peak()
    start = time.perf_counter()
    try:
        yield cost
    finally:
        if has_gpu:
            torch.cuda.synchronize()
            cost.peak_gpu_memory_gb = torch.cuda.max_memory_allocated() / 1e9
        cost.seconds = time.perf_counter() - start
        cost.peak_memory_gb = _peak_bytes() / 1e9


def _reset_peak() -> None:
    with suppress(OSError):  # not Linux, or not allowed: the peak is then that of the whole process so far
        Path("/proc/self/clear_refs").write_text("5")  # sets the peak back to what is resident now


def _peak_bytes() -> float:
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return float(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0
