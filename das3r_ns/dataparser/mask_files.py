"""Masks as they lie on disk: a folder of images or arrays, one image, a stack of arrays, a video.

Everything is opened as a `MaskFiles`: names to match with the frames (or only a count), and a reader of single masks.
Sizes are checked before anything is decoded, and nothing but regular files is opened.
"""

import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError

import numpy as np

from das3r_ns.dataparser.mask_layers import Size, layer_of_array, layer_of_image, opened, read_layer, upright_size
from das3r_ns.dataparser.mask_values import Layer, MaskError
from das3r_ns.files.archives import UNREADABLE_ZIP
from das3r_ns.files.regular import check_regular
from das3r_ns.video.image_folder import ordered, readable_suffixes

ARRAY_SUFFIXES = frozenset({".npy", ".npz"})
MAX_STACK_BYTES = 4 << 30
"""Most that a packed stack of masks may unpack to."""
FRAMES_AT_ONCE = 32
"""Frames of a mask video that are decoded and kept together."""


@dataclass(frozen=True)
class MaskFiles:
    """Masks that can be read one by one."""

    place: Path
    """What the user gave: for messages."""
    labels: tuple[str, ...]
    """What to call each in a message."""
    load: Callable[[int], Layer]
    """Reads a mask."""
    size: Callable[[int], Size]
    """Height and width of a mask, from its header."""
    names: tuple[str, ...] | None
    """Names by which they are matched with the frames; None where only their order counts."""
    times_s: tuple[float, ...] | None = None
    """When each is shown, of a video."""

    def __len__(self) -> int:
        return len(self.labels)


def open_masks(place: Path) -> MaskFiles:
    """Open masks, reading no more than headers.

    Raises:
        FileNotFoundError: there is nothing.
        MaskError: it holds no masks, or something that cannot be read.
    """
    if place.is_dir():
        return of_files(place, list_masks(place))
    if not place.exists():
        raise FileNotFoundError(
            f"--masks {place} does not exist. Give a folder of masks, an image, an array or a video."
        )
    check_regular(place, MaskError)
    suffix = place.suffix.lower()
    if suffix in ARRAY_SUFFIXES:
        return _of_stack(place)
    if suffix in readable_suffixes() | {".gif"}:
        return _of_pages(place)
    return _of_video(place)


def list_masks(folder: Path) -> list[Path]:
    """Images and arrays in a folder, in the order of their numbers.

    Raises:
        MaskError: there are none.
    """
    suffixes = readable_suffixes() | ARRAY_SUFFIXES
    files = ordered([p for p in folder.iterdir() if not p.name.startswith(".")])
    masks = [p for p in files if p.suffix.lower() in suffixes]
    if masks:
        return masks
    below = [p for p in files if p.is_dir() and any(q.suffix.lower() in suffixes for q in p.iterdir())]
    if below:
        raise MaskError(f"{folder} holds no masks itself, but {below[0]} does. Give that folder.")
    found = f"{len(files)} other files (first: {files[0].name})" if files else "nothing"
    raise MaskError(f"{folder} holds no masks (images or .npy), but {found}.")


def of_files(place: Path, paths: Sequence[Path]) -> MaskFiles:
    """Masks in files of their own."""

    def load(i: int) -> Layer:
        check_regular(paths[i], MaskError)
        if paths[i].suffix.lower() in ARRAY_SUFFIXES:
            return layer_of_array(_one_mask(_array(paths[i]), paths[i]), paths[i])
        return read_layer(paths[i])

    def size(i: int) -> Size:
        check_regular(paths[i], MaskError)
        if paths[i].suffix.lower() in ARRAY_SUFFIXES:
            return _mask_shape(_array(paths[i]).shape, paths[i])
        with opened(paths[i]) as image:
            return upright_size(image)

    return MaskFiles(place, tuple(str(p) for p in paths), load, size, tuple(p.name for p in paths))


def _of_pages(path: Path) -> MaskFiles:
    with opened(path) as image:
        pages = int(getattr(image, "n_frames", 1))
        size = upright_size(image)

    def load(i: int) -> Layer:
        with opened(path) as image:
            if i:
                image.seek(i)
            return layer_of_image(image, path)

    labels = (str(path),) if pages == 1 else tuple(f"{path}, page {i + 1}" for i in range(pages))
    return MaskFiles(path, labels, load, lambda _: size, None)


