"""Long clips: overlapping windows, each aligned by itself, joined by similarities.

Memory then grows with the length of a window, not with the number of pairs of the whole clip. Two windows see the
overlap's frames pixel by pixel, so the similarity between their worlds is a robust registration of matched points.
Where the camera came back to a place, a pair of far frames ties two windows together, and the windows are shifted
against one another so that all ties fit best. In the overlap, cameras and depth pass over smoothly.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import roma
import torch
from jaxtyping import Float
from torch import Tensor

from das3r_ns import geometry
from das3r_ns.predictor.cameras.pose_graph import PoseGraphEdge, optimize_pose_graph
from das3r_ns.predictor.flow.checked import CheckedFlow
from das3r_ns.predictor.network.alignment import Alignment, KnownGeometry, align
from das3r_ns.predictor.network.alignment.objective import pixel_subset
from das3r_ns.predictor.network.alignment.start import register
from das3r_ns.predictor.network.pairs import PairPredictions, loop_pairs
from das3r_ns.predictor.network.settings import AlignmentConfig, Edge, PairGraph, WindowConfig

REGISTRATION_ROUNDS = 10
JOIN_STRIDE = 4

PredictPairs = Callable[[Sequence[int], list[Edge]], PairPredictions]
"""Runs the network on some frames of the clip; edges count within these frames."""


@dataclass(frozen=True)
class Window:
    """A part of the clip in a world of its own, in main memory."""

    frames: range
    alignment: Alignment

    def points(self, frame: int) -> Float[Tensor, "p 3"]:
        """World points of a frame of the clip, on every `JOIN_STRIDE`-th pixel."""
        k = frame - self.frames.start
        own = self.alignment
        subset = self._subset()
        depth = own.depth[k].flatten()[subset]
        pixel = torch.stack([subset % own.depth.shape[2], subset // own.depth.shape[2]], dim=1) + 0.5
        K = own.K[k]
        sideways = (pixel - K[:2, 2]) / K.diagonal()[:2] * depth[:, None]
        T = own.T_world_camera[k]
        return torch.addmm(T[:3, 3], torch.cat([sideways, depth[:, None]], dim=1), T[:3, :3].T)

    def sureness(self, frame: int) -> Float[Tensor, "p"]:
        """Confidence of these points; 0 where they move."""
        k = frame - self.frames.start
        return (self.alignment.confidence[k] * (1 - self.alignment.dynamic_prob[k])).flatten()[self._subset()]

    def _subset(self) -> Tensor:
        height, width = self.alignment.depth.shape[1:]
        stride = max(1, min(JOIN_STRIDE, min(height, width) // 16))
        return pixel_subset(height, width, stride, torch.device("cpu"))


def cut(num_frames: int, config: WindowConfig) -> list[range]:
    """Windows of equal length that cover the clip; each frame is in one or two of them."""
    if num_frames <= config.frames:
        return [range(num_frames)]
    count = -(-(num_frames - config.overlap) // (config.frames - config.overlap))
    length = -(-(num_frames + (count - 1) * config.overlap) // count)
    starts = [round(k * (num_frames - length) / (count - 1)) for k in range(count)]
    return [range(start, start + length) for start in starts]


def shared_frames(parts: list[range]) -> int:
    """Most frames that two neighbouring windows share."""
    return max((a.stop - b.start for a, b in itertools.pairwise(parts)), default=0)


def align_clip(
    predict: PredictPairs,
    num_frames: int,
    graph: PairGraph,
    alignment: AlignmentConfig,
    windows: WindowConfig,
    known: KnownGeometry,
    flow: CheckedFlow | None = None,
) -> Alignment:
    """Cameras and maps of a clip of any length, in main memory.

    The focal length found in the first window holds for all, unless each frame has its own.

    Raises:
        AlignmentError: the pairs of a window do not connect its frames.
    """
    parts: list[Window] = []
    descriptors: list[Tensor | None] = [None] * num_frames
    for frames in cut(num_frames, windows):
        predictions = predict(frames, graph.edges(len(frames)))
        for frame, descriptor in zip(frames, predictions.descriptors.cpu()):
            descriptors[frame] = descriptor
        here = _known_of(known, frames)
        found = align(predictions, len(frames), alignment, here, _flow_of(flow, frames))
        del predictions
        parts.append(Window(frames, _to_cpu(found)))
        if alignment.shared_focal and known.K is None and known.focal_px is None:
            known = replace(known, focal_px=float(found.K[0, 0, 0]))
    if len(parts) == 1:
        return parts[0].alignment
    if known.T_world_camera is not None:  # all windows are in the user's world already
        return join(parts, torch.eye(4).repeat(len(parts), 1, 1))
    ties = [PoseGraphEdge(a, a + 1, tie_neighbours(parts[a], parts[a + 1])) for a in range(len(parts) - 1)]
    if windows.max_loops > 0:
        stacked = torch.stack([d for d in descriptors if d is not None])
        ties += _loop_ties(predict, parts, loop_pairs(stacked, len(parts[0].frames), windows.max_loops))
    typical_depth = float(parts[0].alignment.depth.median())
    return join(parts, optimize_pose_graph(len(parts), ties, typical_depth))


def tie_neighbours(a: Window, b: Window) -> Float[Tensor, "4 4"]:
    """Similarity T_a_b between the worlds of two windows that share frames, from the shared frames' points."""
    shared = range(b.frames.start, a.frames.stop)
    source = torch.cat([b.points(frame) for frame in shared])
    target = torch.cat([a.points(frame) for frame in shared])
    weight = torch.cat([(a.sureness(frame) * b.sureness(frame)).sqrt() for frame in shared])
    return robust_similarity(source, target, weight)


