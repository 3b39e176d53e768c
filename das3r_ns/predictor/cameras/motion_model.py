"""What kind of camera motion a clip shows, and cameras for the kinds that have no parallax.

In: `sfm.Tracks`. Out: `MotionEvidence`, which says what share of the positions each model explains, so that messages
can say what was found. A tripod and a pan on the spot hold no depth, and structure from motion gives nonsense there:
the right models are one camera, or rotations whose focal length follows from the homographies K R inv(K) (Hartley,
Self-Calibration of Stationary Cameras, IJCV 1997).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float64

from das3r_ns.predictor.cameras.sfm.bundle_adjustment import adjust
from das3r_ns.predictor.cameras.sfm.estimate import CameraEstimate, estimate_cameras
from das3r_ns.predictor.cameras.sfm.focal import SPREAD, FocalKnowledge, focal_prior
from das3r_ns.predictor.cameras.sfm.initialization import InitializationError, relative_motion
from das3r_ns.predictor.cameras.sfm.normal_equations import State, invert
from das3r_ns.predictor.cameras.sfm.resection import MIN_INLIERS
from das3r_ns.predictor.cameras.sfm.rotations import best_rotations, fit_rotation, homography
from das3r_ns.predictor.cameras.sfm.tracks import MIN_WEIGHT, Tracks

STILL_PX = 0.4
"""Pixels of the flow. What moves less stands still: several times the noise of a position."""
STATIC_SHARE = 0.3
"""A moving camera leaves fewer positions in place, even when it follows an object."""
ROTATION_SHARE = 0.5
"""Objects that move may cover the rest of the image."""
PARALLAX_SHARE = 0.15
"""Positions that an epipolar geometry explains and no rotation does; with more the camera has moved."""
EXACT_PX = 0.1
"""Pixels of the flow. Rotations with no more noise than positions have leave nothing for parallax to explain."""
MIN_PARALLAX_PX = 1.5
"""Pixels of the flow. Shifts this small are noise, and a pan is better described by rotations."""
MAX_NOISE_RATIO = 0.6
"""Noise of moving cameras over that of turning ones. Freer cameras always fit a little better."""

MotionKind = Literal["static", "rotation", "general"]


@dataclass(frozen=True)
class MotionEvidence:
    """What the tracks say about the camera. Shares are medians over pairs of frames as far apart as can be followed."""

    kind: MotionKind
    """static: a tripod; rotation: turning on the spot; general: parallax."""
    share_static: float
    """Positions that do not move at all."""
    share_rotation: float
    """Positions that a camera explains which only turns."""
    share_epipolar: float
    """Positions that one epipolar geometry explains."""

    def __str__(self) -> str:
        return (
            f"{self.kind} camera: {100 * self.share_static:.0f} % of the positions stand still, "
            f"{100 * self.share_rotation:.0f} % fit a rotation, {100 * self.share_epipolar:.0f} % an epipolar geometry"
        )


def select_motion_model(
    tracks: Tracks,
    size: tuple[int, int],
    focal: FocalKnowledge = FocalKnowledge(),  # noqa: RUF100, B008  (frozen)
) -> MotionEvidence:
    """Choose the simplest motion that explains the tracks: identity, rotation, then anything with parallax.

    Args:
        size: height and width of the image that focal lengths are measured in.
    """
    pairs = _far_pairs(tracks)
    if not pairs:
        return MotionEvidence("general", 0.0, 0.0, 0.0)
    prior = focal_prior(tracks, size, focal)
    matches = [_matches(tracks, a, slot) for a, slot in pairs]
    static = float(np.median([np.mean(np.linalg.norm(t - s, axis=1) < STILL_PX) for s, t in matches]))
    best_focal, rotations = best_rotations(matches, prior, tracks.centre)
    rotation = float(np.median([explained.mean() for _, explained in rotations]))
    # Parallax is what the epipolar geometry explains beyond the rotation.
    epipolar, parallax = [], []
    for (source, target), (_, explained) in zip(matches, rotations):
        fitted = relative_motion(source, target, best_focal, tracks.centre)
        inliers = explained if fitted is None else fitted[1]
        epipolar.append(inliers.mean())
        parallax.append((inliers & ~explained).mean())
    kind: MotionKind = "general"
    if static > STATIC_SHARE and static > 0.7 * rotation:
        kind = "static"
    elif rotation > ROTATION_SHARE and np.median(parallax) < PARALLAX_SHARE:
        kind = "rotation"
    return MotionEvidence(kind, static, rotation, float(np.median(epipolar)))


def cameras_from_tracks(
    tracks: Tracks,
    size: tuple[int, int],
    focal: FocalKnowledge = FocalKnowledge(),  # noqa: RUF100, B008  (frozen)
    evidence: MotionEvidence | None = None,
) -> tuple[MotionEvidence, CameraEstimate]:
    """Cameras by the model that fits the motion: one camera, rotations, or bundle adjustment.

    Args:
        evidence: as from `select_motion_model`, when it is at hand.

    Raises:
        InitializationError: no two frames show parallax that a camera motion explains, nor do they fit a rotation.
    """
    evidence = evidence or select_motion_model(tracks, size, focal)
    if evidence.kind == "static":
        return evidence, static_cameras(tracks, size, focal)
    if evidence.kind == "general":
        return evidence, estimate_cameras(tracks, size, focal)
    turning = rotation_cameras(tracks, size, focal)
    to_flow = tracks.size[1] / size[1]
    if turning.reprojection_error_px.median() * to_flow < EXACT_PX:
        return evidence, turning
    try:
        moving = estimate_cameras(tracks, size, focal)
    except InitializationError:
        return evidence, turning
    # A tripod head off the lens, or a step aside while panning: little parallax, but the depth is in it.
    moves = parallax(moving) * to_flow > MIN_PARALLAX_PX
    if moves and moving.reprojection_error_px.median() < MAX_NOISE_RATIO * turning.reprojection_error_px.median():
        return replace(evidence, kind="general"), moving
    return evidence, turning


def parallax(cameras: CameraEstimate) -> float:
    """Pixels of the image by which points at the usual depth (1) shift as the camera moves: its distance from the
    middle of its path, exceeded in a tenth of the frames."""
    centres = cameras.T_world_camera[:, :3, 3]
    return cameras.focal_px * float((centres - centres.median(dim=0).values).norm(dim=1).quantile(0.9))


def static_cameras(
    tracks: Tracks,
    size: tuple[int, int],
    focal: FocalKnowledge = FocalKnowledge(),  # noqa: RUF100, B008  (frozen)
) -> CameraEstimate:
    """One camera for all frames. Nothing tells its focal length, which is the known or the usual one."""
    prior = focal_prior(tracks, size, focal)
    n = tracks.num_frames
    T = np.tile(np.eye(4), (n, 1, 1))
    return _without_points(tracks, size, T, np.ones(n, bool), prior.focal, prior.spread, np.zeros(n))


def rotation_cameras(
    tracks: Tracks,
    size: tuple[int, int],
    focal: FocalKnowledge = FocalKnowledge(),  # noqa: RUF100, B008  (frozen)
) -> CameraEstimate:
    """Cameras that only turn, all at the origin; world = first frame. Frames that nothing links to the first keep the
    pose of the frame before them, with `pose_known` False."""
    prior = focal_prior(tracks, size, focal)
    matches = [_matches(tracks, a, slot) for a, slot in _far_pairs(tracks)]
    start = best_rotations(matches, prior, tracks.centre)[0] if matches else prior.focal
    T, registered = _chain(tracks, start)
    held = np.zeros(tracks.num_frames, bool)
    held[0] = True
    state = State(T, start, np.zeros(tracks.pixel.shape[:2]))
    adjusted = adjust(tracks, state, prior, held, rounds=10, free_depth=False)
    T = invert(adjusted.state.T_camera_world)
    return _without_points(tracks, size, T, registered, adjusted.state.focal, adjusted.focal_std, adjusted.noise)


def _far_pairs(tracks: Tracks, most: int = 16) -> list[tuple[int, int]]:
    """For some anchors spread over the clip, the farthest target that still sees a third of the points."""
    share = (tracks.weight > MIN_WEIGHT).mean(axis=2)
    usual = float(np.quantile(share[tracks.target >= 0], 0.95))
    enough = max(0.33 * usual, MIN_INLIERS / tracks.pixel.shape[1])
    found = []
    for a in range(len(tracks.anchor)):
        slots = np.flatnonzero((share[a] > enough) & (tracks.target[a] >= 0))
        if len(slots):
            distance = np.abs(tracks.target[a, slots] - tracks.anchor[a])
            found.append((a, int(slots[np.argmax(distance)])))
    return found[:: max(1, -(-len(found) // most))]


def _matches(tracks: Tracks, a: int, slot: int) -> tuple[np.ndarray, np.ndarray]:
    use = tracks.weight[a, slot] > MIN_WEIGHT
    return tracks.pixel[a, use].astype(np.float64), tracks.observed[a, slot, use].astype(np.float64)


def _chain(tracks: Tracks, focal: float) -> tuple[Float64[np.ndarray, "n 4 4"], Bool[np.ndarray, "n"]]:
    """T_camera_world by rotation from anchor to target, nearest frames first, until no more are linked to frame 0."""
    n = tracks.num_frames
    T = np.tile(np.eye(4), (n, 1, 1))
    registered = np.zeros(n, bool)
    registered[0] = True
    links: dict[int, list[tuple[int, int, int]]] = {}
    for a, slot in zip(*np.nonzero(tracks.target >= 0)):
        i, j = int(tracks.anchor[a]), int(tracks.target[a, slot])
        links.setdefault(j, []).append((abs(i - j), int(a), int(slot)))
    for j in range(1, n):
        T[j] = T[j - 1]
        for _, a, slot in sorted(links.get(j, [])):
            i = int(tracks.anchor[a])
            source, target = _matches(tracks, a, slot)
            if i < j and registered[i] and len(source) >= MIN_INLIERS:
                H = homography(source, target)
                T[j, :3, :3] = fit_rotation(source, target, H, focal, tracks.centre)[0] @ T[i, :3, :3]
                registered[j] = True
                break
    return T, registered


def _without_points(
    tracks: Tracks,
    size: tuple[int, int],
    T_world_camera: np.ndarray,
    registered: np.ndarray,
    focal: float,
    focal_std: float,
    noise: np.ndarray,
) -> CameraEstimate:
    to_image = size[1] / tracks.size[1]
    return CameraEstimate(
        torch.from_numpy(T_world_camera),
        focal * to_image,
        min(focal_std, SPREAD),
        torch.from_numpy(registered),
        torch.from_numpy(noise * to_image),
        1.0,
        torch.zeros(0, 3, dtype=torch.float64),
        torch.zeros(0, dtype=torch.long),
        torch.zeros(0, 2, dtype=torch.float64),
    )
