"""What is known to be true about a clip, and the folder layout that holds it.

    SEQUENCE/
      images/00000.jpg ...          the clip
      dynamic_masks/00000.png ...   255 where something moves             (optional)
      clean/00000.jpg ...           the same views without moving objects  (optional)
      T_world_camera.txt            one row a frame: 4x4 camera-to-world, row by row, OpenCV axes  (optional)
      K.txt                         3x3 intrinsics of the clip in pixels  (optional)

Files of one frame share their name (before the suffix); frames are in the order of their names.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
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
from das3r_ns.scene import RadialLens
from das3r_ns.video.images import natural_key

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})

MAX_TEXT_BYTES = 256 << 20
"""Largest table of numbers that is read: some million poses."""

LARGEST_LABEL = 32
"""A grey mask with no value above this holds object numbers, not brightness."""


class TruthError(ValueError):
    """A truth that is missing, damaged or does not fit its clip. The message names the file and what to do."""


@dataclass(frozen=True)
class TruthClip:
    """What is known about a clip of n frames; None where nothing is."""

    name: str
    folder: Path
    """Where it was read from: for messages."""
    num_frames: int
    images: tuple[Path, ...] | None = None
    dynamic_mask: Callable[[int], Bool[Tensor, "h w"] | None] | None = None
    """Reads (or computes) the mask of a frame; None for a frame without one."""
    clean: tuple[Path, ...] | None = None
    """Images of the same views without the moving objects."""
    T_world_camera: Float[Tensor, "n 4 4"] | None = None
    K: Float[Tensor, "n 3 3"] | None = None
    """In pixels of the images."""

    lens: RadialLens | None = None
    """Distortion that `image`, `background` and `dynamic_mask` take out, as the measured result did; in pixels of
    images of width `lens_width`."""
    lens_width: int = 0

    def __len__(self) -> int:
        return self.num_frames

    def image(self, i: int) -> UInt8[Tensor, "h w 3"]:
        """The image of a frame as RGB.

        Raises:
            TruthError: it is missing or not an image.
        """
        assert self.images is not None
        return self._straight(read_image(self.images[i]))

    def background(self, i: int) -> UInt8[Tensor, "h w 3"]:
        """The same view without the moving objects.

        Raises:
            TruthError: it is missing or not an image.
        """
        assert self.clean is not None
        return self._straight(read_image(self.clean[i]))

    def without_distortion(self, lens: RadialLens, width: int) -> "TruthClip":
        """The same in images whose distortion was taken out.

        Args:
            lens: in pixels of images of `width`, whatever the size of these.
        """
        read_mask = self.dynamic_mask

        def straight_mask(i: int) -> Bool[Tensor, "h w"] | None:
            assert read_mask is not None
            mask = read_mask(i)
            if mask is None:
                return None
            # What nobody filmed shows no static scene.
            return lens.resized(mask.shape[1] / width).undistort_maps(mask.float()[None], beyond=1.0)[0] > 0.5

        return replace(self, lens=lens, lens_width=width, dynamic_mask=None if read_mask is None else straight_mask)

    def _straight(self, image: UInt8[Tensor, "h w 3"]) -> UInt8[Tensor, "h w 3"]:
        if self.lens is None:
            return image
        return self.lens.resized(image.shape[1] / self.lens_width).undistort_frames(image[None])[0]

    def only(self, frames: Sequence[int]) -> "TruthClip":
        """The clip made of these frames, in this order."""
        chosen, read_mask = list(frames), self.dynamic_mask

        def mask_of_chosen(i: int) -> Tensor | None:
            assert read_mask is not None
            return read_mask(chosen[i])

        return replace(
            self,
            num_frames=len(chosen),
            images=None if self.images is None else tuple(self.images[i] for i in chosen),
            dynamic_mask=None if read_mask is None else mask_of_chosen,
            clean=None if self.clean is None else tuple(self.clean[i] for i in chosen),
            T_world_camera=None if self.T_world_camera is None else self.T_world_camera[chosen],
            K=None if self.K is None else self.K[chosen],
        )


def is_truth_folder(folder: Path) -> bool:
    """Whether `folder` has the layout of this module's first lines."""
    return (folder / "images").is_dir()


def read_truth_folder(folder: Path) -> TruthClip:
    """Read a truth folder; only what is there.

    Raises:
        TruthError: there are no images, or the files of a frame do not fit together.
    """
    images = images_of(folder / "images")
    names = [path.stem for path in images]
    masks = _of_the_same_frames(folder / "dynamic_masks", names) if (folder / "dynamic_masks").is_dir() else None
    clean = _of_the_same_frames(folder / "clean", names) if (folder / "clean").is_dir() else None
    poses = None
    if (folder / "T_world_camera.txt").is_file():
        poses = read_poses(folder / "T_world_camera.txt")
        if len(poses) != len(images):
            raise TruthError(
                f"{folder / 'T_world_camera.txt'} has {len(poses)} poses and {folder / 'images'} {len(images)} "
                "images. Give one row for each image."
            )
    return TruthClip(
        name=folder.name,
        folder=folder,
        num_frames=len(images),
        images=images,
        dynamic_mask=None if masks is None else lambda i: read_dynamic_mask(masks[i]),
        clean=clean,
        T_world_camera=poses,
        K=read_intrinsics(folder / "K.txt", len(images)) if (folder / "K.txt").is_file() else None,
    )


def images_of(folder: Path) -> tuple[Path, ...]:
    """Image files of a folder in natural order, which is that of a clip's frames: `shot2` before `shot10`.

    Raises:
        TruthError: the folder is missing or holds none.
    """
    if not folder.is_dir():
        raise TruthError(f"{folder} is missing or no folder.")
    found = [p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".")]
    found.sort(key=lambda path: natural_key(path.name))
    if not found:
        raise TruthError(f"{folder} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))}).")
    return tuple(found)


def _of_the_same_frames(folder: Path, names: list[str]) -> tuple[Path, ...]:
    by_name = {path.stem: path for path in images_of(folder)}
    missing = [name for name in names if name not in by_name]
    if missing:
        raise TruthError(
            f"{folder} has no image named {missing[0]} ({len(missing)} of {len(names)} frames lack theirs). "
            "Name the files as those of images/, or remove the folder to leave it out."
        )
    return tuple(by_name[name] for name in names)


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
    if mode == "P" or values.dtype == bool or values.max(initial=0) <= LARGEST_LABEL:
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
