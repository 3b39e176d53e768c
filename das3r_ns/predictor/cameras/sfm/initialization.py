"""First cameras: two views, then resection of the frames that see what is known, until all are reached.

Flow gives many correspondences, a third of which may lie on moving objects, so every step is robust: RANSAC for the
essential matrix and for the resection, and an exhaustive search over what each single view says for the depths.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from jaxtyping import Bool, Float64

from das3r_ns.predictor.cameras.sfm.bundle_adjustment import Adjusted, FocalPrior, adjust
from das3r_ns.predictor.cameras.sfm.depth_kernel import search_depth
from das3r_ns.predictor.cameras.sfm.normal_equations import State, relative_poses
from das3r_ns.predictor.cameras.sfm.resection import (
    INLIER_PX,
    MIN_INLIER_SHARE,
    MIN_INLIERS,
    alike,
    nearest_first,
    only_registered,
    resect,
)
from das3r_ns.predictor.cameras.sfm.tracks import MIN_WEIGHT, Tracks
from das3r_ns.runtime.parallel import in_parts

FIELDS_OF_VIEW = (45.0, 60.0, 75.0)
"""Degrees over the longer side: what phones and camcorders have."""
SEED_PAIRS = 40
"""Pairs of frames that are tried as first pair, at most."""


class InitializationError(RuntimeError):
    """No pair of frames shows parallax that one camera motion explains."""


def triangulate(
    tracks: Tracks, T_camera_world: Float64[np.ndarray, "n 4 4"], focal: float, registered: Bool[np.ndarray, "n"]
) -> tuple[Float64[np.ndarray, "a p"], Float64[np.ndarray, "a p"]]:
    """Inverse depth of every grid point of the known anchors, and how far it is to be believed.

    Each target frame alone gives one inverse depth, that of the point of the epipolar line nearest to the position
    seen there. The one that most other targets agree with is taken and refined on those that do.

    Returns:
        Inverse depth, 0 where nothing is known; and the summed weight of the positions within `INLIER_PX`.
    """
    T = relative_poses(T_camera_world, tracks)
    weight = only_registered(tracks, registered).weight
    inverse_depth, inlier_weight = np.zeros(tracks.pixel.shape[:2]), np.zeros(tracks.pixel.shape[:2])
    tolerance = INLIER_PX * np.sqrt(tracks.hops)
    anchors = np.flatnonzero(registered[tracks.anchor])

    def work(first: int, last: int) -> None:
        for a in anchors[first:last]:
            search_depth(
                T[a],
                focal,
                *tracks.centre,
                tracks.pixel[a],
                tracks.observed[a],
                weight[a],
                tolerance,
                inverse_depth[a],
                inlier_weight[a],
            )

    in_parts(work, len(anchors))
    return inverse_depth, inlier_weight


def first_pair(tracks: Tracks, focal: float) -> tuple[int, int, Float64[np.ndarray, "4 4"]]:
    """The anchor, slot and T_target_anchor (translation of length 1) of the pair that shows most parallax.

    Raises:
        InitializationError: no pair has enough points that agree on one motion.
    """
    best: tuple[float, int, int, np.ndarray] | None = None
    for a, slot in _candidates(tracks):
        use = tracks.weight[a, slot] > MIN_WEIGHT
        source, target = tracks.pixel[a, use], tracks.observed[a, slot, use]
        fitted = relative_motion(source, target, focal, tracks.centre)
        if fitted is None:
            continue
        T, inliers = fitted
        parallax = _parallax(source[inliers], target[inliers], T[:3, :3], focal, tracks.centre)
        # Parallax beyond a few pixels adds little, seeing and explaining more points does.
        score = min(parallax, 6.0) * inliers.sum()
        if parallax > 1.0 and (best is None or score > best[0]):
            best = score, a, slot, T
    if best is None:
        raise InitializationError(
            "no pair of frames shows parallax that one camera motion explains: the camera hardly moves or only turns, "
            "there is too little texture, or moving objects fill the image"
        )
    return best[1:]


def relative_motion(
    source: np.ndarray, target: np.ndarray, focal: float, centre: tuple[float, float]
) -> tuple[Float64[np.ndarray, "4 4"], Bool[np.ndarray, "m"]] | None:
    """T_target_source (translation of length 1) from matched pixels, and which of them agree; None where too few do."""
    if len(source) < MIN_INLIERS:
        return None
    K = np.array([[focal, 0, centre[0]], [0, focal, centre[1]], [0, 0, 1]])
    source, target = source.astype(np.float64), target.astype(np.float64)
    E, inliers = cv2.findEssentialMat(source, target, K, cv2.RANSAC, 0.999, INLIER_PX / 2, 500)
    if E is None or E.shape != (3, 3):
        return None
    count, R, t, inliers = cv2.recoverPose(E, source, target, K, mask=inliers)
    if count < max(MIN_INLIERS, MIN_INLIER_SHARE * len(source)):
        return None
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = R, t[:, 0]
    return T, np.asarray(inliers)[:, 0] > 0


def grow(
    tracks: Tracks,
    T_camera_world: Float64[np.ndarray, "n 4 4"],
    registered: Bool[np.ndarray, "n"],
    prior: FocalPrior,
    focal: float,
) -> tuple[Adjusted, Bool[np.ndarray, "n"]]:
    """Find the cameras of further frames until no more can be had, adjusting all known ones after each wave.

    Returns:
        The adjusted cameras and which frames have one.
    """
    T, registered = T_camera_world.copy(), registered.copy()
    while True:
        held = ~registered
        held[np.flatnonzero(registered)[0]] = True
        part = only_registered(tracks, registered)
        inverse_depth, _ = triangulate(part, T, focal, registered)
        adjusted = adjust(part, State(T, focal, inverse_depth), prior, held, rounds=2, steps=3)
        T, focal = adjusted.state.T_camera_world.copy(), adjusted.state.focal
        if registered.all():
            return adjusted, registered
        beside_unknown = ((tracks.target >= 0) & ~registered[tracks.target]).any(axis=1)
        inverse_depth, support = triangulate(alike(part, beside_unknown), T, focal, registered)
        new = False
        for j in nearest_first(registered):
            pose = resect(tracks, T, inverse_depth, support, focal, j)
            if pose is not None:
                T[j], registered[j], new = pose, True, True
        if not new:
            return adjusted, registered


def start_from_nothing(tracks: Tracks, prior: FocalPrior) -> tuple[Adjusted, Bool[np.ndarray, "n"]]:
    """Cameras from flow alone; world = first frame that has one.

    Raises:
        InitializationError: see `first_pair`.
    """
    start, registered = start_window(tracks, prior)
    return grow(tracks, start.state.T_camera_world, registered, prior, start.state.focal)


def start_window(tracks: Tracks, prior: FocalPrior) -> tuple[Adjusted, Bool[np.ndarray, "n"]]:
    """First cameras: of the frames that see the points of one anchor, for the usual field of view that leaves least
    noise.

    Raises:
        InitializationError: see `first_pair`.
    """
    longer = max(tracks.size)
    focals = [prior.focal]
    if prior.spread > 0:
        focals = [longer / (2 * np.tan(np.radians(angle) / 2)) for angle in FIELDS_OF_VIEW]
    best: tuple[float, Adjusted, np.ndarray] | None = None
    failure: InitializationError | None = None
    for focal in focals:
        try:
            a, slot, T_target_anchor = first_pair(tracks, focal)
        except InitializationError as e:
            failure = e
            continue
        adjusted, registered = _first_window(tracks, a, slot, T_target_anchor, prior, focal)
        noise = float(np.median(adjusted.noise[registered]))
        if best is None or noise < best[0]:
            best = noise, adjusted, registered
    if best is None:
        assert failure is not None
        raise failure
    return best[1], best[2]


def _first_window(
    tracks: Tracks, a: int, slot: int, T_target_anchor: np.ndarray, prior: FocalPrior, focal: float
) -> tuple[Adjusted, Bool[np.ndarray, "n"]]:
    """The frames that see the points of one anchor: two views first, resection of the others, adjustment."""
    i, j = tracks.anchor[a], tracks.target[a, slot]
    T = np.tile(np.eye(4), (tracks.num_frames, 1, 1))
    T[j] = T_target_anchor
    registered = np.zeros(tracks.num_frames, bool)
    registered[[i, j]] = True
    window = _only_anchor(tracks, a)
    inverse_depth, support = triangulate(alike(window, np.ones(1, bool)), T, focal, registered)
    support *= 3  # a point seen twice is all there is yet
    for other in nearest_first(registered):
        pose = resect(window, T, inverse_depth, support, focal, other)
        if pose is not None:
            T[other], registered[other] = pose, True
    window = only_registered(window, registered)
    inverse_depth, _ = triangulate(window, T, focal, registered)
    held = ~registered
    held[i] = True
    adjusted = adjust(window, State(T, focal, inverse_depth), prior, held, rounds=4, steps=4)
    return adjusted, registered


def _only_anchor(tracks: Tracks, a: int) -> Tracks:
    part = slice(a, a + 1)
    return replace(
        tracks,
        anchor=tracks.anchor[part],
        target=tracks.target[part],
        pixel=tracks.pixel[part],
        observed=tracks.observed[part],
        seen=tracks.seen[part],
        weight=tracks.weight[part],
    )


def _candidates(tracks: Tracks) -> list[tuple[int, int]]:
    """Pairs of anchor and slot that still see half of the points that any pair sees, spread over the clip, far apart in
    time first."""
    share = (tracks.weight > MIN_WEIGHT).mean(axis=2)
    share = share / max(float(np.quantile(share[tracks.target >= 0], 0.95)), 1e-9)
    found = []
    for a in range(len(tracks.anchor)):
        slots = [s for s in range(tracks.target.shape[1]) if share[a, s] > 0.45]
        slots.sort(key=lambda s: -abs(tracks.target[a, s] - tracks.anchor[a]))
        found += [(a, s) for s in slots[:2]]
    step = max(1, -(-len(found) // SEED_PAIRS))
    return found[::step]


def _parallax(
    source: np.ndarray, target: np.ndarray, R: np.ndarray, focal: float, centre: tuple[float, float]
) -> float:
    """Median displacement in pixels that the rotation does not explain."""
    ray = np.concatenate(((source - centre) / focal, np.ones((len(source), 1))), axis=1) @ R.T
    turned = focal * ray[:, :2] / ray[:, 2:] + centre
    return float(np.median(np.linalg.norm(turned - target, axis=1)))
