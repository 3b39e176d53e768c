"""The scene: what a predictor says about a clip, and the folder that holds it on disk.

The folder is an ordinary nerfstudio dataset (`transforms.json`, images, masks, depth, seed points), which every
other nerfstudio method reads, plus the soft maps that staticness starts from. It is written into a temporary folder
beside its destination and moved into place whole, so an interrupted run leaves no half scene.

In memory, cameras have OpenCV axes; in `transforms.json` they have OpenGL axes, because nerfstudio says so.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from plyfile import PlyData, PlyElement, PlyParseError
from torch import Tensor

from das3r_ns import __version__, geometry

FORMAT_VERSION = 1
"""Raised whenever a reader of the old layout would misread the new one; part of every cache key."""

DYNAMIC_THRESHOLD = 0.5
"""dynamic_prob above this is black in the nerfstudio mask."""


class SceneFolderError(ValueError):
    """A scene folder that is damaged or inconsistent. The message names the file and what to do."""


@dataclass(frozen=True)
class PointCloud:
    """Coloured points of the static scene, each remembering the frame it was seen in."""

    xyz: Float[Tensor, "p 3"]
    """World coordinates."""
    rgb: UInt8[Tensor, "p 3"]
    staticness: Float[Tensor, "p"]
    """1 - dynamic_prob of the source pixel."""
    frame: Int[Tensor, "p"]
    """Index of the frame the point comes from; -1 when it comes from many (triangulated features)."""

    def __len__(self) -> int:
        return self.xyz.shape[0]


@dataclass(frozen=True)
class Scene:
    """Cameras, depth and dynamic maps of a clip of n frames.

    Pictures may be larger than the maps: training runs at the video's own resolution while prediction runs smaller.
    """

    T_world_camera: Float[Tensor, "n 4 4"]
    """Camera-to-world, OpenCV axes."""
    K: Float[Tensor, "n 3 3"]
    """Intrinsics in pixels of the pictures; first pixel's centre at (0.5, 0.5)."""
    image_size: tuple[int, int]
    """Height and width of the pictures."""
    depth: Float[Tensor, "n h w"]
    """z-depth in world units; 0 means unknown."""
    confidence: Float[Tensor, "n h w"]
    """How sure the depth is: 0 not at all, higher is surer."""
    dynamic_prob: Float[Tensor, "n h w"]
    """0 static .. 1 moving."""
    points: PointCloud
    """Seed points, a moderate number (the maps allow a dense start)."""
    pose_known: Bool[Tensor, "n"]
    """False where the pose was interpolated from its neighbours."""
    names: tuple[str, ...]
    """One name a frame, as in the clip."""
    fps: float = 30.0
    provenance: dict[str, Any] = field(default_factory=dict)
    """Written to `predictor.json`: which predictor, which settings, digest of the input."""

    def __len__(self) -> int:
        return self.T_world_camera.shape[0]

    @property
    def map_size(self) -> tuple[int, int]:
        """Height and width of depth, confidence and dynamic_prob."""
        return self.depth.shape[1], self.depth.shape[2]

    @property
    def K_maps(self) -> Float[Tensor, "n 3 3"]:
        """Intrinsics in pixels of the maps."""
        return geometry.rescale_intrinsics(self.K, self.image_size, self.map_size)


def frame_name(index: int) -> str:
    """Name of a frame's files in a scene folder: 1-based, as nerfstudio's own tools write them."""
    return f"frame_{index + 1:05d}"


