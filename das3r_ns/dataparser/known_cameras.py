"""Cameras that the user already has: read from a `transforms.json` or a COLMAP model, matched to the frames, and the
lens distortion taken out of the frames.

The files have OpenGL axes (nerfstudio) or OpenCV axes, world-to-camera (COLMAP); what leaves this module has OpenCV
axes, camera-to-world, no distortion.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from das3r_ns import geometry
from das3r_ns.video.clip import Clip

PINHOLE_MODELS = frozenset({"SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV"})
"""COLMAP's names (nerfstudio's too) of the camera models that become a pinhole once distortion is taken out."""


@dataclass(frozen=True)
class NamedCameras:
    """Cameras as a file lists them."""

    names: tuple[str, ...]
    """Picture of each camera as the file names it."""
    T_world_camera: Float[Tensor, "n 4 4"]
    """Camera-to-world, OpenCV axes."""
    K: Float[Tensor, "n 3 3"]
    """Pixels of the pictures that the file speaks of."""
    sizes: tuple[tuple[int, int], ...]
    """Height and width of those pictures."""
    distortion: Float[Tensor, "n 5"]
    """k1 k2 p1 p2 k3, OpenCV's order."""


def read_cameras(path: Path) -> NamedCameras:
    """Read a `transforms.json` (or the folder that holds one), or a folder with a COLMAP model.

    Raises:
        FileNotFoundError: there is nothing at `path`.
        ValueError: it is neither, is damaged, or has cameras that are no pinholes (fisheye, panorama).
    """
    if not path.exists():
        raise FileNotFoundError(f"--cameras {path} does not exist. Give a transforms.json or a COLMAP model's folder.")
    if path.suffix == ".json":
        return _read_transforms(path)
    if (path / "transforms.json").is_file():
        return _read_transforms(path / "transforms.json")
    for folder in (path, path / "sparse" / "0", path / "colmap" / "sparse" / "0"):
        if (folder / "cameras.bin").is_file() or (folder / "cameras.txt").is_file():
            return _read_colmap(folder)
    raise ValueError(f"{path} holds neither transforms.json nor a COLMAP model (cameras.bin or cameras.txt).")


def match_cameras(cameras: NamedCameras, names: tuple[str, ...]) -> list[int | None]:
    """Row in `cameras` of each frame, by file name (the suffix may differ); None where a frame has no camera.

    Raises:
        ValueError: no frame, or only one, has a camera.
    """
    rows = {Path(name).stem: i for i, name in enumerate(cameras.names)}
    if len(rows) != len(cameras.names):
        raise ValueError("two cameras belong to pictures of the same name in different folders: rename the pictures.")
    matched = [rows.get(Path(name).stem) for name in names]
    if sum(row is not None for row in matched) < 2:
        raise ValueError(
            f"the cameras do not fit the frames: only {sum(row is not None for row in matched)} of {len(names)} frames "
            f"have one (first frame: {names[0]}, first camera's picture: {cameras.names[0]}). They are matched by name."
        )
    return matched


def cameras_of_clip(
    cameras: NamedCameras, rows: list[int], size: tuple[int, int]
) -> tuple[Float[Tensor, "n 4 4"], Float[Tensor, "n 3 3"], Float[Tensor, "n 5"]]:
    """T_world_camera, K in pixels of frames of `size`, and distortion, of the cameras in `rows`.

    Raises:
        ValueError: the cameras speak of pictures of other proportions.
    """
    K = cameras.K[rows].clone()
    for i, row in enumerate(rows):
        height, width = cameras.sizes[row]
        if abs(width * size[0] - height * size[1]) > max(height, width, *size):
            raise ValueError(
                f"the camera of {cameras.names[row]} is for pictures of {width}x{height} pixels, the frames have "
                f"{size[1]}x{size[0]}: other proportions. Give the pictures that the cameras were computed for."
            )
        K[i] = geometry.rescale_intrinsics(K[i], (height, width), size)
    return cameras.T_world_camera[rows], K, cameras.distortion[rows]


