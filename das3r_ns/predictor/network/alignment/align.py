"""Pair predictions in, one world out: cameras, focal lengths, depth, confidence and dynamic maps of a clip."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import roma
import torch
from jaxtyping import Float, Int
from torch import Tensor

from das3r_ns import geometry
from das3r_ns.predictor.flow.checked import CheckedFlow
from das3r_ns.predictor.network.alignment.clean import aggregate_masks, clean_confidence
from das3r_ns.predictor.network.alignment.objective import (
    FlowObservations,
    Objective,
    Observations,
    observe,
    pixel_subset,
)
from das3r_ns.predictor.network.alignment.optimise import descend, objective_on_all_pixels, solve_depth
from das3r_ns.predictor.network.alignment.start import frame_confidence, initial_state, start_from_tree
from das3r_ns.predictor.network.alignment.state import FOCAL_GAIN, UNIT, AlignmentState, encode_translation
from das3r_ns.predictor.network.alignment.steps import float32_products
from das3r_ns.predictor.network.pairs import PairPredictions
from das3r_ns.predictor.network.settings import AlignmentConfig

MAX_ROUND_TRIP_PX = 1.0
"""Flow there and back must agree to this, or the pixel counts as occluded."""
DYNAMIC_THRESHOLD = 0.5
CAMERAS = frozenset({"camera_quat_xyzw", "camera_translation_code"})


@dataclass(frozen=True)
class KnownGeometry:
    """What is known beforehand, in pixels of the network's input."""

    focal_px: float | None = None
    T_world_camera: Float[Tensor, "n 4 4"] | None = None
    """In the user's world and units, which the result keeps."""
    K: Float[Tensor, "n 3 3"] | None = None
    """Given together with `T_world_camera`."""


@dataclass(frozen=True)
class Alignment:
    """A clip of n frames in one world. Unless cameras were given, its frame and unit are arbitrary."""

    T_world_camera: Float[Tensor, "n 4 4"]
    K: Float[Tensor, "n 3 3"]
    depth: Float[Tensor, "n h w"]  # z-depth
    confidence: Float[Tensor, "n h w"]  # logarithm of the network's; 0 where another frame contradicts
    dynamic_prob: Float[Tensor, "n h w"]
    objective: Objective  # on all pixels, without the flow term
    trace: Float[Tensor, "steps"]


@float32_products()
def align(
    predictions: PairPredictions,
    num_frames: int,
    config: AlignmentConfig,
    known: KnownGeometry = KnownGeometry(),
    flow: CheckedFlow | None = None,
) -> Alignment:
    """Fuse pair predictions, on the device they are on.

    Args:
        flow: measured optical flow, asked for frames up to `flow_max_distance` apart; None leaves the flow term out.

    Raises:
        AlignmentError: the pairs do not connect all frames.
        ValueError: known cameras do not fit the number of frames.
    """
    height, width = int(predictions.confidence1.shape[1]), int(predictions.confidence1.shape[2])
    centre, aspect = (width / 2, height / 2), 1.0
    if known.K is not None:
        if len(known.K) != num_frames:
            raise ValueError(f"{len(known.K)} known cameras for {num_frames} frames: give one for every frame")
        centre = (float(known.K[:, 0, 2].mean()), float(known.K[:, 1, 2].mean()))
        aspect = float((known.K[:, 0, 0] / known.K[:, 1, 1]).mean())
    stride = config.stride_for(height, width)
    seen = observe(predictions, num_frames, stride, centre, aspect)
    dynamic_prob, _ = aggregate_masks(predictions.edges[:, 0], predictions.dynamic_prob1, num_frames)

    start = start_from_tree(seen, known.focal_px if known.K is None else float(known.K[:, 0, 0].mean()))
    state, frozen = _fix_focal(initial_state(start, seen, config.shared_focal), known)
    measure = None
    if flow is not None and config.flow_weight > 0:
        measure = flow_measurement(flow, predictions.edges.tolist(), seen, dynamic_prob, config, stride, aspect)
    descent = descend(state, seen, config, frozen | {UNIT}, measure)
    if known.T_world_camera is not None:
        # Cameras are free at first: only once the pairs agree on a path can it be laid on the known one.
        state, unit = _move_to_cameras(descent.state, predictions.edges[:, 0], known.T_world_camera.to(state.log_depth))
        descent = descend(state, seen, config, frozen | unit | CAMERAS, measure)

    everything = seen if stride == 1 else observe(predictions, num_frames, 1, centre, aspect)
    with torch.no_grad():
        if config.depth_rounds > 0:
            depth = solve_depth(descent.state, everything, config.depth_rounds)
        else:
            depth = descent.state.log_depth.exp()
        objective = objective_on_all_pixels(descent.state, everything, depth, config)
        depth = depth.view(num_frames, height, width)
        K = _intrinsics(descent.state.focal(), centre, aspect)
        T_world_camera = descent.state.T_world_camera()
        # log(1 + tiny): a pixel that no pair predicts has confidence 0, as every contradicted one.
        confidence = frame_confidence(everything).view_as(depth)
        confidence = clean_confidence(confidence, depth, T_world_camera, K, config.cleaning_tolerance)
        confidence = confidence.clamp_min(1).log()
    return Alignment(T_world_camera, K, depth, confidence, dynamic_prob, objective, descent.trace)


