"""Depth Anything 3: `exports/npz/results.npz` (or `mini_npz`), and the folder of `da3_streaming`.

The archive: `depth` (n h w), `extrinsics` (n 3 4) world-to-camera with OpenCV axes, `intrinsics` (n 3 3), `conf`,
`image` (n h w 3). Images are stretched to sides that are multiples of 14, not cut. Streaming: `camera_poses.txt` 16
numbers a row, camera-to-world; `intrinsic.txt` fx fy cx cy; `results_output/frame_0.npz` with `depth` and `conf` (from
0 on), whose scale is that of their chunk and not that of the path.
"""

from pathlib import Path

import numpy as np

from das3r_ns.dataparser.file_names import last_number
from das3r_ns.dataparser.reconstructions.arrays import Archive, finite, keys_of, known_depth, read_rows
from das3r_ns.dataparser.reconstructions.poses import pinhole, with_last_row
from das3r_ns.dataparser.reconstructions.types import DepthMap, FrameArray, Reconstruction

PLACES = ("", "exports/npz", "exports/mini_npz", "npz", "mini_npz")


def _archive_of(path: Path) -> Path | None:
    candidates = [path] if path.is_file() else [path / place / "results.npz" for place in PLACES]
    for file in candidates:
        keys = keys_of(file) if file.suffix == ".npz" and file.is_file() else ()
        if "depth" in keys and (file.name == "results.npz" or {"extrinsics", "intrinsics"} <= set(keys)):
            return file
    return None


def is_export(path: Path) -> bool:
    return _archive_of(path) is not None


def is_streaming(path: Path) -> bool:
    return (path / "camera_poses.txt").is_file() and (path / "intrinsic.txt").is_file()


def read_export(path: Path) -> Reconstruction:
    """
    Raises:
        ValueError: an array is missing (the monocular models write no cameras) or of another kind.
    """
    file = _archive_of(path)
    assert file is not None
    archive = Archive(file, "Depth Anything 3")
    if "extrinsics" not in archive.keys or "intrinsics" not in archive.keys:
        raise ValueError(
            f"{file} holds depth without cameras (extrinsics, intrinsics): it was written by a monocular model of "
            "Depth Anything 3. Use one of its any-view or nested models."
        )
    n, height, width = archive.shape_of("depth", ("frames", "height", "width"))
    rows = archive.shape("extrinsics")[-2:]
    matrices = finite(archive.read("extrinsics", (n, 4 if rows == (4, 4) else 3, 4)), f"{file}: extrinsics")
    K = finite(archive.read("intrinsics", (n, 3, 3)), f"{file}: intrinsics")
    for key in ("conf", "image"):
        if key in archive.keys:
            archive.shape_of(key, (n, height, width, *((3,) if key == "image" else ())))
    kept: dict[str, np.ndarray] = {}

    def array(key: str, kinds: str = "f") -> np.ndarray:
        if key not in kept:
            kept[key] = archive.read(key, archive.shape(key), kinds)
        return kept[key]

    def depth(i: int) -> DepthMap:
        values = known_depth(array("depth")[i])
        if "conf" not in archive.keys:
            return DepthMap(values)
        return DepthMap(values, (1 - 1 / np.maximum(np.nan_to_num(array("conf")[i]), 1)).astype(np.float32))

    base = file.parents[2] if file.parent.parent.name == "exports" else file.parent
    given = base / "input_images"
    frames = given if given.is_dir() else None
    if frames is None and "image" in archive.keys:
        frames = FrameArray(n, lambda i: array("image", "u")[i])
    return Reconstruction(
        "Depth Anything 3", file, with_last_row(matrices), "opencv-inverse", K, (height, width), "order",
        depth=depth, frames=frames, files=(file,),
    )  # fmt: skip


def read_streaming(path: Path) -> Reconstruction:
    """
    Raises:
        ValueError: a file is missing or of another kind.
    """
    rows = read_rows(path / "camera_poses.txt", 16, "16 numbers (4x4 camera-to-world, by rows)")
    lenses = read_rows(path / "intrinsic.txt", 4, "4 numbers (fx fy cx cy)")
    n = len(rows)
    if len(lenses) != n:
        raise ValueError(f"{path / 'intrinsic.txt'} has {len(lenses)} rows, camera_poses.txt has {n}.")
    found = {last_number(file.stem): file for file in (path / "results_output").glob("frame_*.npz")}
    tool = "Depth Anything 3 (streaming)"
    if not found:
        raise ValueError(f"{path / 'results_output'} holds no frame_*.npz, which say of which size the images are.")
    size = Archive(next(iter(found.values())), tool).shape_of("depth", ("height", "width"))

    def depth(i: int) -> DepthMap:
        if i not in found:
            return DepthMap(np.zeros(size, np.float32))
        archive = Archive(found[i], tool)
        values = known_depth(archive.read("depth", size))
        if "conf" not in archive.keys:
            return DepthMap(values)
        raw = np.maximum(np.nan_to_num(archive.read("conf", size)), 0)
        return DepthMap(values, (raw / (1 + raw)).astype(np.float32))

    def image(i: int) -> np.ndarray:
        if i not in found:
            raise ValueError(f"{path / 'results_output'} lacks frame_{i}.npz.")
        return Archive(found[i], tool).read("image", (*size, 3), "u")

    return Reconstruction(
        tool, path, rows.reshape(-1, 4, 4), "opencv", pinhole(lenses), (size[0], size[1]), "order",
        depth=depth,
        frames=FrameArray(n, image),
        files=(path / "camera_poses.txt", path / "intrinsic.txt", *found.values()),
    )  # fmt: skip
