"""Where a frame stands, from points of known depth that it sees."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from jaxtyping import Bool, Float64, Int64

from das3r_ns.predictor.cameras.sfm.normal_equations import invert
from das3r_ns.predictor.cameras.sfm.tracks import MIN_WEIGHT, Tracks

INLIER_PX = 1.5
"""RANSAC threshold, pixels of the flow."""
MIN_INLIERS = 40
MIN_INLIER_SHARE = 0.3

NO_DISTORTION = np.zeros(4)


def only_registered(tracks: Tracks, registered: Bool[np.ndarray, "n"]) -> Tracks:
    """The same tracks with no weight between frames whose camera is not known."""
    pair = registered[tracks.anchor][:, None] & registered[tracks.target] & (tracks.target >= 0)
    return replace(tracks, weight=tracks.weight * pair[..., None].astype(np.float32))


def alike(tracks: Tracks, anchors: Bool[np.ndarray, "a"]) -> Tracks:
    """Every position of the given anchors that counts as seen with weight 1, the others with 0.

    A resection needs points, and where few could be sharpened (blur, little texture) the others, seen alike by many
    views, still say where a camera stands.
    """
    return replace(tracks, weight=((tracks.weight > MIN_WEIGHT) & anchors[:, None, None]).astype(np.float32))


def nearest_first(registered: Bool[np.ndarray, "n"]) -> list[int]:
    """Frames without a camera, those nearest in time to one with a camera first."""
    index = np.flatnonzero(registered)
    missing = np.flatnonzero(~registered)
    return sorted(missing.tolist(), key=lambda j: int(np.abs(index - j).min()))


def resect(
    tracks: Tracks, T_camera_world: np.ndarray, inverse_depth: np.ndarray, support: np.ndarray, focal: float, frame: int
) -> np.ndarray | None:
    """T_camera_world of a frame from points of known depth that it sees; None where too few agree."""
    points, pixels = [], []
    for a, slot in zip(*np.nonzero(tracks.target == frame)):
        use = (tracks.weight[a, slot] > MIN_WEIGHT) & (support[a] >= 3) & (inverse_depth[a] > 0)
        if not use.any():
            continue
        ray = np.concatenate(((tracks.pixel[a, use] - tracks.centre) / focal, np.ones((use.sum(), 1))), axis=1)
        T_world_camera = invert(T_camera_world[tracks.anchor[a]])
        points.append(ray / inverse_depth[a, use][:, None] @ T_world_camera[:3, :3].T + T_world_camera[:3, 3])
        pixels.append(tracks.observed[a, slot, use])
    if sum(map(len, points)) < MIN_INLIERS:
        return None
    point, pixel = np.concatenate(points), np.concatenate(pixels).astype(np.float64)
    if len(point) > 1500:
        chosen = np.random.default_rng(frame).choice(len(point), 1500, replace=False)
        point, pixel = point[chosen], pixel[chosen]
    K = np.array([[focal, 0, tracks.centre[0]], [0, focal, tracks.centre[1]], [0, 0, 1]])
    found = pose_from_points(point, pixel, K, 2 * INLIER_PX, MIN_INLIERS, MIN_INLIER_SHARE)
    return None if found is None else found[0]


def pose_from_points(
    point: Float64[np.ndarray, "m 3"],
    pixel: Float64[np.ndarray, "m 2"],
    K: Float64[np.ndarray, "3 3"],
    error_px: float,
    least: int,
    least_share: float,
) -> tuple[Float64[np.ndarray, "4 4"], Int64[np.ndarray, "_"]] | None:
    """Pose T_camera_points of a camera that sees points at the given pixels, and the indices of those that agree.

    Args:
        error_px: RANSAC threshold.
        least, least_share: points that must agree, counted and as a share; with fewer there is no pose.
    """
    found, rotvec, t, agree = cv2.solvePnPRansac(
        point, pixel, K, NO_DISTORTION, iterationsCount=300, reprojectionError=error_px, flags=cv2.SOLVEPNP_AP3P
    )
    if not found or agree is None or len(agree) < max(least, least_share * len(point)):
        return None
    chosen = np.asarray(agree, dtype=np.int64)[:, 0]
    rotvec, t = cv2.solvePnPRefineLM(point[chosen], pixel[chosen], K, NO_DISTORTION, rotvec, t)
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = cv2.Rodrigues(rotvec)[0], t[:, 0]
    return (T, chosen) if np.isfinite(T).all() else None
