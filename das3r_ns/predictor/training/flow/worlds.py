"""Pairs of images with exact flow, drawn on the device that trains: layers that move and cover each other.

A world is a background, a room of planes or a surface with relief, and up to `LAYERS` shapes in front of it, near ones
over far ones; half of them move on their own. Textures and outlines live in the second image; what the first shows at x
is what the second shows at x + flow(x), so the flow is exact however the layers bend.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from das3r_ns.predictor.training.flow.degradations import degrade
from das3r_ns.predictor.training.flow.draws import Number
from das3r_ns.predictor.training.flow.motion import (
    CameraMotion,
    ObjectMotion,
    Surface,
    draw_camera,
    draw_object_motion,
    draw_surface,
    move,
)
from das3r_ns.predictor.training.flow.shapes import coverage, draw_shapes

LAYERS = 7
"""Most shapes in front of the background."""


TEXTURE_SIDE = 512
"""Textures of this side are shown at 0.45 to 1.3 texels a pixel, larger and smaller ones in proportion."""


@dataclass(frozen=True)
class FlowPairs:
    """A batch of pairs with what is true of them."""

    first: Float[Tensor, "b 3 h w"]
    second: Float[Tensor, "b 3 h w"]
    """RGB, 0 to 1."""
    flow: Float[Tensor, "b 2 h w"]
    """From the first image to the second, pixels."""
    visible: Bool[Tensor, "b h w"]
    """Pixels of the first image that the second shows too: neither covered nor out of view."""
    layer: UInt8[Tensor, "b h w"]
    """What each pixel of the first image belongs to: 0 the background, then from far to near."""


def draw_pairs(
    batch: int,
    size: tuple[int, int],
    textures: UInt8[Tensor, "n 4 t t"],
    generator: torch.Generator,
    degraded: bool = True,
    fused: bool = False,
) -> FlowPairs:
    """Draw pairs of images of a size (height, width) on the generator's device.

    Args:
        degraded: with blur, noise, compression and change of exposure, as of real cameras.
        fused: compile what is evaluated at every pixel (`torch.compile`), for many batches of one size on a GPU.
    """
    kernels = _fused_kernels() if fused else Kernels(move, coverage, paint, stack)
    height, width = size
    device = generator.device
    line_y = torch.arange(height, device=device) - (height - 1) / 2
    line_x = torch.arange(width, device=device) - (width - 1) / 2
    places = torch.stack(torch.meshgrid(line_x, line_y, indexing="xy")).float().expand(batch, 2, height, width)
    camera = draw_camera(batch, size, generator)
    here = torch.zeros(batch, 2, device=device)

    def uniform(low: Number = 0, high: Number = 1) -> Float[Tensor, "b"]:
        return low + (high - low) * torch.rand(batch, generator=generator, device=device)

    # Half of the backgrounds are far behind the layers, half reach as near as they do.
    surface = draw_surface(batch, size, generator, near=uniform(0.05, 1), room=True)
    moved = kernels.move(places, camera, surface, None, here)
    first, second = _paint(moved, places, textures, generator, kernels)
    first, second = first[:, :3], second[:, :3]
    flow = moved - places

    # All shapes of all pairs are drawn as one batch, pair by pair from far to near: layer by layer, the launching of
    # thousands of small kernels would take longer than the training step.
    layers = _draw_layers(places, camera, textures, generator, kernels)
    first, second, flow, layer, layer_in_second = kernels.stack(first, second, flow, layers)

    visible = _visible(flow, layer, layer_in_second)
    if degraded:
        first, second = degrade(first, second, flow, generator)
    return FlowPairs(first.clamp(0, 1), second.clamp(0, 1), flow, visible, layer)


Kernel = TypeVar("Kernel", bound=Callable[..., object])


class Kernels(NamedTuple):
    """What is evaluated at every pixel of every layer and draws nothing: most of the time that drawing takes."""

    move: Callable[..., Tensor]
    coverage: Callable[..., Tensor]
    paint: Callable[..., Tensor]
    stack: Callable[..., tuple[Tensor, Tensor, Tensor, Tensor, Tensor]]


@functools.cache
def _fused_kernels() -> Kernels:
    def fuse(kernel: Kernel) -> Kernel:
        return torch.compile(kernel, dynamic=False)  # type: ignore[return-value]

    return Kernels(fuse(move), fuse(coverage), fuse(paint), fuse(stack))


class _Layers(NamedTuple):
    """The shapes of a batch of pairs, `LAYERS` for each."""

    first: Float[Tensor, "n 3 h w"]
    second: Float[Tensor, "n 3 h w"]
    """Their textures over both images."""
    covers_first: Float[Tensor, "n h w"]
    covers_second: Float[Tensor, "n h w"]
    """How much of each pixel they cover."""
    flow: Float[Tensor, "n 2 h w"]


def _draw_layers(
    places: Float[Tensor, "b 2 h w"],
    camera: CameraMotion,
    textures: UInt8[Tensor, "n 4 t t"],
    generator: torch.Generator,
    kernels: Kernels,
) -> _Layers:
    batch, _, height, width = places.shape
    number = batch * LAYERS
    device = generator.device

    def uniform(low: Number = 0, high: Number = 1) -> Float[Tensor, "n"]:
        return low + (high - low) * torch.rand(number, generator=generator, device=device)

    rank = torch.arange(1, LAYERS + 1, device=device).repeat(batch)
    how_many = torch.randint(1, LAYERS + 1, (batch,), generator=generator, device=device).repeat_interleave(LAYERS)
    there = (rank <= how_many).float()[:, None, None]
    places = places.repeat_interleave(LAYERS, 0)
    camera = CameraMotion(*(values.repeat_interleave(LAYERS, 0) for values in camera))
    near = 0.15 + 0.85 * rank / LAYERS * uniform(0.7, 1)
    surface = draw_surface(number, (height, width), generator, near, room=False)
    own = draw_object_motion(number, (height, width), generator, (uniform() < 0.55).float())
    centre = torch.stack((uniform(-0.45, 0.45) * width, uniform(-0.45, 0.45) * height), -1)
    moved = kernels.move(places, camera, surface, own, centre)
    shapes = draw_shapes(number, width, generator)
    shapes = shapes._replace(centre=_where_centre_goes(centre, camera, surface, own))
    first, second = _paint(moved, places, textures, generator, kernels)
    return _Layers(
        first[:, :3],
        second[:, :3],
        kernels.coverage(shapes, moved, first[:, 3] * 2 - 1) * there,
        kernels.coverage(shapes, places, second[:, 3] * 2 - 1) * there,
        moved - places,
    )


def _where_centre_goes(
    centre: Float[Tensor, "b 2"], camera: CameraMotion, surface: Surface, own: ObjectMotion
) -> Float[Tensor, "b 2"]:
    """The shape's centre in the second image, its relief and bending left out: they move it by little."""
    flat = surface._replace(relief=torch.zeros_like(surface.relief[:, :1, :1]))
    stiff = own._replace(bend=torch.zeros_like(own.bend[:, :, :1, :1]))
    return move(centre[..., None, None], camera, flat, stiff, centre)[..., 0, 0]