def robust_similarity(
    source: Float[Tensor, "p 3"], target: Float[Tensor, "p 3"], weight: Float[Tensor, "p"]
) -> Float[Tensor, "4 4"]:
    """Similarity T_target_source that minimises the weighted sum of distances, not squared (reweighted Umeyama)."""
    weight = weight.clamp_min(1e-6)
    current, T = weight, torch.eye(4, dtype=source.dtype)
    for _ in range(REGISTRATION_ROUNDS):
        R, t, s = register(source.T, target.T, current)
        T = torch.eye(4, dtype=source.dtype)
        T[:3, :3], T[:3, 3] = s * R, t
        miss = torch.linalg.vector_norm(geometry.transform(T, source) - target, dim=-1)
        current = weight / miss.clamp_min(1e-3 * float(miss.median()) + 1e-9)
    return T


def join(parts: list[Window], T_world_part: Float[Tensor, "k 4 4"]) -> Alignment:
    """All windows in one world. In an overlap, the later window's share grows from frame to frame."""
    n = parts[-1].frames.stop
    first = parts[0].alignment
    T = torch.eye(4).repeat(n, 1, 1)
    K = torch.zeros(n, 3, 3)
    depth, confidence, dynamic_prob = (torch.zeros(n, *first.depth.shape[1:]) for _ in range(3))
    done = 0
    for part, T_world_own in zip(parts, T_world_part):
        own = part.alignment
        cameras, scale = geometry.apply_similarity(T_world_own.to(own.T_world_camera), own.T_world_camera)
        overlap = range(part.frames.start, done)
        alone = slice(len(overlap), None)
        rest = slice(part.frames.start + len(overlap), part.frames.stop)
        for k, frame in enumerate(overlap):
            share = (k + 1) / (len(overlap) + 1)
            T[frame] = _between(T[frame], cameras[k], share)
            K[frame] = torch.lerp(K[frame], own.K[k], share)
            before, here = (values.clamp_min(1e-12).log() for values in (depth[frame], scale * own.depth[k]))
            depth[frame] = torch.lerp(before, here, share).exp()
            confidence[frame] = torch.lerp(confidence[frame], own.confidence[k], share)
            dynamic_prob[frame] = torch.lerp(dynamic_prob[frame], own.dynamic_prob[k], share)
        T[rest], K[rest], depth[rest] = cameras[alone].to(T), own.K[alone], scale * own.depth[alone]
        confidence[rest], dynamic_prob[rest] = own.confidence[alone], own.dynamic_prob[alone]
        done = part.frames.stop
    trace = torch.cat([part.alignment.trace for part in parts])
    return Alignment(T, K, depth, confidence, dynamic_prob, first.objective, trace)


