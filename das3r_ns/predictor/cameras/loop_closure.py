"""Cameras of a long clip that comes back to where it was: the drift between the visits is taken out.

In: cameras whose neighbours fit (bundle adjustment over flow, which joins no frames further apart than points are
followed) and point features of some frames. Out: the same cameras bent so that places seen again lie where they were.

Frames that look alike are matched by features (`retrieval`), which gives a first pose of the later one among the points
of the earlier; those points are then found in its image to a few hundredths of a pixel, as tracks are (`subpixel`).
Between frames with a tie the bend is spread evenly (`pose_graph`), so that neighbours keep fitting.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, UInt8
from scipy.spatial import cKDTree
from torch import Tensor

from das3r_ns import geometry
from das3r_ns.predictor.cameras.colmap_features import Features
from das3r_ns.predictor.cameras.pose_graph import PoseGraphEdge, optimize_pose_graph, similarity_exp, similarity_log
from das3r_ns.predictor.cameras.retrieval import retrieve_pairs, vlad_descriptors
from das3r_ns.predictor.cameras.sfm import CameraEstimate
from das3r_ns.predictor.cameras.sfm.resection import pose_from_points
from das3r_ns.predictor.cameras.sfm.subpixel import SubpixelMatcher
from das3r_ns.runtime.parallel import parallel_for
from das3r_ns.runtime.progress import stage

MAX_EDGES_PER_FRAME = 2
"""Ties to earlier visits that are tried for each keyframe."""
MAX_MATCH_RATIO = 0.8
"""Of the distances to the nearest and the next feature, below which a match is unambiguous (Lowe, IJCV 2004)."""
MIN_MATCHES = 30
MIN_SHARP = 40
"""Points found exactly in the other image. Fewer could agree by chance, or on an object that moves."""
MIN_SHARE = 0.4
"""Of the matches, and of the points found exactly, that must agree on one camera."""
MAX_POINT_DISTANCE_SHARE = 0.02
"""As a share of the image's longer side: a feature is about as deep as a followed point within it."""
DEPTH_POSE_ERROR_SHARE = 0.01
"""As a share of the longer side: error of a pose from such depths."""
EXACT_PX = 1.0
"""Pixels of the flow."""
KEPT_IMAGES = 64


@dataclass(frozen=True)
class _View:
    """The followed points of one frame: what a later visit is placed among."""

    camera: Float64[np.ndarray, "m 3"]
    """In the frame's own axes."""
    pixel: Float64[np.ndarray, "m 2"]
    """Of the flow."""


@dataclass(frozen=True)
class _Place:
    """A keyframe as a place to come back to. Positions in pixels of the flow."""

    frame: int
    xy: Float[np.ndarray, "f 2"]
    descriptors: UInt8[np.ndarray, "f 128"]
    view: _View


