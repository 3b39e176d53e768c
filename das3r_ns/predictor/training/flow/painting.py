"""What the layers of flow worlds look like over both images: textures turned, scaled, shifted and in other colours."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from das3r_ns.predictor.training.flow.draws import Number

TEXTURE_SIDE = 512
"""Textures of this side are shown at 0.45 to 1.3 texels a pixel, larger and smaller ones in proportion."""


class Paint(NamedTuple):
    """How each layer's texture is seen."""

    texture: UInt8[Tensor, "b 4 t t"]
    matrix: Float[Tensor, "b 2 2"]
    """Texels a pixel, turned."""
    shift: Float[Tensor, "b 1 1 2"]
    """In half sides of the texture."""
    order: Int[Tensor, "b 3"]
    """Which channel stands for which."""
    saturation: Float[Tensor, "b 1 1 1"]
    contrast: Float[Tensor, "b 1 1 1"]
    offset: Float[Tensor, "b 3 1 1"]


def paint_both(
    in_first: Float[Tensor, "b 2 h w"],
    in_second: Float[Tensor, "b 2 h w"],
    textures: UInt8[Tensor, "n 4 t t"],
    generator: torch.Generator,
    paint: Callable[..., Tensor],
    look: Int[Tensor, "b"] | None = None,
) -> tuple[Float[Tensor, "b 4 h w"], Float[Tensor, "b 4 h w"]]:
    """What a layer looks like over both images; places are of the second image, pixels.

    Args:
        paint: `paint`, compiled or as it is.
        look: the layer of the batch whose texture each layer takes; None: each has its own.
    """
    batch, height = len(in_first), in_first.shape[2]
    device, side = textures.device, textures.shape[-1]

    def uniform(low: Number, high: Number, *more: int) -> Tensor:
        return low + (high - low) * torch.rand(batch, *more, generator=generator, device=device)

    chosen = torch.randint(len(textures), (batch,), generator=generator, device=device)
    texels = torch.exp(uniform(math.log(0.45), math.log(1.3))) * side / TEXTURE_SIDE
    angle = uniform(0, 2 * math.pi)
    matrix = (torch.stack((angle.cos(), -angle.sin(), angle.sin(), angle.cos()), -1) * texels[:, None]).view(-1, 2, 2)
    shift = uniform(-1, 1, 1, 1, 2)
    # Other colours: channels change places and mix with grey; contrast falls, for some to next to nothing.
    order = torch.rand(batch, 3, generator=generator, device=device).argsort(1)
    saturation = uniform(0, 1.1, 1, 1, 1)
    contrast = torch.where(uniform(0, 1) < 0.15, uniform(0.03, 0.4), uniform(0.5, 1.2))[:, None, None, None]
    offset = uniform(-0.2, 0.2, 1, 1, 1) + uniform(-0.1, 0.1, 3, 1, 1)
    drawn = (chosen, matrix, shift, order, saturation, contrast, offset)
    chosen, *rest = drawn if look is None else [values[look] for values in drawn]
    how = Paint(textures[chosen], *rest)
    first, second = paint(torch.cat((in_first, in_second), 2), how).split((height, height), 2)
    return first, second


def paint(places: Float[Tensor, "b 2 h w"], how: Paint) -> Float[Tensor, "b 4 h w"]:
    """Colour and height of the texture at places in pixels."""
    side = how.texture.shape[-1]
    x, y = places.unbind(1)
    m = how.matrix[..., None, None]
    at = torch.stack((m[:, 0, 0] * x + m[:, 0, 1] * y, m[:, 1, 0] * x + m[:, 1, 1] * y), -1) * (2 / side) + how.shift
    texture = how.texture.float() / 255
    # Channels change places in the texture, which has fewer pixels than the layer.
    order = torch.cat((how.order, torch.full_like(how.order[:, :1], 3)), 1)
    texture = texture.gather(1, order[..., None, None].expand_as(texture))
    seen = F.grid_sample(texture, at, padding_mode="reflection", align_corners=False)
    rgb = seen[:, :3]
    grey = rgb.mean(1, keepdim=True)
    rgb = grey + (rgb - grey) * how.saturation
    middle = rgb.mean((2, 3), keepdim=True)
    rgb = middle + (rgb - middle) * how.contrast + how.offset
    return torch.cat((rgb.clamp(0, 1), seen[:, 3:]), 1)
