"""Trajectories in text: TUM's `t x y z qx qy qz qw`, camera-to-world with OpenCV axes, as SLAM programs write them.

MASt3R-SLAM writes keyframes only, with times that are frame numbers over a rate; VGGT-SLAM `poses.txt` with numbers of
keyframes; WildGS-SLAM `traj/est_poses_full.txt` with numbers after its stride, and depth of keyframes in `video.npz`.
None of them says what the lens is.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from das3r_ns.dataparser.reconstructions.arrays import (
    Archive,
    known_depth,
    read_rows,
    read_text,
    whole_numbers,
)
from das3r_ns.dataparser.reconstructions.poses import from_quaternions
from das3r_ns.dataparser.reconstructions.types import DepthMap, Reconstruction

FULL = ("est_poses_full.txt", "traj/est_poses_full.txt")


def is_trajectory(path: Path) -> bool:
    """Whether it is a text file whose first rows have eight numbers that end in a quaternion."""
    if not (path.is_file() and path.suffix.lower() in (".txt", ".tum", ".csv")):
        return False
    try:
        rows = [[float(value) for value in line.replace(",", " ").split()] for line in read_text(path)[:3]]
    except (ValueError, OSError):
        return False
    return bool(rows) and all(len(row) == 8 and abs(np.linalg.norm(row[4:]) - 1) < 1e-2 for row in rows)


def is_wildgs(path: Path) -> bool:
    return path.is_dir() and any((path / name).is_file() for name in FULL)


def read(path: Path) -> Reconstruction:
    """
    Raises:
        ValueError: a row is not a pose.
    """
    return _of_rows("TUM trajectory", path, _poses(path))


def read_wildgs(path: Path) -> Reconstruction:
    """
    Raises:
        ValueError: a row is not a pose, or an array is missing or of another kind.
    """
    file = next(path / name for name in FULL if (path / name).is_file())
    rows = _poses(file)
    tool = "WildGS-SLAM"
    video = path / "video.npz"
    if not video.is_file():
        return _of_rows(tool, file, rows)
    archive = Archive(video, tool)
    stamps = archive.read("timestamps", ("keyframes",), "fiu")
    n, height, width = archive.shape_of("depths", (len(stamps), "height", "width"))
    depths = archive.read("depths", (len(stamps), height, width))
    valid = None
    if "valid_depth_masks" in archive.keys:
        valid = archive.read("valid_depth_masks", (n, height, width), "bu")
    place = {stamp: k for k, stamp in enumerate(whole_numbers(stamps, f"{video}: timestamps"))}

    def depth(i: int) -> DepthMap:
        k = place.get(int(rows[i, 0]))
        if k is None:
            return DepthMap(np.zeros((height, width), np.float32))
        return DepthMap(known_depth(depths[k]), None if valid is None else (valid[k] > 0).astype(np.float32))

    return _of_rows(tool, file, rows, depth, (video,))


def _poses(path: Path) -> np.ndarray:
    rows = read_rows(path, 8, "8 numbers (t x y z qx qy qz qw)")
    return rows[np.argsort(rows[:, 0], kind="stable")]


def _of_rows(
    tool: str,
    path: Path,
    rows: np.ndarray,
    depth: Callable[[int], DepthMap] | None = None,
    more: tuple[Path, ...] = (),
) -> Reconstruction:
    steps = np.diff(rows[:, 0])
    if len(rows) < 2 or steps.min() <= 0:
        raise ValueError(f"{path} has {len(rows)} poses, two of them at one time or only one: it is not a trajectory.")
    whole = bool((rows[:, 0] == np.round(rows[:, 0])).all())
    return Reconstruction(
        tool, path, from_quaternions(rows[:, 1:4], rows[:, 4:], str(path)), "opencv", None, None,
        "numbers" if whole and rows[-1, 0] < 1e8 else "times",
        numbers=tuple(int(t) for t in rows[:, 0]) if whole and rows[-1, 0] < 1e8 else None,
        times_s=tuple(rows[:, 0].tolist()),
        keyframes=True,
        depth=depth,
        files=(path, *more),
    )  # fmt: skip
