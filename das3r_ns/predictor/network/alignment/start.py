"""Where the global alignment starts: a maximum spanning tree of the pairs, walked from its strongest edge.

Each tree edge hooks one more frame's points onto the world by a weighted similarity (Umeyama 1991). A frame that is
first in a tree edge gets its camera from that registration; the others by PnP. From identity cameras instead, the
objective has poor local minima.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import roma
import torch
from jaxtyping import Float
from torch import Tensor

from das3r_ns.predictor.network.alignment.objective import Observations, View
from das3r_ns.predictor.network.alignment.state import BASE_SCALE, FOCAL_GAIN, AlignmentState, encode_translation
from das3r_ns.predictor.network.settings import Edge

FOCAL_ROUNDS = 10
PNP_MIN_CONFIDENCE = 3.0
PNP_MIN_POINTS = 6
PNP_MAX_POINTS = 20_000
PNP_ITERATIONS = 10
PNP_TOLERANCE_PX = 5.0


class AlignmentError(RuntimeError):
    """Pairs that cannot be brought into one world. The message names the frames."""


@dataclass(frozen=True)
class Start:
    """First guess, before scale normalisation. The world is the camera frame of the strongest edge's first image."""

    tree: list[Edge]
    """In the order in which they were attached."""
    T_world_camera: Float[Tensor, "n 4 4"]
    world_points: Float[Tensor, "n 3 p"]
    focal: Float[Tensor, "n"]
    """Each frame's own estimate, in pixels."""


def edge_scores(observations: Observations) -> Float[Tensor, "e"]:
    """Mean confidence of the first view times mean confidence of the second."""
    return observations.first.confidence.mean(1).double() * observations.second.confidence.mean(1).double()


def spanning_tree(edges: list[Edge], scores: list[float], num_frames: int) -> list[Edge]:
    """Directed edges of the maximum spanning tree, strongest first, then always the strongest that touches the tree.

    Of the two directions of a pair the better one counts.

    Raises:
        AlignmentError: some frames are not connected to the rest.
    """
    best: dict[Edge, tuple[float, Edge]] = {}
    for edge, score in zip(edges, scores):
        pair = (min(edge), max(edge))
        if pair not in best or score > best[pair][0]:
            best[pair] = (score, edge)
    todo = sorted(best.values(), key=lambda entry: -entry[0])
    tree, placed = [todo[0][1]], set(todo[0][1])
    while len(placed) < num_frames:
        following = next((edge for _, edge in todo if (edge[0] in placed) != (edge[1] in placed)), None)
        if following is None:
            lost = sorted(set(range(num_frames)) - placed)
            raise AlignmentError(
                f"{len(lost)} of {num_frames} frames (first: {lost[0]}) have no usable pair with the rest of the clip. "
                "Use a denser pair graph, or cut the clip there."
            )
        tree.append(following)
        placed.update(following)
    return tree


def focal_from_points(points: Float[Tensor, "b 3 p"], offsets: Float[Tensor, "2 p"]) -> Float[Tensor, "b"]:
    """Focal length in pixels that explains points in their own camera frame (Weiszfeld's algorithm).

    Minimises the sum over pixels of |offset - f xy/z|. 0 or less, or not finite, where the points make no sense.
    """
    direction = (points[:, :2] / points[:, 2:]).nan_to_num(0.0, 0.0, 0.0)
    along, square = (direction * offsets).sum(1), direction.square().sum(1)
    focal = along.sum(-1) / square.sum(-1)
    for _ in range(FOCAL_ROUNDS):
        miss = torch.linalg.vector_norm(offsets - focal[:, None, None] * direction, dim=1)
        weight = 1 / miss.clamp_min(1e-8)
        focal = (weight * along).sum(-1) / (weight * square).sum(-1)
    return focal


def frame_confidence(observations: Observations) -> Float[Tensor, "n p"]:
    """Per pixel, the highest confidence over all edges and both roles; 0 where a frame is in no edge."""
    n = observations.num_frames
    highest = observations.first.confidence.new_zeros(n, observations.first.confidence.shape[1])
    for view in (observations.first, observations.second):
        index = view.frame[:, None].expand_as(view.confidence)
        highest.scatter_reduce_(0, index, view.confidence, "amax")
    return highest


def register(
    source: Float[Tensor, "*b 3 p"], target: Float[Tensor, "*b 3 p"], weight: Float[Tensor, "*b p"]
) -> tuple[Float[Tensor, "*b 3 3"], Float[Tensor, "*b 3"], Float[Tensor, "*b"]]:
    """Rotation, translation and scale of the weighted least-squares similarity: target = s R source + t."""
    return roma.rigid_points_registration(
        source.transpose(-1, -2), target.transpose(-1, -2), weights=weight, compute_scaling=True
    )  # type: ignore[return-value]


