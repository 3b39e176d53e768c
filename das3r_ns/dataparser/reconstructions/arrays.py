"""Numbers from files that somebody else wrote: nothing is executed, and sizes are checked before anything is decoded.

NumPy archives may hold pickles, and files of torch are pickles: neither is ever unpickled freely.
"""

from __future__ import annotations

import io
import threading
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float32

from das3r_ns.files.archives import UNREADABLE_ZIP
from das3r_ns.files.image_file import open_image
from das3r_ns.files.regular import check_regular
from das3r_ns.runtime.memory import GIB, available_bytes

MAX_TEXT_BYTES = 256 << 20
MAX_IMAGE_PX = 100_000_000
"""Pixels of the largest single map that is taken for meant."""
_HEADERS = threading.Lock()
"""NumPy parses headers with Python's own parser, which fails now and then when two threads are in it at once."""


def read_member(path: Path, name: str, max_bytes: int, why: str) -> bytes:
    """A file of a zip archive.

    Args:
        max_bytes: unpacked; more is refused before anything is unpacked.
        why: it is expected, for the message where it is missing.
    Raises:
        ValueError: it is not there, too large or damaged.
    """
    check_regular(path)
    try:
        with zipfile.ZipFile(path) as archive:
            too_large = archive.getinfo(name).file_size > max_bytes
            if not too_large:
                return archive.read(name)
    except KeyError as error:
        raise ValueError(f"{path} lacks {name}, {why}.") from error
    except UNREADABLE_ZIP as error:
        raise ValueError(f"{path}: {name} cannot be read ({error}). Was it copied whole?") from error
    raise ValueError(f"{path}: {name} is larger than any image.")


class Archive:
    """A `.npz` file whose arrays are read one by one, after their headers were looked at."""

    def __init__(self, path: Path, tool: str) -> None:
        """
        Raises:
            ValueError: it is not a whole archive of arrays.
        """
        check_regular(path)
        self.path, self.tool = path, tool
        try:
            self._zip = zipfile.ZipFile(path)
        except UNREADABLE_ZIP as error:
            raise ValueError(f"{path} is not a whole .npz archive ({error}). Was it copied whole?") from error
        self.keys = tuple(name[:-4] for name in self._zip.namelist() if name.endswith(".npy"))

    def shape(self, key: str) -> tuple[int, ...]:
        """Shape of an array, from its header."""
        return self._header(key)[0]

    def shape_of(self, key: str, wanted: Sequence[int | str]) -> tuple[int, ...]:
        """Shape of an array, from its header.

        Args:
            wanted: as `shape` of `read`.
        Raises:
            ValueError: the array is not there, or has another shape.
        """
        self.require(key)
        found = self.shape(key)
        check_shape(f"{self.path}: {key}", found, wanted)
        return found

    def require(self, *keys: str) -> None:
        """
        Raises:
            ValueError: one of the arrays is not there.
        """
        missing = [key for key in keys if key not in self.keys]
        if missing:
            raise ValueError(
                f"{self.path} lacks the array {missing[0]!r} that {self.tool} writes (it holds "
                f"{', '.join(self.keys[:12]) or 'none'}). Another version, or another program's file?"
            )

    def read(self, key: str, shape: Sequence[int | str], kinds: str = "f") -> np.ndarray:
        """An array of numbers.

        Args:
            shape: a number where a length is expected, a name where any will do.
            kinds: of `dtype.kind`, that are expected.
        Raises:
            ValueError: it is not there, or something else; the message names file, array and what is expected.
        """
        self.require(key)
        found, dtype, offset = self._header(key)
        what = f"{self.path}: {key}"
        check_shape(what, found, shape)
        if dtype.hasobject:
            raise ValueError(f"{what} holds Python objects and not numbers: such files are never loaded.")
        if dtype.kind not in kinds:
            raise ValueError(f"{what} holds {dtype.name}, and {self.tool} writes {_names_of(kinds)}.")
        num_bytes = int(np.prod(found, dtype=np.int64)) * dtype.itemsize
        declared = self._zip.getinfo(f"{key}.npy").file_size
        if num_bytes + offset != declared:
            raise ValueError(f"{what} should have {num_bytes} bytes and has {declared - offset}: the file is damaged.")
        check_room(num_bytes, what)
        try:
            data = self._zip.read(f"{key}.npy")
        except UNREADABLE_ZIP as error:
            raise ValueError(f"{what} cannot be decompressed ({error}). Was the file copied whole?") from error
        with _HEADERS:
            return np.load(io.BytesIO(data), allow_pickle=False)

    def _header(self, key: str) -> tuple[tuple[int, ...], np.dtype, int]:
        try:
            with self._zip.open(f"{key}.npy") as file, _HEADERS:
                return _read_header(file)
        except Exception as error:  # NumPy's parser of headers raises nearly anything
            raise ValueError(f"{self.path}: {key} is not an array ({error}).") from error


def _read_header(file: Any) -> tuple[tuple[int, ...], np.dtype, int]:
    version = np.lib.format.read_magic(file)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"version {version} of the format")
    shape, _, dtype = readers[version](file)
    return shape, dtype, file.tell()


def keys_of(path: Path) -> tuple[str, ...]:
    """Names of the arrays of an archive; none where it is something else. Reads its directory only."""
    try:
        check_regular(path)
        with zipfile.ZipFile(path) as archive:
            return tuple(name[:-4] for name in archive.namelist() if name.endswith(".npy"))
    except UNREADABLE_ZIP:
        return ()


