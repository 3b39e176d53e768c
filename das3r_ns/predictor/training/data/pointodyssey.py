"""PointOdyssey (Zheng et al. 2023) in its published layout, with the labels that `das3r prepare pointodyssey` adds.

    ROOT/SPLIT/SEQUENCE/
      rgbs/rgb_00000.jpg
      depths/depth_00000.png            16 bits; z-depth in metres is value / 65535 * 1000
      anno.npz (annotations.npz in the first release)
                                        trajs_3d (t n 3), trajs_2d (t n 2), valids, visibs (t n),
                                        intrinsics (t 3 3), extrinsics (t 4 4: world to camera, OpenCV axes)
      dynamic_masks/dynamic_00000.png   added: see `tracks.pack`
      dynamic_masks/labels.json         added: settings, usable frames, what was left out

The annotations are stored in half precision, so world positions move in steps of 2 to 8 mm.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float

from das3r_ns.predictor.training.data.sources import (
    UNKNOWN,
    BadDataError,
    Frame,
    NothingLeftError,
    Pair,
    Problem,
    readable_size,
)
from das3r_ns.predictor.training.data.strides import pool_of_pairs
from das3r_ns.predictor.training.data.tracks import MIN_TRACKS, Tracks, unpack

ANNOTATION_NAMES = ("anno.npz", "annotations.npz")
DEPTH_SCALE = 1000.0 / 65535.0
"""Metres per step of the 16-bit depth."""
LABELS = "dynamic_masks"
LABEL_FORMAT = 1
MAX_REPROJECTION_PX = 3.0
"""Median distance of projected 3-D tracks from the stored 2-D ones above which the cameras are not understood."""


@dataclass(frozen=True)
class Cameras:
    """The cameras of a sequence of t frames."""

    K: Float[np.ndarray, "t 3 3"]
    T_world_camera: Float[np.ndarray, "t 4 4"]

    def __len__(self) -> int:
        return self.K.shape[0]


def sequence_folders(root: Path) -> list[Path]:
    """All folders under `root` (a split, or the folder of the splits) that hold images or annotations.

    Raises:
        FileNotFoundError: there are none.
    """
    marks = ("rgbs", *ANNOTATION_NAMES)
    found = sorted({path.parent for mark in marks for path in [*root.glob(f"*/{mark}"), *root.glob(f"*/*/{mark}")]})
    if not found:
        raise FileNotFoundError(
            f"{root} holds no PointOdyssey sequence: expected SPLIT/SEQUENCE/{ANNOTATION_NAMES[0]} below it, "
            "as the set's archives unpack"
        )
    return found


def rgb_path(sequence: Path, frame: int) -> Path:
    return sequence / "rgbs" / f"rgb_{frame:05d}.jpg"


def depth_path(sequence: Path, frame: int) -> Path:
    return sequence / "depths" / f"depth_{frame:05d}.png"


def label_path(sequence: Path, frame: int) -> Path:
    return sequence / LABELS / f"dynamic_{frame:05d}.png"


def read_cameras(sequence: Path) -> Cameras:
    """Raises BadDataError: the annotations are missing or damaged, or a camera makes no sense."""
    path, stored = _annotations(sequence, ("intrinsics", "extrinsics"))
    K, T_camera_world = (stored[name].astype(np.float64) for name in ("intrinsics", "extrinsics"))
    if K.shape[1:] != (3, 3) or T_camera_world.shape != (len(K), 4, 4):
        raise BadDataError(path, f"intrinsics of shape {K.shape} and extrinsics {T_camera_world.shape}")
    if not (np.isfinite(K).all() and np.isfinite(T_camera_world).all() and (K[:, [0, 1], [0, 1]] > 0).all()):
        raise BadDataError(path, "a camera is not finite, or its focal length not positive")
    u, _, vt = np.linalg.svd(T_camera_world[:, :3, :3])  # half precision bends rotations
    R = u @ vt
    T_world_camera = np.tile(np.eye(4), (len(K), 1, 1))
    T_world_camera[:, :3, :3] = R.transpose(0, 2, 1)
    T_world_camera[:, :3, 3] = -(R.transpose(0, 2, 1) @ T_camera_world[:, :3, 3:])[..., 0]
    return Cameras(K.astype(np.float32), T_world_camera.astype(np.float32))


def read_tracks(sequence: Path) -> tuple[Tracks, list[Problem]]:
    """The 3-D tracks, and a note if some are not finite.

    Raises:
        BadDataError: the annotations are missing or damaged, there are fewer than 16 tracks, or the 3-D tracks do not
            project onto the 2-D ones (another convention for the cameras).
    """
    path, stored = _annotations(sequence, ("trajs_3d", "intrinsics", "extrinsics"), ("valids", "visibs", "trajs_2d"))
    world = stored["trajs_3d"]
    if world.ndim != 3 or world.shape[1] < MIN_TRACKS or world.shape[2] != 3:
        raise BadDataError(path, f"3-D tracks of shape {world.shape}; labels need at least {MIN_TRACKS} tracks")
    finite = np.isfinite(world).all(axis=-1)
    usable = finite & stored["valids"].astype(bool) if "valids" in stored else finite
    if usable.any(axis=0).sum() < MIN_TRACKS:
        raise BadDataError(path, f"{usable.any(axis=0).sum()} usable tracks; labels need at least {MIN_TRACKS}")
    problems = []
    broken = int((~finite).any(axis=0).sum())
    if broken:
        problems.append(
            Problem(str(path), f"{broken} of {world.shape[1]} tracks are not finite somewhere; unused there")
        )
    if "trajs_2d" in stored:
        seen = usable & (stored["visibs"] == 1) if "visibs" in stored else usable
        _check_projection(path, stored, seen)
    return Tracks(world, usable), problems


def _check_projection(path: Path, stored: dict[str, np.ndarray], seen: Bool[np.ndarray, "t n"]) -> None:
    errors = []
    for frame in np.linspace(0, len(seen) - 1, 5).astype(int):
        world = stored["trajs_3d"][frame, seen[frame]].astype(np.float64)
        T_camera_world = stored["extrinsics"][frame].astype(np.float64)
        camera = world @ T_camera_world[:3, :3].T + T_camera_world[:3, 3]
        pixels = camera @ stored["intrinsics"][frame].astype(np.float64).T
        with np.errstate(all="ignore"):
            projected = pixels[:, :2] / pixels[:, 2:]
        errors.append(np.linalg.norm(projected - stored["trajs_2d"][frame, seen[frame]], axis=-1))
    error = float(np.median(np.concatenate(errors))) if any(len(e) for e in errors) else 0.0
    if not error <= MAX_REPROJECTION_PX:
        raise BadDataError(
            path, f"its 3-D tracks project {error:.1f} px beside its 2-D ones: the cameras are not understood"
        )


def _annotations(
    sequence: Path, names: tuple[str, ...], optional: tuple[str, ...] = ()
) -> tuple[Path, dict[str, np.ndarray]]:
    """The annotation file, and the arrays of it that are wanted (each is decompressed only if asked for)."""
    path = next((sequence / name for name in ANNOTATION_NAMES if (sequence / name).is_file()), None)
    if path is None:
        raise BadDataError(sequence / ANNOTATION_NAMES[0], "missing")
    try:
        with np.load(path) as stored:
            absent = [name for name in names if name not in stored.files]
            if absent:
                raise BadDataError(path, f"holds no {' and no '.join(absent)}")
            return path, {name: stored[name] for name in (*names, *optional) if name in stored.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        if isinstance(error, BadDataError):
            raise
        raise BadDataError(path, f"cannot be read ({error})") from error


def read_depth(sequence: Path, frame: int) -> Float[np.ndarray, "h w"]:
    """z-depth in metres; 0 where unknown.

    Raises:
        BadDataError: the file is missing or damaged, or not a 16-bit image.
    """
    path = depth_path(sequence, frame)
    image = _read(path, cv2.IMREAD_UNCHANGED)
    if image.dtype != np.uint16 or image.ndim != 2:
        raise BadDataError(path, f"is an image of {image.dtype} and shape {image.shape}, not a 16-bit depth map")
    return image.astype(np.float32) * np.float32(DEPTH_SCALE)


def _read(path: Path, flags: int) -> np.ndarray:
    image = cv2.imread(str(path), flags)
    if image is None:
        raise BadDataError(path, "cannot be read as an image" if path.exists() else "missing")
    return image


def read_labels(sequence: Path) -> dict[str, Any]:
    """What `das3r prepare` wrote about the labels of a sequence.

    Raises:
        BadDataError: the sequence was not prepared, or by another release.
    """
    path = sequence / LABELS / "labels.json"
    try:
        labels = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BadDataError(sequence, "has no dynamic masks; run `das3r prepare pointodyssey ROOT`") from error
    except (OSError, ValueError) as error:
        raise BadDataError(path, f"cannot be read ({error})") from error
    if not isinstance(labels, dict) or labels.get("format") != LABEL_FORMAT:
        raise BadDataError(path, "is of another release; run `das3r prepare pointodyssey ROOT` again")
    return labels


class PointOdyssey:
    """A `PairSource` of prepared sequences."""

    def __init__(self, root: Path, max_stride: int, seed: int) -> None:
        """Index a split (a folder of sequences).

        Raises:
            FileNotFoundError: no sequence is there.
            NothingLeftError: no sequence can be used.
        """
        self.name = f"pointodyssey/{root.name}"
        self.problems: list[Problem] = []
        self.folders: list[Path] = []
        self.cameras: list[Cameras] = []
        self.label_strides: list[int] = []
        frames: list[list[int]] = []
        for folder in sequence_folders(root):
            try:
                labels = read_labels(folder)
                if labels["max_stride"] < max_stride:
                    raise BadDataError(
                        folder,
                        f"was prepared for strides up to {labels['max_stride']}, not {max_stride}; lower "
                        f"--data.max-stride or run `das3r prepare pointodyssey ROOT --max-stride {max_stride}`",
                    )
                self.problems.extend(Problem(**problem) for problem in labels["problems"])
                if not labels["frames"]:
                    continue  # its own problems say why
                cameras = read_cameras(folder)
                usable = self._usable(folder, labels["frames"], len(cameras))
            except BadDataError as error:
                self.problems.append(error.problem)
                continue
            self.folders.append(folder)
            self.cameras.append(cameras)
            self.label_strides.append(labels["max_stride"])
            frames.append(usable)
        self.pairs = pool_of_pairs(frames, max_stride, seed)
        if not self.pairs:
            raise NothingLeftError(f"{root} holds no sequence that can be used:", self.problems)

    def _usable(self, folder: Path, labelled: list[int], num_cameras: int) -> list[int]:
        """Labelled frames whose image and depth are there; the others are problems."""
        there = {
            path.name for kind in ("rgbs", "depths") if (folder / kind).is_dir() for path in (folder / kind).iterdir()
        }
        usable = []
        for frame in labelled:
            absent = [path for path in (rgb_path(folder, frame), depth_path(folder, frame)) if path.name not in there]
            self.problems.extend(Problem(str(path), "missing") for path in absent)
            if not absent and frame < num_cameras:
                usable.append(frame)
        return usable

    def image_size(self, pair: Pair) -> tuple[int, int]:
        """Height and width of the frames of a pair. Raises BadDataError."""
        return readable_size(rgb_path(self.folders[pair.sequence], pair.first))

    def read(self, pair: Pair) -> tuple[Frame, Frame]:
        """Both frames of a pair. Raises BadDataError."""
        return self._frame(pair, pair.first, pair.stride), self._frame(pair, pair.second, -pair.stride)

    def _frame(self, pair: Pair, frame: int, towards: int) -> Frame:
        folder, cameras = self.folders[pair.sequence], self.cameras[pair.sequence]
        rgb = cv2.cvtColor(_read(rgb_path(folder, frame), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        depth = read_depth(folder, frame)
        packed = _read(label_path(folder, frame), cv2.IMREAD_COLOR)
        if not rgb.shape[:2] == depth.shape == packed.shape[:2]:
            raise BadDataError(
                rgb_path(folder, frame),
                f"image {rgb.shape[:2]}, depth {depth.shape} and labels {packed.shape[:2]} differ",
            )
        return Frame(
            rgb=rgb,
            depth=depth,
            dynamic=np.where(depth > 0, unpack(packed, towards, self.label_strides[pair.sequence]), UNKNOWN),
            K=cameras.K[frame],
            T_world_camera=cameras.T_world_camera[frame],
        )
