"""The way in: cameras from tracks alone, or better cameras from those of structure from motion."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from das3r_ns import geometry
from das3r_ns.predictor.cameras.sfm.bundle_adjustment import Adjusted, FocalPrior, adjust
from das3r_ns.predictor.cameras.sfm.focal import MAX_FOCAL_STD, FocalKnowledge, focal_prior, with_usual_focal
from das3r_ns.predictor.cameras.sfm.initialization import grow, start_from_nothing, triangulate
from das3r_ns.predictor.cameras.sfm.normal_equations import State, invert, squared_errors
from das3r_ns.predictor.cameras.sfm.resection import INLIER_PX
from das3r_ns.predictor.cameras.sfm.tracks import Tracks

MIN_INLIER_SHARE = 0.2
"""A frame in which less than this share of the positions agrees with its pose has none."""

TRUSTED_INLIER_SHARE = (0.55, 0.75)
"""Shares of its views that a point must agree with to count at all, and to count fully."""
CONSENSUS_ROUNDS = 3
HALF_EXPLAINED_PX = 0.5
"""Pixels of the flow: far above the noise of a position, far below what a wrong camera does."""
CORNER_VARIANCE = 4.0
"""Variance of positions in a corner over that in the middle: no lens is a pinhole out there, and what it bends ends up
in the focal length."""
MIN_BELIEVED_SHARE = 0.2
"""Share of the weight that must remain; with less the cameras are not good enough yet to judge points by."""


@dataclass(frozen=True)
class CameraEstimate:
    """Cameras of a clip of n frames."""

    T_world_camera: Float[Tensor, "n 4 4"]
    """Camera-to-world, OpenCV axes, float64."""
    focal_px: float
    """Pixels of the image."""
    focal_std: float
    """How sure the focal length is: standard deviation of its logarithm (0.01 = 1 %), 0 when it was known. Above
    `MAX_FOCAL_STD` the motion says next to nothing (straight ahead the focal length is free): it is near the usual one.
    Lens distortion is not in it."""
    pose_known: Bool[Tensor, "n"]
    """False where too few pixels agreed on a pose and it was interpolated."""
    reprojection_error_px: Float[Tensor, "n"]
    """Typical reprojection error of a frame's positions along each axis, in pixels of the image."""
    inlier_share: float
    """Share of the followed positions, by weight, that the cameras explain: 1 where they lie where they were seen, half
    at a distance of `HALF_EXPLAINED_PX`. What tells two estimates of one clip apart."""
    points: Float[Tensor, "m 3"]
    """World positions of the followed points that most of their views agree on."""
    point_frame: Int[Tensor, "m"]
    """The frame that each point was followed from."""
    point_pixel: Float[Tensor, "m 2"]
    """Where that frame sees it, in pixels of the image."""


def estimate_cameras(
    tracks: Tracks,
    size: tuple[int, int],
    focal: FocalKnowledge = FocalKnowledge(),  # noqa: RUF100, B008  (frozen)
) -> CameraEstimate:
    """Cameras of every frame from nothing but tracks. The world is the first posed frame, its scale is such that the
    points have median depth 1.

    Args:
        size: height and width of the image that focal lengths are measured in.

    Raises:
        InitializationError: no two frames show parallax that a camera motion explains; the message says what may be
            wrong.
    """
    prior = focal_prior(tracks, size, focal)
    adjusted, registered = start_from_nothing(tracks, prior)
    return finished_estimate(tracks, size, adjusted.state, registered, prior)


def finished_estimate(
    tracks: Tracks, size: tuple[int, int], state: State, registered: Bool[np.ndarray, "n"], prior: FocalPrior
) -> CameraEstimate:
    """The last adjustment of first cameras. The world is the first frame with a camera, points have median depth 1."""
    first = int(np.flatnonzero(registered)[0])
    T = state.T_camera_world @ invert(state.T_camera_world[first])
    finished, registered = _finish(tracks, T, registered, state.focal, prior)
    depth = 1 / finished.state.inverse_depth[finished.state.inverse_depth > 0]
    state = finished.state
    if len(depth):
        scale = 1 / float(np.median(depth))
        T = state.T_camera_world.copy()
        T[:, :3, 3] *= scale
        state = State(T, state.focal, state.inverse_depth / scale)
    return estimate_of(tracks, size, finished, state, registered)


