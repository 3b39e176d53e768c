"""How many processes of ours use the cores of this machine at the moment, so that each takes its share.

Each holds a locked file in the temporary folder while it works. A killed process's lock is gone with it, so nobody
counts it; its file is removed by whoever looks next.
"""

from __future__ import annotations

import getpass
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

LOOK_EVERY_S = 2.0
"""Seconds for which a count is believed."""


def available_cores() -> int:
    """Cores that this process may run on: containers and `taskset` leave fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Sharing:
    """What this process knows of the others."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.held: FileLock | None = None
        self.depth, self.count, self.counted_at = 0, 1, -1e9


_sharing = _Sharing()


def processes_at_work() -> int:
    """Processes that share the cores, this one included. 1 outside of `share_cores`."""
    if not _sharing.depth:
        return 1
    with _sharing.lock:
        if time.monotonic() - _sharing.counted_at > LOOK_EVERY_S:
            _sharing.count, _sharing.counted_at = 1 + _others(), time.monotonic()
        return _sharing.count


@contextmanager
def share_cores() -> Iterator[None]:
    """Within it, this process is counted among those that use the cores. May be nested."""
    with _sharing.lock:
        _sharing.depth += 1
        if _sharing.depth == 1:
            _sharing.counted_at = -1e9
            _sharing.held = _hold()
    try:
        yield
    finally:
        with _sharing.lock:
            _sharing.depth -= 1
            if _sharing.depth == 0 and _sharing.held is not None:
                path = Path(_sharing.held.lock_file)
                _remove(path)  # before the lock goes: nobody else may have taken it meanwhile
                _sharing.held.release()
                _remove(path)
                _sharing.held = None


def _folder() -> Path:
    return Path(tempfile.gettempdir()) / f"das3r-cores-{getpass.getuser()}"


def _hold() -> FileLock | None:
    try:
        _folder().mkdir(mode=0o700, exist_ok=True)
        lock = FileLock(_folder() / str(os.getpid()), timeout=0.5, thread_local=False)
        lock.acquire()
    except (OSError, Timeout):  # no room, or a read-only folder: this process is not counted, and works all the same
        return None
    return lock


def _others() -> int:
    """Processes beside this one that hold their file."""
    own, count = str(os.getpid()), 0
    try:
        names = [name for name in os.listdir(_folder()) if name.isdigit() and name != own]
    except OSError:
        return 0
    for name in names:
        lock = FileLock(_folder() / name, timeout=0, thread_local=False)
        try:
            lock.acquire()
        except Timeout:
            count += 1
            continue
        except OSError:
            continue
        _remove(_folder() / name)
        lock.release()
        _remove(_folder() / name)
    return count


def _remove(path: Path) -> None:
    with suppress(OSError):  # Windows keeps the files of open locks; they are removed by whoever looks next
        path.unlink(missing_ok=True)