def _of_stack(path: Path) -> MaskFiles:
    stack = _array(path)
    shape = stack.shape
    if len(shape) == 4 and shape[1] == 1:
        stack = stack[:, 0]
    elif len(shape) == 4 and shape[3] == 1:
        stack = stack[..., 0]
    if stack.ndim == 2:
        stack = stack[None]
    if stack.ndim != 3:
        raise MaskError(f"{path} has the shape {shape}; a stack of masks has (frames, height, width).")
    kept = stack
    size = kept.shape[1], kept.shape[2]
    labels = tuple(f"{path}, mask {i}" for i in range(len(kept)))
    return MaskFiles(path, labels, lambda i: layer_of_array(np.asarray(kept[i]), path), lambda _: size, None)


def _of_video(path: Path) -> MaskFiles:
    from das3r_ns.video.decoding import read_frames  # PyAV: masks in files of their own do without
    from das3r_ns.video.index import index_video

    try:
        index = index_video(path)
    except ValueError as error:
        raise MaskError(f"--masks {path} is neither a folder, an image, an array nor a video ({error}).") from error
    cached: dict[int, np.ndarray] = {}

    def load(i: int) -> Layer:
        if i not in cached:  # a run of frames at once: looking for each one anew would decode the clip many times
            cached.clear()
            run = list(range(i, min(i + FRAMES_AT_ONCE, len(index.times_s))))
            decoded = read_frames(path, index, run, lambda size: size)
            cached.update(zip(decoded.numbers, decoded.frames))
            if i not in cached:
                raise MaskError(f"{path} cannot be decoded to its frame {i + 1}.")
        return Layer(cached[i], lossy=True)

    labels = tuple(f"{path}, frame {i + 1}" for i in range(len(index.times_s)))
    times = tuple(time - index.times_s[0] for time in index.times_s)
    return MaskFiles(path, labels, load, lambda _: index.size, None, times)


def _array(path: Path) -> np.ndarray:
    """An array from a `.npy` file, or the only (or first three-dimensional) one of a `.npz` file. Never unpickles."""
    try:
        if path.suffix.lower() == ".npy":
            return np.load(path, mmap_mode="r", allow_pickle=False)
        with zipfile.ZipFile(path) as archive:
            key = _key_of_masks({Path(entry.filename).stem: entry.file_size for entry in archive.infolist()}, path)
        with np.load(path, allow_pickle=False) as arrays:
            return arrays[key]
    except (*UNREADABLE_ZIP, KeyError, SyntaxError, TypeError, MemoryError, RecursionError, TokenError) as error:
        if isinstance(error, MaskError):
            raise
        raise MaskError(f"{path} cannot be read as an array of numbers ({error}).") from error


def _key_of_masks(sizes: dict[str, int], path: Path) -> str:
    keys = list(sizes)
    named = [key for key in keys if "mask" in key.casefold()] or keys
    if len(named) != 1 and "masks" not in named and "mask" not in named:
        raise MaskError(f"{path} holds {len(keys)} arrays ({', '.join(keys[:4])}); one is needed, or one named masks.")
    key = next((key for key in ("masks", "mask") if key in named), named[0])
    if sizes[key] > MAX_STACK_BYTES:
        raise MaskError(f"{path}: {key} unpacks to {sizes[key] / 2**30:.1f} GiB, more than masks take.")
    return key


def _mask_shape(shape: tuple[int, ...], path: Path) -> Size:
    """Height and width of one mask; objects of their own may be stacked in front, one channel may follow."""
    if len(shape) >= 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) < 2 or 0 in shape:
        raise MaskError(f"{path} holds an array of shape {shape}; a mask has (height, width).")
    return shape[-2], shape[-1]


def _one_mask(array: np.ndarray, path: Path) -> np.ndarray:
    """One mask; of several stacked ones (one for each object) what any of them covers."""
    height, width = _mask_shape(array.shape, path)
    if array.dtype.kind not in "buif":
        raise MaskError(f"{path} holds values of type {array.dtype}; masks are numbers or booleans.")
    return np.asarray(array).reshape(-1, height, width).max(axis=0)