def refine_cameras(
    tracks: Tracks,
    size: tuple[int, int],
    T_world_camera: Float[Tensor, "n 4 4"],
    focal_px: float,
    pose_known: Bool[Tensor, "n"] | None = None,
    focal: FocalKnowledge = FocalKnowledge(),  # noqa: RUF100, B008  (frozen)
) -> CameraEstimate:
    """Better cameras from good ones, and cameras for the frames that had none. The world and its scale are kept: the
    first posed camera does not move, and the median distance of the others from it stays.

    Args:
        T_world_camera: camera-to-world, OpenCV axes; of no meaning where `pose_known` is False.
        focal_px: pixels of the image; where the search starts.
        pose_known: None when all are.

    Raises:
        ValueError: another number of cameras than frames, or fewer than two are known.
    """
    n = tracks.num_frames
    registered = np.ones(n, bool) if pose_known is None else pose_known.numpy().copy()
    if len(T_world_camera) != n or len(registered) != n or registered.sum() < 2:
        raise ValueError(f"{len(T_world_camera)} cameras, {int(registered.sum())} of them known, do not fit {n} frames")
    prior = focal_prior(tracks, size, focal)
    first = int(np.flatnonzero(registered)[0])
    given = np.array(T_world_camera.double().numpy())
    given[~registered] = np.eye(4)
    T = invert(given)
    start_focal = float(np.clip(focal_px * tracks.size[1] / size[1], *prior.bounds))
    before = _reach(T, registered, first)
    was_registered = registered.copy()
    if not registered.all():
        grown, registered = grow(tracks, T, registered, prior, start_focal)
        T, start_focal = grown.state.T_camera_world, grown.state.focal
    finished, registered = _finish(tracks, T, registered, start_focal, prior)
    scale = before / max(_reach(finished.state.T_camera_world, was_registered, first), 1e-12)
    # Scale about the first camera: it stays where it is.
    T_world = invert(finished.state.T_camera_world)
    T_world[:, :3, 3] = T_world[first, :3, 3] + scale * (T_world[:, :3, 3] - T_world[first, :3, 3])
    state = State(invert(T_world), finished.state.focal, finished.state.inverse_depth / scale)
    return estimate_of(tracks, size, finished, state, registered)


def inlier_share_of(tracks: Tracks, size: tuple[int, int], cameras: CameraEstimate) -> float:
    """What `CameraEstimate.inlier_share` is, for cameras that were changed since: points are sought anew.

    Args:
        size: height and width of the image that the focal length is measured in.
    """
    T, registered = invert(cameras.T_world_camera.numpy()), cameras.pose_known.numpy()
    focal = cameras.focal_px * tracks.size[1] / size[1]
    inverse_depth, _ = triangulate(tracks, T, focal, registered)
    return explained_share(tracks, State(T, focal, inverse_depth), registered)


def _finish(
    tracks: Tracks, T_camera_world: np.ndarray, registered: np.ndarray, focal: float, prior: FocalPrior
) -> tuple[Adjusted, np.ndarray]:
    """Adjust all frames, those without a pose from an interpolated one, and see which of them hold."""
    first = int(np.flatnonzero(registered)[0])
    held = np.zeros(tracks.num_frames, bool)
    held[first] = True
    if not registered.all():
        filled = geometry.interpolate_poses(torch.from_numpy(invert(T_camera_world)), torch.from_numpy(registered))
        T_camera_world = invert(filled.numpy())
    inverse_depth, _ = triangulate(tracks, T_camera_world, focal, registered)
    weighed = less_in_corners(tracks)
    believed, adjusted = weighed, adjust(weighed, State(T_camera_world, focal, inverse_depth), prior, held, rounds=12)
    for _ in range(CONSENSUS_ROUNDS):
        trusted = believe_points(weighed, adjusted)
        if trusted.weight.sum() < MIN_BELIEVED_SHARE * weighed.weight.sum():
            break
        believed, adjusted = trusted, adjust(trusted, adjusted.state, prior, held, rounds=4)
    if prior.spread > 0 and adjusted.focal_std > MAX_FOCAL_STD:
        adjusted = with_usual_focal(weighed, believed, adjusted, prior, held)
    inlier_share = inlier_share_by_frame(tracks, adjusted.state)
    holds = inlier_share > MIN_INLIER_SHARE
    holds[first] = True
    if not holds.all():
        T = geometry.interpolate_poses(
            torch.from_numpy(invert(adjusted.state.T_camera_world)), torch.from_numpy(holds)
        ).numpy()
        state = State(invert(T), adjusted.state.focal, adjusted.state.inverse_depth)
        adjusted = replace(adjusted, state=state)
    return adjusted, holds


