"""Cameras that the user already has: read from a `transforms.json` or a COLMAP model, matched to the frames, and the
lens distortion taken out of the frames.

The files have OpenGL axes (nerfstudio) or OpenCV axes, world-to-camera (COLMAP); what leaves this module has OpenCV
axes, camera-to-world, no distortion.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from das3r_ns.dataparser.colmap_model import ColmapCamera, find_models, read_model, rotation_of
from das3r_ns.dataparser.file_names import bare_name
from das3r_ns.dataparser.options import Convention
from das3r_ns.dataparser.transforms_file import TransformsFrame, read_transforms, transforms_of
from das3r_ns.files.values import (
    applied_transform,
    check_pose,
    intrinsics_of,
    matrix_of,
    nearest_rotation,
    number,
    size_of,
)
from das3r_ns.video.images import image_size

PINHOLE_MODELS = frozenset({"SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV"})
"""COLMAP's names (nerfstudio's too) of the camera models that become a pinhole once distortion is taken out."""

FLIP = np.diag([1.0, -1.0, -1.0, 1.0])


@dataclass(frozen=True)
class NamedCameras:
    """Cameras as a file lists them."""

    path: Path
    """The file or model they come from: for messages."""
    names: tuple[str, ...]
    """Image of each camera as the file names it."""
    matrices: Float64[np.ndarray, "n 4 4"]
    """As the file holds them, in its own convention. Double precision: they may be map coordinates."""
    convention: Convention
    """The convention in which they are read."""
    K: Float[Tensor, "n 3 3"]
    """Pixels of the images that the file speaks of."""
    sizes: tuple[tuple[int, int], ...]
    """Height and width of those images."""
    distortion: Float[Tensor, "n 5"]
    """k1 k2 p1 p2 k3, OpenCV's order."""
    applied_transform: Float64[np.ndarray, "4 4"] = field(default_factory=lambda: np.eye(4))
    """From the world of the program that wrote the file to that of the matrices, where the file says so."""

    @property
    def T_world_camera(self) -> Float64[np.ndarray, "n 4 4"]:
        """Camera-to-world, OpenCV axes."""
        return in_convention(self.matrices, self.convention)


def in_convention(matrices: Float64[np.ndarray, "n 4 4"], convention: Convention) -> Float64[np.ndarray, "n 4 4"]:
    """Camera-to-world with OpenCV axes, of matrices in the given convention."""
    T = np.linalg.inv(matrices) if convention.endswith("inverse") else matrices
    return T @ FLIP if convention.startswith("opengl") else T


def read_cameras(
    path: Path, image_size: tuple[int, int] | None = None, convention: Convention = "auto"
) -> list[NamedCameras]:
    """Read a `transforms.json` (or the folder that holds one), or the COLMAP models at or below a folder.

    Args:
        image_size: of the frames as stored, for files that do not say their images' size and have none beside them.
        convention: in which the matrices are to be read.
    Returns:
        One set of cameras, or one of each COLMAP model, the one with most images first.
    Raises:
        FileNotFoundError: there is nothing at `path`.
        ValueError: it is neither, is damaged, or has cameras that are no pinholes (fisheye, panorama).
    """
    if not path.exists():
        raise FileNotFoundError(f"--cameras {path} does not exist. Give a transforms.json or a COLMAP model's folder.")
    if path.is_file() and path.stem in ("cameras", "images"):  # a file of the model in the place of its folder
        path = path.parent
    transforms = transforms_of(path)
    if transforms is not None:
        return [cameras_of_frames(transforms, read_transforms(transforms), image_size, convention)]
    models = find_models(path) if path.is_dir() else []
    if not models:
        raise ValueError(
            f"{path} holds neither transforms.json nor a COLMAP model (cameras.bin and images.bin, or .txt, here or in "
            "sparse/0), nor files of a program that is known (docs/bring_your_own.md has the list)."
        )
    found = [_read_colmap(model, convention) for model in models]
    return sorted(found, key=lambda cameras: -len(cameras.names))


def cameras_of_frames(
    path: Path,
    frames: Sequence[TransformsFrame],
    image_size: tuple[int, int] | None = None,
    convention: Convention = "auto",
) -> NamedCameras:
    """Cameras of the frames of a transforms.json.

    Raises:
        ValueError: as of `read_cameras`.
    """
    matrices, intrinsics, sizes, distortions = [], [], [], []
    for frame in frames:
        what = f"{path}: frame {frame.name}"
        model = str(frame.values.get("camera_model") or "OPENCV").upper()
        if frame.values.get("is_fisheye"):  # instant-ngp's way to say it
            model = "OPENCV_FISHEYE"
        if model not in PINHOLE_MODELS and model != "PERSPECTIVE":
            raise _no_pinhole(path, model)
        try:
            matrices.append(matrix_of(frame.values, what))
            size = size_of(frame.values, what) or _stored_size(frame) or image_size
            if size is None:
                raise KeyError("w")
            intrinsics.append(intrinsics_of(frame.values, size, what))
            sizes.append(size)
            distortions.append([_coefficient(frame, key, what) for key in ("k1", "k2", "p1", "p2", "k3")])
        except KeyError as error:
            raise ValueError(
                f"{what} lacks {error}. Each needs transform_matrix and (itself or for all at once) fl_x or "
                "camera_angle_x; w and h unless its image is there."
            ) from error
        if frame.values.get("k4"):
            raise _no_pinhole(path, "OPENCV with k4")
    return _checked(
        NamedCameras(
            path=path,
            names=tuple(frame.name for frame in frames),
            matrices=np.stack(matrices),
            convention="opengl" if convention == "auto" else convention,
            K=torch.tensor(intrinsics, dtype=torch.float32),
            sizes=tuple(sizes),
            distortion=torch.tensor(distortions, dtype=torch.float32),
            applied_transform=applied_transform(frames[0].values, f"{path}"),
        )
    )