def write_scene(scene: Scene, frames: UInt8[Tensor, "n H W 3"], folder: Path, overwrite: bool = False) -> Path:
    """Write a scene folder, whole or not at all.

    Args:
        frames: the pictures, RGB, at `scene.image_size`.
        overwrite: replace a scene folder that is there. Anything else that is there is never replaced.
    Raises:
        FileExistsError: something is at `folder` already.
        ValueError: frames and scene do not fit together, or a camera or map is not finite.
        OSError: the disk is full or the place cannot be written; nothing is left behind.
    """
    folder = Path(folder)
    _check_before_writing(scene, frames)
    replaces = folder.exists() and any(folder.iterdir()) if folder.is_dir() else folder.exists()
    if replaces and not (overwrite and (folder / "predictor.json").is_file()):
        raise FileExistsError(
            f"{folder} is already there. Choose another place, or "
            + (
                "allow overwriting."
                if (folder / "predictor.json").is_file()
                else "move it away: it is no scene folder."
            )
        )
    with written_whole(folder) as temporary:
        _write_maps(scene, frames, temporary)
        _write_points(scene.points, temporary / "sparse_pc.ply")
        _write_json(
            temporary / "predictor.json",
            {
                **scene.provenance,
                "format_version": FORMAT_VERSION,
                "das3r_ns_version": __version__,
                "fps": scene.fps,
                "names": list(scene.names),
                "pose_known": scene.pose_known.tolist(),
            },
        )
        _write_json(temporary / "transforms.json", _transforms(scene))
    return folder


@contextmanager
def written_whole(folder: Path) -> Iterator[Path]:
    """Give a temporary folder beside `folder` to fill; move it there when the block ends well, else remove it."""
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".part", dir=folder.parent))
    try:
        os.chmod(temporary, 0o777 & ~_umask())  # mkdtemp makes it private; a result is as readable as any file
        yield temporary
        retired = None
        if folder.exists():
            retired = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".old", dir=folder.parent))
            os.replace(folder, retired / "old")
        try:
            os.replace(temporary, folder)
        except OSError:
            if retired is not None:
                os.replace(retired / "old", folder)
            raise
        if retired is not None:
            shutil.rmtree(retired, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _check_before_writing(scene: Scene, frames: Tensor) -> None:
    n = len(scene)
    if frames.shape != (n, *scene.image_size, 3):
        raise ValueError(
            f"frames of shape {tuple(frames.shape)} do not fit a scene of {n} frames of "
            f"{scene.image_size[1]}x{scene.image_size[0]}"
        )
    for name in ("T_world_camera", "K", "depth", "confidence", "dynamic_prob"):
        if not torch.isfinite(getattr(scene, name)).all():
            raise ValueError(f"{name} has values that are not finite: this scene would not train")


def _write_maps(scene: Scene, frames: Tensor, folder: Path) -> None:
    for name in ("images", "masks", "dynamic_prob", "depth", "confidence"):
        (folder / name).mkdir()
    height, width = scene.image_size

    def write(i: int) -> None:
        name = frame_name(i)
        probability = scene.dynamic_prob[i].numpy()
        large = cv2.resize(probability, (width, height), interpolation=cv2.INTER_LINEAR)
        keep = np.where(large > DYNAMIC_THRESHOLD, 0, 255).astype(np.uint8)
        _write_picture(folder / "images" / f"{name}.png", frames[i].numpy()[..., ::-1])
        _write_picture(folder / "masks" / f"{name}.png", keep)
        _write_picture(
            folder / "dynamic_prob" / f"{name}.png", np.round(probability.clip(0, 1) * 65535).astype(np.uint16)
        )
        np.save(folder / "depth" / f"{name}.npy", scene.depth[i].numpy().astype(np.float32))
        np.save(folder / "confidence" / f"{name}.npy", scene.confidence[i].numpy().astype(np.float16))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(len(scene))))


def _write_picture(path: Path, picture: np.ndarray) -> None:
    encoded, buffer = cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, 2])
    if not encoded:
        raise OSError(f"could not encode {path.name}")
    path.write_bytes(buffer.tobytes())  # unlike cv2.imwrite, this raises when the disk is full


