"""Digests of files, so that what was computed from one is found again and never taken for another's."""

import hashlib
from functools import lru_cache
from pathlib import Path


def digest_of_file(path: Path) -> str:
    """Hexadecimal digest of a file's content; remembered as long as its size and time of change stay.

    Of a file above 256 MiB, 64 spread blocks of 1 MiB are read instead of all: no edit of a compressed video leaves its
    size and all of them as they were.
    """
    status = path.stat()
    return _digest_of_file(path.resolve(), status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=4096)
def _digest_of_file(path: Path, size: int, mtime_ns: int) -> str:
    del mtime_ns  # part of the key only
    block, blocks = 1 << 20, 64
    content = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        if size <= 256 * block:
            while data := file.read(block):
                content.update(data)
        else:
            for i in range(blocks):
                file.seek((size - block) * i // (blocks - 1))
                content.update(file.read(block))
    return content.hexdigest()
