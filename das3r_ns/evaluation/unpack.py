"""Unpack archives of strangers: nothing lands outside the destination, and never half of it.

An archive is unpacked into a temporary folder beside the destination and then moved in, file by file, so that several
archives can fill one tree (Sintel's three do). An archive cut into parts is read as one stream.
"""

import io
import lzma
import os
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol, runtime_checkable

from das3r_ns.files.archives import UNREADABLE_ZIP
from das3r_ns.files.names import MAX_NAME_BYTES


class UnpackError(RuntimeError):
    """An archive that is damaged, or that tries to write where it must not."""


@runtime_checkable
class _Readable(Protocol):
    """What zipfile and tarfile give for a file in an archive."""

    def read(self, size: int = -1, /) -> bytes: ...


def unpack(parts: Sequence[Path], folder: Path) -> int:
    """Unpack a `.zip`, or a `.tar`, `.tgz`, `.tar.gz` (one file, or its parts in order), into `folder`.

    Files that are there already under the same name are replaced. Links and devices are left out.

    Returns:
        How many files were written.

    Raises:
        UnpackError: the archive is damaged, holds a path that leads out of the folder, or does not fit on the disk.
    """
    folder.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".unpacking.", dir=folder))
    try:
        if zipfile.is_zipfile(parts[0]) and len(parts) == 1:
            count = _unpack_zip(parts[0], temporary)
        else:
            count = _unpack_tar(parts, temporary)
        _merge(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return count


def _unpack_zip(path: Path, folder: Path) -> int:
    count = 0
    try:
        with zipfile.ZipFile(path) as archive:
            files = [info for info in archive.infolist() if not info.is_dir()]
            _check_space(sum(info.file_size for info in files), folder, path)
            for info in files:
                if stat.S_ISLNK(info.external_attr >> 16):
                    continue
                with archive.open(info) as source:
                    _write(source, _inside(info.filename, folder, path), path)
                count += 1
    except UnpackError:
        raise
    except UNREADABLE_ZIP as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's doing, not the archive's
        raise UnpackError(f"{path} is damaged ({error}). Delete it and download it again.") from error
    return count


def _unpack_tar(parts: Sequence[Path], folder: Path) -> int:
    count = 0
    try:
        with _Joined(parts) as stream, tarfile.open(fileobj=stream, mode="r|*") as archive:
            for member in archive:
                target = _inside(member.name, folder, parts[0])
                if not member.isfile():
                    continue  # folders come with their files
                if member.issparse():
                    raise UnpackError(f"{parts[0]} holds the sparse file {member.name!r}, which no data set has.")
                _check_space(member.size, folder, parts[0])
                source = archive.extractfile(member)
                assert source is not None
                _write(source, target, parts[0])
                count += 1
    except (tarfile.TarError, EOFError, OSError, ValueError, zlib.error, lzma.LZMAError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's doing, not the archive's
        raise UnpackError(f"{parts[0]} is damaged ({error}). Delete it and download it again.") from error
    return count


def _inside(name: str, folder: Path, archive: Path) -> Path:
    pure = PurePosixPath(name.replace("\\", "/"))
    if not pure.parts or any(len(part.encode("utf-8", "replace")) > MAX_NAME_BYTES for part in pure.parts):
        raise UnpackError(
            f"{archive} holds the name {name[:80]!r}, which no file can have. Nothing of it was unpacked."
        )
    if pure.is_absolute() or ".." in pure.parts or (pure.parts and ":" in pure.parts[0]):
        raise UnpackError(
            f"{archive} holds the path {name!r}, which leads out of its folder: it is not to be trusted. Nothing of "
            "it was unpacked."
        )
    return folder / pure


def _write(source: _Readable, target: Path, archive: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UnpackError(f"{archive} holds {target.parent.name!r} as a file and as a folder.") from None
    if target.is_dir():
        raise UnpackError(f"{archive} holds {target.name!r} as a file and as a folder.")
    with target.open("wb") as file:
        shutil.copyfileobj(source, file, 1 << 20)


def _check_space(needed: int, folder: Path, archive: Path) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UnpackError(
            f"{archive.name} needs {needed / 1e9:.1f} GB more on the disk of {folder.parent}, which has "
            f"{free / 1e9:.1f} GB free. Make room, or choose another place with --out."
        )


def _merge(source: Path, target: Path) -> None:
    for item in sorted(source.iterdir()):
        goal = target / item.name
        if item.is_dir() and goal.is_dir():
            _merge(item, goal)
        else:
            os.replace(item, goal)


class _Joined(io.RawIOBase):
    """Files read one after the other as one stream."""

    def __init__(self, parts: Sequence[Path]) -> None:
        self._waiting = list(parts)
        self._current: BinaryIO | None = None

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        while True:
            if self._current is None:
                if not self._waiting:
                    return b""
                self._current = self._waiting.pop(0).open("rb")
            if data := self._current.read(size):
                return data
            self._current.close()
            self._current = None

    def close(self) -> None:
        if self._current is not None:
            self._current.close()
        super().close()