def close_loops(
    cameras: CameraEstimate,
    keyframes: Sequence[int],
    features: Callable[[int], Features],
    image: Callable[[int], UInt8[np.ndarray, "H W 3"]],
    flow_size: tuple[int, int],
    apart: int,
) -> CameraEstimate:
    """The cameras with every place that is seen again where it was; the same object when none is.

    Args:
        keyframes: ascending; each that is the frame of some points is compared with the others.
        features: of a frame, in pixels of its image.
        flow_size: height and width of the flow that the cameras come from, the resolution that points are sought at.
        apart: frames; visits nearer in time are no visits.
    """
    to_flow = flow_size[1] / image(0).shape[1]
    frames = [i for i in _nearest(cameras, keyframes) if cameras.pose_known[i]]
    views = {i: _view(cameras, i, to_flow) for i in frames}
    frames = [i for i in frames if len(views[i].pixel) >= MIN_SHARP]
    if len(frames) < 3:
        return cameras
    found = _features_of(frames, features)
    pairs = retrieve_pairs(vlad_descriptors([f.descriptors for f in found]), frames, apart, MAX_EDGES_PER_FRAME)
    sharpener = SubpixelMatcher(image, flow_size, KEPT_IMAGES)
    placed: list[PoseGraphEdge | None] = [None] * len(pairs)
    with stage(f"Places seen again among {len(pairs)} pairs of frames", len(pairs), "pairs") as bar:

        def place(k: int) -> None:
            i, j = pairs[k]
            a, b = (_Place(frames[m], found[m].xy * to_flow, found[m].descriptors, views[frames[m]]) for m in (i, j))
            T_b_a = _similarity(a, b, cameras.focal_px * to_flow, flow_size, sharpener)
            if T_b_a is not None:
                placed[k] = PoseGraphEdge(i, j, geometry.invert(torch.from_numpy(T_b_a)))
            bar.advance()

        parallel_for(place, len(pairs))
        ties = [tie for tie in placed if tie is not None]
        bar.note(f"{len(ties)} seen again")
    if not ties:
        return cameras
    T = cameras.T_world_camera[frames]
    chain = [PoseGraphEdge(k, k + 1, geometry.invert(T[k]) @ T[k + 1]) for k in range(len(frames) - 1)]
    depth = float(np.median(np.concatenate([views[i].camera[:, 2] for i in frames])))
    T_first_part = optimize_pose_graph(len(frames), [*chain, *ties], depth)
    return _bent(cameras, frames, T[0] @ T_first_part, depth)


def _nearest(cameras: CameraEstimate, keyframes: Sequence[int]) -> list[int]:
    """The frames with points of their own that are nearest to the keyframes."""
    own = np.unique(cameras.point_frame.numpy())
    if len(own) == 0:
        return []
    return np.unique(own[np.abs(own[:, None] - np.asarray(keyframes)).argmin(axis=0)]).tolist()


def _view(cameras: CameraEstimate, frame: int, to_flow: float) -> _View:
    own = cameras.point_frame == frame
    T_camera_world = geometry.invert(cameras.T_world_camera[frame])
    camera = geometry.transform(T_camera_world, cameras.points[own])
    return _View(camera.numpy(), cameras.point_pixel[own].numpy() * to_flow)


def _features_of(frames: Sequence[int], features: Callable[[int], Features]) -> list[Features]:
    found: list[Features | None] = [None] * len(frames)
    with stage(f"Features of {len(frames)} frames", len(frames)) as bar:

        def extract(k: int) -> None:
            found[k] = features(frames[k])
            bar.advance()

        parallel_for(extract, len(frames))
    return [f for f in found if f is not None]


def _similarity(
    a: _Place, b: _Place, focal: float, size: tuple[int, int], sharpener: SubpixelMatcher
) -> Float64[np.ndarray, "4 4"] | None:
    """T_b_a between the axes of two frames, each in the scale of its own points; None where they share too little."""
    centre = np.array([size[1], size[0]]) / 2
    K = np.array([[focal, 0, centre[0]], [0, focal, centre[1]], [0, 0, 1]])
    first, second = _match(a, b)
    distance, nearest = cKDTree(a.view.pixel).query(first)
    close = distance < MAX_POINT_DISTANCE_SHARE * max(size)
    if close.sum() < MIN_MATCHES:
        return None
    ray = np.concatenate(((first[close] - centre) / focal, np.ones((close.sum(), 1))), axis=1)
    depth = a.view.camera[nearest[close], 2:]
    rough = pose_from_points(
        ray * depth, second[close], K, DEPTH_POSE_ERROR_SHARE * max(size), MIN_MATCHES // 2, MIN_SHARE
    )
    if rough is None:
        return None
    guess, inside = _project(rough[0], a.view.camera, focal, centre)
    guess = np.where(inside[:, None], guess, a.view.pixel).astype(np.float32)
    seen, sharp = sharpener.sharpen(a.frame, b.frame, a.view.pixel.astype(np.float32), guess, inside)
    if sharp.sum() < MIN_SHARP:
        return None
    exact = pose_from_points(a.view.camera[sharp], seen[sharp].astype(np.float64), K, EXACT_PX, MIN_SHARP, MIN_SHARE)
    if exact is None:
        return None
    T_b_a, agree = exact
    there = a.view.camera[sharp][agree] @ T_b_a[:3, :3].T + T_b_a[:3, 3]
    distance, nearest = cKDTree(b.view.pixel).query(seen[sharp][agree])
    close = distance < MAX_POINT_DISTANCE_SHARE * max(size)
    if close.sum() < MIN_MATCHES // 2:
        return None
    T_b_a[:3] *= float(np.median(b.view.camera[nearest[close], 2] / there[close, 2]))
    return T_b_a


