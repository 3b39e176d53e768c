"""Read a scene folder back, with the corrections its owner made by hand."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import UInt8
from plyfile import PlyData, PlyParseError
from torch import Tensor

from das3r_ns import geometry
from das3r_ns.scene.types import DYNAMIC_THRESHOLD, FORMAT_VERSION, PointCloud, Scene, SceneFolderError

_ONE_ARRAY_AT_A_TIME = Lock()


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
    times_s = info.get("times_s") or ()
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
        times_s=tuple(map(float, times_s)) if len(times_s) == len(entries) else None,
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
        return json.loads(path.read_text(encoding="utf-8"))
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


def _read_array(path: Path) -> np.ndarray:
    # NumPy reads the header with Python's own parser, which fails now and then when two threads are in it at once
    # (CPython 3.11: "AST constructor recursion depth mismatch").
    with _ONE_ARRAY_AT_A_TIME:
        return np.load(path)


def _read_maps(folder: Path, frame: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    name = Path(frame["file_path"]).stem
    try:
        depth = _read_array(folder / frame["depth_file_path"]).astype(np.float32)
        confidence = _read_array(folder / "confidence" / f"{name}.npy").astype(np.float32)
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
