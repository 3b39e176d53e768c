"""Write a scene folder, whole or not at all."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import UInt8
from plyfile import PlyData, PlyElement
from torch import Tensor

from das3r_ns import __version__, geometry
from das3r_ns.files.json_files import write_json
from das3r_ns.files.names import MAX_NAME_BYTES, short_name
from das3r_ns.files.whole import telling_of_full_disk
from das3r_ns.runtime.parallel import parallel_for
from das3r_ns.runtime.progress import stage
from das3r_ns.scene.types import DYNAMIC_THRESHOLD, FORMAT_VERSION, PointCloud, Scene, frame_name


def write_scene(
    scene: Scene,
    frames: UInt8[Tensor, "n H W 3"],
    folder: Path,
    overwrite: bool = False,
    complete: Callable[[Path], object] | None = None,
) -> Path:
    """Write a scene folder, whole or not at all.

    Args:
        frames: the images, RGB, at `scene.image_size`, without the distortion of `scene.lens`.
        overwrite: replace a scene folder that is there. Anything else that is there is never replaced.
        complete: called with the new scene folder before it takes its place, while one that it replaces is still there.

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
                else "move it away: it is not a scene folder."
            )
        )
    with written_whole(folder, "the scene") as temporary:
        _write_maps(scene, frames, temporary)
        _write_points(scene.points, temporary / "sparse_pc.ply")
        write_json(
            temporary / "predictor.json",
            {
                **scene.provenance,
                "format_version": FORMAT_VERSION,
                "das3r_ns_version": __version__,
                "fps": scene.fps,
                **({} if scene.times_s is None else {"times_s": [round(time, 6) for time in scene.times_s]}),
                "names": list(scene.names),
                "pose_known": scene.pose_known.tolist(),
                "lens": None if scene.lens is None else asdict(scene.lens),
            },
        )
        write_json(temporary / "transforms.json", _transforms(scene))
        if complete is not None:
            complete(temporary)
    return folder


@contextmanager
def written_whole(
    folder: Path, what: str = "the folder", remedy: str = "Make room there, or choose another place."
) -> Iterator[Path]:
    """Give a temporary folder beside `folder` to fill; move it there when the block ends well, else remove it.

    Args:
        what: is written, and what to do where there is no room for it; see `telling_of_full_disk`.

    Raises:
        DiskFullError: there is no room; what was at `folder` is still there.
    """
    folder = Path(folder).absolute()  # `.` has no name
    with telling_of_full_disk(folder.parent, f"{what} {folder.name}", remedy), _written_whole(folder) as temporary:
        yield temporary


@contextmanager
def _written_whole(folder: Path) -> Iterator[Path]:
    folder.parent.mkdir(parents=True, exist_ok=True)
    name = working_name(folder)
    temporary = Path(tempfile.mkdtemp(prefix=f".{name}.", suffix=".part", dir=folder.parent))
    try:
        os.chmod(temporary, 0o777 & ~_umask())  # mkdtemp makes it private; a result is as readable as any file
        yield temporary
        retired = None
        if folder.exists():
            retired = Path(tempfile.mkdtemp(prefix=f".{name}.", suffix=".old", dir=folder.parent))
        try:
            if retired is not None:
                os.replace(folder, retired / "old")
            os.replace(temporary, folder)
        except OSError:
            if retired is not None:
                if (retired / "old").exists():
                    os.replace(retired / "old", folder)
                retired.rmdir()
            raise
        if retired is not None:
            shutil.rmtree(retired, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def working_name(folder: Path) -> str:
    """Middle of the names of the hidden folders and the lock that lie beside a folder while it is written."""
    return short_name(folder.name, MAX_NAME_BYTES - 55)


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
    if (scene.depth < 0).any():
        raise ValueError(f"depth has the value {float(scene.depth.min()):g}: this scene would not train")


def _write_maps(scene: Scene, frames: Tensor, folder: Path) -> None:
    for name in ("images", "masks", "dynamic_prob", "depth", "confidence"):
        (folder / name).mkdir()
    height, width = scene.image_size

    def write(i: int) -> None:
        name = frame_name(i)
        probability = scene.dynamic_prob[i].numpy()
        large = cv2.resize(probability, (width, height), interpolation=cv2.INTER_LINEAR)
        keep = np.where(large > DYNAMIC_THRESHOLD, 0, 255).astype(np.uint8)
        _write_image(folder / "images" / f"{name}.png", frames[i].numpy()[..., ::-1])
        _write_image(folder / "masks" / f"{name}.png", keep)
        _write_image(
            folder / "dynamic_prob" / f"{name}.png", np.round(probability.clip(0, 1) * 65535).astype(np.uint16)
        )
        np.save(folder / "depth" / f"{name}.npy", scene.depth[i].numpy().astype(np.float32))
        confidence = scene.confidence[i].numpy().clip(0, np.finfo(np.float16).max)  # else it would become infinite
        np.save(folder / "confidence" / f"{name}.npy", confidence.astype(np.float16))
        bar.advance()

    with stage(f"Writing {len(scene)} frames", len(scene)) as bar:
        parallel_for(write, len(scene))


def _write_image(path: Path, image: np.ndarray) -> None:
    encoded, buffer = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 2])
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
        "applied_transform": scene.applied_transform[:3].tolist(),
        "frames": frames,
    }  # fmt: skip
