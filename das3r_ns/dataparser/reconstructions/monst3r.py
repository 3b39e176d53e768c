"""MonST3R and DAS3R: the folder of a demo or an evaluation.

`pred_traj.txt` has `t x y z qw qx qy qz` (w first, unlike TUM), camera-to-world with OpenCV axes; `pred_intrinsics.txt`
3x3 numbers a row; `frame_0000.npy` z-depth; `conf_0.npy` the logarithm of the confidence, numbered without padding;
`dynamic_mask_0.png` white where something moves, DAS3R's `dyna_avg_0.npy` the same, soft.
"""

from pathlib import Path

import numpy as np

from das3r_ns.dataparser.file_names import last_number
from das3r_ns.dataparser.reconstructions.arrays import decode_grey, known_depth, read_npy, read_rows
from das3r_ns.dataparser.reconstructions.poses import from_quaternions
from das3r_ns.dataparser.reconstructions.types import DepthMap, FrameArray, Reconstruction, centre_cut
from das3r_ns.files.regular import check_regular
from das3r_ns.video.images import image_size, read_image

MASKS = ("dynamic_mask_{}.png", "dyna_avg_{}.npy", "dyna_max_{}.npy")


def is_folder(path: Path) -> bool:
    return path.is_dir() and ((path / "pred_traj.txt").is_file() or any(path.glob("pts3d1_p*.npy")))


def read(path: Path) -> Reconstruction:
    """
    Raises:
        ValueError: a file is missing or of another kind.
    """
    if not (path / "pred_traj.txt").is_file():
        raise ValueError(
            f"{path} holds points of a window-wise run of MonST3R (pts3d1_p*.npy), which writes no cameras. Run it "
            "without --window_wise, or give the clip itself."
        )
    tool = "DAS3R" if any(path.glob("dyna_avg_*.npy")) or (path / "pred_focal.txt").is_file() else "MonST3R"
    rows = read_rows(path / "pred_traj.txt", 8, "8 numbers (t x y z qw qx qy qz)")
    n = len(rows)
    K = read_rows(path / "pred_intrinsics.txt", 9, "9 numbers (3x3, by rows)").reshape(-1, 3, 3)
    if len(K) != n:
        raise ValueError(f"{path / 'pred_intrinsics.txt'} has {len(K)} rows, pred_traj.txt has {n}.")
    depths, images = (_by_number(path, f"frame_*.{ending}") for ending in ("npy", "png"))
    confidences = _by_number(path, "conf_*.npy")
    if depths:
        size = read_npy(_nth(depths, 0, path, "frame_0000.npy"), ("height", "width"), tool).shape
    else:
        height, width = _size_of(_nth(images, 0, path, "frame_0000.png"))
        size = (height, width)
    masks = next((found for pattern in MASKS if (found := _by_number(path, pattern.format("*")))), {})

    def depth(i: int) -> DepthMap:
        values = known_depth(read_npy(_nth(depths, i, path, "frame_*.npy"), size, tool))
        if not confidences:
            return DepthMap(values)
        log = read_npy(_nth(confidences, i, path, "conf_*.npy"), size, tool)
        return DepthMap(values, (1 - np.exp(-np.maximum(np.nan_to_num(log), 0))).astype(np.float32))

    def moving(i: int) -> np.ndarray:
        file = _nth(masks, i, path, "dynamic_mask_*.png")
        if file.suffix == ".npy":
            return np.clip(np.asarray(read_npy(file, ("height", "width"), tool), np.float32), 0, 1)
        check_regular(file)
        return decode_grey(file.read_bytes(), str(file)).astype(np.float32) / 255

    return Reconstruction(
        tool, path, from_quaternions(rows[:, 1:4], rows[:, [5, 6, 7, 4]], str(path / "pred_traj.txt")), "opencv",
        K, (size[0], size[1]), "order",
        framing=centre_cut,
        depth=depth if depths else None,
        moving=moving if masks else None,
        frames=_frames(images),
        files=(
            path / "pred_traj.txt", path / "pred_intrinsics.txt",
            *depths.values(), *confidences.values(), *masks.values(), *images.values(),
        ),
    )  # fmt: skip


def _size_of(image: Path) -> tuple[int, int]:
    check_regular(image)
    return image_size(image, upright=False)


def _frames(images: dict[int, Path]) -> FrameArray | None:
    if not images:
        return None
    ordered = [images[number] for number in sorted(images)]

    def image(i: int) -> np.ndarray:
        return read_image(ordered[i], _size_of(ordered[i]), upright=False)

    return FrameArray(len(ordered), image)


def _by_number(path: Path, pattern: str) -> dict[int, Path]:
    found = {last_number(file.stem): file for file in path.glob(pattern)}
    return {number: file for number, file in sorted(found.items(), key=lambda item: item[0] or 0) if number is not None}


def _nth(files: dict[int, Path], number: int, folder: Path, what: str) -> Path:
    if number not in files:
        raise ValueError(f"{folder} lacks {what.replace('*', str(number))}: {len(files)} such files are there.")
    return files[number]
