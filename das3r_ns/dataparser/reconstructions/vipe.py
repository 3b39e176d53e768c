"""ViPE: `pose/<name>.npz` with `data` (n 4 4), camera-to-world with OpenCV axes, and `inds`; `intrinsics/<name>.npz`
with `data` (n 4) fx fy cx cy, the first pixel's centre at (0, 0); `rgb/<name>.mp4`; `depth/<name>.zip` of EXR files
with one channel Z; `mask/<name>.zip` of instance numbers and `mask/<name>.txt`, which names them. All of the frame's
own size.
"""

import tempfile
from functools import cache
from pathlib import Path

import numpy as np

from das3r_ns.dataparser.reconstructions.arrays import (
    MAX_IMAGE_PX,
    Archive,
    check_pixels,
    check_shape,
    decode_grey,
    finite,
    known_depth,
    read_member,
    read_text,
)
from das3r_ns.dataparser.reconstructions.poses import pinhole
from das3r_ns.dataparser.reconstructions.types import DepthMap, Reconstruction

NEVER_MOVES = frozenset(("sky",))
"""Phrases of ViPE's masks that are not objects."""


def is_results(path: Path) -> bool:
    return _root_of(path) is not None


def _root_of(path: Path) -> Path | None:
    if path.is_file() and path.suffix == ".npz" and path.parent.name == "pose":
        path = path.parent.parent
    there = (path / "pose").is_dir() and (path / "intrinsics").is_dir() and any((path / "pose").glob("*.npz"))
    return path if there else None


def read(path: Path) -> Reconstruction:
    """Results of one clip: the folder of results, where it holds but one, or `pose/<name>.npz`.

    Raises:
        ValueError: a file is missing or of another kind, or the lens is not a pinhole.
    """
    root = _root_of(path)
    assert root is not None
    found = [path] if path.is_file() else sorted((root / "pose").glob("*.npz"))
    if len(found) > 1:
        raise ValueError(
            f"{path} holds ViPE's results of {len(found)} clips ({', '.join(file.stem for file in found[:6])}). Name "
            f"one: {found[0]}"
        )
    name = found[0].stem
    matrices, numbers = _of_frames(found[0], ("frames", 4, 4))
    lenses, of_lenses = _of_frames(root / "intrinsics" / f"{name}.npz", ("frames", "4 (fx fy cx cy)"))
    kinds_file = root / "intrinsics" / f"{name}_camera.txt"
    kinds = {line.split(":")[-1].strip() for line in read_text(kinds_file)} if kinds_file.is_file() else {"PINHOLE"}
    if kinds != {"PINHOLE"} or lenses.shape[1] != 4:
        raise ValueError(
            f"{root / 'intrinsics' / name}.npz has the lens {', '.join(sorted(kinds))} with {lenses.shape[1]} numbers, "
            "and PINHOLE with 4 is understood. Run ViPE with its default pipeline, which takes cameras for pinholes."
        )
    place = {number: i for i, number in enumerate(of_lenses)}
    missing = [number for number in numbers if number not in place]
    if missing:
        raise ValueError(f"{root / 'intrinsics' / name}.npz has no intrinsics of frame {missing[0]}, which has a pose.")
    K = pinhole(lenses[[place[number] for number in numbers]] + [0, 0, 0.5, 0.5])
    depth_file, mask_file, video = (
        root / folder / f"{name}.{ending}" for folder, ending in (("depth", "zip"), ("mask", "zip"), ("rgb", "mp4"))
    )
    phrases = root / "mask" / f"{name}.txt"
    files = (found[0], root / "intrinsics" / f"{name}.npz", depth_file, mask_file, phrases, video)
    size = _size(depth_file, mask_file, numbers[0], video)
    return Reconstruction(
        "ViPE", found[0], matrices, "opencv", K, size, "numbers",
        numbers=numbers,
        depth=(lambda i: DepthMap(_exr(depth_file, numbers[i]))) if depth_file.is_file() else None,
        moving=(lambda i: _mask(mask_file, phrases, numbers[i])) if mask_file.is_file() else None,
        frames=video if video.is_file() else None,
        files=tuple(file for file in files if file.is_file()),
    )  # fmt: skip


def _of_frames(path: Path, shape: tuple[int | str, ...]) -> tuple[np.ndarray, tuple[int, ...]]:
    archive = Archive(path, "ViPE")
    data = finite(archive.read("data", archive.shape("data") if "data" in archive.keys else shape), f"{path}: data")
    check_shape(f"{path}: data", data.shape, shape)
    indices = archive.read("inds", (len(data),), "iu")
    if len(set(indices.tolist())) < len(indices) or (indices < 0).any():
        raise ValueError(f"{path}: inds names a frame twice, or one below 0.")
    return data, tuple(int(i) for i in indices)


def _size(depth: Path, mask: Path, number: int, video: Path) -> tuple[int, int]:
    if depth.is_file():
        height, width = _exr(depth, number).shape
        return height, width
    if mask.is_file():
        height, width = decode_grey(_member(mask, f"{number:05d}.png"), str(mask)).shape
        return height, width
    if video.is_file():
        from das3r_ns.video.video_file import index_file

        return index_file(video).size
    raise ValueError(f"{video} is not there, nor depth or masks: nothing says of which size the images are.")


def _member(path: Path, name: str) -> bytes:
    return read_member(path, name, 8 * MAX_IMAGE_PX, "and there is a pose of that frame")


def _exr(path: Path, number: int) -> np.ndarray:
    try:
        import OpenEXR
    except ImportError as error:
        raise ImportError("ViPE's depth is in EXR files. Run: pip install 'das3r-ns[exr]'") from error
    what, data = f"{path}: {number:05d}.exr", _member(path, f"{number:05d}.exr")
    with tempfile.NamedTemporaryFile(suffix=".exr") as file:  # the library opens files only
        file.write(data)
        file.flush()
        try:
            low, high = OpenEXR.File(file.name, header_only=True).header()["dataWindow"]
            check_pixels(int(high[1] - low[1] + 1), int(high[0] - low[0] + 1), what)
            with OpenEXR.File(file.name) as image:
                channels = image.channels()
                if "Z" not in channels:
                    raise ValueError(f"{what} has the channels {', '.join(channels)}, and ViPE writes Z.")
                return known_depth(channels["Z"].pixels)
        except (RuntimeError, OSError, KeyError, TypeError) as error:
            raise ValueError(f"{what} is not an EXR image ({error}).") from error


def _mask(path: Path, phrases: Path, number: int) -> np.ndarray:
    numbers = decode_grey(_member(path, f"{number:05d}.png"), f"{path}: {number:05d}.png")
    return (~np.isin(numbers, [0, *_never_moving(phrases)])).astype(np.float32)


@cache
def _never_moving(phrases: Path) -> tuple[int, ...]:
    lines = read_text(phrases) if phrases.is_file() else []
    found = [line.split(":", 1) for line in lines if ":" in line]
    return tuple(int(key) for key, phrase in found if phrase.strip().lower() in NEVER_MOVES and key.strip().isdigit())