def _write_points(points: PointCloud, path: Path) -> None:
    rows = np.empty(
        len(points),
        dtype=[(a, "f4") for a in "xyz"]
        + [(c, "u1") for c in ("red", "green", "blue")]
        + [("staticness", "f4"), ("frame", "i4")],
    )
    for column, axis in enumerate("xyz"):
        rows[axis] = points.xyz[:, column].numpy()
    for column, colour in enumerate(("red", "green", "blue")):
        rows[colour] = points.rgb[:, column].numpy()
    rows["staticness"] = points.staticness.numpy()
    rows["frame"] = points.frame.numpy()
    with path.open("wb") as file:
        PlyData([PlyElement.describe(rows, "vertex")], byte_order="<").write(file)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, default=str) + "\n")


def _transforms(scene: Scene) -> dict[str, Any]:
    T_gl = geometry.to_opengl(scene.T_world_camera.double())
    height, width = scene.image_size
    frames = []
    for i in range(len(scene)):
        K = scene.K[i].double()
        frames.append(
            {
                "file_path": f"images/{frame_name(i)}.png",
                "mask_path": f"masks/{frame_name(i)}.png",
                "depth_file_path": f"depth/{frame_name(i)}.npy",
                "fl_x": float(K[0, 0]),
                "fl_y": float(K[1, 1]),
                "cx": float(K[0, 2]),
                "cy": float(K[1, 2]),
                "w": width,
                "h": height,
                "transform_matrix": T_gl[i].tolist(),
            }
        )
    return {
        "camera_model": "OPENCV",
        "ply_file_path": "sparse_pc.ply",
        "k1": 0.0, "k2": 0.0, "p1": 0.0, "p2": 0.0,
        "applied_transform": [[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]],
        "frames": frames,
    }  # fmt: skip


def is_scene_folder(folder: Path) -> bool:
    """Whether `folder` was written by `write_scene` (of this or another release)."""
    return (Path(folder) / "predictor.json").is_file() and (Path(folder) / "transforms.json").is_file()


def read_scene(folder: Path) -> Scene:
    """Read a scene folder without its pictures (nerfstudio reads those itself; `read_frames_of_scene` does here).

    A user may correct `masks/`: where a mask clearly contradicts `dynamic_prob`, the mask wins. Cameras may be
    corrected in `transforms.json`.

    Raises:
        SceneFolderError: a file is missing, unreadable, of the wrong size or from a newer release.
    """
    folder = Path(folder)
    info = _read_json(folder / "predictor.json")
    if info.get("format_version") != FORMAT_VERSION:
        raise SceneFolderError(
            f"{folder} has scene format {info.get('format_version')}, this release reads {FORMAT_VERSION}. "
            "Predict the scene again."
        )
    transforms = _read_json(folder / "transforms.json")
    try:
        entries = transforms["frames"]
        T_gl = torch.tensor([frame["transform_matrix"] for frame in entries], dtype=torch.float64)
        K = torch.zeros(len(entries), 3, 3, dtype=torch.float64)
        for i, frame in enumerate(entries):
            f = {**transforms, **frame}
            K[i] = torch.tensor([[f["fl_x"], 0, f["cx"]], [0, f["fl_y"], f["cy"]], [0, 0, 1]], dtype=torch.float64)
        first = {**transforms, **entries[0]}
        image_size = (int(first["h"]), int(first["w"]))
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise SceneFolderError(
            f"{folder / 'transforms.json'} is damaged ({error}). Predict the scene again."
        ) from error
    names = tuple(info.get("names", [Path(frame["file_path"]).stem for frame in entries]))
    known = info.get("pose_known", [True] * len(entries))
    if not len(names) == len(known) == len(entries):
        raise SceneFolderError(
            f"{folder}: transforms.json has {len(entries)} frames, predictor.json {len(names)}. "
            "Frames cannot be added or taken out of a scene folder; predict again with other frames."
        )
    with ThreadPoolExecutor(4) as pool:
        maps = list(pool.map(lambda frame: _read_maps(folder, frame), entries))
    shapes = {m.shape for maps_of_frame in maps for m in maps_of_frame}
    if len(shapes) != 1:
        raise SceneFolderError(f"{folder}: depth, confidence and dynamic_prob differ in size: {sorted(shapes)}")
    depth, confidence, dynamic_prob = (torch.from_numpy(np.stack(m)) for m in zip(*maps))
    return Scene(
        T_world_camera=geometry.to_opengl(T_gl).float(),
        K=K.float(),
        image_size=image_size,
        depth=depth,
        confidence=confidence,
        dynamic_prob=dynamic_prob,
        points=_read_points(folder / transforms.get("ply_file_path", "sparse_pc.ply")),
        pose_known=torch.tensor(known, dtype=torch.bool),
        names=names,
        fps=float(info.get("fps", 30.0)),
        provenance=info,
    )


