"""Locks between processes that leave no file behind, and that a killed process lets go of.

The holder removes the file before it lets go. Whoever waited for it then holds a lock on a file that is no longer
there, sees that by its inode, and asks again: two processes never hold one lock, though the file comes and goes.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

try:
    import fcntl
except ImportError:  # Windows, which removes no file that somebody has opened
    fcntl = None


class LockedError(OSError):
    """Another process holds the lock."""


@contextlib.contextmanager
def only_holder(path: Path, wait: bool = True) -> Iterator[None]:
    """Be the only one, among processes and threads, within the block.

    Args:
        path: of the lock's file, whose folder exists. The file is gone after the block, also where a killed process had
            left it.
        wait: for another holder. Off raises instead.

    Raises:
        LockedError: another one holds it, and `wait` is off.
        OSError: the file cannot be made.
    """
    if fcntl is None:
        with _without_fcntl(path, wait):
            yield
        return
    number = _taken(path, wait)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.unlink(path)
        os.close(number)


def _taken(path: Path, wait: bool) -> int:
    assert fcntl is not None
    while True:
        number = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(number, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(number), os.stat(path)):
                    return number
        except BlockingIOError:
            os.close(number)
            raise LockedError(f"another process holds {path}") from None
        except BaseException:
            os.close(number)
            raise
        os.close(number)  # its last holder removed it while we waited


@contextlib.contextmanager
def _without_fcntl(path: Path, wait: bool) -> Iterator[None]:
    lock = FileLock(path, timeout=-1 if wait else 0, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        raise LockedError(f"another process holds {path}") from None
    try:
        yield
    finally:
        lock.release()
        with contextlib.suppress(OSError):  # somebody waits for it, and removes it in turn
            os.unlink(path)
