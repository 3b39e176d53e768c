"""What a scene folder says about its frames: `transforms.json` and `predictor.json`, every value checked."""

from collections.abc import Sequence
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from das3r_ns.files.json_files import read_json_object
from das3r_ns.files.regular import inside
from das3r_ns.files.values import check_pose, intrinsics_of, matrix_of, number, size_of
from das3r_ns.scene.lens import RadialLens
from das3r_ns.scene.stored_maps import stored_image_size
from das3r_ns.scene.types import FORMAT_VERSION, SceneFolderError

MAX_FRAMES = 100_000


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of a scene folder."""
    try:
        return read_json_object(path, SceneFolderError)
    except FileNotFoundError as error:
        raise SceneFolderError(
            f"{path} is missing: {path.parent} is not a complete scene folder. Predict it again."
        ) from error


def read_info(folder: Path) -> dict[str, Any]:
    """`predictor.json`, of a format that this release reads."""
    info = read_json(folder / "predictor.json")
    if info.get("format_version") != FORMAT_VERSION:
        raise SceneFolderError(
            f"{folder} has scene format {info.get('format_version')}, this release reads {FORMAT_VERSION}. "
            "Predict the scene again."
        )
    return info


def frame_entries(folder: Path, transforms: dict[str, Any]) -> list[dict[str, Any]]:
    """What `transforms.json` says of each frame, its paths inside the folder."""
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


def read_cameras(
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
        found = stored_image_size(image)
        if found != size:
            raise SceneFolderError(
                f"{image} has {found[1]}x{found[0]} pixels, and transforms.json says {size[1]}x{size[0]}. Put the "
                "image back, or predict the scene again."
            )
    if len(set(sizes)) > 1:
        raise SceneFolderError(f"{folder / 'transforms.json'}: frames differ in size: {sorted(set(sizes))[:3]}.")
    return torch.from_numpy(np.stack(matrices)), torch.tensor(intrinsics, dtype=torch.float64), sizes[0]


def read_clip_info(
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


def read_times(folder: Path, info: dict[str, Any], num_frames: int) -> tuple[float, ...] | None:
    """When each frame is shown, if the folder says it of all."""
    times = info.get("times_s")
    if times is None:
        return None
    numbers = isinstance(times, list) and all(isinstance(t, (int, float)) and abs(t) < 1e12 for t in times)
    if not numbers or len(times) != num_frames or any(b < a for a, b in pairwise(times)):
        raise SceneFolderError(f"{folder / 'predictor.json'} is damaged: times_s is not {num_frames} ascending times.")
    return tuple(float(t) for t in times)


def read_lens(folder: Path, info: dict[str, Any]) -> RadialLens | None:
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
