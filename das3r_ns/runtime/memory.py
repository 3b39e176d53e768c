"""How much main memory there is, and words for when it will not do."""

import ctypes
from pathlib import Path

import psutil

GIB = 2**30

_LIMIT_FILES = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat", "inactive_file"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        "/sys/fs/cgroup/memory/memory.stat",
        "total_inactive_file",
    ),
)
"""Where Linux says what a container may use (control groups, versions 2 and 1): limit, usage, and what of the usage
is a cache that gives way."""


def available_bytes() -> int:
    """Bytes of main memory that can be had without swapping: what the machine has free, or what the container's limit
    leaves where that is less."""
    free = psutil.virtual_memory().available
    for limit_file, usage_file, statistics_file, cache_key in _LIMIT_FILES:
        try:
            limit = Path(limit_file).read_text(encoding="ascii").strip()
            if limit == "max":
                continue
            used = int(Path(usage_file).read_text(encoding="ascii"))
            statistics = Path(statistics_file).read_text(encoding="ascii")
            values = dict(line.split()[:2] for line in statistics.splitlines())
            free = min(free, max(0, int(limit) - used + int(values.get(cache_key, 0))))
        except (OSError, ValueError):
            continue  # another system, or one that does not let us look
    return free


def return_freed_memory() -> None:
    """Give what was freed back to the system, between stages of which each fills the memory with arrays of its own.

    The C library keeps freed blocks below 32 MiB for later, scattered between others, and the next stage seldom asks
    for the same sizes. Where there is no such call (macOS, Windows, musl) nothing happens.
    """
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):
        return
