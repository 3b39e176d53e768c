"""Images and maps of single frames of a scene folder, each checked as it is read: only regular files are opened, and
sizes are compared with those declared before anything is decoded."""

from pathlib import Path
from threading import Lock
from typing import Any

import cv2
import numpy as np

from das3r_ns.files.image_file import open_image
from das3r_ns.files.regular import check_regular
from das3r_ns.scene.types import DYNAMIC_THRESHOLD, SceneFolderError

MAX_DEPTH = 1e12
"""Largest depth and confidence that can be meant, in any unit."""
_ONE_ARRAY_AT_A_TIME = Lock()


def stored_image_size(path: Path) -> tuple[int, int]:
    """Height and width by the header."""
    try:
        check_regular(path, SceneFolderError)
        with open_image(path) as image:
            return image.height, image.width
    except SceneFolderError:
        raise
    except Exception as error:  # Pillow's readers raise nearly anything on a damaged header
        raise SceneFolderError(
            f"{path} is missing or not an image ({type(error).__name__}). Predict the scene again, or restore the file."
        ) from error


def read_stored_image(path: Path, flags: int, size: tuple[int, int] | None = None) -> np.ndarray:
    """An image as OpenCV reads it; of the given size, where one is."""
    found = stored_image_size(path)
    if size is not None and found != size:
        raise SceneFolderError(
            f"{path} has {found[1]}x{found[0]} pixels where {size[1]}x{size[0]} are expected: it would differ in size "
            "from what it belongs to."
        )
    image = cv2.imread(str(path), flags)
    if image is None:
        raise SceneFolderError(f"{path} is missing or not an image. Predict the scene again, or restore the file.")
    return image


def _read_array(path: Path, largest: tuple[int, int]) -> np.ndarray:
    """A map of finite values that are not negative.

    Raises:
        SceneFolderError: it is something else.
    """
    try:
        check_regular(path, SceneFolderError)
        # NumPy reads the header with Python's own parser, which fails now and then when two threads are in it at once
        # (CPython 3.11: "AST constructor recursion depth mismatch"). Mapped, a size that the file does not hold is an
        # error and no memory is taken for it.
        with _ONE_ARRAY_AT_A_TIME:
            mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    except SceneFolderError:
        raise
    except Exception as error:  # of the header's parser, of pickles that are refused
        raise SceneFolderError(f"{path} cannot be read as an array of numbers ({error}).") from error
    if not isinstance(mapped, np.ndarray) or mapped.ndim != 2 or mapped.dtype.kind not in "fui" or 0 in mapped.shape:
        raise SceneFolderError(f"{path} is not a map of numbers (height, width).")
    if mapped.shape[0] > largest[0] or mapped.shape[1] > largest[1]:
        raise SceneFolderError(f"{path} has {mapped.shape[1]}x{mapped.shape[0]} pixels, more than the image has.")
    values = mapped.astype(np.float32)
    if not np.isfinite(values).all():
        row, column = np.argwhere(~np.isfinite(values))[0]
        raise SceneFolderError(
            f"{path}: the value at row {row}, column {column} is {values[row, column]}, which is not finite."
        )
    if values.min() < 0 or values.max() > MAX_DEPTH:
        wrong = values.min() if values.min() < 0 else values.max()
        raise SceneFolderError(f"{path} holds {wrong:g}; depth and confidence lie between 0 and {MAX_DEPTH:g}.")
    return values


def read_maps(
    folder: Path, frame: dict[str, Any], image_size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Depth, confidence and `dynamic_prob` of a frame."""
    name = Path(frame["file_path"]).stem
    depth = _read_array(folder / frame["depth_file_path"], image_size)
    confidence = _read_array(folder / "confidence" / f"{name}.npy", image_size)
    return depth, confidence, read_probability(folder, frame, image_size, (depth.shape[0], depth.shape[1]))


def read_probability(
    folder: Path, frame: dict[str, Any], image_size: tuple[int, int], map_size: tuple[int, int] | None
) -> np.ndarray:
    """`dynamic_prob` of a frame, with what was corrected in `masks/`."""
    name = Path(frame["file_path"]).stem
    stored = read_stored_image(folder / "dynamic_prob" / f"{name}.png", cv2.IMREAD_UNCHANGED, map_size)
    if stored.ndim != 2 or stored.dtype not in (np.uint8, np.uint16):
        raise SceneFolderError(f"{folder / 'dynamic_prob' / name}.png must have one grey channel of 8 or 16 bits.")
    probability = stored.astype(np.float32) / np.iinfo(stored.dtype).max
    if frame.get("mask_path"):
        keep = read_stored_image(folder / frame["mask_path"], cv2.IMREAD_GRAYSCALE, image_size).astype(np.float32) / 255
        black = 1 - cv2.resize(keep, probability.shape[::-1], interpolation=cv2.INTER_AREA)
        # Resampling blurs edges; only a clear contradiction is a correction by hand.
        probability = np.where((black > 0.9) & (probability < DYNAMIC_THRESHOLD), 1.0, probability)
        probability = np.where((black < 0.1) & (probability > DYNAMIC_THRESHOLD), 0.0, probability)
    return probability.astype(np.float32)
