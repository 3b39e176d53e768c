"""Cameras of the frames between keyframes that somebody gave, or beside them.

Points that the given cameras see are triangulated, each further frame is resected from them, and all found poses are
adjusted together while the given ones stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, UInt8
from torch import Tensor

from das3r_ns import geometry
from das3r_ns.predictor.cameras.sfm.bundle_adjustment import FocalPrior, adjust
from das3r_ns.predictor.cameras.sfm.estimate import MIN_AGREEMENT, agreement_by_frame, believe_points
from das3r_ns.predictor.cameras.sfm.initialization import triangulate
from das3r_ns.predictor.cameras.sfm.normal_equations import State, invert
from das3r_ns.predictor.cameras.sfm.resection import alike, nearest_first, only_known, resect
from das3r_ns.predictor.cameras.sfm.tracks import Tracks, follow_grid, weigh
from das3r_ns.predictor.flow.checked import CheckedFlow


@dataclass(frozen=True)
class CompletedPath:
    """Cameras of all frames."""

    T_world_camera: Float[Tensor, "n 4 4"]
    """Camera-to-world, float64; those that were given are unchanged."""
    pose_known: Bool[Tensor, "n"]
    """False where too little was seen of what the given cameras see: the pose is interpolated."""


def find_poses_between(
    flow: CheckedFlow,
    image: Callable[[int], UInt8[np.ndarray, "h w 3"]],
    T_world_camera: Float64[np.ndarray, "n 4 4"],
    K: Float64[np.ndarray, "n 3 3"],
    given: Bool[np.ndarray, "n"],
    static: Float[Tensor, "n h w"] | None = None,
) -> CompletedPath:
    """Poses of the frames that have none.

    Args:
        flow: see `follow_grid`.
        image: RGB frame at the size of the clip.
        T_world_camera: camera-to-world, OpenCV axes; of no meaning where `given` is False.
        K: of every frame, in pixels of the clip.
        static: 1 where nothing moves, 0 where something does, as far as the user knows.
    Raises:
        ValueError: fewer than two poses are given.
    """
    n = len(given)
    if given.sum() < 2:
        raise ValueError(f"{int(given.sum())} of {n} frames have a camera, and 2 are needed to find the others.")
    tracks = follow_grid(flow, n, image)
    if static is not None:
        tracks = weigh(tracks, static)
    focal = float(max(tracks.size))
    height, width = image(0).shape[:2]
    tracks = _with_one_lens(tracks, K, (height, width), focal)
    prior = FocalPrior(focal, 0.0, (focal, focal))
    placed = T_world_camera.copy()
    placed[~given] = np.eye(4)
    T, known = invert(placed), given.copy()
    while not known.all():
        part = only_known(tracks, known)
        beside_unknown = ((tracks.target >= 0) & ~known[tracks.target]).any(axis=1)
        inverse_depth, support = triangulate(alike(part, beside_unknown), T, focal, known)
        found = False
        for j in nearest_first(known):
            pose = resect(tracks, T, inverse_depth, support, focal, j)
            if pose is not None:
                T[j], known[j], found = pose, True, True
        if not found:
            break
        part = only_known(tracks, known)
        inverse_depth, _ = triangulate(part, T, focal, known)
        held = given | ~known
        adjusted = adjust(part, State(T, focal, inverse_depth), prior, held, rounds=3)
        trusted = believe_points(part, adjusted)
        if trusted.weight.sum() > 0.2 * part.weight.sum():
            adjusted = adjust(trusted, adjusted.state, prior, held, rounds=3)
        T = adjusted.state.T_camera_world.copy()
        known = given | (known & (agreement_by_frame(part, adjusted.state) > MIN_AGREEMENT))
        if not (known & ~given).any():
            break
        if known.all() or not _new_ones(known, tracks):
            break
    whole = torch.from_numpy(np.where(given[:, None, None], T_world_camera, invert(T)))
    pose_known = torch.from_numpy(known)
    return CompletedPath(geometry.interpolate_poses(whole, pose_known), pose_known)


def _new_ones(known: np.ndarray, tracks: Tracks) -> bool:
    """Whether a frame without a camera is seen by one with a camera."""
    pair = (tracks.target >= 0) & ~known[tracks.target] & known[tracks.anchor][:, None]
    return bool(pair.any())


def _with_one_lens(tracks: Tracks, K: Float64[np.ndarray, "n 3 3"], size: tuple[int, int], focal: float) -> Tracks:
    """Tracks as one pinhole of `focal` with its principal point in the middle would have seen them."""
    K = K.copy()
    K[:, 0] *= tracks.size[1] / size[1]
    K[:, 1] *= tracks.size[0] / size[0]
    scale, centre = K[:, [0, 1], [0, 1]], K[:, :2, 2]

    def bent(pixel: np.ndarray, frame: np.ndarray) -> np.ndarray:
        rays = (pixel - centre[frame][..., None, :]) / scale[frame][..., None, :]
        return (rays * focal + tracks.centre).astype(np.float32)

    return replace(
        tracks, pixel=bent(tracks.pixel, tracks.anchor), observed=bent(tracks.observed, np.maximum(tracks.target, 0))
    )