def _match(a: _Place, b: _Place) -> tuple[Float64[np.ndarray, "m 2"], Float64[np.ndarray, "m 2"]]:
    """Where features lie that are each other's nearest."""
    if min(len(a.xy), len(b.xy)) < 2:
        return np.zeros((0, 2)), np.zeros((0, 2))
    # Whole numbers below 2^24 are exact in single precision, so the order of additions changes nothing.
    x, y = a.descriptors.astype(np.float32), b.descriptors.astype(np.float32)
    distance = np.square(x).sum(axis=1)[:, None] + np.square(y).sum(axis=1) - 2 * x @ y.T
    two = np.partition(distance, 1, axis=1)[:, :2]
    nearest, back = distance.argmin(axis=1), distance.argmin(axis=0)
    fine = (back[nearest] == np.arange(len(x))) & (two[:, 0] < MAX_MATCH_RATIO**2 * two[:, 1])
    return a.xy[fine].astype(np.float64), b.xy[nearest[fine]].astype(np.float64)


def _project(
    T: Float64[np.ndarray, "4 4"], point: Float64[np.ndarray, "m 3"], focal: float, centre: Float64[np.ndarray, "2"]
) -> tuple[Float64[np.ndarray, "m 2"], Bool[np.ndarray, "m"]]:
    """Where a camera sees points, and which of them lie in its image."""
    moved = point @ T[:3, :3].T + T[:3, 3]
    ahead = moved[:, 2] > 0
    pixel = focal * moved[:, :2] / np.where(ahead, moved[:, 2], 1)[:, None] + centre
    return pixel, ahead & (pixel > 0).all(axis=1) & (pixel < 2 * centre).all(axis=1)


def _bent(
    cameras: CameraEstimate, frames: list[int], T_world_part: Float[Tensor, "k 4 4"], typical_depth: float
) -> CameraEstimate:
    """All cameras and points moved with the given frames, those between with a mean of the two beside them."""
    old = cameras.T_world_camera
    inverse = geometry.invert(old[frames])
    n, last = len(old), len(frames) - 1
    k = torch.clamp(torch.searchsorted(torch.tensor(frames), torch.arange(n), right=True) - 1, 0, last)
    after = torch.clamp(k + 1, max=last)
    at = torch.tensor(frames, dtype=torch.float64)
    share = ((torch.arange(n) - at[k]) / (at[after] - at[k]).clamp(min=1)).clamp(0, 1)
    from_before = T_world_part[k] @ inverse[k] @ old
    from_after = T_world_part[after] @ inverse[after] @ old
    between = similarity_log(geometry.invert(from_before) @ from_after, typical_depth)
    T = from_before @ similarity_exp(share[:, None] * between, typical_depth)
    of_point = cameras.point_frame
    points = geometry.transform((T @ geometry.invert(old))[of_point], cameras.points)
    rigid = T.clone()
    rigid[:, :3, :3] /= torch.linalg.det(T[:, :3, :3])[:, None, None] ** (1 / 3)
    return replace(cameras, T_world_camera=rigid, points=points)
