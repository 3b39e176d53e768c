"""The rigid motions of a clip in which no single one explains most of what was followed.

In: `Tracks`. Out: `RigidMotion`s, each with cameras of its own: relative to the room, or to an object that moves.
One is grown after the other, each from what the earlier ones leave over. Growth trusts no point for what two or three
views say, for a moving object finds a depth for any two of them; only points that most of their views agree with place
further frames and count in the adjustment. So a motion keeps to the objects that it began with.

Which of the motions is that of the room is the business of `occlusion_order`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float

from das3r_ns.predictor.cameras.sfm.bundle_adjustment import FocalPrior, adjust
from das3r_ns.predictor.cameras.sfm.initialization import InitializationError, start_window, triangulate
from das3r_ns.predictor.cameras.sfm.normal_equations import State, squared_errors
from das3r_ns.predictor.cameras.sfm.resection import alike, nearest_first, only_registered, resect
from das3r_ns.predictor.cameras.sfm.tracks import Tracks

MAX_MOTIONS = 4
MIN_LEFT_SHARE = 0.1
"""Share of what was followed; with less left over nobody looks for a further motion."""
EXPLAINED_PX = 0.5
"""Pixels of the flow at which a position counts half."""
TRUSTED_SHARE = (0.4, 0.6)
"""Shares of its views that a motion must explain for a point to belong to it at all, and fully."""
MIN_GROWTH_FRAMES = 8
"""Frames by which a motion grows at once, at least: depths from a short part are rough far from it."""
MIN_VIEW_WEIGHT = 1.0
"""Summed weight of its views below which nothing can be said about a point."""
MAX_SHARED_POINTS = 0.3
"""Share of the smaller one's points that two motions have in common if they are parts of one."""
MIN_IN_STEP_SHARE = 0.5
"""Share of what no other motion explains that a motion must explain in a frame, or its camera there is doubted."""


@dataclass(frozen=True)
class RigidMotion:
    """Cameras relative to one object that does not change its shape, and what belongs to it."""

    state: State
    """With the inverse depth that each point would have, all points considered."""
    registered: Bool[np.ndarray, "n"]
    """Frames whose camera was found."""
    share: Float[np.ndarray, "a p"]
    """How much of its views among the known frames is explained, by point; 0 where there are none."""

    @property
    def points(self) -> Bool[np.ndarray, "a p"]:
        """Which points belong to it."""
        return self.share > 0.5


def rigid_motions(tracks: Tracks, prior: FocalPrior) -> list[RigidMotion]:
    """Distinct motions, those first that explain most. Empty where not even one starts."""
    found: list[RigidMotion] = []
    left = np.ones(tracks.pixel.shape[:2], np.float32)
    total = float(tracks.weight.sum())
    for _ in range(MAX_MOTIONS):
        rest = believe(tracks, left)
        if rest.weight.sum() < MIN_LEFT_SHARE * total:
            break
        try:
            start, registered = start_window(rest, prior)
        except InitializationError:
            break
        grown = grow_trusted(rest, start.state, registered, prior)
        motion = settle(tracks, grown, prior)
        left *= ~motion.points & ~grown.points
        found.append(motion)
    distinct: list[RigidMotion] = []
    for motion in sorted(found, key=lambda m: -weight_of(tracks, m.points)):
        if motion.points.any() and not any(same(motion, other) for other in distinct):
            distinct.append(motion)
    return distinct


