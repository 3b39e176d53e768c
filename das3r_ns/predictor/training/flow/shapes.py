"""Outlines of the layers of flow worlds: how far inside or outside a shape a place is.

Every layer draws one shape: a blob, a polygon, a bar (thin, straight or bent) or a fence of bars. Numbers come as one
tensor a property, so that a whole batch is evaluated in one expression.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from das3r_ns.predictor.training.flow.draws import Number

HARMONICS = 6
"""Waves in the outline of a blob, from two around it on."""
CORNERS = 6
"""Most sides of a polygon."""


class Shapes(NamedTuple):
    """One shape for every image of a batch; lengths in pixels."""

    kind: Int[Tensor, "b"]
    """0 blob, 1 polygon, 2 bar, 3 fence."""
    centre: Float[Tensor, "b 2"]
    size: Float[Tensor, "b"]
    """Radius of blob and polygon; half the length of a bar."""
    aspect: Float[Tensor, "b"]
    angle: Float[Tensor, "b"]
    waves: Float[Tensor, "b harmonics"]
    phases: Float[Tensor, "b harmonics"]
    sides: Float[Tensor, "b corners"]
    """Directions of the polygon's sides; several may be the same."""
    thickness: Float[Tensor, "b"]
    """Half the width of a bar."""
    bend: Float[Tensor, "b"]
    gap: Float[Tensor, "b"]
    """Distance between the bars of a fence."""
    roughness: Float[Tensor, "b"]
    """Pixels by which the texture's height moves the outline."""


def draw_shapes(batch: int, width: int, generator: torch.Generator) -> Shapes:
    """Shapes around the origin for images of so many pixels in width."""

    def uniform(low: Number, high: Number, *more: int) -> Tensor:
        return low + (high - low) * torch.rand(batch, *more, generator=generator, device=generator.device)

    chance = uniform(0, 1)
    kind = (chance > 0.45).long() + (chance > 0.7).long() + (chance > 0.9).long()
    size = width * torch.exp(uniform(math.log(0.02), math.log(0.38)))
    long_ones = kind >= 2
    size = torch.where(long_ones, width * uniform(0.1, 0.6), size)
    decay = 1 / torch.arange(2, 2 + HARMONICS, device=generator.device) ** 1.2
    waves = uniform(0, 0.6)[:, None] * uniform(-1, 1, HARMONICS) * decay
    # A polygon of random half-planes is closed if their normals go around: one in each sector, shaken.
    sectors = torch.arange(CORNERS, device=generator.device) * (2 * math.pi / CORNERS)
    sides = sectors + uniform(-0.5, 0.5, CORNERS)
    keep = uniform(0, 1, CORNERS) < 0.65
    sides = torch.where(keep | (torch.arange(CORNERS, device=generator.device) % 2 == 0), sides, sides[:, :1])
    thickness = torch.exp(uniform(math.log(0.7), math.log(0.03 * width)))
    return Shapes(
        kind=kind,
        centre=torch.zeros(batch, 2, device=generator.device),
        size=size,
        aspect=torch.exp(uniform(math.log(0.35), 0.0)),
        angle=uniform(0, 2 * math.pi),
        waves=waves,
        phases=uniform(0, 2 * math.pi, HARMONICS),
        sides=sides,
        thickness=thickness,
        bend=uniform(-0.6, 0.6) * (uniform(0, 1) < 0.5),
        gap=thickness * uniform(3, 9) + 4,
        roughness=(uniform(0, 1) < 0.3) * uniform(2, 0.1 * width),
    )


def coverage(
    shapes: Shapes, places: Float[Tensor, "b 2 h w"], height: Float[Tensor, "b h w"]
) -> Float[Tensor, "b h w"]:
    """How much of each pixel a shape covers, 0 to 1, with an edge of a pixel.

    Args:
        places: where the shape is asked for, in pixels of the image in which it lies.
        height: of the texture there, -1 to 1.
    """

    def wide(values: Tensor) -> Tensor:
        return values[:, None, None]

    dx, dy = places[:, 0] - wide(shapes.centre[:, 0]), places[:, 1] - wide(shapes.centre[:, 1])
    cos, sin = wide(shapes.angle.cos()), wide(shapes.angle.sin())
    u, v = dx * cos + dy * sin, dy * cos - dx * sin
    size, thickness = wide(shapes.size), wide(shapes.thickness)
    v_blob = v / wide(shapes.aspect)
    radius, theta = (u**2 + v_blob**2 + 1e-6).sqrt(), torch.atan2(v_blob, u)
    outline = torch.ones_like(radius)
    for i in range(HARMONICS):
        outline = outline + wide(shapes.waves[:, i]) * torch.cos((i + 2) * theta + wide(shapes.phases[:, i]))
    blob = (radius - size * outline.clamp_min(0.1)) * wide(shapes.aspect)
    polygon = torch.full_like(blob, -math.inf)
    for i in range(CORNERS):
        side = shapes.sides[:, i]
        polygon = torch.maximum(polygon, u * wide(side.cos()) + v_blob * wide(side.sin()))
    polygon = (polygon - 0.8 * size) * wide(shapes.aspect)
    bent = v - wide(shapes.bend) * u**2 / size
    bar = torch.maximum(bent.abs() - thickness, u.abs() - size)
    gap = wide(shapes.gap)
    near = bent - gap * (bent / gap).round()  # to the nearest bar
    fence = torch.maximum(near.abs() - thickness, torch.maximum(u.abs() - size, bent.abs() - 0.6 * size))
    kind = wide(shapes.kind)
    distance = torch.where(kind == 0, blob, torch.where(kind == 1, polygon, torch.where(kind == 2, bar, fence)))
    rough = wide(shapes.roughness) * (kind < 2)
    return (0.5 - distance - rough * height).clamp(0, 1)
