"""Phones with a depth sensor: Record3D (`.r3d`), Stray Scanner, Polycam (raw data).

Record3D: a zip of `metadata` (JSON; `K` by columns, `poses` qx qy qz qw tx ty tz, camera-to-world with OpenGL axes),
`rgbd/0.jpg`, `0.depth` (LZFSE, float32 metres), `0.conf`. Stray Scanner: `odometry.csv`, camera-to-world with OpenCV
axes, `camera_matrix.csv`, `rgb.mp4`, `depth/000000.png` in millimetres. Polycam: `keyframes/cameras/*.json` with
`t_00` to `t_23`, camera-to-world with OpenGL axes, `images`, `depth` in millimetres, and the same `corrected_`.
"""

import csv
import io
import json
import zipfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from das3r_ns.dataparser.reconstructions.arrays import (
    MAX_IMAGE_PX,
    check_pixels,
    decode_grey,
    finite,
    known_depth,
    read_member,
    read_rows,
    read_text,
)
from das3r_ns.dataparser.reconstructions.poses import from_quaternions, pinhole
from das3r_ns.dataparser.reconstructions.types import DepthMap, FrameArray, Reconstruction
from das3r_ns.files.archives import UNREADABLE_ZIP
from das3r_ns.files.image_file import open_image
from das3r_ns.files.json_files import MAX_JSON_BYTES, read_json_object
from das3r_ns.files.regular import check_regular
from das3r_ns.files.values import intrinsics_of, number, size_of

SENSOR_CONFIDENCE = np.array([0.1, 0.5, 1.0], np.float32)
"""Of ARKit's levels low, medium and high."""


def is_record3d(path: Path) -> bool:
    if path.suffix.lower() not in (".r3d", ".zip") or not path.is_file():
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except UNREADABLE_ZIP:
        return path.suffix.lower() == ".r3d"  # damaged: the reader says so
    return "metadata" in names and any(name.startswith("rgbd/") for name in names)


def is_stray(path: Path) -> bool:
    return (path / "odometry.csv").is_file() and (path / "camera_matrix.csv").is_file()


def is_polycam(path: Path) -> bool:
    return any(
        (path / place / name).is_dir() for place in ("keyframes", "") for name in ("corrected_cameras", "cameras")
    )


def read_record3d(path: Path) -> Reconstruction:
    """
    Raises:
        ValueError: something is missing or of another kind.
    """
    check_regular(path)
    metadata = _json_member(path, "metadata")
    what = f"{path}: metadata"
    try:
        poses = np.array(metadata["poses"], np.float64)
        size = size_of(metadata, what)
        depth_size = int(number(metadata, "dh", what)), int(number(metadata, "dw", what))
        K = np.array(metadata["K"], np.float64).reshape(3, 3).T
        coefficients = metadata.get("perFrameIntrinsicCoeffs")
        if coefficients is not None:
            K = pinhole(np.array(coefficients, np.float64).reshape(len(poses), -1)[:, :4])
    except KeyError as error:
        raise ValueError(
            f"{what} lacks {error}, which Record3D writes. Is it an .r3d file of a newer version?"
        ) from error
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{what} does not hold the numbers that Record3D writes ({error}).") from error
    if size is None or poses.ndim != 2 or poses.shape[1] != 7:
        raise ValueError(f"{what} must hold w, h and poses of 7 numbers each; it has poses of {poses.shape}.")
    check_pixels(*depth_size, what)
    n = len(poses)
    poses, K = finite(poses, f"{what}: poses"), finite(np.broadcast_to(K, (n, 3, 3)), f"{what}: K")

    def depth(i: int) -> DepthMap:
        values = _lzfse(path, f"rgbd/{i}.depth", depth_size, np.float32)
        levels = _lzfse(path, f"rgbd/{i}.conf", depth_size, np.uint8) if _has(path, f"rgbd/{i}.conf") else None
        return DepthMap(known_depth(values), None if levels is None else SENSOR_CONFIDENCE[np.minimum(levels, 2)])

    def image(i: int) -> np.ndarray:

        data = _member(path, f"rgbd/{i}.jpg")
        try:
            with open_image(io.BytesIO(data)) as opened:
                check_pixels(opened.height, opened.width, f"{path}: rgbd/{i}.jpg")
                return np.asarray(opened.convert("RGB"))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise ValueError(f"{path}: rgbd/{i}.jpg is not an image ({error}).") from error

    fps = number(metadata, "fps", what) if metadata.get("fps") is not None else 30.0
    if fps <= 0:
        raise ValueError(f"{what}: fps is {fps:g}, and images follow one another at more than 0 a second.")
    return Reconstruction(
        "Record3D", path, from_quaternions(poses[:, 4:], poses[:, :4], f"{what}: poses"), "opengl", K, size, "order",
        depth=depth if _has(path, "rgbd/0.depth") else None,
        frames=FrameArray(n, image, fps),
        files=(path,),
    )  # fmt: skip


