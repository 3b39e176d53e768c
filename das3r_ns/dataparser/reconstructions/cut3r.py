"""CUT3R: `camera/000000.npz` with `pose` (4 4), camera-to-world with OpenCV axes, and `intrinsics` (3 3); `depth/*.npy`
z-depth; `conf/*.npy` confidence from 1 on; `color/*.png`."""

from pathlib import Path

import numpy as np

from das3r_ns.dataparser.reconstructions.arrays import Archive, finite, keys_of, known_depth, read_npy
from das3r_ns.dataparser.reconstructions.types import DepthMap, Reconstruction, centre_cut


def is_folder(path: Path) -> bool:
    if not ((path / "camera").is_dir() and (path / "depth").is_dir()):
        return False
    first = min((path / "camera").glob("*.npz"), default=None)
    return first is not None and set(keys_of(first)) >= {"pose", "intrinsics"}


def read(path: Path) -> Reconstruction:
    """
    Raises:
        ValueError: a file is missing or of another kind.
    """
    cameras = sorted((path / "camera").glob("*.npz"))
    matrices, K = [], []
    for file in cameras:
        archive = Archive(file, "CUT3R")
        matrices.append(finite(archive.read("pose", (4, 4)), f"{file}: pose"))
        K.append(finite(archive.read("intrinsics", (3, 3)), f"{file}: intrinsics"))
    depths, confidences = ([path / name / f"{file.stem}.npy" for file in cameras] for name in ("depth", "conf"))
    has_confidence = (path / "conf").is_dir()
    size = read_npy(depths[0], ("height", "width"), "CUT3R").shape

    def depth(i: int) -> DepthMap:
        values = known_depth(read_npy(depths[i], size, "CUT3R"))
        if not has_confidence:
            return DepthMap(values)
        raw = np.maximum(np.nan_to_num(read_npy(confidences[i], size, "CUT3R")), 1)
        return DepthMap(values, (1 - 1 / raw).astype(np.float32))

    return Reconstruction(
        "CUT3R", path, np.stack(matrices), "opencv", np.stack(K), (size[0], size[1]), "order",
        framing=centre_cut,
        depth=depth,
        frames=path / "color" if (path / "color").is_dir() else None,
        files=tuple(file for file in (*cameras, *depths, *confidences) if file.is_file()),
    )  # fmt: skip