def grow_trusted(tracks: Tracks, start: State, registered: Bool[np.ndarray, "n"], prior: FocalPrior) -> RigidMotion:
    """Find the cameras of further frames until no more can be had, from points that belong to the motion alone.

    Args:
        start: cameras; depths are found anew.
        known: frames whose camera is among them.
    """
    T, focal, registered = start.T_camera_world.copy(), start.focal, registered.copy()
    while True:
        motion = settle(tracks, motion_of(tracks, T, focal, registered), prior)
        T, focal = motion.state.T_camera_world.copy(), motion.state.focal
        if registered.all():
            return motion
        trusted = believe(tracks, (trust(motion.share) > 0).astype(np.float32))
        everywhere = np.ones(len(tracks.anchor), bool)
        _, support = triangulate(alike(only_registered(trusted, registered), everywhere), T, focal, registered)
        index, reach = np.flatnonzero(registered), max(MIN_GROWTH_FRAMES, int(registered.sum()) // 3)
        new = False
        for j in nearest_first(registered):
            if np.abs(index - j).min() > reach:
                break
            pose = resect(trusted, T, motion.state.inverse_depth, support, focal, j)
            if pose is not None:
                T[j], registered[j], new = pose, True, True
        if not new:
            return motion


def settle(tracks: Tracks, motion: RigidMotion, prior: FocalPrior, rounds: int = 2) -> RigidMotion:
    """Adjust the known cameras to the points that belong to the motion, and see which do then."""
    held = ~motion.registered
    held[np.flatnonzero(motion.registered)[0]] = True
    for _ in range(rounds):
        own = believe(only_registered(tracks, motion.registered), trust(motion.share))
        adjusted = adjust(own, motion.state, prior, held, rounds=2, steps=3)
        motion = motion_of(tracks, adjusted.state.T_camera_world, adjusted.state.focal, motion.registered)
    return motion


def regrow(tracks: Tracks, motions: list[RigidMotion], index: int, prior: FocalPrior) -> RigidMotion:
    """One of several motions once more, without what the others explain better: cameras that were in step with
    something else are found anew."""
    motion = motions[index]
    others = np.max([other.share for k, other in enumerate(motions) if k != index], axis=0, initial=0)
    free = ((others < 0.5) | (motion.share > others)).astype(np.float32)
    weight = tracks.weight.sum(axis=1) * free
    of_frame, free_of_frame = np.zeros(tracks.num_frames), np.zeros(tracks.num_frames)
    of_frame[tracks.anchor] = (weight * trust(motion.share)).sum(axis=1)
    free_of_frame[tracks.anchor] = weight.sum(axis=1)
    in_step = motion.registered & ((of_frame >= MIN_IN_STEP_SHARE * free_of_frame) | (free_of_frame == 0))
    registered = in_step if in_step.sum() > 2 else motion.registered
    return grow_trusted(believe(tracks, free), motion.state, registered, prior)


def motion_of(
    tracks: Tracks, T_camera_world: Float[np.ndarray, "n 4 4"], focal: float, registered: Bool[np.ndarray, "n"]
) -> RigidMotion:
    """What belongs to the motion with the given cameras."""
    part = only_registered(tracks, registered)
    inverse_depth, _ = triangulate(part, T_camera_world, focal, registered)
    state = State(T_camera_world, focal, inverse_depth)
    total = part.weight.sum(axis=1)
    explained = (part.weight / (1 + squared_errors(tracks, state) / EXPLAINED_PX**2)).sum(axis=1)
    return RigidMotion(state, registered, np.where(total > MIN_VIEW_WEIGHT, explained / np.maximum(total, 1e-9), 0))


def believe(tracks: Tracks, points: Float[np.ndarray, "a p"]) -> Tracks:
    """The same tracks, the weight of each point's positions multiplied by a factor."""
    return replace(tracks, weight=(tracks.weight * points[:, None]).astype(np.float32))


def trust(share: Float[np.ndarray, "a p"]) -> Float[np.ndarray, "a p"]:
    """How far points belong to a motion that explains a share of their views."""
    return np.clip((share - TRUSTED_SHARE[0]) / (TRUSTED_SHARE[1] - TRUSTED_SHARE[0]), 0, 1).astype(np.float32)


def same(one: RigidMotion, other: RigidMotion) -> bool:
    """Whether two motions are parts of one."""
    smaller = min(one.points.sum(), other.points.sum())
    return bool((one.points & other.points).sum() > MAX_SHARED_POINTS * smaller)


def weight_of(tracks: Tracks, points: Bool[np.ndarray, "a p"]) -> float:
    """Share of what was followed that the points hold."""
    return float((tracks.weight.sum(axis=1) * points).sum() / max(float(tracks.weight.sum()), 1e-9))
