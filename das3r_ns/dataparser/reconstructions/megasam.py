"""MegaSaM: `outputs/<scene>_droid.npz`, `outputs_cvd/<scene>_sgd_cvd_hr.npz`, or the folder `reconstructions/<scene>`;
and DROID-SLAM, whose folder and images are alike.

The archive: `images` (n h w 3) RGB, `depths` (n h w), `intrinsic` (3 3), `cam_c2w` (n 4 4) with OpenCV axes. The
folder: `images.npy` (n 3 h w) BGR, `disps.npy`, `poses.npy` (n 7) world-to-camera `tx ty tz qx qy qz qw`,
`intrinsics.npy` (n 4), `motion_prob.npy`, which weighs the bundle adjustment: high is static.
"""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from das3r_ns.dataparser.reconstructions.arrays import (
    Archive,
    check_room,
    check_shape,
    finite,
    from_inverse,
    keys_of,
    known_depth,
    read_npy,
    whole_numbers,
)
from das3r_ns.dataparser.reconstructions.poses import from_quaternions, pinhole
from das3r_ns.dataparser.reconstructions.types import DepthMap, FrameArray, Framing, Reconstruction
from das3r_ns.files.regular import check_regular

KEYS = frozenset(("depths", "intrinsic", "cam_c2w"))
FOLDER_FILES = ("poses.npy", "disps.npy", "intrinsics.npy")
AREA_PX = 384 * 512
"""To which DROID-SLAM brings every image before it cuts sides to multiples of 8."""


def droid_cut(frame: tuple[int, int], saved: tuple[int, int]) -> Framing | None:
    """About `AREA_PX` pixels, then the right and lower border cut to multiples of 8."""
    scale = (AREA_PX / (frame[0] * frame[1])) ** 0.5
    resized = (int(frame[0] * scale), int(frame[1] * scale))
    cut = (resized[0] - resized[0] % 8, resized[1] - resized[1] % 8)
    return Framing(resized, 0, 0) if cut == saved else None


def is_archive(path: Path) -> bool:
    return path.suffix == ".npz" and set(keys_of(path)) >= KEYS


def is_folder(path: Path) -> bool:
    return path.is_dir() and all((path / name).is_file() for name in FOLDER_FILES)


def is_pth(path: Path) -> bool:
    return path.suffix in (".pth", ".pt") and path.is_file()


def read_archive(path: Path) -> Reconstruction:
    """
    Raises:
        ValueError: an array is missing or of another kind.
    """
    archive = Archive(path, "MegaSaM")
    archive.require("images", *sorted(KEYS))
    matrices = finite(archive.read("cam_c2w", ("frames", 4, 4)), f"{path}: cam_c2w")
    n = len(matrices)
    K = finite(archive.read("intrinsic", (3, 3)), f"{path}: intrinsic")
    _, height, width, _ = archive.shape_of("images", (n, "height", "width", 3))
    archive.shape_of("depths", (n, height, width))
    kept: dict[str, np.ndarray] = {}

    def array(key: str, kinds: str) -> np.ndarray:
        if key not in kept:
            kept[key] = archive.read(key, archive.shape(key), kinds)
        return kept[key]

    return Reconstruction(
        "MegaSaM", path, matrices, "opencv", np.tile(K, (n, 1, 1)), (height, width), "order",
        framing=droid_cut,
        depth=lambda i: DepthMap(known_depth(array("depths", "f")[i])),
        frames=FrameArray(n, lambda i: array("images", "u")[i]),
        files=(path,),
    )  # fmt: skip


def read_folder(path: Path) -> Reconstruction:
    """
    Raises:
        ValueError: an array is missing or of another kind.
    """
    stamped = (path / "tstamps.npy").is_file()
    tool = "DROID-SLAM" if stamped else "MegaSaM"
    files = [path / name for name in (*FOLDER_FILES, "images.npy", "motion_prob.npy", "tstamps.npy")]
    arrays = {
        "poses": read_npy(path / "poses.npy", ("frames", 7), tool),
        "intrinsics": read_npy(path / "intrinsics.npy", ("frames", 4), tool),
        "disps": read_npy(path / "disps.npy", ("frames", "height", "width"), tool),
    }
    if (path / "images.npy").is_file():
        arrays["images"] = read_npy(path / "images.npy", ("frames", 3, "height", "width"), tool, "fu")
    if stamped:
        arrays["tstamps"] = read_npy(path / "tstamps.npy", ("frames",), tool, "fiu")
    moving = None
    if (path / "motion_prob.npy").is_file():
        static = read_npy(path / "motion_prob.npy", (len(arrays["poses"]), "height/8", "width/8"), tool)
        moving = lambda i: 1 - np.clip(np.asarray(static[i], np.float32), 0, 1)  # noqa: E731
    return _of_arrays(tool, path, arrays, tuple(file for file in files if file.is_file()), moving)


