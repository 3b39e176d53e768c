"""What the global alignment minimises: distances between world points and transformed pointmaps, smoothness, flow.

Points are stored coordinate by coordinate, (edges, 3, pixels), so that every product is a plain batched matrix product.
The distance term computes its own gradient in the same pass: automatic differentiation would keep a dozen arrays of
(edges x pixels) alive, which is what fills the memory of the published implementation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from das3r_ns import geometry
from das3r_ns.predictor.network.alignment.state import BASE_SCALE, AlignmentState
from das3r_ns.predictor.network.pairs import PairPredictions

CHUNK_ELEMENTS = {"cuda": 2**23, "cpu": 2**17}
"""Edge pixels handled at once in the distance term, by kind of device: 100 MB a temporary array on a GPU, and what the
cache holds on a CPU."""
MAX_FLOW_ERROR = 50.0
"""Pixels. A flow this far from the camera's own is an outlier or a moving object, and is left out."""
FLOW_SCALE = 1.0
"""Pixels. An error beyond this pulls less the larger it is, so movers that the dynamic mask missed do little harm."""


@dataclass(frozen=True)
class View:
    """One of the two predictions of every edge, at p of the pixels."""

    frame: Int[Tensor, "e"]
    points: Float[Tensor, "e 3 p"]
    confidence: Float[Tensor, "e p"]
    """Above 1, as the network gives it."""
    weight: Float[Tensor, "e p"]
    """Logarithm of the confidence: what a distance counts for."""


@dataclass(frozen=True)
class FlowObservations:
    """Measured optical flow of some edges, first frame to second, where it can be trusted."""

    source: Int[Tensor, "m"]
    target: Int[Tensor, "m"]
    flow: Float[Tensor, "m 2 p"]
    """Pixels."""
    trusted: Bool[Tensor, "m p"]
    """Neither occluded (flow there and back agree) nor moving."""


@dataclass(frozen=True)
class Observations:
    """Everything the alignment looks at, on a set of pixels that is the same for every frame."""

    first: View
    second: View
    offsets: Float[Tensor, "2 p"]
    """Pixel centre minus principal point, in pixels of the horizontal focal length."""
    num_frames: int


@dataclass(frozen=True)
class Objective:
    """Value of each term; `total` is the weighted sum."""

    total: Float[Tensor, ""]
    first: Float[Tensor, ""]
    second: Float[Tensor, ""]
    smoothness: Float[Tensor, ""]
    flow: Float[Tensor, ""]


