"""Cameras of the frames between keyframes that somebody gave, or beside them.

The clip's own structure from motion gives a path in a world of its own. It is turned, scaled and bent so that it passes
through the given cameras, and adjusted to all that was followed while these stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, UInt8
from scipy.spatial.transform import Rotation
from torch import Tensor

from das3r_ns import geometry
from das3r_ns.predictor.cameras.sfm.bundle_adjustment import FocalPrior, adjust
from das3r_ns.predictor.cameras.sfm.estimate import (
    MIN_BELIEVED_SHARE,
    MIN_INLIER_SHARE,
    believe_points,
    inlier_share_by_frame,
)
from das3r_ns.predictor.cameras.sfm.initialization import InitializationError, start_from_nothing, triangulate
from das3r_ns.predictor.cameras.sfm.normal_equations import State, invert
from das3r_ns.predictor.cameras.sfm.resection import only_registered
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
    whole = torch.from_numpy(np.where(given[:, None, None], T_world_camera, np.eye(4)))
    start = geometry.interpolate_poses(whole, torch.from_numpy(given)).numpy()
    found = given.copy()
    try:
        own, registered = start_from_nothing(tracks, prior)
    except InitializationError:
        registered = np.zeros(n, bool)  # no parallax: the interpolated poses are all there is to start from
    else:
        bent = _bent_to(invert(own.state.T_camera_world), registered, T_world_camera, given)
        if bent is not None:
            start[~given & registered] = bent[~given & registered]
            found |= registered
    everywhere = np.ones(n, bool) if not (found & ~given).any() else found
    T = invert(start)
    part = only_registered(tracks, everywhere)
    inverse_depth, _ = triangulate(part, T, focal, everywhere)
    held = given | ~everywhere
    adjusted = adjust(part, State(T, focal, inverse_depth), prior, held)
    trusted = believe_points(part, adjusted)
    if trusted.weight.sum() > MIN_BELIEVED_SHARE * part.weight.sum():
        adjusted = adjust(trusted, adjusted.state, prior, held)
    known = given | (everywhere & (inlier_share_by_frame(part, adjusted.state) > MIN_INLIER_SHARE))
    T = np.where(given[:, None, None], T_world_camera, invert(adjusted.state.T_camera_world))
    pose_known = torch.from_numpy(known)
    return CompletedPath(geometry.interpolate_poses(torch.from_numpy(T), pose_known), pose_known)


def _bent_to(
    own: Float64[np.ndarray, "n 4 4"],
    registered: Bool[np.ndarray, "n"],
    T_world_camera: Float64[np.ndarray, "n 4 4"],
    given: Bool[np.ndarray, "n"],
) -> Float64[np.ndarray, "n 4 4"] | None:
    """A path of its own world and scale, turned, scaled and bent so that it passes through the given cameras. None
    where fewer than two of them lie on it, apart from one another."""
    both = np.flatnonzero(registered & given)
    if len(both) < 2:
        return None
    step_own = np.linalg.norm(np.diff(own[both, :3, 3], axis=0), axis=1)
    step_given = np.linalg.norm(np.diff(T_world_camera[both, :3, 3], axis=0), axis=1)
    if step_own.sum() < 1e-9 or step_given.sum() < 1e-9:
        return None
    scale = float(step_given.sum() / step_own.sum())
    turns = Rotation.from_matrix(T_world_camera[both, :3, :3] @ own[both, :3, :3].transpose(0, 2, 1))
    turn = turns.mean()
    bent = own.copy()
    bent[:, :3, :3] = turn.as_matrix() @ own[:, :3, :3]
    bent[:, :3, 3] = scale * own[:, :3, 3] @ turn.as_matrix().T
    # What is left at the given cameras goes over to the frames between them.
    off = T_world_camera[both, :3, 3] - bent[both, :3, 3]
    rest = Rotation.from_matrix(T_world_camera[both, :3, :3] @ bent[both, :3, :3].transpose(0, 2, 1)).as_rotvec()
    frames = np.arange(len(own))
    shift, vector = (np.stack([np.interp(frames, both, v[:, k]) for k in range(3)], axis=1) for v in (off, rest))
    bent[:, :3, 3] += shift
    bent[:, :3, :3] = Rotation.from_rotvec(vector).as_matrix() @ bent[:, :3, :3]
    return bent


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