def _intrinsics(focal: Float[Tensor, "n"], centre: tuple[float, float], aspect: float) -> Float[Tensor, "n 3 3"]:
    K = torch.eye(3, device=focal.device, dtype=focal.dtype).repeat(len(focal), 1, 1)
    K[:, 0, 0], K[:, 1, 1], K[:, 0, 2], K[:, 1, 2] = focal, focal / aspect, centre[0], centre[1]
    return K


def _fix_focal(state: AlignmentState, known: KnownGeometry) -> tuple[AlignmentState, frozenset[str]]:
    """Put a known focal length into the state; returns it and the names of the raw parameters that must not move."""
    if known.K is not None:
        focal = known.K[:, 0, 0].to(state.log_depth)
    elif known.focal_px is not None:
        focal = torch.full_like(state.focal_code, known.focal_px)
    else:
        return state, frozenset()
    return state.with_tensors(focal_code=FOCAL_GAIN * focal.log()), frozenset({"focal_code"})


def _move_to_cameras(
    state: AlignmentState, first_frame: Int[Tensor, "e"], T_world_camera: Float[Tensor, "n 4 4"]
) -> tuple[AlignmentState, frozenset[str]]:
    """The state in the world of known cameras: every edge hangs on the camera of its first frame.

    The unit starts as that of the similarity which takes the estimated camera centres to the known ones. Known cameras
    that stand still have none to give: the estimated one is kept, and must not move (second result).
    """
    estimated, known = state.T_world_camera()[:, :3, 3], T_world_camera[:, :3, 3]
    moves = len(known) > 2 and bool((known - known.mean(0)).norm() > 1e-6 * known.norm().clamp_min(1))
    log_factor = torch.zeros_like(state.log_base_scale)
    if moves:
        log_factor = torch.linalg.det(geometry.similarity(estimated, known)[:3, :3]).clamp_min(1e-12).log() / 3
    moved = state.with_tensors(log_base_scale=state.log_base_scale + log_factor)
    rotation, position = T_world_camera[:, :3, :3], known
    moved = moved.with_tensors(
        camera_quat_xyzw=roma.rotmat_to_unitquat(rotation),
        camera_translation_code=encode_translation(position),
        edge_quat_xyzw=roma.rotmat_to_unitquat(rotation[first_frame]),
        edge_translation_code=encode_translation(position[first_frame] / moved.edge_scale()[:, None]),
        log_depth=state.log_depth + log_factor,
    )
    return moved, frozenset() if moves else frozenset({UNIT})


def flow_measurement(
    flow: CheckedFlow,
    edges: list[list[int]],
    seen: Observations,
    dynamic_prob: Float[Tensor, "n h w"],
    config: AlignmentConfig,
    stride: int,
    aspect: float,
) -> Callable[[], FlowObservations] | None:
    """A function that measures the flow of the near pairs on the alignment's pixels, once; None if no pair is near."""
    near = [(i, j) for i, j in edges if abs(i - j) <= config.flow_max_distance]
    if not near:
        return None
    height, width = dynamic_prob.shape[1:]
    device = dynamic_prob.device
    index = pixel_subset(height, width, stride, torch.device("cpu")).numpy()
    static = (dynamic_prob <= DYNAMIC_THRESHOLD).flatten(1).cpu().numpy()

    @functools.cache
    def measure() -> FlowObservations:
        vectors, trusted = [], []
        for i, j in near:
            vector, error = flow(i, j)
            vectors.append(vector.reshape(-1, 2)[index])
            trusted.append((error.reshape(-1)[index] < MAX_ROUND_TRIP_PX) & static[i][index])
        measured = torch.from_numpy(np.stack(vectors)).to(device).transpose(1, 2).contiguous()
        measured[:, 1] *= aspect  # vertical offsets are counted in horizontal pixels, as in `observe`
        source, target = torch.tensor(near, device=device).T
        return FlowObservations(source, target, measured, torch.from_numpy(np.stack(trusted)).to(device))

    return measure
