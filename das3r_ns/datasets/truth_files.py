"""Files of ground truth: images, masks, poses and intrinsics, each checked as it is read."""

from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from torch import Tensor

from das3r_ns.files.image_file import open_image
from das3r_ns.files.regular import check_regular
from das3r_ns.files.values import check_pose
from das3r_ns.video.images import natural_key

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
MAX_TEXT_BYTES = 256 << 20
"""Largest table of numbers that is read: some million poses."""
MAX_LABEL = 32
"""A grey mask with no value above this holds object numbers, not brightness."""


class TruthError(ValueError):
    """Ground truth that is missing, damaged or does not fit its clip. The message names the file and what to do."""


def images_of(folder: Path) -> tuple[Path, ...]:
    """Image files of a folder in natural order, which is that of a clip's frames: `shot2` before `shot10`.

    Raises:
        TruthError: the folder is missing or holds none.
    """
    if not folder.is_dir():
        raise TruthError(f"{folder} is missing or not a folder.")
    found = [p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".")]
    found.sort(key=lambda path: natural_key(path.name))
    if not found:
        raise TruthError(f"{folder} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))}).")
    return tuple(found)


def read_image(path: Path) -> UInt8[Tensor, "h w 3"]:
    """An image as RGB.

    Raises:
        TruthError: it is missing or not an image.
    """
    check_truth_file(path)
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise TruthError(f"{path} is missing or not an image that OpenCV reads.")
    return torch.from_numpy(image[..., ::-1].copy())


def read_dynamic_mask(path: Path) -> Bool[Tensor, "h w"]:
    """A mask image: True where something moves.

    In palette images (DAVIS) and grey ones with no value above 32 every object number but 0 moves, all objects
    together; in other grey images what is brighter than half.

    Raises:
        TruthError: it is missing, not an image, or a colour image.
    """
    check_truth_file(path)
    try:
        with open_image(path) as image:
            mode, values = image.mode, np.asarray(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise TruthError(f"{path} is missing or not an image ({error}).") from error
    if values.ndim != 2:
        raise TruthError(
            f"{path} is a colour image ({mode}); a mask is grey (255 moves) or a palette image (0 is background)."
        )
    if mode == "P" or values.dtype == bool or values.max(initial=0) <= MAX_LABEL:
        return torch.from_numpy(values > 0)
    half = np.iinfo(np.uint16).max // 2 if values.max() > 255 else 127
    return torch.from_numpy(values > half)


def check_truth_file(path: Path) -> None:
    """
    Raises:
        TruthError: it is missing, or it is no regular file: a FIFO would be waited for.
    """
    try:
        check_regular(path, TruthError)
    except FileNotFoundError as error:
        raise TruthError(f"{path} is missing.") from error


def read_poses(path: Path) -> Float[Tensor, "n 4 4"]:
    """Camera-to-world poses from text, one row a frame: 16 numbers (4x4, row by row), 12 (its upper three rows) or
    8 (TUM: timestamp tx ty tz qx qy qz qw). Lines that start with # are comments.

    Raises:
        TruthError: the file is missing, a row has another length, or a value is not finite.
    """
    rows = numbers_of(path)
    width = rows.shape[1]
    if width == 8:
        from das3r_ns.datasets.tum import read_tum_trajectory

        return read_tum_trajectory(path)[1]
    if width not in (12, 16):
        raise TruthError(
            f"{path} has {width} numbers a row; expected 16 (4x4), 12 (3x4) or 8 (TUM: timestamp, position, "
            "quaternion x y z w)."
        )
    T = np.tile(np.eye(4), (len(rows), 1, 1))
    T[:, : width // 4] = rows.reshape(len(rows), width // 4, 4)
    for i in range(len(T)):
        if not np.allclose(T[i, 3], [0, 0, 0, 1], atol=1e-6):
            raise TruthError(f"{path}: the last row of pose {i} is {T[i, 3].tolist()} and not 0 0 0 1.")
        check_pose(T[i], f"{path}: pose {i}", TruthError)
    return torch.from_numpy(T)


def read_intrinsics(path: Path, num_frames: int) -> Float[Tensor, "n 3 3"]:
    """Intrinsics from text: one 3x3 matrix for the clip, or one row of 9 numbers for each frame.

    Raises:
        TruthError: the file is missing, has another shape, or a focal length is not positive.
    """
    rows = numbers_of(path)
    if rows.shape == (3, 3) or rows.shape == (1, 9):
        K = np.tile(rows.reshape(3, 3), (num_frames, 1, 1))
    elif rows.shape == (num_frames, 9):
        K = rows.reshape(num_frames, 3, 3)
    else:
        raise TruthError(
            f"{path} holds {rows.shape[0]} rows of {rows.shape[1]} numbers; expected one 3x3 matrix, or "
            f"{num_frames} rows of 9 numbers (one matrix for each frame)."
        )
    if not (K[:, [0, 1], [0, 1]] > 0).all():
        raise TruthError(f"{path} holds a focal length that is not positive.")
    return torch.from_numpy(K)


def numbers_of(path: Path) -> np.ndarray:
    """A table of numbers from a text file; # starts a comment.

    Raises:
        TruthError: the file is missing, empty, ragged, or holds something that is no finite number.
    """
    check_truth_file(path)
    try:
        if path.stat().st_size > MAX_TEXT_BYTES:
            raise OSError(f"it has {path.stat().st_size >> 20} MiB, too many for a table")
        lines = path.read_text(encoding="utf-8-sig").splitlines()  # Windows begins files with a mark
    except (OSError, UnicodeDecodeError) as error:
        raise TruthError(f"{path} cannot be read as text ({error}).") from error
    rows: list[list[float]] = []
    for number, line in enumerate(lines, start=1):
        words = line.split("#", 1)[0].replace(",", " ").split()
        if not words:
            continue
        try:
            row = [float(word) for word in words]
        except ValueError as error:
            raise TruthError(f"{path}, line {number}: {error}.") from error
        if not np.isfinite(row).all():
            raise TruthError(f"{path}, line {number}: a value is not finite (NaN or infinity).")
        if rows and len(row) != len(rows[0]):
            raise TruthError(f"{path}, line {number}: {len(row)} numbers, the lines before have {len(rows[0])}.")
        rows.append(row)
    if not rows:
        raise TruthError(f"{path} holds no numbers.")
    return np.array(rows, dtype=np.float64)
