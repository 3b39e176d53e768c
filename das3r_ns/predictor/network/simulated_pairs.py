"""Pair predictions made from a known truth, with errors of the kind a network makes: for tests and benchmarks.

A network's errors are mostly smooth (a whole region too near, the second camera slightly off), with a little noise on
top; each pair has its own scale; and confidence is lower where the error is larger, though not exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

import roma
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from das3r_ns import geometry
from das3r_ns.predictor.network.pairs import PairPredictions
from das3r_ns.predictor.network.settings import Edge


@dataclass(frozen=True)
class PairErrors:
    """Size of the errors. All are standard deviations."""

    smooth: float = 0.02
    """Of depth, as a share of it, varying over the image."""
    noise: float = 0.003
    """Of every point, as a share of its depth, independent between pixels."""
    rotation_deg: float = 0.3
    """Of the second camera."""
    translation: float = 0.005
    """Of the second camera, as a share of the median depth."""
    log_scale: float = 0.3
    """Of the pair's scale, as a logarithm."""
    mask: float = 0.1
    """Of the dynamic probability."""


def simulate_pairs(
    depth: Float[Tensor, "n h w"],
    dynamic_mask: Bool[Tensor, "n h w"],
    T_world_camera: Float[Tensor, "n 4 4"],
    K: Float[Tensor, "3 3"],
    edges: list[Edge],
    errors: PairErrors = PairErrors(),
    seed: int = 0,
) -> PairPredictions:
    """What a network might say about these pairs of frames, on the device of `depth`."""
    device, (n, height, width) = depth.device, depth.shape
    generator = torch.Generator(device).manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=device)

    T_world_camera, K = T_world_camera.to(depth), K.to(depth)
    in_camera = geometry.unproject(depth, K.expand(n, 3, 3))
    count, typical = len(edges), depth.median()
    points = [torch.empty(count, height, width, 3, device=device) for _ in range(2)]
    confidences = [torch.empty(count, height, width, device=device) for _ in range(2)]
    masks = torch.empty(count, height, width, device=device)
    for k, (i, j) in enumerate(edges):
        turn = torch.deg2rad(torch.tensor(errors.rotation_deg, device=device)) * normal(3)
        wobble = torch.eye(4, device=device)
        wobble[:3, :3] = roma.rotvec_to_rotmat(turn)
        wobble[:3, 3] = errors.translation * typical * normal(3)
        T_i_j = wobble @ geometry.invert(T_world_camera[i]) @ T_world_camera[j]
        scale = (errors.log_scale * normal(1)).exp()
        # Both views share half of the smooth error: the network sees one pair, not two images.
        shared = normal(1, 1, 4, 6)
        for view, (frame, T) in enumerate(((i, None), (j, T_i_j))):
            coarse = (shared + normal(1, 1, 4, 6)) / 2**0.5
            bend = errors.smooth * F.interpolate(coarse, (height, width), mode="bicubic", align_corners=True)[0, 0]
            jitter = errors.noise * depth[frame][..., None] * normal(height, width, 3)
            wrong = in_camera[frame] * (1 + bend[..., None]) + jitter
            wrong = wrong if T is None else geometry.transform(T, wrong)
            points[view][k] = scale * wrong
            sureness = 2 - bend.abs() / max(errors.smooth, 1e-6) / 2 - 0.1 * depth[frame] / typical
            confidences[view][k] = 1 + (sureness + 0.2 * normal(height, width)).exp()
        soft = dynamic_mask[i].float() * 0.8 + 0.1
        masks[k] = (soft + errors.mask * normal(height, width)).clamp(0, 1)
    return PairPredictions(
        torch.tensor(edges, device=device), points[0], points[1], confidences[0], confidences[1], masks, normal(n, 8)
    )
