"""COLMAP models: where they lie in a project, and the cameras in them.

Read here and not by pycolmap, which reads all points too (hundreds of megabytes, of no use here), and which waits for
ever, or makes up a camera, where a damaged file promises more than it holds. Poses of images in rigs are in `images` as
those of all others are, so `rigs` and `frames` need no reading.

Format: https://colmap.github.io/format.html. Poses are world-to-camera, OpenCV axes; pixels count from the corner of
the image.
"""

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from das3r_ns.files.regular import check_regular

PARAMETERS = {
    "SIMPLE_PINHOLE": 3,
    "PINHOLE": 4,
    "SIMPLE_RADIAL": 4,
    "RADIAL": 5,
    "OPENCV": 8,
    "OPENCV_FISHEYE": 8,
    "FULL_OPENCV": 12,
    "FOV": 5,
    "SIMPLE_RADIAL_FISHEYE": 4,
    "RADIAL_FISHEYE": 5,
    "THIN_PRISM_FISHEYE": 12,
    "RAD_TAN_THIN_PRISM_FISHEYE": 16,
    "SIMPLE_DIVISION": 4,
    "DIVISION": 5,
    "SIMPLE_FISHEYE": 3,
    "FISHEYE": 4,
    "EUCM": 6,
    "EQUIRECTANGULAR": 2,
}
"""Number of parameters of each camera model, in the order of their numbers in binary files."""

PLACES = ("", "sparse", "sparse/*", "colmap", "colmap/sparse", "colmap/sparse/*", "dense/sparse", "dense/*/sparse", "*")
"""Where models lie below a folder that is given: itself, COLMAP's, VGGT's, nerfstudio's and the dense workspace's
places."""

MAX_TEXT_BYTES = 1 << 30


@dataclass(frozen=True)
class ColmapCamera:
    """Intrinsics as a model states them."""

    model: str
    width: int
    height: int
    params: tuple[float, ...]


@dataclass(frozen=True)
class ColmapImage:
    """An image and its pose."""

    name: str
    quaternion: tuple[float, ...]
    """Rotation world to camera: w x y z."""
    translation: tuple[float, ...]
    """World to camera."""
    camera: ColmapCamera


def find_models(folder: Path) -> list[Path]:
    """Folders of the models at or below `folder`, in order, each once."""
    found: dict[Path, None] = {}
    for place in PLACES:
        for candidate in sorted(folder.glob(place)) if place else [folder]:
            if any(
                (candidate / f"cameras.{e}").exists() and (candidate / f"images.{e}").exists() for e in ("bin", "txt")
            ):
                found[candidate] = None
    return list(found)


def read_model(folder: Path) -> list[ColmapImage]:
    """All images that have a pose, by name.

    Raises:
        ValueError: a file is damaged or says more than it holds; the message names it.
    """
    binary = (folder / "cameras.bin").exists() and (folder / "images.bin").exists()
    paths = [folder / f"{name}.{'bin' if binary else 'txt'}" for name in ("cameras", "images")]
    for path in paths:
        check_regular(path)
    try:
        cameras = dict(_binary_cameras(paths[0]) if binary else _text_cameras(paths[0]))
    except _DAMAGED as error:
        raise _damaged(paths[0], error) from error
    images = []
    try:
        for name, pose, camera_id in _binary_images(paths[1]) if binary else _text_images(paths[1]):
            if camera_id not in cameras:
                raise ValueError(f"image {name} has camera {camera_id}, which {paths[0].name} does not list")
            images.append(ColmapImage(name, pose[:4], pose[4:], cameras[camera_id]))
    except _DAMAGED as error:
        raise _damaged(paths[1], error) from error
    if not images:
        raise ValueError(f"the COLMAP model in {folder} has no image.")
    return sorted(images, key=lambda image: image.name)


_DAMAGED = (struct.error, ValueError, IndexError, KeyError, OverflowError, UnicodeDecodeError)


def _damaged(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{path} cannot be read as a part of a COLMAP model ({error}). Was it copied whole?")


def _binary_cameras(path: Path) -> Iterator[tuple[int, ColmapCamera]]:
    data = path.read_bytes() if path.stat().st_size < MAX_TEXT_BYTES else b""
    (count,) = struct.unpack_from("<Q", data, 0)
    at = 8
    for _ in range(count):
        number, model, width, height = struct.unpack_from("<IiQQ", data, at)
        at += 24
        if not 0 <= model < len(PARAMETERS):
            raise ValueError(f"camera {number} has model number {model}, which COLMAP does not have")
        name = list(PARAMETERS)[model]
        params = struct.unpack_from(f"<{PARAMETERS[name]}d", data, at)
        at += 8 * len(params)
        yield number, ColmapCamera(name, width, height, params)


def _binary_images(path: Path) -> Iterator[tuple[str, tuple[float, ...], int]]:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        (count,) = struct.unpack_from("<Q", data, 0)
        at = 8
        for number in range(1, count + 1):
            *pose, camera_id = struct.unpack_from("<7dI", data, at + 4)
            at += 4 + 60
            end = data.find(b"\0", at, at + 4096)
            if end < 0:
                raise ValueError(f"the name of image {number} has no end")
            name = data[at:end].decode("utf-8")
            (points,) = struct.unpack_from("<Q", data, end + 1)
            at = end + 9 + 24 * points
            if at > len(data):
                raise ValueError(f"image {name} should have {points} points, and the file ends before them")
            yield name, tuple(pose), camera_id


def _lines(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8-sig") as file:
        for line in file:
            if not line.lstrip().startswith("#"):
                yield line.strip()


def _text_cameras(path: Path) -> Iterator[tuple[int, ColmapCamera]]:
    for line in _lines(path):
        if not line:
            continue
        number, model, width, height, *params = line.split()
        if len(params) != PARAMETERS.get(model, len(params)):
            raise ValueError(f"camera {number} has {len(params)} parameters, {model} has {PARAMETERS[model]}")
        yield int(number), ColmapCamera(model, int(width), int(height), tuple(float(value) for value in params))


def _text_images(path: Path) -> Iterator[tuple[str, tuple[float, ...], int]]:
    lines = _lines(path)
    for line in lines:
        if not line:
            continue  # the points of an image may be none; more than that is harmless
        _, *values = line.split(maxsplit=9)
        yield values[8], tuple(float(value) for value in values[:7]), int(values[7])
        next(lines, None)  # its points


def rotation_of(quaternion: tuple[float, ...]) -> np.ndarray:
    """Rotation matrix of a quaternion w x y z of (about) unit length.

    Raises:
        ValueError: its length is not 1.
    """
    q = np.array(quaternion, np.float64)
    length = float(np.linalg.norm(q))
    if not abs(length - 1) < 1e-2:
        raise ValueError(f"its quaternion {tuple(quaternion)} has the length {length:.3g} and not 1")
    w, x, y, z = q / length
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