def undistort(
    clip: Clip,
    K: Float[Tensor, "n 3 3"],
    distortion: Float[Tensor, "n 5"],
    masks: Float[Tensor, "n h w"] | None = None,
) -> tuple[Clip, Float[Tensor, "n 3 3"], Float[Tensor, "n h w"] | None]:
    """Frames (and masks) without lens distortion, at the same size and without empty borders, and their intrinsics."""
    if not distortion.any():
        return clip, K, masks
    height, width = clip.size
    frames, K_new = clip.frames.numpy().copy(), K.clone()
    straight = None if masks is None else masks.numpy().copy()
    half = np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])  # OpenCV counts from the first pixel's centre
    maps: dict[bytes, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
    for i in range(len(clip)):
        K_cv = K[i].double().numpy() - half
        coefficients = distortion[i].double().numpy()
        key = K_cv.tobytes() + coefficients.tobytes()
        if key not in maps:  # mostly one lens for the whole clip
            K_straight, _ = cv2.getOptimalNewCameraMatrix(K_cv, coefficients, (width, height), 0)
            x, y = cv2.initUndistortRectifyMap(K_cv, coefficients, np.eye(3), K_straight, (width, height), cv2.CV_32FC1)
            maps[key] = (np.asarray(K_straight), x, y)
        K_straight, x, y = maps[key]
        frames[i] = cv2.remap(frames[i], x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        if straight is not None:
            straight[i] = cv2.remap(straight[i], x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        K_new[i] = torch.from_numpy(K_straight + half).to(K_new)
    return (
        replace(clip, frames=torch.from_numpy(frames)),
        K_new,
        None if straight is None else torch.from_numpy(straight),
    )


def _read_transforms(path: Path) -> NamedCameras:
    content = read_json(path)
    frames = content.get("frames")
    if not isinstance(frames, list) or not frames:
        raise ValueError(f"{path} lists no frames: it is no nerfstudio transforms.json.")
    names, matrices, intrinsics, sizes, distortions = [], [], [], [], []
    for frame in frames:
        values = {**content, **frame}
        model = values.get("camera_model", "OPENCV")
        if model not in PINHOLE_MODELS:
            raise _no_pinhole(path, model)
        try:
            names.append(str(values["file_path"]))
            matrices.append(np.array(values["transform_matrix"], np.float64).reshape(-1, 4)[:3])
            fx, cx, cy = (float(values[key]) for key in ("fl_x", "cx", "cy"))
            intrinsics.append([[fx, 0, cx], [0, float(values.get("fl_y", fx)), cy], [0, 0, 1]])
            sizes.append((int(values["h"]), int(values["w"])))
        except (KeyError, ValueError, TypeError) as error:
            raise ValueError(
                f"{path}: frame {frame.get('file_path', '?')} lacks a value or has a wrong one ({error}). Each needs "
                "file_path, transform_matrix and (itself or for all at once) fl_x, fl_y, cx, cy, w, h."
            ) from error
        if values.get("k4"):
            raise _no_pinhole(path, "OPENCV with k4")
        distortions.append([float(values.get(k) or 0) for k in ("k1", "k2", "p1", "p2", "k3")])
    T_gl = torch.eye(4, dtype=torch.float64).repeat(len(names), 1, 1)
    T_gl[:, :3] = torch.from_numpy(np.stack(matrices))
    return _checked(
        NamedCameras(
            names=tuple(names),
            T_world_camera=geometry.to_opengl(T_gl).float(),
            K=torch.tensor(intrinsics, dtype=torch.float32),
            sizes=tuple(sizes),
            distortion=torch.tensor(distortions, dtype=torch.float32),
        ),
        path,
    )


def _read_colmap(folder: Path) -> NamedCameras:
    import pycolmap

    try:
        model = pycolmap.Reconstruction(str(folder))
    except (ValueError, RuntimeError, IndexError) as error:
        raise ValueError(f"{folder} cannot be read as a COLMAP model ({error}).") from error
    images = sorted(model.images.values(), key=lambda image: image.name)
    if not images:
        raise ValueError(f"the COLMAP model in {folder} has no image.")
    T = torch.eye(4, dtype=torch.float64).repeat(len(images), 1, 1)
    K, sizes, distortions = [], [], []
    for i, image in enumerate(images):
        camera = model.cameras[image.camera_id]
        name = camera.model.name
        if name not in PINHOLE_MODELS:
            raise _no_pinhole(folder, name)
        T[i, :3] = torch.from_numpy(image.cam_from_world().inverse().matrix())
        K.append(camera.calibration_matrix())
        sizes.append((int(camera.height), int(camera.width)))
        extra = list(camera.params[{"SIMPLE_PINHOLE": 3, "SIMPLE_RADIAL": 3, "RADIAL": 3}.get(name, 4) :])
        distortions.append((extra + [0.0] * 5)[:5])
    return _checked(
        NamedCameras(
            names=tuple(image.name for image in images),
            T_world_camera=T.float(),
            K=torch.from_numpy(np.stack(K)).float(),
            sizes=tuple(sizes),
            distortion=torch.tensor(distortions, dtype=torch.float32),
        ),
        folder,
    )


def read_json(path: Path) -> dict[str, Any]:
    """
    Raises:
        ValueError: the file is no JSON object.
    """
    try:
        content = json.loads(path.read_bytes())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no valid JSON ({error}).") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is no nerfstudio transforms.json: it holds a {type(content).__name__}.")
    return content


def _checked(cameras: NamedCameras, path: Path) -> NamedCameras:
    if not (torch.isfinite(cameras.T_world_camera).all() and torch.isfinite(cameras.K).all()):
        raise ValueError(f"{path} holds a camera with values that are not finite.")
    R = cameras.T_world_camera[:, :3, :3]
    skewed = (R @ R.transpose(1, 2) - torch.eye(3)).abs().amax(dim=(1, 2)) > 1e-2
    if skewed.any() or (torch.linalg.det(R) < 0).any():
        raise ValueError(
            f"{path}: the transform of {cameras.names[int(skewed.int().argmax())]} is no rotation and translation "
            "(scaled or mirrored). Camera-to-world matrices with OpenGL axes are expected."
        )
    return cameras


def _no_pinhole(path: Path, model: str) -> ValueError:
    return ValueError(
        f"{path} has a camera of model {model}; {', '.join(sorted(PINHOLE_MODELS))} are understood. Undistort the "
        "pictures first, for example with COLMAP's image_undistorter."
    )
