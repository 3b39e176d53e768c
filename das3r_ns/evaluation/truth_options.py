"""Ground truth put together from a folder and from what is given beside it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

from das3r_ns.datasets import (
    TruthClip,
    TruthError,
    is_truth_folder,
    read_dynamic_mask,
    read_poses,
    read_truth_folder,
)
from das3r_ns.datasets.truth_files import images_of


@dataclass(frozen=True)
class TruthFiles:
    """Ground truth: one folder with everything, or its parts one by one."""

    folder: Annotated[Path | None, tyro.conf.arg(name="truth")] = None
    """Folder with images/, and what is known of dynamic_masks/, clean/, T_world_camera.txt, K.txt."""
    images: Annotated[Path | None, tyro.conf.arg(name="truth-images")] = None
    """Folder of the true images, instead of the one in `truth`."""
    masks: Annotated[Path | None, tyro.conf.arg(name="truth-masks")] = None
    """Folder of true masks, 255 (or object numbers in a palette image) where something moves."""
    clean: Annotated[Path | None, tyro.conf.arg(name="truth-clean")] = None
    """Folder of images of the same views without the moving objects."""
    poses: Annotated[Path | None, tyro.conf.arg(name="truth-poses")] = None
    """Text file of true camera-to-world poses: 16 or 12 numbers a row, or TUM's 8."""
    focal_px: Annotated[float | None, tyro.conf.arg(name="truth-focal-px")] = None
    """True focal length in pixels of the true images."""

    def read(self) -> TruthClip:
        """The ground truth of the folder, with single parts replaced by, or made of, the other folders and files.

        Raises:
            TruthError: nothing is given, or the parts given are of different numbers of frames.
        """
        files = self._named_parts()
        clip = None if files.folder is None else read_truth_folder(files.folder)
        parts = files._read_parts()
        _check_lengths(files, clip, parts)
        if clip is None:
            source = next(p for p in (files.masks, files.poses, files.images, files.clean) if p is not None)
            length = len(next(iter(parts.values())))
            clip = TruthClip(name=source.parent.name, folder=source.parent, num_frames=length)
        clip = replace(clip, **{name: part for name, part in parts.items() if name != "dynamic_mask"})
        if "dynamic_mask" in parts:
            paths = parts["dynamic_mask"]
            clip = replace(clip, dynamic_mask=lambda i: read_dynamic_mask(paths[i]))
        return clip if files.focal_px is None else _with_focal(clip, files.focal_px)

    def _named_parts(self) -> TruthFiles:
        """A folder of masks or poses alone is ground truth too: its layout says which parts it has, and stands for
        them."""
        folder = self.folder
        if folder is None:
            return self
        if not folder.is_dir():
            raise TruthError(f"--truth {folder} is not a folder.")
        if is_truth_folder(folder):
            return self
        named = replace(
            self,
            folder=None,
            masks=self.masks or _if_there(folder / "dynamic_masks"),
            clean=self.clean or _if_there(folder / "clean"),
            poses=self.poses or _if_there(folder / "T_world_camera.txt"),
        )
        if named.masks is None and named.clean is None and named.poses is None:
            raise TruthError(
                f"--truth {folder} holds none of images/, dynamic_masks/, clean/, T_world_camera.txt. Give the folder "
                "that does, or --truth-masks, --truth-poses and so on."
            )
        return named

    def _read_parts(self) -> dict[str, Any]:
        """What is given beside the folder, by field of `TruthClip`; of masks the files, which are read when asked."""
        readers = {
            "images": (self.images, images_of),
            "dynamic_mask": (self.masks, images_of),
            "clean": (self.clean, images_of),
            "T_world_camera": (self.poses, read_poses),
        }
        return {name: read(path) for name, (path, read) in readers.items() if path is not None}


FLAGS = {
    "images": "--truth-images",
    "dynamic_mask": "--truth-masks",
    "clean": "--truth-clean",
    "T_world_camera": "--truth-poses",
}
"""By field of `TruthClip`."""


def _check_lengths(files: TruthFiles, clip: TruthClip | None, parts: dict[str, Any]) -> None:
    counts = {} if clip is None else {f"--truth {files.folder}": len(clip)}
    counts |= {FLAGS[name]: len(part) for name, part in parts.items()}
    if not counts:
        raise TruthError(
            "there is no ground truth to compare with: give --truth, --truth-masks, --truth-poses or the like."
        )
    if len(set(counts.values())) > 1:
        raise TruthError(
            "the parts of the ground truth have different numbers of frames: "
            + ", ".join(f"{name} has {count}" for name, count in counts.items())
            + "."
        )


def _with_focal(clip: TruthClip, focal_px: float) -> TruthClip:
    if not focal_px > 0:
        raise TruthError(f"--truth-focal-px must be positive, got {focal_px}.")
    K = torch.diag(torch.tensor([focal_px, focal_px, 1.0], dtype=torch.float64))  # only the focal length is compared
    return replace(clip, K=K.repeat(len(clip), 1, 1))


def _if_there(path: Path) -> Path | None:
    return path if path.exists() else None
