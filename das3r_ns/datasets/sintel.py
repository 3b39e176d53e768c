"""MPI Sintel (training half): images, cameras, depth and flow in its own binary formats.

    ROOT/training/final/SEQUENCE/frame_0001.png
    ROOT/training/flow/SEQUENCE/frame_0001.flo            none for the last frame
    ROOT/training/depth/SEQUENCE/frame_0001.dpt
    ROOT/training/camdata_left/SEQUENCE/frame_0001.cam

Sintel has no masks of what moves. They are computed, as in the published evaluations: a pixel moves where the true
flow differs from the flow that the camera alone would cause by more than 0.1 px. The last frame has no flow and so
no mask.

All files are little-endian and begin with the float32 202021.25, whose bytes spell PIEH. A camera's principal point
counts from the centre of the first pixel; here half a pixel is added, so that it counts from the image's corner.
"""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from das3r_ns import geometry
from das3r_ns.datasets.truth import TruthClip
from das3r_ns.datasets.truth_files import TruthError, check_truth_file, images_of
from das3r_ns.files.values import check_pose

TAG = np.float32(202021.25)

MOTION_THRESHOLD_PX = 0.1
"""Residual flow above which a pixel is called moving."""

PAPER_SEQUENCES = (
    "alley_2", "ambush_4", "ambush_5", "ambush_6", "cave_2", "cave_4", "market_2", "market_5", "market_6", "shaman_3",
    "sleeping_1", "sleeping_2", "temple_2", "temple_3",
)  # fmt: skip
"""The fourteen sequences of the published tables: the others have a camera that hardly moves."""


def sintel_root(folder: Path) -> Path | None:
    """The folder that holds training/final: `folder` itself or a usual subfolder; None if there is none."""
    candidates = (folder, folder / "MPI-Sintel-complete", folder / "sintel")
    return next((root for root in candidates if (root / "training" / "final").is_dir()), None)


def sintel_sequences(root: Path) -> list[str]:
    """Names of all sequences that are there."""
    return sorted(p.name for p in (root / "training" / "final").iterdir() if p.is_dir())


def read_sintel(root: Path, sequence: str) -> TruthClip:
    """One sequence of the training half, final pass. Masks need flow, depth and cameras; without flow or depth the
    clip has none.

    Raises:
        TruthError: images or cameras are missing or damaged.
    """
    images = images_of(root / "training" / "final" / sequence)
    folders = {
        kind: root / "training" / folder / sequence
        for kind, folder in (("cam", "camdata_left"), ("dpt", "depth"), ("flo", "flow"))
    }
    cameras = [read_cam(folders["cam"] / f"{path.stem}.cam") for path in images]
    K = torch.stack([camera[0] for camera in cameras])
    T_world_camera = torch.stack([camera[1] for camera in cameras])

    def dynamic_mask(i: int) -> Tensor | None:
        flow_file = folders["flo"] / f"{images[i].stem}.flo"
        if i + 1 >= len(images) and not flow_file.is_file():
            return None
        depth = read_dpt(folders["dpt"] / f"{images[i].stem}.dpt")
        T_next_this = geometry.invert(T_world_camera[i + 1]) @ T_world_camera[i]
        return dynamic_label(read_flo(flow_file), depth, K[i], K[i + 1], T_next_this)

    return TruthClip(
        name=sequence,
        folder=root / "training",
        num_frames=len(images),
        images=images,
        dynamic_mask=dynamic_mask if folders["flo"].is_dir() and folders["dpt"].is_dir() else None,
        T_world_camera=T_world_camera,
        K=K,
    )


def dynamic_label(
    flow: Float[Tensor, "h w 2"],
    depth: Float[Tensor, "h w"],
    K_this: Float[Tensor, "3 3"],
    K_next: Float[Tensor, "3 3"],
    T_next_this: Float[Tensor, "4 4"],
) -> Bool[Tensor, "h w"]:
    """Where the true flow to the next frame is not the camera's doing. False where the depth is unknown."""
    ego, valid = geometry.rigid_flow(depth.double(), K_this, K_next, T_next_this)
    return valid & ((flow.double() - ego).norm(dim=-1) > MOTION_THRESHOLD_PX)


def read_cam(path: Path) -> tuple[Float[Tensor, "3 3"], Float[Tensor, "4 4"]]:
    """K and T_world_camera of a `.cam` file: the tag, then float64 intrinsics (3x3) and world-to-camera (3x4).

    Raises:
        TruthError: the file is missing, too short, or no Sintel camera.
    """
    data = _tagged(path)
    if len(data) != 21 * 8:
        raise TruthError(f"{path} has {len(data)} bytes after its tag; a Sintel camera has {21 * 8}.")
    numbers = np.frombuffer(data, "<f8")
    K = numbers[:9].reshape(3, 3).copy()
    K[:2, 2] += 0.5
    T_camera_world = np.vstack((numbers[9:].reshape(3, 4), [0, 0, 0, 1]))
    if not (np.isfinite(K).all() and K[0, 0] > 0 and K[1, 1] > 0):
        raise TruthError(f"{path}: the focal length is {K[0, 0]:g} x {K[1, 1]:g}; a finite one above 0 is expected.")
    check_pose(T_camera_world, f"{path}", TruthError)
    return torch.from_numpy(K), geometry.invert(torch.from_numpy(T_camera_world))


def read_dpt(path: Path) -> Float[Tensor, "h w"]:
    """z-depth of a `.dpt` file: the tag, int32 width and height, float32 values row by row.

    Raises:
        TruthError: the file is missing, too short, or no Sintel depth.
    """
    depth = _grid(path, channels=1)[..., 0]
    if not (np.isfinite(depth).all() and (depth >= 0).all()):
        wrong = depth[~(np.isfinite(depth) & (depth >= 0))][0]
        raise TruthError(f"{path} holds the depth {wrong:g}; finite values that are not negative are expected.")
    return torch.from_numpy(depth)


def read_flo(path: Path) -> Float[Tensor, "h w 2"]:
    """Optical flow of a `.flo` file in pixels (right, down): the tag, int32 width and height, float32 pairs.

    Raises:
        TruthError: the file is missing, too short, or no flow file.
    """
    return torch.from_numpy(_grid(path, channels=2))


def _grid(path: Path, channels: int) -> np.ndarray:
    data = _tagged(path)
    width, height = np.frombuffer(data[:8], "<i4") if len(data) >= 8 else (0, 0)
    expected = int(width) * int(height) * channels * 4
    if width <= 0 or height <= 0 or len(data) - 8 != expected:
        raise TruthError(
            f"{path} says it is {width}x{height} and has {max(0, len(data) - 8)} bytes of values where {expected} are "
            "due. Was its download cut off?"
        )
    return np.frombuffer(data[8:], "<f4").reshape(height, width, channels).copy()


def _tagged(path: Path) -> bytes:
    try:
        if path.exists():
            check_truth_file(path)
        data = path.read_bytes()
    except OSError as error:
        raise TruthError(
            f"{path} cannot be read ({error.strerror}). Sintel's cameras and depth are a download of their own: "
            "`das3r download sintel` gets all."
        ) from error
    if len(data) < 4 or np.frombuffer(data[:4], "<f4")[0] != TAG:
        raise TruthError(f"{path} does not begin with Sintel's tag (the bytes PIEH): it is no Sintel file.")
    return data[4:]
