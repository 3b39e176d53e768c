"""How long a stage took and how much memory it needed at its peak, on the CPU and on the GPU."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

SAMPLE_S = 0.01


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
    resident = _ResidentPeak()
    start = time.perf_counter()
    try:
        yield cost
    finally:
        if has_gpu:
            torch.cuda.synchronize()
            cost.peak_gpu_memory_gb = torch.cuda.max_memory_allocated() / 1e9
        cost.seconds = time.perf_counter() - start
        cost.peak_memory_gb = resident.stop() / 1e9


class _ResidentPeak:
    """Watch this process's resident memory from now on.

    Linux keeps the peak itself and can forget the earlier one, but not every kernel and container allows that, so
    memory is sampled as well: the kernel's figure counts only where forgetting is seen to have worked.
    """

    def __init__(self) -> None:
        self._process = psutil.Process()
        with suppress(OSError):
            # Sets the peak back to what is resident now.
            Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
        self._peak = self._process.memory_info().rss
        kernel_peak = _kernel_peak()
        self._forgot = kernel_peak is not None and kernel_peak < 1.01 * self._peak
        self._ended = threading.Event()
        self._sampler = threading.Thread(target=self._sample, name="memory meter", daemon=True)
        self._sampler.start()

    def _sample(self) -> None:
        while not self._ended.wait(SAMPLE_S):
            self._peak = max(self._peak, self._process.memory_info().rss)

    def stop(self) -> int:
        """The peak in bytes."""
        self._ended.set()
        self._sampler.join()
        kernel_peak = _kernel_peak() if self._forgot else None
        return max(self._peak, self._process.memory_info().rss, kernel_peak or 0)


def _kernel_peak() -> int | None:
    """Bytes, or None where the system does not tell."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return None