def read_npy(path: Path, shape: Sequence[int | str], tool: str, kinds: str = "f") -> np.ndarray:
    """An array file, mapped and not loaded.

    Raises:
        FileNotFoundError, ValueError: it is not there, or something else.
    """
    check_regular(path)
    try:
        with _HEADERS:
            found = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # of the header's parser, of pickles that are refused, of files cut short
        raise ValueError(f"{path} cannot be read as an array of numbers ({error}).") from error
    if not isinstance(found, np.ndarray):
        raise ValueError(f"{path} is an archive and not an array, as {tool} writes it.")
    check_shape(str(path), found.shape, shape)
    if found.dtype.kind not in kinds:
        raise ValueError(f"{path} holds {found.dtype.name}, and {tool} writes {_names_of(kinds)}.")
    return found


def check_shape(what: str, found: Sequence[int], wanted: Sequence[int | str]) -> None:
    """
    Raises:
        ValueError: a length differs from a number that is wanted, or there are more or fewer dimensions.
    """
    fits = len(found) == len(wanted) and all(isinstance(w, str) or f == w for f, w in zip(found, wanted))
    if not fits or 0 in found:
        raise ValueError(
            f"{what} has the shape ({', '.join(map(str, found))}), and ({', '.join(map(str, wanted))}) is expected."
        )


def check_room(num_bytes: int, what: str) -> None:
    """
    Raises:
        ValueError: more is declared than fits the free memory.
    """
    room = available_bytes()
    if num_bytes > room:
        raise ValueError(f"{what} declares {num_bytes / GIB:.1f} GiB, and {room / GIB:.1f} GiB of memory are free.")


def check_pixels(height: int, width: int, what: str) -> None:
    """
    Raises:
        ValueError: no image has such a size.
    """
    if not (height > 0 and width > 0 and height * width <= MAX_IMAGE_PX):
        raise ValueError(f"{what} declares {width}x{height} pixels, which no image has.")


def _names_of(kinds: str) -> str:
    return " or ".join({"f": "floats", "u": "unsigned integers", "i": "integers", "b": "booleans"}[k] for k in kinds)


def finite(values: np.ndarray, what: str) -> np.ndarray:
    """`values` in double precision.

    Raises:
        ValueError: one is not finite; the message says which.
    """
    values = np.asarray(values, np.float64)
    wrong = np.argwhere(~np.isfinite(values))
    if len(wrong):
        raise ValueError(f"{what}: entry {int(wrong[0][0]) + 1} holds {values[tuple(wrong[0])]}, which is not finite.")
    return values


def whole_numbers(values: np.ndarray, what: str) -> tuple[int, ...]:
    """Values as integers.

    Raises:
        ValueError: one is not finite.
    """
    return tuple(int(value) for value in finite(values, what))


def known_depth(depth: np.ndarray) -> Float32[np.ndarray, "h w"]:
    """Depth in single precision, 0 where it is unknown: not finite, not above 0."""
    depth = np.asarray(depth, np.float32)
    with np.errstate(invalid="ignore"):
        return np.where(np.isfinite(depth) & (depth > 0), depth, 0).astype(np.float32)


def from_inverse(disparity: np.ndarray) -> Float32[np.ndarray, "h w"]:
    """Depth from 1 / depth, 0 where that is not above 0."""
    disparity = np.asarray(disparity, np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):
        return known_depth(np.where(disparity > 1e-9, 1 / disparity, 0))


def decode_grey(data: bytes, what: str) -> np.ndarray:
    """An image of one channel with the values that it stores (8 or 16 bits), after its header was looked at.

    Raises:
        ValueError: it is not such an image.
    """

    try:
        with open_image(io.BytesIO(data)) as image:
            width, height, bands = *image.size, image.getbands()
    except Exception as error:  # Pillow's readers raise nearly anything on a damaged header
        raise ValueError(f"{what} is not an image ({type(error).__name__}).") from error
    check_pixels(height, width, what)
    found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if found is None or found.ndim != 2:
        raise ValueError(f"{what} has {len(bands)} channels or is damaged; one channel is expected.")
    return found


def read_text(path: Path) -> list[str]:
    """Lines of a text file, without those that are empty or comments (`#`).

    Raises:
        FileNotFoundError, ValueError: it is not there, not text, or larger than any such file.
    """
    check_regular(path)
    if path.stat().st_size > MAX_TEXT_BYTES:
        raise ValueError(f"{path} has {path.stat().st_size / 2**20:.0f} MiB: too large for a file of this kind.")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a text file ({error.reason}).") from error
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def read_rows(path: Path, columns: int | tuple[int, ...], meaning: str) -> np.ndarray:
    """Rows of finite numbers, separated by blanks or commas.

    Args:
        columns: how many numbers a row has, or may have.
        meaning: of the columns, for messages.
    Raises:
        FileNotFoundError, ValueError: a row is something else; the message names it.
    """
    allowed = (columns,) if isinstance(columns, int) else columns
    rows = []
    for number, line in enumerate(read_text(path), 1):
        values = line.replace(",", " ").split()
        try:
            row = [float(value) for value in values]
        except ValueError as error:
            raise ValueError(f"{path}: row {number} holds {line[:60]!r}; {meaning} are expected.") from error
        if len(row) not in allowed or (rows and len(row) != len(rows[0])):
            raise ValueError(f"{path}: row {number} has {len(row)} numbers; {meaning} are expected.")
        if not np.isfinite(row).all():
            raise ValueError(f"{path}: row {number} holds a number that is not finite.")
        rows.append(row)
    if not rows:
        raise ValueError(f"{path} holds no row; {meaning} are expected.")
    return np.array(rows)
