"""Which of several rigid motions is that of the room: the one whose points the others hide.

What moves passes before what stands still. So points of the room end at the outlines of objects: where the room's
cameras say that a point should be, an object is seen instead. Points of an object end where it turns away or leaves the
image, hardly ever where the room is seen. How many points follow a motion says nothing, nor do their depths, for
each motion has a scale of its own.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial import cKDTree

from das3r_ns.predictor.cameras.sfm.motion_segmentation import RigidMotion
from das3r_ns.predictor.cameras.sfm.normal_equations import State, relative_poses
from das3r_ns.predictor.cameras.sfm.resection import INLIER_PX
from das3r_ns.predictor.cameras.sfm.tracks import Tracks

NEAR_FRAMES = 8
"""Points are looked for in frames up to this far away: further off they are lost for other reasons too."""
MARGIN_PX = 2.0
"""Pixels of the flow. Points nearer to the border of the image may have left it."""
MIN_NEIGHBOURS = 4
"""Points around, all of one motion, that say what is seen in a place."""
MIN_FOUND_SHARE = 0.5
"""Share of a motion's points that two frames must find where they should be."""
MIN_HIDDEN_SHARE = 0.8
"""Share of all hiding between the room and the rest in which the room is the one that is hidden."""
MIN_HIDDEN_POINTS = 50
"""Points found hidden without which nothing is said."""
AROUND_FRAMES = 3
"""Frames each way over which is summed what a single frame says."""
NO_MOTION = -1


def labels(motions: list[RigidMotion]) -> Int[np.ndarray, "a p"]:
    """By point, the motion that explains it best; `NO_MOTION` where none does."""
    share = np.stack([motion.share for motion in motions])
    belongs = np.stack([motion.points for motion in motions]).any(axis=0)
    return np.where(belongs, share.argmax(axis=0), NO_MOTION)


def count_occlusions(tracks: Tracks, motions: list[RigidMotion]) -> Int[np.ndarray, "n m m"]:
    """How often points of one motion (row) that a frame should see are lost, with another (column) seen in their place.

    Only between frames in which most points of the motion are found where they should be: elsewhere its cameras are
    wrong or the image moved too fast to be followed.
    """
    label = labels(motions)
    around = [cKDTree(pixel) for pixel in tracks.pixel]
    anchor_of = {int(frame): a for a, frame in enumerate(tracks.anchor)}
    count = np.zeros((tracks.num_frames, len(motions), len(motions)), dtype=np.int64)
    for m, motion in enumerate(motions):
        expected, ahead = _expected(tracks, motion.state)
        size = np.array(tracks.size[::-1])
        inside = ahead & ((expected > MARGIN_PX) & (expected < size - MARGIN_PX)).all(axis=-1)
        inside &= ((label == m) & (motion.state.inverse_depth > 0))[:, None]
        right = np.square(expected - tracks.observed).sum(axis=-1) < INLIER_PX**2
        found = inside & (tracks.seen > 0) & right
        for a, slot in zip(*np.nonzero(tracks.target >= 0)):
            i, j = int(tracks.anchor[a]), int(tracks.target[a, slot])
            if abs(i - j) > NEAR_FRAMES or j not in anchor_of or not (motion.registered[i] and motion.registered[j]):
                continue
            lost = inside[a, slot] & (tracks.seen[a, slot] == 0)
            if lost.any() and found[a, slot].sum() > MIN_FOUND_SHARE * inside[a, slot].sum():
                b = anchor_of[j]
                seen = label[b][around[b].query(expected[a, slot, lost], k=MIN_NEIGHBOURS)[1]]
                agreed = seen[(seen == seen[:, :1]).all(axis=1), 0]
                count[j, m] += np.bincount(agreed[agreed != NO_MOTION], minlength=len(motions))
    return count


def rearmost_motion(count: Int[np.ndarray, "n m m"]) -> int | None:
    """The motion that all others hide, from the counts of `count_occlusions`; None where that is not beyond doubt."""
    hidden, hides = (side.sum(axis=0) for side in sides(count))
    share = np.where(hidden < MIN_HIDDEN_POINTS, 0, (hidden + 1) / (hidden + hides + 2))
    best = int(share.argmax())
    return best if len(share) > 1 and share[best] > MIN_HIDDEN_SHARE else None


def front_frames(count: Int[np.ndarray, "n m m"], motion: int) -> Bool[np.ndarray, "n"]:
    """Frames around which a motion hides others more often than it is hidden: there it follows something else."""
    hidden, hides = (side[:, motion] for side in sides(count))
    around = np.ones(2 * AROUND_FRAMES + 1)
    return np.convolve(hides, around, "same") > np.convolve(hidden, around, "same")


def sides(count: Int[np.ndarray, "n m m"]) -> tuple[Int[np.ndarray, "n m"], Int[np.ndarray, "n m"]]:
    """By frame and motion, how often its points are hidden by others, and how often it hides theirs."""
    others = count * (1 - np.eye(count.shape[1], dtype=np.int64))
    return others.sum(axis=2), others.sum(axis=1)


def _expected(tracks: Tracks, state: State) -> tuple[Float[np.ndarray, "a k p 2"], Bool[np.ndarray, "a k p"]]:
    """Where each target would see each point, and whether the point lies before its camera."""
    T = relative_poses(state.T_camera_world, tracks)
    ray = np.ones((*tracks.pixel.shape[:2], 3))
    ray[..., :2] = (tracks.pixel - tracks.centre) / state.focal
    Y = np.einsum("akij,apj->akpi", T[..., :3, :3], ray)
    Y += state.inverse_depth[:, None, :, None] * T[:, :, None, :3, 3]
    ahead = Y[..., 2] > 1e-3
    return state.focal * Y[..., :2] / np.where(ahead, Y[..., 2], 1)[..., None] + np.array(tracks.centre), ahead