def read_pth(path: Path) -> Reconstruction:
    """DROID-SLAM's `--reconstruction_path`.

    Raises:
        ValueError: it is not such a file.
    """
    check_regular(path)
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is not a file of torch 1.6 or later (or was not copied whole).")
    check_room(path.stat().st_size, str(path))
    try:
        stored: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch's reader raises nearly anything, of pickles that are refused among others
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{path} cannot be read as tensors: {reason[:120]}") from error
    wanted = {"poses": ("frames", 7), "intrinsics": ("frames", 4), "disps": ("frames", "height", "width")}
    arrays: dict[str, np.ndarray] = {}
    for key, shape in {**wanted, "images": ("frames", 3, "height", "width"), "tstamps": ("frames",)}.items():
        value = stored.get(key) if isinstance(stored, dict) else None
        if isinstance(value, torch.Tensor):
            check_shape(f"{path}: {key}", tuple(value.shape), shape)
            arrays[key] = _numbers_of(value, f"{path}: {key}")
        elif key in wanted:
            found = ", ".join(map(str, stored)) if isinstance(stored, dict) else type(stored).__name__
            raise ValueError(f"{path} lacks {key!r} that DROID-SLAM writes (it holds {found[:80]}).")
    return _of_arrays("DROID-SLAM", path, arrays, (path,), None)


def _numbers_of(tensor: torch.Tensor, what: str) -> np.ndarray:
    """
    Raises:
        ValueError: it is not of plain real numbers, or stands for more of them than are stored.
    """
    if tensor.layout is not torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
        raise ValueError(f"{what} is not a tensor of plain numbers ({tensor.layout}, {tensor.device}).")
    if tensor.is_complex() or (tensor.is_floating_point() and tensor.element_size() == 1):
        raise ValueError(f"{what} holds {tensor.dtype}; floats are expected.")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise ValueError(f"{what} claims to be larger than what is stored of it.")
    tensor = tensor.detach()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).resolve_neg().numpy()


def _of_arrays(
    tool: str, path: Path, arrays: dict[str, np.ndarray], files: tuple[Path, ...], moving: Any
) -> Reconstruction:
    poses = finite(arrays["poses"], f"{path}: poses")
    intrinsics = finite(arrays["intrinsics"], f"{path}: intrinsics")
    disps = arrays["disps"]
    n, height, width = len(poses), *disps.shape[1:]
    for key in ("intrinsics", "disps", *(key for key in ("images", "tstamps") if key in arrays)):
        if len(arrays[key]) != n:
            raise ValueError(f"{path}: {key} is of {len(arrays[key])} frames, poses are of {n}.")
    if "images" in arrays:
        height, width = arrays["images"].shape[2:]
    # DROID-SLAM keeps them at an eighth of the images' size, MegaSaM at all of it: the middle tells.
    if np.median(intrinsics[:, 2]) < width / 4:
        intrinsics = 8 * intrinsics
    images, stamps = arrays.get("images"), arrays.get("tstamps")

    def image(i: int) -> np.ndarray:
        assert images is not None
        return np.ascontiguousarray(np.asarray(images[i]).transpose(1, 2, 0)[..., ::-1]).astype(np.uint8)

    return Reconstruction(
        tool, path, from_quaternions(poses[:, :3], poses[:, 3:], f"{path}: poses"), "opencv-inverse",
        pinhole(intrinsics), (height, width), "order" if stamps is None else "numbers",
        numbers=None if stamps is None else whole_numbers(stamps, f"{path}: tstamps"),
        framing=droid_cut,
        keyframes=stamps is not None,
        depth=lambda i: DepthMap(from_inverse(disps[i])),
        moving=moving,
        frames=None if images is None else FrameArray(n, image),
        files=files,
    )  # fmt: skip