def _between(a: Float[Tensor, "4 4"], b: Float[Tensor, "4 4"], share: float) -> Float[Tensor, "4 4"]:
    T = torch.eye(4)
    T[:3, :3] = roma.rotmat_slerp(a[:3, :3], b[:3, :3], torch.tensor(share))
    T[:3, 3] = torch.lerp(a[:3, 3], b[:3, 3], share)
    return T


def _loop_ties(predict: PredictPairs, parts: list[Window], loops: tuple[Edge, ...]) -> list[PoseGraphEdge]:
    """Ties between windows from pairs of far frames; a pair whose two directions contradict one another gives none."""
    if not loops:
        return []
    frames = sorted({frame for loop in loops for frame in loop})
    place = {frame: k for k, frame in enumerate(frames)}
    edges = [(place[i], place[j]) for i, j in loops]
    both = predict(frames, edges + [(j, i) for i, j in edges])
    number = {tuple(edge): k for k, edge in enumerate(both.edges.tolist())}
    ties = []
    for (i, j), (a, b) in zip(loops, edges):
        home, away = _home(parts, i), _home(parts, j)
        if home == away or (a, b) not in number or (b, a) not in number:
            continue
        there = _tie_by_pair(parts[home], parts[away], i, j, both, number[a, b])
        back = geometry.invert(_tie_by_pair(parts[away], parts[home], j, i, both, number[b, a]))
        tie = PoseGraphEdge(home, away, there)
        if tie.agrees(PoseGraphEdge(home, away, back), float(parts[home].alignment.depth.median())):
            ties.append(tie)
    return ties


def _home(parts: list[Window], frame: int) -> int:
    """The window in whose middle a frame is most."""
    return min(
        (k for k, part in enumerate(parts) if frame in part.frames),
        key=lambda k: abs(2 * frame - parts[k].frames.start - parts[k].frames.stop),
    )


def _tie_by_pair(a: Window, b: Window, i: int, j: int, both: PairPredictions, k: int) -> Float[Tensor, "4 4"]:
    """T_a_b from one directed pair: its first pointmap lies on frame i in a, its second on frame j in b."""
    subset = a._subset()
    registered = []
    for window, frame, points, confidence in (
        (a, i, both.pointmap1[k], both.confidence1[k]),
        (b, j, both.pointmap2[k], both.confidence2[k]),
    ):
        weight = confidence.cpu().flatten()[subset].log() * window.sureness(frame)
        source = points.cpu().flatten(0, 1)[subset]
        registered.append(robust_similarity(source, window.points(frame), weight))
    T_a_pair, T_b_pair = registered
    return T_a_pair @ geometry.invert(T_b_pair)


def _known_of(known: KnownGeometry, frames: range) -> KnownGeometry:
    part = slice(frames.start, frames.stop)
    return KnownGeometry(
        known.focal_px,
        None if known.T_world_camera is None else known.T_world_camera[part],
        None if known.K is None else known.K[part],
    )


def _flow_of(flow: CheckedFlow | None, frames: range) -> CheckedFlow | None:
    if flow is None:
        return None
    return lambda source, target: flow(source + frames.start, target + frames.start)


def _to_cpu(found: Alignment) -> Alignment:
    return replace(
        found,
        T_world_camera=found.T_world_camera.cpu(),
        K=found.K.cpu(),
        depth=found.depth.cpu(),
        confidence=found.confidence.cpu(),
        dynamic_prob=found.dynamic_prob.cpu(),
        trace=found.trace.cpu(),
    )
