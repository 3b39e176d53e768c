"""Read a scene folder back, with the corrections its owner made by hand.

Folders travel, and are edited: nothing in one is trusted. Paths stay inside the folder, only regular files are opened,
sizes are compared with those declared before anything is decoded, and every value that training computes with is
finite and possible. What is wrong is named with its file, frame and value.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Float32, Float64, UInt8
from torch import Tensor

from das3r_ns import geometry
from das3r_ns.files.regular import inside
from das3r_ns.files.values import applied_transform
from das3r_ns.scene.edits import EditedFrames
from das3r_ns.scene.point_file import read_points
from das3r_ns.scene.stored_info import (
    frame_entries,
    read_cameras,
    read_clip_info,
    read_info,
    read_json,
    read_lens,
    read_times,
)
from das3r_ns.scene.stored_maps import read_maps, read_probability, read_stored_image
from das3r_ns.scene.types import Scene, SceneFolderError


def is_scene_folder(folder: Path) -> bool:
    """Whether `folder` was written by `write_scene` (of this or another release)."""
    return (Path(folder) / "predictor.json").is_file() and (Path(folder) / "transforms.json").is_file()


def read_scene(folder: Path, edited: bool = True) -> Scene:
    """Read a scene folder without its images (nerfstudio reads those itself; `read_frames_of_scene` does here).

    A user may correct `masks/`: where a mask clearly contradicts `dynamic_prob`, the mask wins. The edits of
    `das3r edit` have the last word. Cameras may be corrected in `transforms.json`.

    Args:
        edited: with the edits; else as predicted, with what was corrected in `masks/`.

    Raises:
        SceneFolderError: a file is missing, unreadable, of the wrong size or from a newer release, or a value in it
            cannot be meant; the message names file, frame and value.
    """
    folder = Path(folder)
    info = read_info(folder)
    transforms = read_json(folder / "transforms.json")
    entries = frame_entries(folder, transforms)
    T_gl, K, image_size = read_cameras(folder, transforms, entries)
    names, known, fps = read_clip_info(folder, info, entries)
    edits = EditedFrames.of(folder, names if edited else ())

    def maps_of(i: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        depth, confidence, probability = read_maps(folder, entries[i], image_size)
        return depth, confidence, edits.apply(i, probability)

    with ThreadPoolExecutor(4) as pool:
        maps = list(pool.map(maps_of, range(len(entries))))
    shapes = {m.shape for maps_of_frame in maps for m in maps_of_frame}
    if len(shapes) != 1:
        raise SceneFolderError(f"{folder}: depth, confidence and dynamic_prob differ in size: {sorted(shapes)}")
    depth, confidence, dynamic_prob = (torch.from_numpy(np.stack(m)) for m in zip(*maps))
    ply = transforms.get("ply_file_path", "sparse_pc.ply")
    if not isinstance(ply, str):
        raise SceneFolderError(f"{folder / 'transforms.json'}: ply_file_path is not a path.")
    return Scene(
        T_world_camera=geometry.to_opengl(T_gl).float(),
        K=K.float(),
        image_size=image_size,
        depth=depth,
        confidence=confidence,
        dynamic_prob=dynamic_prob,
        points=read_points(inside(folder, ply, SceneFolderError), len(entries)),
        pose_known=torch.tensor(known, dtype=torch.bool),
        names=names,
        fps=fps,
        times_s=read_times(folder, info, len(entries)),
        applied_transform=torch.from_numpy(
            applied_transform(transforms, f"{folder / 'transforms.json'}", SceneFolderError)
        ),
        lens=read_lens(folder, info),
        provenance=info,
    )


def image_paths(folder: Path) -> list[Path]:
    """Paths of the images of a scene folder, in order."""
    entries = frame_entries(Path(folder), read_json(Path(folder) / "transforms.json"))
    return [Path(folder) / entry["file_path"] for entry in entries]


@dataclass(frozen=True)
class SceneFiles:
    """A scene folder that is read frame by frame, for who looks at it and does not hold all of it in memory."""

    folder: Path
    names: tuple[str, ...]
    """Of the frames in the clip."""
    times_s: tuple[float, ...] | None
    fps: float
    image_size: tuple[int, int]
    """Height and width of the images."""
    T_world_camera: Float64[Tensor, "n 4 4"]
    """Camera-to-world, OpenCV axes."""
    K: Float64[Tensor, "n 3 3"]
    """Intrinsics in pixels of the images."""
    pose_known: tuple[bool, ...]
    provenance: dict[str, Any]
    _entries: list[dict[str, Any]]

    @classmethod
    def open(cls, folder: Path) -> "SceneFiles":
        """Read what a scene folder says of all frames.

        Raises:
            SceneFolderError: as `read_scene`.
        """
        folder = Path(folder)
        info = read_info(folder)
        transforms = read_json(folder / "transforms.json")
        entries = frame_entries(folder, transforms)
        T_gl, K, image_size = read_cameras(folder, transforms, entries)
        names, known, fps = read_clip_info(folder, info, entries)
        times = read_times(folder, info, len(entries))
        T = geometry.to_opengl(T_gl)
        return cls(folder, names, times, fps, image_size, T, K, tuple(known), info, entries)

    def __len__(self) -> int:
        return len(self._entries)

    def image(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        """RGB image of a frame."""
        path = self.folder / self._entries[index]["file_path"]
        return read_stored_image(path, cv2.IMREAD_COLOR, self.image_size)[..., ::-1]

    def mask_paths(self) -> list[Path] | None:
        """The masks of all frames; None where their owner took them out."""
        if not all(entry.get("mask_path") for entry in self._entries):
            return None
        return [self.folder / entry["mask_path"] for entry in self._entries]

    def dynamic_prob(self, index: int) -> Float32[np.ndarray, "h w"]:
        """As predicted, with what was corrected in `masks/`, without edits."""
        return read_probability(self.folder, self._entries[index], self.image_size, None)


def read_frames_of_scene(folder: Path) -> UInt8[Tensor, "n h w 3"]:
    """The images of a scene folder, RGB."""
    with ThreadPoolExecutor(4) as pool:
        images = list(pool.map(lambda p: read_stored_image(p, cv2.IMREAD_COLOR), image_paths(folder)))
    return torch.from_numpy(np.stack(images)[..., ::-1].copy())