def _stored_size(frame: TransformsFrame) -> tuple[int, int] | None:
    return None if frame.image is None else image_size(frame.image, upright=False)


def _coefficient(frame: TransformsFrame, key: str, what: str) -> float:
    return number(frame.values, key, what) if frame.values.get(key) is not None else 0.0


def _read_colmap(folder: Path, convention: Convention) -> NamedCameras:
    images = read_model(folder)
    matrices = np.tile(np.eye(4), (len(images), 1, 1))
    for i, image in enumerate(images):
        what = f"{folder}: image {image.name}"
        try:
            matrices[i, :3, :3] = rotation_of(image.quaternion)
        except ValueError as error:
            raise ValueError(f"{what}: {error}.") from error
        matrices[i, :3, 3] = image.translation
        if image.camera.model not in PINHOLE_MODELS:
            raise _no_pinhole(folder, image.camera.model)
    K, distortions = zip(*(_colmap_intrinsics(image.camera, f"{folder}: image {image.name}") for image in images))
    return _checked(
        NamedCameras(
            path=folder,
            names=tuple(image.name for image in images),
            matrices=matrices,
            convention="opencv-inverse" if convention == "auto" else convention,
            K=torch.tensor(K, dtype=torch.float32),
            sizes=tuple((image.camera.height, image.camera.width) for image in images),
            distortion=torch.tensor(distortions, dtype=torch.float32),
        )
    )


def _colmap_intrinsics(camera: ColmapCamera, what: str) -> tuple[list[list[float]], list[float]]:
    single = camera.model in ("SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL")
    fx, *rest = camera.params
    fy, cx, cy, *extra = [fx, *rest] if single else rest
    values: dict[str, Any] = {"fl_x": fx, "fl_y": fy, "cx": cx, "cy": cy, "w": camera.width, "h": camera.height}
    size = size_of(values, what)
    assert size is not None
    distortion = (list(extra) + [0.0] * 5)[:5]
    if not np.isfinite(distortion).all():
        raise ValueError(f"{what}: its distortion {distortion} is not finite.")
    return intrinsics_of(values, size, what), distortion


def rows_by_folder(cameras: NamedCameras, data: Path) -> NamedCameras:
    """Of cameras whose images have one name in several folders, those of the folder that `data` is.

    Raises:
        ValueError: several have the same name, and no folder is called as `data`.
    """
    names = [bare_name(name) for name in cameras.names]
    if len(set(names)) == len(names):
        return cameras
    parts = [tuple(part.casefold() for part in name.replace("\\", "/").split("/")[:-1]) for name in cameras.names]
    here = tuple(part.casefold() for part in data.absolute().parts)
    for length in range(max(len(part) for part in parts), 0, -1):
        rows = [i for i, part in enumerate(parts) if part[-length:] == here[-length:] and len(part) >= length]
        if rows and len({names[i] for i in rows}) == len(rows):
            return subset(cameras, rows)
    twice = next(name for name in names if names.count(name) > 1)
    both = [name for name, bare in zip(cameras.names, names) if bare == twice]
    raise ValueError(
        f"{cameras.path} has cameras of images of one name in several folders ({both[0]} and {both[1]}), and none of "
        f"these folders is {data}. Give the folder of the images that are meant, or rename the images."
    )


def subset(cameras: NamedCameras, rows: Sequence[int]) -> NamedCameras:
    """The cameras in `rows`, in that order."""
    index = list(rows)
    return replace(
        cameras,
        names=tuple(cameras.names[i] for i in index),
        matrices=cameras.matrices[index],
        K=cameras.K[index],
        sizes=tuple(cameras.sizes[i] for i in index),
        distortion=cameras.distortion[index],
    )


def _checked(cameras: NamedCameras) -> NamedCameras:
    for name, matrix in zip(cameras.names, cameras.matrices):
        check_pose(matrix, f"{cameras.path}: the camera of {name}")
    R = cameras.matrices[:, :3, :3]
    rounded = np.abs(R @ R.transpose(0, 2, 1) - np.eye(3)).max(axis=(1, 2)) > 1e-6
    if rounded.any():
        cameras.matrices[rounded, :3, :3] = nearest_rotation(R[rounded])
    return cameras


def _no_pinhole(path: Path, model: str) -> ValueError:
    return ValueError(
        f"{path} has a camera of model {model}; {', '.join(sorted(PINHOLE_MODELS))} are understood. Undistort the "
        "images first, for example with COLMAP's image_undistorter."
    )