def read_stray(path: Path) -> Reconstruction:
    """
    Raises:
        ValueError: something is missing or of another kind.
    """
    K = read_rows(path / "camera_matrix.csv", 3, "3 numbers (3x3, by rows)")
    if K.shape != (3, 3):
        raise ValueError(f"{path / 'camera_matrix.csv'} has {len(K)} rows and not 3.")
    try:
        table = list(csv.DictReader(read_text(path / "odometry.csv"), skipinitialspace=True))
    except csv.Error as error:
        raise ValueError(f"{path / 'odometry.csv'} is not a table of numbers ({error}).") from error
    wanted = ("frame", "x", "y", "z", "qx", "qy", "qz", "qw")
    missing = [name for name in wanted if not table or name not in table[0]]
    if missing:
        raise ValueError(f"{path / 'odometry.csv'} lacks the column {missing[0]!r} that Stray Scanner writes.")
    try:
        rows = np.array([[float(row[name]) for name in wanted] for row in table])
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path / 'odometry.csv'} holds a value that is not a number ({error}).") from error
    rows = finite(rows, str(path / "odometry.csv"))
    numbers = tuple(int(i) for i in rows[:, 0])
    video = path / "rgb.mp4"
    if not video.is_file():
        raise ValueError(f"{path} lacks rgb.mp4, which says of which size the images are.")
    from das3r_ns.video.video_file import index_file

    def depth(i: int) -> DepthMap:
        file, levels = (path / folder / f"{numbers[i]:06d}.png" for folder in ("depth", "confidence"))
        return _millimetres(file, levels, (0, 1, 2))

    return Reconstruction(
        "Stray Scanner", path, from_quaternions(rows[:, 1:4], rows[:, 4:], str(path / "odometry.csv")), "opencv",
        np.tile(K, (len(rows), 1, 1)), index_file(video).size, "numbers",
        numbers=numbers,
        depth=depth if (path / "depth").is_dir() else None,
        frames=video,
        files=(video, path / "odometry.csv", path / "camera_matrix.csv", *_all(path / "depth", path / "confidence")),
    )  # fmt: skip


def read_polycam(path: Path) -> Reconstruction:
    """
    Raises:
        ValueError: something is missing or of another kind.
    """
    root = path / "keyframes" if (path / "keyframes").is_dir() else path
    corrected = (root / "corrected_cameras").is_dir() and (root / "corrected_images").is_dir()
    prefix = "corrected_" if corrected else ""
    cameras = sorted((root / f"{prefix}cameras").glob("*.json"))
    if len(cameras) < 2:
        raise ValueError(f"{root / f'{prefix}cameras'} holds {len(cameras)} cameras (*.json), and 2 are needed.")
    matrices, K, sizes = [], [], []
    for file in cameras:
        content = read_json_object(file)
        try:
            rows = [[number(content, f"t_{r}{c}", str(file)) for c in range(4)] for r in range(3)]
            values = {new: content[old] for old, new in (("fx", "fl_x"), ("fy", "fl_y"), ("cx", "cx"), ("cy", "cy"))}
            size = size_of({"h": content["height"], "w": content["width"]}, str(file))
        except KeyError as error:
            raise ValueError(f"{file} lacks {error}, which Polycam writes.") from error
        assert size is not None
        matrices.append([*rows, [0, 0, 0, 1]])
        K.append(intrinsics_of(values, size, str(file)))
        sizes.append(size)
    if len(set(sizes)) > 1:
        raise ValueError(f"{root}: cameras are of images of {sizes[0][1]}x{sizes[0][0]} and of other sizes.")

    def depth(i: int) -> DepthMap:
        file, levels = (root / folder / f"{cameras[i].stem}.png" for folder in ("depth", "confidence"))
        return _millimetres(file, levels, (0, 127, 255))

    return Reconstruction(
        "Polycam", path, np.array(matrices, np.float64), "opengl", np.array(K), sizes[0], "names",
        names=tuple(file.stem for file in cameras),
        depth=depth if (root / "depth").is_dir() else None,
        frames=root / f"{prefix}images",
        files=(*cameras, *_all(root / "depth", root / "confidence")),
    )  # fmt: skip


def _millimetres(depth: Path, levels: Path, values: tuple[int, int, int]) -> DepthMap:
    if not depth.is_file():
        return DepthMap(np.zeros((1, 1), np.float32))
    check_regular(depth)
    found = known_depth(decode_grey(depth.read_bytes(), str(depth)).astype(np.float32) / 1000)
    if not levels.is_file():
        return DepthMap(found)
    level = decode_grey(levels.read_bytes(), str(levels))
    if level.shape != found.shape:
        raise ValueError(f"{levels} has {level.shape[1]}x{level.shape[0]} pixels, its depth has others.")
    return DepthMap(found, SENSOR_CONFIDENCE[np.digitize(level, [(a + b + 1) // 2 for a, b in pairwise(values)])])


def _all(*folders: Path) -> list[Path]:
    return [file for folder in folders for file in sorted(folder.glob("*.png"))]


def _has(path: Path, name: str) -> bool:
    with zipfile.ZipFile(path) as archive:
        return name in archive.namelist()


def _member(path: Path, name: str) -> bytes:
    return read_member(path, name, 4 * MAX_IMAGE_PX, "which Record3D writes")


def _json_member(path: Path, name: str) -> dict[str, Any]:
    data = _member(path, name)
    try:
        content = json.loads(data[:MAX_JSON_BYTES].decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {name} is not JSON ({error}).") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: {name} is not a JSON object.")
    return content


def _lzfse(path: Path, name: str, size: tuple[int, int], dtype: type) -> np.ndarray:
    try:
        import liblzfse
    except ImportError as error:
        raise ImportError("Record3D's depth is compressed with LZFSE. Run: pip install pyliblzfse") from error
    try:
        data = liblzfse.decompress(_member(path, name))
    except liblzfse.error as error:
        raise ValueError(f"{path}: {name} cannot be decompressed ({error}).") from error
    wanted = size[0] * size[1] * np.dtype(dtype).itemsize
    if len(data) != wanted:
        raise ValueError(f"{path}: {name} holds {len(data)} bytes, {size[1]}x{size[0]} pixels need {wanted}.")
    return np.frombuffer(data, dtype).reshape(size)
