"""TUM RGB-D: image lists and trajectories as text, matched by time.

    SEQUENCE/rgb.txt           lines: timestamp rgb/1311868164.363181.png
    SEQUENCE/groundtruth.txt   lines: timestamp tx ty tz qx qy qz qw    (camera to world, metres, quaternion x y z w)

Images and poses were recorded by different clocks and rates: each image gets the pose nearest in time, and an
image without one within 20 ms is left out.
"""

from pathlib import Path

import numpy as np
import roma
import torch
from jaxtyping import Float, Int
from torch import Tensor

from das3r_ns.datasets.truth import TruthClip
from das3r_ns.datasets.truth_files import TruthError, check_truth_file, numbers_of
from das3r_ns.files.regular import inside
from das3r_ns.files.values import check_pose

MAX_TIME_DIFFERENCE = 0.02
"""Seconds between an image and its pose."""

SEQUENCES = tuple(
    f"rgbd_dataset_freiburg3_{action}_{motion}"
    for action in ("sitting", "walking")
    for motion in ("halfsphere", "rpy", "static", "xyz")
)
"""The dynamic sequences of the published tables."""

FREIBURG3_K = ((535.4, 0.0, 320.1), (0.0, 539.2, 247.6), (0.0, 0.0, 1.0))
"""The publishers' calibration of the camera of all freiburg3 sequences, whose images are already undistorted; its
principal point counts from the centre of the first pixel."""


def tum_sequences(root: Path) -> list[str]:
    """Names of all sequences that are there."""
    return sorted(p.name for p in root.iterdir() if (p / "rgb.txt").is_file())


def read_tum_dynamics(root: Path, sequence: str) -> TruthClip:
    """One sequence: all images that have a pose.

    Raises:
        TruthError: a list or an image is missing or damaged, or fewer than 3 images have a pose.
    """
    folder = root / sequence
    times, files = read_rgb_list(folder / "rgb.txt")
    pose_times, T_world_camera = read_tum_trajectory(folder / "groundtruth.txt")
    pairs = associate(times, pose_times)
    if len(pairs) < 3:
        raise TruthError(
            f"{folder}: only {len(pairs)} of {len(files)} images have a pose within {MAX_TIME_DIFFERENCE} s. Are "
            "rgb.txt and groundtruth.txt of the same recording?"
        )
    images = tuple(inside(folder, files[i], TruthError) for i in pairs[:, 0].tolist())
    missing = [path for path in images if not path.is_file()]
    if missing:
        raise TruthError(f"{missing[0]} is named in rgb.txt and missing ({len(missing)} such). Unpack the set again.")
    K = None
    if "freiburg3" in sequence:
        K = torch.tensor(FREIBURG3_K, dtype=torch.float64)
        K[:2, 2] += 0.5
        K = K.repeat(len(images), 1, 1)
    return TruthClip(
        name=sequence,
        folder=folder,
        num_frames=len(images),
        images=images,
        T_world_camera=T_world_camera[pairs[:, 1]],
        K=K,
    )


def read_rgb_list(path: Path) -> tuple[Float[Tensor, "n"], list[str]]:
    """Timestamps in seconds and relative file names of an image list, in order of time.

    Raises:
        TruthError: the list is missing, empty, or a line is no timestamp with a name.
    """
    check_truth_file(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()  # Windows begins files with a mark
    except OSError as error:
        raise TruthError(f"{path} cannot be read ({error.strerror}).") from error
    rows: list[tuple[float, str]] = []
    for number, line in enumerate(lines, start=1):
        words = line.split("#", 1)[0].split()
        if not words:
            continue
        try:
            time, name = words
            rows.append((float(time), name))
        except ValueError as error:
            raise TruthError(f"{path}, line {number}: expected a timestamp and a file name, found {line!r}.") from error
    if not rows:
        raise TruthError(f"{path} lists no images.")
    rows.sort()
    return torch.tensor([row[0] for row in rows], dtype=torch.float64), [row[1] for row in rows]


def read_tum_trajectory(path: Path) -> tuple[Float[Tensor, "n"], Float[Tensor, "n 4 4"]]:
    """Timestamps in seconds and camera-to-world poses of a trajectory in TUM order, in order of time.

    Raises:
        TruthError: the file is missing, a row has not 8 numbers, or a quaternion is not of length one.
    """
    rows = numbers_of(path)
    if rows.shape[1] != 8:
        raise TruthError(f"{path} has {rows.shape[1]} numbers a row; TUM has 8 (timestamp tx ty tz qx qy qz qw).")
    rows = torch.from_numpy(rows[np.argsort(rows[:, 0], kind="stable")])
    length = rows[:, 4:].norm(dim=1)
    wrong = torch.nonzero((length - 1).abs() > 0.01)[:, 0].tolist()
    if wrong:
        raise TruthError(
            f"{path}: the quaternion at time {float(rows[wrong[0], 0])} has length {float(length[wrong[0]]):.3f}, "
            f"not 1 ({len(wrong)} such). Columns 5 to 8 are qx qy qz qw."
        )
    T = torch.eye(4, dtype=torch.float64).repeat(len(rows), 1, 1)
    T[:, :3, :3] = roma.unitquat_to_rotmat(rows[:, 4:] / length[:, None])
    T[:, :3, 3] = rows[:, 1:4]
    for i, pose in enumerate(T.numpy()):
        check_pose(pose, f"{path}: the pose at time {float(rows[i, 0])}", TruthError)
    return rows[:, 0], T


def associate(
    times: Float[Tensor, "n"], other_times: Float[Tensor, "m"], max_difference: float = MAX_TIME_DIFFERENCE
) -> Int[Tensor, "k 2"]:
    """Pairs (index, index in the other list) of entries nearest in time, both lists ascending. Entries without a
    partner within `max_difference` seconds are left out; a partner may serve several entries."""
    after = torch.searchsorted(other_times, times).clamp(1, max(1, len(other_times) - 1))
    after = after.clamp(max=len(other_times) - 1)
    before = (after - 1).clamp(min=0)
    nearest = torch.where((times - other_times[before]).abs() <= (times - other_times[after]).abs(), before, after)
    near = (times - other_times[nearest]).abs() <= max_difference
    return torch.stack((torch.nonzero(near)[:, 0], nearest[near]), dim=1)
