"""VGGT and VGGT-Omega: `predictions.npz` of their demos, with `extrinsic` (n 3 4) world-to-camera with OpenCV axes,
`intrinsic` (n 3 3), `depth` (n h w, or with a last 1), `depth_conf` and `images` (n 3 h w) from 0 to 1.

Their COLMAP exports (`sparse/` without `0`) are read as every COLMAP model, and so are MapAnything's.
"""

from pathlib import Path

import numpy as np

from das3r_ns.dataparser.reconstructions.arrays import Archive, finite, keys_of, known_depth
from das3r_ns.dataparser.reconstructions.poses import with_last_row
from das3r_ns.dataparser.reconstructions.types import DepthMap, FrameArray, Framing, Reconstruction, stretched

SIDE_PX = 518
"""Width to which VGGT brings every image; of higher ones it cuts the middle."""


def vggt_cut(frame: tuple[int, int], saved: tuple[int, int]) -> Framing | None:
    """Stretched to multiples of 14; of what is higher than wide, the middle square."""
    height = round(frame[0] * SIDE_PX / frame[1] / 14) * 14
    if saved == (SIDE_PX, SIDE_PX) and height > SIDE_PX:
        return Framing((height, SIDE_PX), (height - SIDE_PX) // 2, 0)
    return stretched(frame, saved)


def _archive_of(path: Path) -> Path | None:
    file = path if path.is_file() else path / "predictions.npz"
    return file if file.suffix == ".npz" and set(keys_of(file)) >= {"extrinsic", "intrinsic"} else None


def is_predictions(path: Path) -> bool:
    return _archive_of(path) is not None


def read(path: Path) -> Reconstruction:
    """
    Raises:
        ValueError: an array is missing or of another kind.
    """
    file = _archive_of(path)
    assert file is not None
    archive = Archive(file, "VGGT")
    archive.require("depth")
    last = (1,) if len(archive.shape("depth")) == 4 else ()
    n, height, width, *_ = archive.shape_of("depth", ("frames", "height", "width", *last))
    matrices = finite(archive.read("extrinsic", (n, 3, 4)), f"{file}: extrinsic")
    K = finite(archive.read("intrinsic", (n, 3, 3)), f"{file}: intrinsic")
    kept: dict[str, np.ndarray] = {}

    def array(key: str, shape: tuple[int, ...]) -> np.ndarray:
        if key not in kept:
            kept[key] = archive.read(key, shape)
        return kept[key]

    def depth(i: int) -> DepthMap:
        values = known_depth(array("depth", (n, height, width, *last))[i].reshape(height, width))
        if "depth_conf" not in archive.keys:
            return DepthMap(values)
        raw = np.maximum(np.nan_to_num(array("depth_conf", (n, height, width))[i]), 1)
        return DepthMap(values, (1 - 1 / raw).astype(np.float32))

    def image(i: int) -> np.ndarray:
        values = array("images", (n, 3, height, width))[i]
        return (np.clip(values, 0, 1) * 255).round().astype(np.uint8).transpose(1, 2, 0)

    return Reconstruction(
        "VGGT", file, with_last_row(matrices), "opencv-inverse", K, (height, width), "order",
        framing=vggt_cut,
        depth=depth,
        frames=FrameArray(n, image) if "images" in archive.keys else None,
        files=(file,),
    )  # fmt: skip