def less_in_corners(tracks: Tracks) -> Tracks:
    """Weights divided by the variance at the outer of a position's two ends."""
    centre = np.array(tracks.centre, np.float32)

    def variance(pixel: np.ndarray) -> np.ndarray:
        return 1 + (CORNER_VARIANCE - 1) * np.square(pixel - centre).sum(axis=-1) / np.square(centre).sum()

    outer = np.maximum(variance(tracks.pixel)[:, None], variance(tracks.observed))
    return replace(tracks, weight=(tracks.weight / outer).astype(np.float32))


def believe_points(tracks: Tracks, adjusted: Adjusted) -> Tracks:
    """The tracks with less weight on points that many of their own views contradict.

    An object that moves finds, view by view, a depth that explains part of its motion: those positions look like
    inliers but pull the cameras. A static point agrees with nearly all of its views.
    """
    weight = tracks.weight * _trust(_inlier_share_by_point(tracks, adjusted))[:, None]
    return replace(tracks, weight=weight)


def _inlier_share_by_point(tracks: Tracks, adjusted: Adjusted) -> np.ndarray:
    """By point, the share of weight of its positions within three standard deviations."""
    limit = (9 * adjusted.noise[tracks.anchor] ** 2)[:, None, None] * tracks.hops[:, None]
    fine = (tracks.weight * (squared_errors(tracks, adjusted.state) < limit)).sum(axis=1)
    return fine / np.maximum(tracks.weight.sum(axis=1), 1e-9)


def _trust(inlier_share: np.ndarray) -> np.ndarray:
    return np.clip(
        (inlier_share - TRUSTED_INLIER_SHARE[0]) / (TRUSTED_INLIER_SHARE[1] - TRUSTED_INLIER_SHARE[0]), 0, 1
    ).astype(np.float32)


def inlier_share_by_frame(tracks: Tracks, state: State) -> np.ndarray:
    """By frame, the share of weight of its positions that lie within `INLIER_PX` of where they should."""
    within = squared_errors(tracks, state) < (INLIER_PX**2 * tracks.hops)[:, None]
    total, fine = np.zeros(tracks.num_frames), np.zeros(tracks.num_frames)
    present = tracks.target >= 0
    anchor = np.broadcast_to(tracks.anchor[:, None], tracks.target.shape)
    for frames in (anchor, tracks.target):
        np.add.at(total, frames[present], tracks.seen.sum(axis=2)[present])
        np.add.at(fine, frames[present], (tracks.weight * within).sum(axis=2)[present])
    return fine / np.maximum(total, 1e-9)


def explained_share(tracks: Tracks, state: State, registered: np.ndarray, half_px: float = HALF_EXPLAINED_PX) -> float:
    """Share of the followed positions, by weight, that a state explains: half of one at a distance of `half_px`."""
    posed = registered[tracks.anchor][:, None] & registered[tracks.target] & (tracks.target >= 0)
    explained = 1 / (1 + squared_errors(tracks, state) / half_px**2)
    return float((tracks.weight * explained * posed[..., None]).sum() / max(float(tracks.weight.sum()), 1e-9))


def _reach(T_camera_world: np.ndarray, registered: np.ndarray, first: int) -> float:
    centres = invert(T_camera_world)[:, :3, 3]
    return float(np.median(np.linalg.norm(centres[registered] - centres[first], axis=1)))


def estimate_of(
    tracks: Tracks, size: tuple[int, int], adjusted: Adjusted, state: State, registered: np.ndarray
) -> CameraEstimate:
    to_image = size[1] / tracks.size[1]
    T_world_camera = invert(state.T_camera_world)
    agreeing = _inlier_share_by_point(tracks, replace(adjusted, state=state))
    good = (agreeing > TRUSTED_INLIER_SHARE[1]) & (tracks.weight.sum(axis=1) > 1.5)
    good &= (state.inverse_depth > 0) & registered[tracks.anchor][:, None]
    a, p = np.nonzero(good)
    pixel = tracks.pixel[a, p].astype(np.float64)
    ray = np.concatenate(((pixel - tracks.centre) / state.focal, np.ones((len(a), 1))), axis=1)
    camera = ray / state.inverse_depth[a, p][:, None]
    T = T_world_camera[tracks.anchor[a]]
    return CameraEstimate(
        torch.from_numpy(T_world_camera),
        state.focal * to_image,
        adjusted.focal_std,
        torch.from_numpy(registered),
        torch.from_numpy(adjusted.noise * to_image),
        explained_share(tracks, state, registered),
        torch.from_numpy((T[:, :3, :3] @ camera[..., None])[..., 0] + T[:, :3, 3]),
        torch.from_numpy(tracks.anchor[a]),
        torch.from_numpy(pixel * to_image),
    )
