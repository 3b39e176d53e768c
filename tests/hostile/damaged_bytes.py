"""Archives as bytes, whole and damaged: for the corpus."""

from __future__ import annotations

import io
import struct
import zipfile

import numpy as np


def npz(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def zip_of(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def locked(content: bytes) -> bytes:
    """An archive all of whose files claim to be encrypted."""
    data = bytearray(content)
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = data.find(mark)
        while start >= 0:
            data[start + at] |= 1
            start = data.find(mark, start + 4)
    return bytes(data)


def packed_by(content: bytes, method: int) -> bytes:
    """An archive all of whose files claim to be compressed in another way."""
    data = bytearray(content)
    for mark, at in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        start = data.find(mark)
        while start >= 0:
            data[start + at : start + at + 2] = struct.pack("<H", method)
            start = data.find(mark, start + 4)
    return bytes(data)


def spoiled(content: bytes) -> bytes:
    """An archive in whose first file the compressed bytes are wrong."""
    data = bytearray(content)
    name, extra = struct.unpack_from("<HH", data, 26)
    start = 30 + name + extra
    data[start : start + 20] = b"\xff" * 20
    return bytes(data)