def stack(
    first: Float[Tensor, "b 3 h w"],
    second: Float[Tensor, "b 3 h w"],
    flow: Float[Tensor, "b 2 h w"],
    layers: _Layers,
) -> tuple[
    Float[Tensor, "b 3 h w"],
    Float[Tensor, "b 3 h w"],
    Float[Tensor, "b 2 h w"],
    UInt8[Tensor, "b h w"],
    UInt8[Tensor, "b h w"],
]:
    """Both images, the flow, and the layer that each pixel of either image shows, with the layers in front of a
    background, from far to near."""
    layer = torch.zeros_like(first[:, 0], dtype=torch.uint8)
    layer_in_second = torch.zeros_like(layer)
    for number in range(1, LAYERS + 1):
        at = slice(number - 1, None, LAYERS)
        alpha_first, alpha_second = layers.covers_first[at], layers.covers_second[at]
        first = first + (layers.first[at] - first) * alpha_first[:, None]
        second = second + (layers.second[at] - second) * alpha_second[:, None]
        flow = torch.where((alpha_first > 0.5)[:, None], layers.flow[at], flow)
        layer = torch.where(alpha_first > 0.5, number, layer).to(torch.uint8)
        layer_in_second = torch.where(alpha_second > 0.5, number, layer_in_second).to(torch.uint8)
    return first, second, flow, layer, layer_in_second


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


def _paint(
    in_first: Float[Tensor, "b 2 h w"],
    in_second: Float[Tensor, "b 2 h w"],
    textures: UInt8[Tensor, "n 4 t t"],
    generator: torch.Generator,
    kernels: Kernels,
) -> tuple[Float[Tensor, "b 4 h w"], Float[Tensor, "b 4 h w"]]:
    """What a layer looks like over both images, in a texture of its own; places are of the second image, pixels."""
    batch, height = len(in_first), in_first.shape[2]
    device, side = textures.device, textures.shape[-1]

    def uniform(low: Number, high: Number, *more: int) -> Tensor:
        return low + (high - low) * torch.rand(batch, *more, generator=generator, device=device)

    chosen = textures[torch.randint(len(textures), (batch,), generator=generator, device=device)]
    texels = torch.exp(uniform(math.log(0.45), math.log(1.3))) * side / TEXTURE_SIDE
    angle = uniform(0, 2 * math.pi)
    matrix = (torch.stack((angle.cos(), -angle.sin(), angle.sin(), angle.cos()), -1) * texels[:, None]).view(-1, 2, 2)
    shift = uniform(-1, 1, 1, 1, 2)
    # Other colours: channels change places and mix with grey; contrast falls, for some to next to nothing.
    order = torch.rand(batch, 3, generator=generator, device=device).argsort(1)
    saturation = uniform(0, 1.1, 1, 1, 1)
    contrast = torch.where(uniform(0, 1) < 0.15, uniform(0.03, 0.4), uniform(0.5, 1.2))[:, None, None, None]
    offset = uniform(-0.2, 0.2, 1, 1, 1) + uniform(-0.1, 0.1, 3, 1, 1)
    how = Paint(chosen, matrix, shift, order, saturation, contrast, offset)
    first, second = kernels.paint(torch.cat((in_first, in_second), 2), how).split((height, height), 2)
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


def _visible(
    flow: Float[Tensor, "b 2 h w"], layer: UInt8[Tensor, "b h w"], layer_in_second: UInt8[Tensor, "b h w"]
) -> Bool[Tensor, "b h w"]:
    height, width = layer.shape[1:]
    columns = torch.arange(width, device=flow.device) + flow[:, 0]
    rows = torch.arange(height, device=flow.device)[:, None] + flow[:, 1]
    inside = (columns >= -0.5) & (columns <= width - 0.5) & (rows >= -0.5) & (rows <= height - 0.5)
    column, row = columns.round().long().clamp(0, width - 1), rows.round().long().clamp(0, height - 1)
    there = layer_in_second.flatten(1).gather(1, (row * width + column).flatten(1)).view_as(layer)
    return inside & (there <= layer)
