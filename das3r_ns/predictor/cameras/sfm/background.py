"""Cameras of a clip whose image is mostly objects that move: the motions in it, the one behind, its cameras."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool

from das3r_ns.predictor.cameras.sfm.bundle_adjustment import FocalPrior
from das3r_ns.predictor.cameras.sfm.estimate import CameraEstimate, explained_share, finished_estimate
from das3r_ns.predictor.cameras.sfm.focal import FocalKnowledge, focal_prior
from das3r_ns.predictor.cameras.sfm.motion_segmentation import (
    RigidMotion,
    believe,
    grow_trusted,
    motion_of,
    regrow,
    rigid_motions,
    trust,
)
from das3r_ns.predictor.cameras.sfm.normal_equations import invert
from das3r_ns.predictor.cameras.sfm.occlusion_order import count_occlusions, front_frames, rearmost_motion, sides
from das3r_ns.predictor.cameras.sfm.tracks import Tracks

ROUNDS = 2
"""Times that what belongs to the background and its cameras are found from one another."""


@dataclass(frozen=True)
class Background:
    """The motion that all others hide."""

    cameras: CameraEstimate
    """Its `inlier_share` is of all that was followed, so it is low."""
    hidden: int
    """Times that a point of it was lost where something else was seen."""
    hides: int
    """Times that it was seen where a point of something else was lost."""


def background_cameras(
    tracks: Tracks,
    size: tuple[int, int],
    focal: FocalKnowledge = FocalKnowledge(),  # noqa: RUF100, B008  (frozen)
) -> Background | None:
    """Cameras relative to the motion that all others hide, however few points follow it.

    Args:
        size: height and width of the image that focal lengths are measured in.

    Returns:
        None where there is but one motion, or none is clearly behind all others.
    """
    prior = focal_prior(tracks, size, focal)
    motions = rigid_motions(tracks, prior)
    if len(motions) < 2:
        return None
    count = count_occlusions(tracks, motions)
    index = rearmost_motion(count)
    if index is None:
        return None
    if front_frames(count, index).any():
        motions = _untangled(tracks, motions, front_frames(count, index), prior)
        count = count_occlusions(tracks, motions)
    for _ in range(ROUNDS):
        motions[index] = regrow(tracks, motions, index, prior)
    hidden, hides = (int(side[:, index].sum()) for side in sides(count))
    return Background(_estimate(tracks, size, motions, index, prior), hidden, hides)


def _untangled(
    tracks: Tracks, motions: list[RigidMotion], tangled: Bool[np.ndarray, "n"], prior: FocalPrior
) -> list[RigidMotion]:
    """Where motions may have changed places for a while, as quick objects make them do, all are followed anew from the
    other frames."""
    kept = []
    for motion in motions:
        rest = motion.registered & ~tangled
        cameras = motion.state.T_camera_world, motion.state.focal
        kept.append(motion_of(tracks, *cameras, rest) if rest.any() else motion)
    return [grow_trusted(tracks, motion.state, motion.registered, prior) for motion in kept]


def _estimate(
    tracks: Tracks, size: tuple[int, int], motions: list[RigidMotion], index: int, prior: FocalPrior
) -> CameraEstimate:
    motion = motions[index]
    others = np.max([other.share for k, other in enumerate(motions) if k != index], axis=0, initial=0)
    own = believe(tracks, trust(motion.share) * (motion.share > others))
    own = replace(own, seen=tracks.seen * (own.weight.sum(axis=1) > 0)[:, None])
    estimate = finished_estimate(own, size, motion.state, motion.registered, prior)
    focal = estimate.focal_px * tracks.size[1] / size[1]
    registered = estimate.pose_known.numpy()
    final = motion_of(tracks, invert(estimate.T_world_camera.numpy()), focal, registered)
    return replace(estimate, inlier_share=explained_share(tracks, final.state, registered))
