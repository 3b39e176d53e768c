"""Seed points of a scene folder, read from PLY."""

import re
from pathlib import Path

import numpy as np
import torch
from plyfile import PlyData, PlyHeaderParseError, PlyParseError

from das3r_ns.files.regular import check_regular
from das3r_ns.scene.types import PointCloud, SceneFolderError

MAX_HEADER_BYTES = 1 << 16
ROUNDING = 1e-3
"""By which a probability may miss 0 or 1."""


def read_points(path: Path, num_frames: int) -> PointCloud:
    """Points with colours, and where the file has them staticness and source frames.

    Raises:
        SceneFolderError: it is not such a file, promises more points than it holds, or holds impossible values.
    """
    try:
        check_regular(path, SceneFolderError)
        _check_count(path)
        rows = PlyData.read(str(path))["vertex"].data
        columns = rows.dtype.names or ()
        xyz = np.stack([rows[a] for a in "xyz"], -1).astype(np.float32)
        rgb = np.stack([rows[c] for c in ("red", "green", "blue")], -1)
        staticness = (
            rows["staticness"].astype(np.float32) if "staticness" in columns else np.ones(len(rows), np.float32)
        )
        frame = rows["frame"].astype(np.int32) if "frame" in columns else np.full(len(rows), -1, np.int32)
    except SceneFolderError:
        raise
    except (OSError, KeyError, ValueError, TypeError, PlyParseError, PlyHeaderParseError, MemoryError) as error:
        raise SceneFolderError(f"{path} cannot be read as a point cloud ({error}).") from error
    if rgb.dtype != np.uint8:
        raise SceneFolderError(f"{path}: colours are of type {rgb.dtype}, and must be of 8 bits.")
    for name, values, good in (
        ("position", xyz, np.isfinite(xyz)),
        ("staticness", staticness, (staticness >= -ROUNDING) & (staticness <= 1 + ROUNDING)),
        ("frame", frame, (frame >= -1) & (frame < num_frames)),
    ):
        if not good.all():
            wrong = int(np.argwhere(~good)[0][0])
            raise SceneFolderError(f"{path}: the {name} of point {wrong} is {values[wrong]}, which cannot be.")
    return PointCloud(
        xyz=torch.from_numpy(xyz),
        rgb=torch.from_numpy(rgb),
        staticness=torch.from_numpy(staticness.clip(0, 1)),
        frame=torch.from_numpy(frame),
    )


def _check_count(path: Path) -> None:
    """A point takes a byte at least: more points than bytes are not there.

    Raises:
        SceneFolderError: the header promises what the file cannot hold.
    """
    with path.open("rb") as file:
        header = file.read(MAX_HEADER_BYTES)
    if not header.startswith(b"ply") or b"end_header" not in header:
        raise SceneFolderError(
            f"{path} cannot be read as a point cloud: it does not begin with the header of a PLY file."
        )
    header = header[: header.index(b"end_header")]
    size = path.stat().st_size
    for count in re.findall(rb"element\s+\S+\s+(\d+)", header):
        if int(count) > size:
            raise SceneFolderError(f"{path} promises {int(count)} points and has {size} bytes. Was it cut short?")
