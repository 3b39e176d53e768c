"""What is read off the aligned pairs: dynamic maps, and confidences without the points that others contradict."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from das3r_ns import geometry


def aggregate_masks(
    first_frame: Int[Tensor, "e"], dynamic_prob1: Float[Tensor, "e h w"], num_frames: int
) -> tuple[Float[Tensor, "n h w"], Float[Tensor, "n h w"]]:
    """Mean and maximum, over the pairs in which a frame is first, of its dynamic probability.

    A frame that is first in no pair gets 0: nothing says that it moves.
    """
    total = dynamic_prob1.new_zeros(num_frames, *dynamic_prob1.shape[1:])
    highest, count = total.clone(), total.new_zeros(num_frames)
    for k, frame in enumerate(first_frame.tolist()):
        total[frame] += dynamic_prob1[k]
        torch.maximum(highest[frame], dynamic_prob1[k], out=highest[frame])
        count[frame] += 1
    return total / count.clamp_min(1)[:, None, None], highest


@torch.no_grad()
def clean_confidence(
    confidence: Float[Tensor, "n h w"],
    depth: Float[Tensor, "n h w"],
    T_world_camera: Float[Tensor, "n 4 4"],
    K: Float[Tensor, "n 3 3"],
    tolerance: float,
) -> Float[Tensor, "n h w"]:
    """Confidence, set to 0 where a point floats in front of what a surer frame sees.

    Frames are treated in order, and each sees the cleaned confidences of those before it. Within one frame the order
    of the others does not matter (a point that lost its confidence can lose it only once), so they are done together.

    Args:
        tolerance: share of the depth by which a point must be in front.
    """
    n, height, width = depth.shape
    cleaned = confidence.clone()
    camera_points = geometry.unproject(depth, K).flatten(1, 2)
    T_camera_world = geometry.invert(T_world_camera)
    for i in range(n):
        others = [j for j in range(n) if j != i]
        T_other_i = T_camera_world[others] @ T_world_camera[i]
        points = camera_points[i] @ T_other_i[:, :3, :3].transpose(1, 2) + T_other_i[:, None, :3, 3]
        z = points[..., 2]
        index, inside = _nearest_pixel(points, z, K[others], height, width)
        seen_depth = depth[others].flatten(1).gather(1, index)
        seen_confidence = cleaned[others].flatten(1).gather(1, index)
        own = cleaned[i].flatten()
        floats = inside & (z < (1 - tolerance) * seen_depth) & (own < seen_confidence)
        cleaned[i] = torch.where(floats.any(0), torch.zeros_like(own), own).view(height, width)
    return cleaned


def _nearest_pixel(
    points: Float[Tensor, "m p 3"], z: Float[Tensor, "m p"], K: Float[Tensor, "m 3 3"], height: int, width: int
) -> tuple[Int[Tensor, "m p"], Bool[Tensor, "m p"]]:
    """Flat index of the pixel each point falls on, and whether it falls on the image at all."""
    in_front = z > 0
    safe = torch.where(in_front, z, torch.ones_like(z))
    focal, centre = K[:, None, [0, 1], [0, 1]], K[:, None, [0, 1], [2, 2]]
    uv = (points[..., :2] / safe[..., None] * focal + centre - 0.5).round()  # pixel 0 has its centre at 0.5
    u, v = uv.unbind(-1)
    inside = in_front & (u >= 0) & (u < width) & (v >= 0) & (v < height)
    index = torch.where(inside, v * width + u, torch.zeros_like(u))
    return index.nan_to_num(0.0).long(), inside
