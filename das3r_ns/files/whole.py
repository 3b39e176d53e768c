"""Files that are whole or not there, and folders for what is only needed for a while.

A result is written into a folder beside its place and moved there when it is whole and on the disk: an interruption,
a full disk or a crash leaves the file that was there before, or none. A folder is claimed by a lock that the operating
system lets go of when the process is gone, however it went, so that what a killed process left is told from what
another one is still writing.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

LOCK_NAME = ".claimed"
WRITING = ".writing-"
"""Beginning of the names of folders that hold a file while it is written."""
CLAIM_SECONDS = 2.0
"""A folder younger than this may be one whose lock is just being made."""
UNCLAIMED_SECONDS = 3600.0
"""A folder without a lock this old was left by an earlier release, or by a process killed while it made the folder."""
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


TORCH_CANNOT_WRITE = ("file write failed", "iostream error", "inline_container.cc")
"""What torch's own writer says of a file that it cannot write on; it does not keep the system's reason."""


class DiskFullError(OSError):
    """There is no room. The message says where, how much, and what to do."""


def no_room(error: BaseException) -> bool:
    """Whether an error, or what caused it, is a full disk or a used-up quota."""
    chain: BaseException | None = error
    while chain is not None:
        if isinstance(chain, OSError) and (chain.errno in NO_ROOM or isinstance(chain, DiskFullError)):
            return True
        text = str(chain)
        # FFmpeg's errors are of its own kind and keep the words of the system.
        if any(words in text for words in (*map(os.strerror, NO_ROOM), *TORCH_CANNOT_WRITE)):
            return True
        chain = chain.__cause__ or chain.__context__
    return False


@contextlib.contextmanager
def telling_of_full_disk(
    folder: Path, what: str, remedy: str = "Make room there, or choose another place."
) -> Iterator[None]:
    """Turn a full disk inside the block into one sentence that names the folder.

    Args:
        what: is written, such as "the video static.mp4".

    Raises:
        DiskFullError: the block ran out of room.
    """
    try:
        yield
    except DiskFullError:
        raise
    except (OSError, RuntimeError) as error:
        if not no_room(error):
            raise
        raise DiskFullError(f"there is no room for {what}: {folder} has {free_mib(folder)} left. {remedy}") from error


def free_mib(folder: Path) -> str:
    """Free room of the disk of `folder` (which need not exist yet), in words."""
    return f"{shutil.disk_usage(existing(folder)).free / 2**20:.0f} MiB"


def existing(folder: Path) -> Path:
    """`folder`, or the nearest folder above it that exists."""
    folder = Path(folder).absolute()
    return next(path for path in (folder, *folder.parents) if path.is_dir())


def check_room(folder: Path, needed_bytes: int, what: str, remedy: str) -> None:
    """Ask for room before long work starts.

    Args:
        folder: need not exist yet.
        remedy: what to do, as a sentence.

    Raises:
        DiskFullError: less is free.
    """
    free = shutil.disk_usage(existing(folder)).free
    if free < needed_bytes:
        raise DiskFullError(
            f"{folder} has {free / 2**20:.0f} MiB left, and {what} may take {needed_bytes / 2**20:.0f} MiB. {remedy}"
        )


def check_output(path: Path, needed_bytes: int, what: str, option: str = "--out") -> None:
    """See, before long work starts, that a file can be written. Makes the folder it is to lie in.

    Args:
        what: is written, such as "the splat".
        option: names the place on the command line.

    Raises:
        FileExistsError: a folder or a device is there.
        DiskFullError: there is too little room.
        OSError: the folder cannot be made or written.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise FileExistsError(f"{option} {path} is there and is not a file. Give the name of a file for {what}.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        if no_room(error):
            check_room(path.parent, max(needed_bytes, 1 << 20), what, f"Make room, or choose another {option}.")
        raise OSError(f"{option} {path} cannot be written: {error.strerror or error}. Choose another place.") from error
    check_room(path.parent, needed_bytes, what, f"Make room, or choose another {option}.")


@contextlib.contextmanager
def whole_file(path: Path, beside: Path | None = None, what: str | None = None) -> Iterator[Path]:
    """Give a path of the same name, elsewhere, to write; move it to `path` when the block ends well.

    Args:
        beside: where the half-written file is kept, on the same disk; the folder of `path` when None. A folder whose
            listing others read, such as that of the checkpoints, is not the place for it.
        what: is written, for the message when the disk is full; the file's name when None.

    Raises:
        DiskFullError: there is no room; what was at `path` is still there.
        FileExistsError: a folder or a device is at `path`.
        OSError: it cannot be written.
    """
    path = Path(os.path.realpath(path))  # a link stays, and what it points to is replaced
    if path.exists() and not path.is_file():
        raise FileExistsError(f"{path} is there and is not a file. Choose another place.")
    place = path.parent if beside is None else Path(beside)
    with telling_of_full_disk(place, what or path.name):
        path.parent.mkdir(parents=True, exist_ok=True)
        place.mkdir(parents=True, exist_ok=True)
        sweep(place, WRITING)
        with claimed_folder(place, WRITING) as folder:
            part = folder / path.name
            yield part
            _to_disk(part)
            os.replace(part, path)
            _to_disk(path.parent)


def write_text_whole(path: Path, text: str) -> None:
    """Write a text file, whole or not at all.

    Raises:
        DiskFullError: there is no room; what was at `path` is still there.
    """
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8")


def write_bytes_whole(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all.

    Raises:
        DiskFullError: there is no room; what was at `path` is still there.
    """
    with whole_file(path) as part:
        part.write_bytes(content)


def _to_disk(path: Path) -> None:
    """Wait until a file or a folder's listing is on the disk, where the system can say so."""
    flags = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) if path.is_dir() else os.O_RDWR
    with contextlib.suppress(OSError) if path.is_dir() else contextlib.nullcontext():  # Windows opens no folders
        number = os.open(path, flags)
        try:
            os.fsync(number)
        finally:
            os.close(number)


@contextlib.contextmanager
def claimed_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """A temporary folder that `sweep` leaves alone as long as this process lives; removed at the end of the block."""
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    lock = FileLock(folder / LOCK_NAME)
    try:
        lock.acquire(timeout=0)
        yield folder
    finally:
        lock.release()
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def temporary_folder(prefix: str, needed_bytes: int, what: str) -> Iterator[Path]:
    """A claimed folder in the system's temporary folder, which is asked for room and swept first.

    Raises:
        DiskFullError: there is too little room.
    """
    place = Path(tempfile.gettempdir())
    sweep(place, prefix)
    check_room(place, needed_bytes, what, "Make room, or name another temporary folder: export TMPDIR=FOLDER.")
    with claimed_folder(place, prefix) as folder:
        yield folder


def sweep(parent: Path, prefix: str) -> list[Path]:
    """Remove the folders of `claimed_folder` in `parent` whose process is gone; returns them.

    Folders of other users, links, and folders that another process holds are left alone.
    """
    removed = []
    for folder in sorted(Path(parent).glob(f"{prefix}*")):
        with contextlib.suppress(OSError):
            status = folder.lstat()
            if folder.is_symlink() or not folder.is_dir() or (hasattr(os, "getuid") and status.st_uid != os.getuid()):
                continue
            age = time.time() - status.st_mtime
            if not (folder / LOCK_NAME).exists():
                gone = age > UNCLAIMED_SECONDS
            else:
                gone = age > CLAIM_SECONDS and _lock_is_free(folder / LOCK_NAME)
            if gone:
                shutil.rmtree(folder, ignore_errors=True)
                removed.append(folder)
    return removed


def _lock_is_free(path: Path) -> bool:
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    lock.release()
    return True