@torch.no_grad()
def start_from_tree(observations: Observations, focal_px: float | None = None) -> Start:
    """Place every frame by walking the spanning tree.

    Args:
        focal_px: known focal length, used for PnP and returned for every frame.

    Raises:
        AlignmentError: the pairs do not connect all frames.
    """
    first, second, n = observations.first, observations.second, observations.num_frames
    edges = list(zip(first.frame.tolist(), second.frame.tolist()))
    scores = edge_scores(observations).tolist()
    tree = spanning_tree(edges, scores, n)
    number = {edge: k for k, edge in enumerate(edges)}
    points = first.points
    world = points.new_zeros(n, 3, points.shape[-1])
    cameras: dict[int, Tensor] = {tree[0][0]: torch.eye(4, dtype=points.dtype, device=points.device)}
    k = number[tree[0]]
    world[tree[0][0]], world[tree[0][1]] = first.points[k], second.points[k]
    placed = set(tree[0])
    for i, j in tree[1:]:
        k = number[i, j]
        old, new, view, other = (i, j, first, second) if i in placed else (j, i, second, first)
        R, t, s = register(view.points[k], world[old], view.confidence[k])
        world[new] = s * R @ other.points[k] + t[:, None]
        cameras.setdefault(i, _camera(R, t))  # the edge's points are in the frame of camera i
        placed.add(new)
    focal = _focals(observations, scores) if focal_px is None else torch.full((n,), focal_px).to(points)
    missing = [i for i in range(n) if i not in cameras]
    if missing:
        trusted = (frame_confidence(observations) > PNP_MIN_CONFIDENCE).cpu().numpy()
        for i in missing:
            pose = _pnp(world[i], observations.offsets, float(focal[i]), trusted[i])
            cameras[i] = pose if pose is not None else _from_best_edge(i, edges, scores, first, world)
    return Start(tree, torch.stack([cameras[i] for i in range(n)]), world, focal)


@torch.no_grad()
def initial_state(start: Start, observations: Observations, shared_focal: bool = True) -> AlignmentState:
    """Raw parameters of a start: every edge registered to the world, the world brought to the normal scale."""
    first = observations.first
    rotation, translation, scale = register(first.points, start.world_points[first.frame], first.confidence)
    scale = scale.clamp_min(1e-8)
    factor = BASE_SCALE / scale.log().mean().exp()
    R_world_camera = start.T_world_camera[:, :3, :3]
    position = factor * start.T_world_camera[:, :3, 3]
    in_camera = R_world_camera.transpose(1, 2) @ (factor * start.world_points - position[:, :, None])
    log_depth = in_camera[:, 2].log().nan_to_num(0.0, 0.0, 0.0)  # behind the camera: start at depth 1
    focal = start.focal.mean(0, keepdim=True) if shared_focal else start.focal
    return AlignmentState(
        edge_quat_xyzw=roma.rotmat_to_unitquat(rotation),
        edge_translation_code=encode_translation(translation / scale[:, None]),
        edge_log_scale=scale.log(),
        camera_quat_xyzw=roma.rotmat_to_unitquat(R_world_camera),
        camera_translation_code=encode_translation(position),
        focal_code=FOCAL_GAIN * focal.log(),
        log_depth=log_depth,
        log_base_scale=torch.tensor(BASE_SCALE).log().to(log_depth),
    )


def _camera(rotation: Tensor, position: Tensor) -> Tensor:
    T = torch.eye(4, dtype=rotation.dtype, device=rotation.device)
    T[:3, :3], T[:3, 3] = rotation, position
    return T


def _focals(observations: Observations, scores: list[float]) -> Float[Tensor, "n"]:
    """Focal length of each frame from the best edge in which it is first (not a stale one); frames without a usable
    estimate take the median of the others, and without any the longer side of the image is assumed."""
    frames = observations.first.frame.tolist()
    best = {}
    for k in sorted(range(len(scores)), key=scores.__getitem__):
        best[frames[k]] = k
    estimate = focal_from_points(observations.first.points[list(best.values())], observations.offsets)
    usable = estimate.isfinite() & (estimate > 0)
    fallback = estimate[usable].median() if usable.any() else 2 * observations.offsets.abs().max()
    focal = fallback.expand(observations.num_frames).clone()
    focal[list(best)] = torch.where(usable, estimate, fallback)
    return focal


def _pnp(world: Tensor, offsets: Tensor, focal: float, trusted: np.ndarray) -> Tensor | None:
    """Camera-to-world of a frame from its world points, or None if there are too few trusted points or no solution."""
    chosen = np.flatnonzero(trusted)
    if len(chosen) < PNP_MIN_POINTS:
        return None
    chosen = chosen[:: -(-len(chosen) // PNP_MAX_POINTS)]
    K = np.diag([focal, focal, 1.0])  # the offsets count from the principal point
    found, rotation_vector, translation, _ = cv2.solvePnPRansac(
        world.T.cpu().numpy()[chosen].astype(np.float64),
        offsets.T.cpu().numpy()[chosen].astype(np.float64),
        K,
        np.zeros(0),
        iterationsCount=PNP_ITERATIONS,
        reprojectionError=PNP_TOLERANCE_PX,
        flags=cv2.SOLVEPNP_SQPNP,
    )
    if not found or not np.isfinite(translation).all():
        return None
    T_camera_world = np.eye(4)
    T_camera_world[:3, :3], T_camera_world[:3, 3] = cv2.Rodrigues(rotation_vector)[0], translation[:, 0]
    return torch.from_numpy(np.linalg.inv(T_camera_world)).to(world)


def _from_best_edge(i: int, edges: list[Edge], scores: list[float], first: View, world: Tensor) -> Tensor:
    """Camera of frame i where PnP found none: from the best edge in which it is first, else the world's origin."""
    own = [k for k, edge in enumerate(edges) if edge[0] == i]
    if not own:
        return torch.eye(4, dtype=world.dtype, device=world.device)
    k = max(own, key=scores.__getitem__)
    R, t, _ = register(first.points[k], world[i], first.confidence[k])
    return _camera(R, t)
