"""Articulated objects for flow worlds: some layers are limbs that turn about a joint on another layer.

A limb has the depth, the bending and mostly the texture of the figure that it belongs to, and swings by an angle of its
own. What moves in films of people and animals moves like that: parts of one look go different ways, each across the
next, while what is behind stands still.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from das3r_ns.predictor.training.flow.draws import Number, uniform
from das3r_ns.predictor.training.flow.motion import ObjectMotion
from das3r_ns.predictor.training.flow.shapes import Shapes

LIMB_SHARE = 0.45
"""Layers that are limbs."""
SAME_TEXTURE_SHARE = 0.7
"""Limbs with the texture of the figure; the others wear one of their own."""
MAX_SWING_RAD = 0.9
MIN_LIMB_PX = 5.0
"""Half the length of the shortest limb."""


class Figures(NamedTuple):
    """Which layers belong together; n = b * layers, pair by pair from far to near."""

    root: Int[Tensor, "n"]
    """The layer whose depth and bending each takes: its figure's first, or itself."""
    look: Int[Tensor, "n"]
    """The layer whose texture each takes."""


def draw_figures(batch: int, layers: int, generator: torch.Generator) -> tuple[Figures, Int[Tensor, "b layers"]]:
    """Group layers to figures. Returns them, and what each layer hangs on: -1 for those that are no limbs."""
    limb = uniform((batch, layers), generator) < LIMB_SHARE
    limb[:, 0] = False
    number = torch.arange(layers, device=generator.device).expand(batch, layers)
    root = torch.where(limb, 0, number).cummax(1).values  # the last one before that is not a limb
    # Half of the limbs hang on the figure itself, the others on the limb before: a thigh, then a shin.
    parent = torch.where(uniform((batch, layers), generator) < 0.5, root, number - 1)
    first = layers * torch.arange(batch, device=generator.device)[:, None]
    same = limb & (uniform((batch, layers), generator) < SAME_TEXTURE_SHARE)
    look = torch.where(same, root, number)
    return Figures((root + first).flatten(), (look + first).flatten()), torch.where(limb, parent, -1)


def attach_limbs(
    parent: Int[Tensor, "b layers"],
    figures: Figures,
    centre: Float[Tensor, "n 2"],
    own: ObjectMotion,
    shapes: Shapes,
    generator: torch.Generator,
) -> tuple[Float[Tensor, "n 2"], ObjectMotion, Shapes]:
    """Centres, motions and shapes with every limb where its joint is, in both images: it turns about a point on the
    outline of its parent, which carries the joint along."""
    batch, layers = parent.shape
    limb = parent >= 0

    def drawn(low: Number, high: Number) -> Float[Tensor, "b layers"]:
        return uniform((batch, layers), generator, low, high)

    where, swing, lean = drawn(0, 2 * math.pi), drawn(-1, 1) * drawn(0, MAX_SWING_RAD), drawn(-0.8, 0.8)
    relative = drawn(0.35, 0.9)
    middles, sizes = list(centre.view(batch, layers, 2).unbind(1)), list(shapes.size.view(batch, layers).unbind(1))
    turns = list(own.matrix.view(batch, layers, 2, 2).unbind(1))
    shifts = list(own.shift.view(batch, layers, 2).unbind(1))
    angles = list(shapes.angle.view(batch, layers).unbind(1))

    def of_parent(values: list[Tensor], k: int) -> Tensor:
        so_far = torch.stack(values, 1)
        at = parent[:, k].clamp_min(0).view(batch, *(1,) * (so_far.ndim - 1)).expand(batch, 1, *so_far.shape[2:])
        return so_far.gather(1, at)[:, 0]

    for k in range(1, layers):
        is_limb = limb[:, k, None]
        middle, turn, shift, size = (of_parent(values, k) for values in (middles, turns, shifts, sizes))
        outwards, along = _direction(where[:, k]), _direction(where[:, k] + lean[:, k])
        joint = middle + 0.6 * size[:, None] * outwards
        limb_size = (relative[:, k] * size).clamp_min(MIN_LIMB_PX)
        limb_middle = joint + 0.75 * limb_size[:, None] * along
        limb_turn = _rotation(swing[:, k]) @ turn
        carried = _times(turn, joint - middle) + middle + shift
        limb_shift = carried - _times(limb_turn, joint - limb_middle) - limb_middle
        axis = _times(limb_turn, along)  # shapes lie in the second image
        middles[k] = torch.where(is_limb, limb_middle, middles[k])
        shifts[k] = torch.where(is_limb, limb_shift, shifts[k])
        turns[k] = torch.where(is_limb[..., None], limb_turn, turns[k])
        sizes[k] = torch.where(is_limb[:, 0], limb_size, sizes[k])
        angles[k] = torch.where(is_limb[:, 0], torch.atan2(axis[:, 1], axis[:, 0]), angles[k])
    motion = ObjectMotion(
        torch.stack(turns, 1).view(-1, 2, 2), torch.stack(shifts, 1).view(-1, 2), own.bend[figures.root]
    )
    limbs = limb.flatten()
    shapes = shapes._replace(
        kind=torch.where(limbs, 0, shapes.kind),
        size=torch.stack(sizes, 1).flatten(),
        angle=torch.stack(angles, 1).flatten(),
        aspect=torch.where(limbs, 0.15 + 0.5 * shapes.aspect, shapes.aspect),
        waves=torch.where(limbs[:, None], 0.4 * shapes.waves, shapes.waves),
    )
    return torch.stack(middles, 1).view(-1, 2), motion, shapes


def _direction(angle: Float[Tensor, "b"]) -> Float[Tensor, "b 2"]:
    return torch.stack((angle.cos(), angle.sin()), -1)


def _rotation(angle: Float[Tensor, "b"]) -> Float[Tensor, "b 2 2"]:
    cos, sin = angle.cos(), angle.sin()
    return torch.stack((cos, -sin, sin, cos), -1).view(-1, 2, 2)


def _times(matrix: Float[Tensor, "b 2 2"], vector: Float[Tensor, "b 2"]) -> Float[Tensor, "b 2"]:
    return (matrix @ vector[..., None])[..., 0]
