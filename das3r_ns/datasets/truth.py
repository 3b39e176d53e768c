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

from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from das3r_ns.datasets.truth_files import (
    TruthError,
    images_of,
    read_dynamic_mask,
    read_image,
    read_intrinsics,
    read_poses,
)
from das3r_ns.scene import RadialLens


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


def _of_the_same_frames(folder: Path, names: list[str]) -> tuple[Path, ...]:
    by_name = {path.stem: path for path in images_of(folder)}
    missing = [name for name in names if name not in by_name]
    if missing:
        raise TruthError(
            f"{folder} has no image named {missing[0]} ({len(missing)} of {len(names)} frames lack theirs). "
            "Name the files as those of images/, or remove the folder to leave it out."
        )
    return tuple(by_name[name] for name in names)