def image_paths(folder: Path) -> list[Path]:
    """Paths of the pictures of a scene folder, in order."""
    return [Path(folder) / frame["file_path"] for frame in _read_json(Path(folder) / "transforms.json")["frames"]]


def read_frames_of_scene(folder: Path) -> UInt8[Tensor, "n h w 3"]:
    """The pictures of a scene folder, RGB."""
    with ThreadPoolExecutor(4) as pool:
        pictures = list(pool.map(lambda p: _read_picture(p, cv2.IMREAD_COLOR), image_paths(folder)))
    return torch.from_numpy(np.stack(pictures)[..., ::-1].copy())


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError as error:
        raise SceneFolderError(
            f"{path} is missing: {path.parent} is no whole scene folder. Predict it again."
        ) from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise SceneFolderError(f"{path} is no valid JSON ({error}).") from error


def _read_picture(path: Path, flags: int) -> np.ndarray:
    picture = cv2.imread(str(path), flags)
    if picture is None:
        raise SceneFolderError(f"{path} is missing or no picture. Predict the scene again, or restore the file.")
    return picture


def _read_maps(folder: Path, frame: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    name = Path(frame["file_path"]).stem
    try:
        depth = np.load(folder / frame["depth_file_path"]).astype(np.float32)
        confidence = np.load(folder / "confidence" / f"{name}.npy").astype(np.float32)
    except (OSError, ValueError, KeyError) as error:
        raise SceneFolderError(f"{folder}: depth or confidence of {name} cannot be read ({error}).") from error
    stored = _read_picture(folder / "dynamic_prob" / f"{name}.png", cv2.IMREAD_UNCHANGED)
    probability = stored.astype(np.float32) / np.iinfo(stored.dtype).max
    if frame.get("mask_path") and probability.shape == depth.shape:
        keep = _read_picture(folder / frame["mask_path"], cv2.IMREAD_GRAYSCALE).astype(np.float32) / 255
        black = 1 - cv2.resize(keep, probability.shape[::-1], interpolation=cv2.INTER_AREA)
        # Resampling blurs edges; only a clear contradiction is a correction by hand.
        probability = np.where((black > 0.9) & (probability < DYNAMIC_THRESHOLD), 1.0, probability)
        probability = np.where((black < 0.1) & (probability > DYNAMIC_THRESHOLD), 0.0, probability)
    return depth, confidence, probability.astype(np.float32)


def _read_points(path: Path) -> PointCloud:
    try:
        rows = PlyData.read(str(path))["vertex"].data
    except (OSError, KeyError, ValueError, PlyParseError) as error:
        raise SceneFolderError(f"{path} cannot be read as a point cloud ({error}).") from error
    count, columns = len(rows), rows.dtype.names or ()
    return PointCloud(
        xyz=torch.from_numpy(np.stack([rows[a] for a in "xyz"], -1).astype(np.float32)),
        rgb=torch.from_numpy(np.stack([rows[c] for c in ("red", "green", "blue")], -1).astype(np.uint8)),
        staticness=torch.from_numpy(
            rows["staticness"].astype(np.float32) if "staticness" in columns else np.ones(count, np.float32)
        ),
        frame=torch.from_numpy(rows["frame"].astype(np.int32) if "frame" in columns else np.full(count, -1, np.int32)),
    )