def pixel_subset(height: int, width: int, stride: int, device: torch.device) -> Int[Tensor, "p"]:
    """Flat indices of every stride-th row and column, starting in the middle of the first cell."""
    rows = torch.arange(stride // 2, height, stride, device=device)
    columns = torch.arange(stride // 2, width, stride, device=device)
    return (rows[:, None] * width + columns).flatten()


def observe(
    predictions: PairPredictions,
    num_frames: int,
    stride: int = 1,
    principal_point: tuple[float, float] | None = None,
    aspect: float = 1.0,
) -> Observations:
    """Select the pixels to align on.

    Args:
        stride: every stride-th row and column; 1 takes all pixels, and then copies no pointmap.
        principal_point: (x, y) in pixels; the middle of the image if None.
        aspect: horizontal over vertical focal length. Vertical offsets are multiplied by it, so that the state needs
            one focal length, the horizontal one.
    """
    height, width = predictions.confidence1.shape[1:]
    device = predictions.edges.device
    index = pixel_subset(height, width, stride, device) if stride > 1 else None
    cx, cy = principal_point or (width / 2, height / 2)
    offsets = geometry.pixel_grid(height, width, device).flatten(0, 1).T
    offsets = (offsets - torch.tensor([[cx], [cy]], device=device)) * torch.tensor([[1.0], [aspect]], device=device)
    views: list[View] = []
    for column, points, confidence in (
        (0, predictions.pointmap1, predictions.confidence1),
        (1, predictions.pointmap2, predictions.confidence2),
    ):
        points, confidence = points.flatten(1, 2), confidence.flatten(1)
        if index is not None:
            points, confidence = points[:, index], confidence[:, index]
        points = points.transpose(1, 2)
        if index is not None:
            points = points.contiguous()
        views.append(View(predictions.edges[:, column].contiguous(), points, confidence, confidence.log()))
    first, second = views
    return Observations(first, second, offsets if index is None else offsets[:, index].contiguous(), num_frames)


class _WeightedDistance(torch.autograd.Function):
    """Sum over edges and pixels of weight * |world point - transformed prediction|."""

    @staticmethod
    def forward(ctx: Any, world: Tensor, linear: Tensor, offset: Tensor, view: View) -> Tensor:
        edges, _, pixels = view.points.shape
        chunk = max(1, CHUNK_ELEMENTS["cuda" if world.is_cuda else "cpu"] // pixels)
        total = world.new_zeros(())
        d_world, d_linear, d_offset = torch.zeros_like(world), torch.empty_like(linear), torch.empty_like(offset)
        for start in range(0, edges, chunk):
            part = slice(start, start + chunk)
            points, frame, weight = view.points[part], view.frame[part], view.weight[part]
            residual = world[frame] - torch.baddbmm(offset[part, :, None], linear[part], points)
            distance = _length(residual)
            total += (weight * distance).sum()
            pull = residual.mul_((weight / distance.clamp_min(1e-12))[:, None])
            add_by_frame(d_world, frame, pull)
            d_linear[part] = -(pull @ points.transpose(1, 2))
            d_offset[part] = -pull.sum(-1)
        ctx.save_for_backward(d_world, d_linear, d_offset)
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grad_outputs
        d_world, d_linear, d_offset = ctx.saved_tensors
        return grad * d_world, grad * d_linear, grad * d_offset, None


def _length(vectors: Float[Tensor, "e 3 p"]) -> Float[Tensor, "e p"]:
    """Euclidean length. Coordinate by coordinate, because a reduction over an axis of 3 is 20 times slower on a CPU."""
    x, y, z = vectors.unbind(1)
    return (x * x).addcmul_(y, y).addcmul_(z, z).sqrt_()


def add_by_frame(sums: Float[Tensor, "n *s"], frame: Int[Tensor, "e"], values: Float[Tensor, "e *s"]) -> None:
    """sums[frame[k]] += values[k] for every k, in an order that is the same in every run.

    A GPU's scattered addition is not (and the alignment amplifies rounding), so there it is a matrix product with the
    incidence matrix, which is as fast.
    """
    if not values.is_cuda:
        sums.index_add_(0, frame, values)
        return
    incidence = (torch.arange(len(sums), device=frame.device)[:, None] == frame).to(values.dtype)
    sums += (incidence @ values.flatten(1)).view_as(sums)


def evaluate(
    state: AlignmentState,
    observations: Observations,
    smoothness_weight: float = 0.01,
    flow: FlowObservations | None = None,
    flow_weight: float = 0.0,
) -> Objective:
    """The objective of a state, differentiable in its raw parameters.

    The distance terms are means over all edges and pixels, added, in a world whose edges have a mean scale of
    `BASE_SCALE`; smoothness is a sum over neighbouring frames.
    """
    world = state.world_points(observations.offsets)
    linear, offset = state.edge_similarities()
    # In units of the base scale, so that a free unit is not drawn to 0, where all distances vanish.
    count = observations.first.weight.numel() * (state.log_base_scale.exp() / BASE_SCALE)
    apply: Callable[..., Tensor] = _WeightedDistance.apply  # type: ignore[assignment]
    first, second = (apply(world, linear, offset, v) / count for v in (observations.first, observations.second))
    smoothness = camera_smoothness(*state.cameras())
    total = first + second + smoothness_weight * smoothness
    flow_term = total.new_zeros(())
    if flow is not None and flow_weight > 0:
        flow_term = flow_disagreement(state, world, observations.offsets, flow)
        total = total + flow_weight * flow_term
    return Objective(total, first, second, smoothness, flow_term)


def camera_smoothness(rotation: Float[Tensor, "n 3 3"], position: Float[Tensor, "n 3"]) -> Float[Tensor, ""]:
    """Sum over neighbouring frames of |R_rel - I| (Frobenius) + |t_rel|, both unsquared."""
    R_rel = rotation[:-1].transpose(1, 2) @ rotation[1:]
    t_rel = (rotation[:-1].transpose(1, 2) @ (position[1:] - position[:-1])[:, :, None])[..., 0]
    identity = torch.eye(3, dtype=rotation.dtype, device=rotation.device)
    turning = torch.linalg.vector_norm((R_rel - identity).flatten(1), dim=1)
    return turning.sum() + torch.linalg.vector_norm(t_rel, dim=1).sum()


def flow_disagreement(
    state: AlignmentState, world: Float[Tensor, "n 3 p"], offsets: Float[Tensor, "2 p"], flow: FlowObservations
) -> Float[Tensor, ""]:
    """Difference between measured flow and the flow that the cameras cause, through Cauchy's robust function.

    The mean over trusted entries, for both directions of a pair together (twice the mean over directed pairs). The
    published function, smooth-L1, lets movers that the mask missed pull the cameras further.
    """
    rotation, position = state.cameras()
    target = flow.target
    moved = rotation[target].transpose(1, 2) @ (world[flow.source] - position[target, :, None])
    z = moved[:, 2]
    in_front = z > 1e-6
    projected = state.focal()[target, None, None] * moved[:, :2] / torch.where(in_front, z, torch.ones_like(z))[:, None]
    error = projected - offsets - flow.flow
    counted = (flow.trusted & in_front)[:, None] & (error.detach().abs() < MAX_FLOW_ERROR)
    per_entry = 0.5 * FLOW_SCALE**2 * (error / FLOW_SCALE).square().log1p()
    return 2 * torch.where(counted, per_entry, torch.zeros_like(error)).sum() / counted.sum().clamp_min(1)
