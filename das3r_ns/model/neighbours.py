"""Distance to the nearest neighbours of every point, on any device, at a cost that grows linearly.

3D Gaussian splatting starts each Gaussian as large as its distance to its three nearest neighbours. A k-d tree over
millions of points takes minutes on a CPU; here points are sorted along a Z-order curve (Morton, 1966) and each is
compared with the few before and after it. Points on either side of a large step of the curve are missed, so this is
done on several shifted grids and the nearest of all are kept: an upper bound that is close to the truth.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

REACH = 6
"""Neighbours looked at on either side along the curve."""
SHIFTS = 4
"""Grids the curve is drawn on."""
CHUNK = 1 << 18
"""Points compared at once: bounds the memory."""


def rms_neighbour_distance(points: Float[Tensor, "p 3"]) -> Float[Tensor, "p"]:
    """Root mean square distance to the three nearest other points. 0 for clouds of fewer than four points."""
    count = len(points)
    if count < 4:
        return torch.zeros(count, device=points.device)
    nearest = torch.full((count, 3), torch.inf, device=points.device)
    ids = torch.full((count, 3), -1, dtype=torch.long, device=points.device)
    low = points.amin(dim=0)
    side = (points.amax(dim=0) - low).amax().clamp_min(1e-12)
    for i in range(SHIFTS):
        # Steps of the golden ratio fill the unit interval evenly, so no two grids share their large steps.
        shift = torch.tensor([(i * 0.618 + a * 0.271) % 1.0 for a in range(3)], device=points.device)
        order = morton_code((points - low) / (2 * side) + shift / 2).argsort()
        _improve(points, order, nearest, ids)
    return nearest.square().mean(dim=-1).sqrt()


def morton_code(unit: Float[Tensor, "p 3"]) -> Int[Tensor, "p"]:
    """Place along the Z-order curve of points in the unit cube: the bits of the three coordinates interleaved."""
    cell = (unit.clamp(0, 1 - 1e-7).double() * (1 << 20)).long()
    code = torch.zeros_like(cell[:, 0])
    for axis in range(3):
        code |= _spread(cell[:, axis]) << axis
    return code


def _spread(x: Int[Tensor, "p"]) -> Int[Tensor, "p"]:
    """Put two zero bits between the 21 low bits."""
    for shift, mask in (
        (32, 0x1F00000000FFFF),
        (16, 0x1F0000FF0000FF),
        (8, 0x100F00F00F00F00F),
        (4, 0x10C30C30C30C30C3),
        (2, 0x1249249249249249),
    ):
        x = (x | (x << shift)) & mask
    return x


def _improve(points: Tensor, order: Tensor, nearest: Tensor, ids: Tensor) -> None:
    """Merge the candidates along one curve into the three nearest found so far, in place."""
    count = len(order)
    offsets = torch.tensor([o for o in range(-REACH, REACH + 1) if o != 0], device=points.device)
    for start in range(0, count, CHUNK):
        place = torch.arange(start, min(start + CHUNK, count), device=points.device)
        mine = order[place]
        beside = place[:, None] + offsets
        inside = (beside >= 0) & (beside < count)
        candidate = order[beside.clamp(0, count - 1)]
        distance = (points[candidate] - points[mine][:, None]).norm(dim=-1)
        distance = torch.where(inside, distance, torch.inf)
        # A neighbour found on an earlier grid must not count twice.
        known = (candidate[:, :, None] == ids[mine][:, None]).any(dim=-1)
        distance = torch.where(known, torch.inf, distance)
        all_distances = torch.cat((nearest[mine], distance), dim=1)
        all_ids = torch.cat((ids[mine], candidate), dim=1)
        nearest[mine], chosen = all_distances.topk(3, dim=1, largest=False)
        ids[mine] = all_ids.gather(1, chosen)
