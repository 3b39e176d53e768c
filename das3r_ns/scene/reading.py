"""Read a scene folder back, with the corrections its owner made by hand.

Folders travel, and are edited: nothing in one is trusted. Paths stay inside the folder, only regular files are opened,
sizes are compared with those declared before anything is decoded, and every value that training computes with is
finite and possible. What is wrong is named with its file, frame and value.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from threading import Lock
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Float32, Float64, UInt8
from torch import Tensor

from das3r_ns import geometry
from das3r_ns.files.image_file import open_image
from das3r_ns.files.json_files import read_json_object
from das3r_ns.files.regular import check_regular, inside
from das3r_ns.files.values import applied_transform, check_pose, intrinsics_of, matrix_of, number, size_of
from das3r_ns.scene.edits import EditedFrames
from das3r_ns.scene.lens import RadialLens
from das3r_ns.scene.point_file import read_points
from das3r_ns.scene.types import DYNAMIC_THRESHOLD, FORMAT_VERSION, Scene, SceneFolderError

MAX_FRAMES = 100_000
MAX_DEPTH = 1e12
"""Largest depth and confidence that can be meant, in any unit."""

_ONE_ARRAY_AT_A_TIME = Lock()


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
    info = _read_info(folder)
    transforms = _read_json(folder / "transforms.json")
    entries = _entries(folder, transforms)
    T_gl, K, image_size = _cameras(folder, transforms, entries)
    names, known, fps = _clip_info(folder, info, entries)
    edits = EditedFrames.of(folder, names if edited else ())

    def maps_of(i: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        depth, confidence, probability = _read_maps(folder, entries[i], image_size)
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
        times_s=_times(folder, info, len(entries)),
        applied_transform=torch.from_numpy(
            applied_transform(transforms, f"{folder / 'transforms.json'}", SceneFolderError)
        ),
        lens=_lens(folder, info),
        provenance=info,
    )


def _read_info(folder: Path) -> dict[str, Any]:
    info = _read_json(folder / "predictor.json")
    if info.get("format_version") != FORMAT_VERSION:
        raise SceneFolderError(
            f"{folder} has scene format {info.get('format_version')}, this release reads {FORMAT_VERSION}. "
            "Predict the scene again."
        )
    return info


def _entries(folder: Path, transforms: dict[str, Any]) -> list[dict[str, Any]]:
    path = folder / "transforms.json"
    entries = transforms.get("frames")
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise SceneFolderError(f"{path} is damaged: it lists no frames. Predict the scene again.")
    if len(entries) > MAX_FRAMES:
        raise SceneFolderError(f"{path} lists {len(entries)} frames: more than can be meant.")
    for i, entry in enumerate(entries):
        for key in ("file_path", "depth_file_path", "mask_path"):
            if key == "mask_path" and entry.get(key) is None:
                continue
            if not isinstance(entry.get(key), str):
                raise SceneFolderError(f"{path} is damaged: frame {i + 1} has no {key}. Predict the scene again.")
            inside(folder, entry[key], SceneFolderError)
    return entries


def _cameras(
    folder: Path, transforms: dict[str, Any], entries: Sequence[dict[str, Any]]
) -> tuple[Tensor, Tensor, tuple[int, int]]:
    """T (OpenGL axes) [n 4 4], K [n 3 3] in double precision, and the size of all images."""
    common = {key: value for key, value in transforms.items() if key != "frames"}
    matrices, intrinsics, sizes = [], [], []
    for entry in entries:
        values = {**common, **entry}
        what = f"{folder / 'transforms.json'}: frame {entry['file_path']}"
        try:
            matrix = matrix_of(values, what, error=SceneFolderError)
            size = size_of(values, what, SceneFolderError)
            if size is None:
                raise KeyError("w or h")
            intrinsics.append(intrinsics_of(values, size, what, SceneFolderError))
        except KeyError as error:
            raise SceneFolderError(f"{what} is damaged: it lacks {error}. Predict the scene again.") from error
        check_pose(matrix, what, SceneFolderError)
        matrices.append(matrix)
        sizes.append(size)
        image = folder / entry["file_path"]
        found = _image_size(image)
        if found != size:
            raise SceneFolderError(
                f"{image} has {found[1]}x{found[0]} pixels, and transforms.json says {size[1]}x{size[0]}. Put the "
                "image back, or predict the scene again."
            )
    if len(set(sizes)) > 1:
        raise SceneFolderError(f"{folder / 'transforms.json'}: frames differ in size: {sorted(set(sizes))[:3]}.")
    return torch.from_numpy(np.stack(matrices)), torch.tensor(intrinsics, dtype=torch.float64), sizes[0]


def _clip_info(
    folder: Path, info: dict[str, Any], entries: Sequence[dict[str, Any]]
) -> tuple[tuple[str, ...], list[bool], float]:
    """Names of the frames, which poses are known, and frames per second."""
    path = folder / "predictor.json"
    names = info.get("names", [Path(entry["file_path"]).stem for entry in entries])
    known = info.get("pose_known", [True] * len(entries))
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise SceneFolderError(f"{path} is damaged: names is not a list of names.")
    if not isinstance(known, list) or not all(isinstance(value, bool) for value in known):
        raise SceneFolderError(f"{path} is damaged: pose_known is not a list of true and false.")
    if not len(names) == len(known) == len(entries):
        raise SceneFolderError(
            f"{folder}: transforms.json has {len(entries)} frames, predictor.json {len(names)}. "
            "Frames cannot be added or taken out of a scene folder; predict again with other frames."
        )
    fps = number(info, "fps", f"{path}", SceneFolderError) if "fps" in info else 30.0
    if not 0 < fps < 1e6:
        raise SceneFolderError(f"{path} is damaged: fps is {fps:g}.")
    return tuple(names), known, fps


def _times(folder: Path, info: dict[str, Any], num_frames: int) -> tuple[float, ...] | None:
    """When each frame is shown, if the folder says it of all."""
    times = info.get("times_s")
    if times is None:
        return None
    numbers = isinstance(times, list) and all(isinstance(t, (int, float)) and abs(t) < 1e12 for t in times)
    if not numbers or len(times) != num_frames or any(b < a for a, b in pairwise(times)):
        raise SceneFolderError(f"{folder / 'predictor.json'} is damaged: times_s is not {num_frames} ascending times.")
    return tuple(float(t) for t in times)


def _lens(folder: Path, info: dict[str, Any]) -> RadialLens | None:
    """The distortion that was taken out of the images; older folders name none."""
    described = info.get("lens")
    if described is None:
        return None
    names = {field.name for field in fields(RadialLens)}
    if not isinstance(described, dict) or set(described) != names:
        raise SceneFolderError(
            f"{folder / 'predictor.json'}: lens must hold {', '.join(sorted(names))} or be null. Predict it again."
        )
    where = f"lens in {folder / 'predictor.json'}"
    return RadialLens(**{name: number(described, name, where, SceneFolderError) for name in names})


def image_paths(folder: Path) -> list[Path]:
    """Paths of the images of a scene folder, in order."""
    entries = _entries(Path(folder), _read_json(Path(folder) / "transforms.json"))
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
        info = _read_info(folder)
        transforms = _read_json(folder / "transforms.json")
        entries = _entries(folder, transforms)
        T_gl, K, image_size = _cameras(folder, transforms, entries)
        names, known, fps = _clip_info(folder, info, entries)
        times = _times(folder, info, len(entries))
        T = geometry.to_opengl(T_gl)
        return cls(folder, names, times, fps, image_size, T, K, tuple(known), info, entries)

    def __len__(self) -> int:
        return len(self._entries)

    def image(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        """RGB image of a frame."""
        path = self.folder / self._entries[index]["file_path"]
        return _read_image(path, cv2.IMREAD_COLOR, self.image_size)[..., ::-1]

    def mask_paths(self) -> list[Path] | None:
        """The masks of all frames; None where their owner took them out."""
        if not all(entry.get("mask_path") for entry in self._entries):
            return None
        return [self.folder / entry["mask_path"] for entry in self._entries]

    def dynamic_prob(self, index: int) -> Float32[np.ndarray, "h w"]:
        """As predicted, with what was corrected in `masks/`, without edits."""
        return _read_probability(self.folder, self._entries[index], self.image_size, None)


def read_frames_of_scene(folder: Path) -> UInt8[Tensor, "n h w 3"]:
    """The images of a scene folder, RGB."""
    with ThreadPoolExecutor(4) as pool:
        images = list(pool.map(lambda p: _read_image(p, cv2.IMREAD_COLOR), image_paths(folder)))
    return torch.from_numpy(np.stack(images)[..., ::-1].copy())


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return read_json_object(path, SceneFolderError)
    except FileNotFoundError as error:
        raise SceneFolderError(
            f"{path} is missing: {path.parent} is not a complete scene folder. Predict it again."
        ) from error


def _image_size(path: Path) -> tuple[int, int]:
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


def _read_image(path: Path, flags: int, size: tuple[int, int] | None = None) -> np.ndarray:
    found = _image_size(path)
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


def _read_maps(
    folder: Path, frame: dict[str, Any], image_size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    name = Path(frame["file_path"]).stem
    depth = _read_array(folder / frame["depth_file_path"], image_size)
    confidence = _read_array(folder / "confidence" / f"{name}.npy", image_size)
    return depth, confidence, _read_probability(folder, frame, image_size, (depth.shape[0], depth.shape[1]))


def _read_probability(
    folder: Path, frame: dict[str, Any], image_size: tuple[int, int], map_size: tuple[int, int] | None
) -> np.ndarray:
    """`dynamic_prob` of a frame, with what was corrected in `masks/`."""
    name = Path(frame["file_path"]).stem
    stored = _read_image(folder / "dynamic_prob" / f"{name}.png", cv2.IMREAD_UNCHANGED, map_size)
    if stored.ndim != 2 or stored.dtype not in (np.uint8, np.uint16):
        raise SceneFolderError(f"{folder / 'dynamic_prob' / name}.png must have one grey channel of 8 or 16 bits.")
    probability = stored.astype(np.float32) / np.iinfo(stored.dtype).max
    if frame.get("mask_path"):
        keep = _read_image(folder / frame["mask_path"], cv2.IMREAD_GRAYSCALE, image_size).astype(np.float32) / 255
        black = 1 - cv2.resize(keep, probability.shape[::-1], interpolation=cv2.INTER_AREA)
        # Resampling blurs edges; only a clear contradiction is a correction by hand.
        probability = np.where((black > 0.9) & (probability < DYNAMIC_THRESHOLD), 1.0, probability)
        probability = np.where((black < 0.1) & (probability > DYNAMIC_THRESHOLD), 0.0, probability)
    return probability.astype(np.float32)
