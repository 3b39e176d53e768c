"""Clips with truth as training pairs: the layout of synthetic clips, also for a domain of your own.

    ROOT/{train,val}/CLIP/
      images/NAME.png          images (any usual format), in the order of their names
      dynamic_masks/NAME.png   255 where something moves
      depth/NAME.npy           z-depth in world units, 0 unknown
      T_world_camera.txt       one row a frame: 4x4 camera-to-world, row by row, OpenCV axes
      K.txt                    3x3 intrinsics in pixels

A mask says what moves in its frame whatever the other frame of the pair is.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float

from das3r_ns.predictor.training.data.sources import BadDataError, Frame, NothingLeftError, Pair, Problem, readable_size
from das3r_ns.predictor.training.data.strides import pool_of_pairs
from das3r_ns.video.image_folder import list_images
from das3r_ns.video.images import read_image, read_mask


class ClipFolders:
    """A `PairSource` of clip folders."""

    def __init__(self, root: Path, max_stride: int, seed: int) -> None:
        """Index a split (a folder of clip folders).

        Raises:
            FileNotFoundError: the split is not there.
            NothingLeftError: no clip can be used.
        """
        if not root.is_dir():
            raise FileNotFoundError(
                f"{root} is missing: a set of clips holds train/CLIP and val/CLIP, as `das3r prepare synthetic` writes"
            )
        self.name = f"{root.parent.name}/{root.name}"
        self.problems: list[Problem] = []
        self.images: list[list[Path]] = []
        self.K: list[Float[np.ndarray, "3 3"]] = []
        self.T_world_camera: list[Float[np.ndarray, "n 4 4"]] = []
        frames: list[list[int]] = []
        for folder in sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")):
            try:
                images = _images(folder)
                K, T_world_camera = (
                    _numbers(folder / "K.txt", (3, 3)),
                    _numbers(folder / "T_world_camera.txt", (-1, 4, 4)),
                )
                if len(T_world_camera) != len(images):
                    raise BadDataError(
                        folder / "T_world_camera.txt", f"{len(T_world_camera)} rows for {len(images)} images"
                    )
            except BadDataError as error:
                self.problems.append(error.problem)
                continue
            self.images.append(images)
            self.K.append(K)
            self.T_world_camera.append(T_world_camera)
            frames.append([i for i, image in enumerate(images) if self._truth_is_there(image)])
        self.pairs = pool_of_pairs(frames, max_stride, seed)
        if not self.pairs:
            raise NothingLeftError(f"{root} holds no clip that can be used:", self.problems)

    def _truth_is_there(self, image: Path) -> bool:
        absent = [path for path in _truth_paths(image) if not path.is_file()]
        self.problems.extend(Problem(str(path), "missing") for path in absent)
        return not absent

    def image_size(self, pair: Pair) -> tuple[int, int]:
        """Height and width of the frames of a pair. Raises BadDataError."""
        return readable_size(self.images[pair.sequence][pair.first])

    def read(self, pair: Pair) -> tuple[Frame, Frame]:
        """Both frames of a pair. Raises BadDataError."""
        return self._frame(pair.sequence, pair.first), self._frame(pair.sequence, pair.second)

    def _frame(self, clip: int, number: int) -> Frame:
        image = self.images[clip][number]
        mask_path, depth_path = _truth_paths(image)
        path = image
        try:
            rgb = read_image(path)
            path = mask_path
            mask = read_mask(path)
            path = depth_path
            depth = np.load(path).astype(np.float32)
        except (OSError, ValueError, EOFError) as error:
            raise BadDataError(path, f"cannot be read ({error})") from error
        if not rgb.shape[:2] == mask.shape == depth.shape:
            raise BadDataError(
                image, f"image {rgb.shape[:2]}, mask {mask.shape} and depth {depth.shape} differ in size"
            )
        return Frame(rgb, depth, (mask > 0.5).astype(np.uint8), self.K[clip], self.T_world_camera[clip][number])


def _images(folder: Path) -> list[Path]:
    try:
        return list_images(folder / "images")
    except (OSError, ValueError) as error:
        raise BadDataError(folder / "images", f"no images ({error})") from error


def _truth_paths(image: Path) -> tuple[Path, Path]:
    """Mask and depth of an image."""
    clip = image.parents[1]
    return clip / "dynamic_masks" / f"{image.stem}.png", clip / "depth" / f"{image.stem}.npy"


def _numbers(path: Path, shape: tuple[int, ...]) -> Float[np.ndarray, "*shape"]:
    try:
        numbers = np.loadtxt(path, dtype=np.float64).reshape(shape).astype(np.float32)
    except (OSError, ValueError) as error:
        raise BadDataError(path, f"cannot be read ({error})") from error
    if not np.isfinite(numbers).all():
        raise BadDataError(path, "holds values that are not finite")
    return numbers
