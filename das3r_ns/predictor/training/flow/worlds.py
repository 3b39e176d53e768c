"""Pairs of images with exact flow, drawn on the device that trains: layers that move and cover each other.

A world is a background, a room of planes or a surface with relief, and up to `LAYERS` shapes in front of it, near ones
over far ones; most of them move on their own, some are limbs of others (`figures`). Textures and outlines live in the
second image; what the first shows at x is what the second shows at x + flow(x), so the flow is exact however the layers
bend.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from das3r_ns.predictor.training.flow.degradations import degrade
from das3r_ns.predictor.training.flow.draws import Number
from das3r_ns.predictor.training.flow.figures import attach_limbs, draw_figures
from das3r_ns.predictor.training.flow.motion import (
    CameraMotion,
    ObjectMotion,
    Surface,
    draw_camera,
    draw_object_motion,
    draw_surface,
    move,
)
from das3r_ns.predictor.training.flow.painting import paint, paint_both
from das3r_ns.predictor.training.flow.shapes import coverage, draw_shapes

LAYERS = 7
"""Most shapes in front of the background."""
MOVING_SHARE = 0.8
"""Shapes that move on their own. Real objects that matter do; too many at rest teach a network that in doubt a pixel
moves with what is around it."""


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
    moving: Bool[Tensor, "b h w"]
    """Pixels of the first image whose layer moves on its own."""


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
    first, second = paint_both(moved, places, textures, generator, kernels.paint)
    first, second = first[:, :3], second[:, :3]
    flow_behind = moved - places

    # All shapes of all pairs are drawn as one batch, pair by pair from far to near: layer by layer, the launching of
    # thousands of small kernels would take longer than the training step.
    layers = _draw_layers(places, camera, textures, generator, kernels)
    first, second, flow, layer, layer_in_second = kernels.stack(first, second, flow_behind, layers)

    visible = _visible(flow, layer, layer_in_second)
    # How far the middle of each layer goes, the background's first.
    travel = torch.cat((flow_behind.flatten(2).mean(-1)[:, None], layers.travel.view(batch, LAYERS, 2)), 1)
    moves = F.pad(layers.moves.view(batch, LAYERS), (1, 0))
    moving = _of_layer(moves[..., None], layer)[:, 0]
    if degraded:
        trails = [_of_layer(travel, shown) for shown in (layer, layer_in_second)]
        moving_in_second = _of_layer(moves[..., None], layer_in_second)[:, 0]
        first, second = degrade((first, second), trails, (moving, moving_in_second), generator)
    return FlowPairs(first.clamp(0, 1), second.clamp(0, 1), flow, visible, layer, moving > 0.5)


def _of_layer(values: Float[Tensor, "b layers c"], layer: UInt8[Tensor, "b h w"]) -> Float[Tensor, "b c h w"]:
    """What is true of the layer that each pixel shows."""
    _, height, width = layer.shape
    at = layer.long().flatten(1)[:, None].expand(-1, values.shape[2], -1)
    return values.transpose(1, 2).gather(2, at).unflatten(2, (height, width))


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
    travel: Float[Tensor, "n 2"]
    """How far their middles go."""
    moves: Float[Tensor, "n"]
    """1 for those that move on their own."""


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
    figures, parent = draw_figures(batch, LAYERS, generator)
    surface = draw_surface(number, (height, width), generator, near, room=False)
    surface = Surface(surface.planes[figures.root], surface.relief[figures.root])
    moves = (uniform() < MOVING_SHARE).float()
    own = draw_object_motion(number, (height, width), generator, moves)
    centre = torch.stack((uniform(-0.45, 0.45) * width, uniform(-0.45, 0.45) * height), -1)
    shapes = draw_shapes(number, width, generator)
    centre, own, shapes = attach_limbs(parent, figures, centre, own, shapes, generator)
    moved = kernels.move(places, camera, surface, own, centre)
    shapes = shapes._replace(centre=_where_centre_goes(centre, camera, surface, own))
    first, second = paint_both(moved, places, textures, generator, kernels.paint, figures.look)
    return _Layers(
        first[:, :3],
        second[:, :3],
        kernels.coverage(shapes, moved, first[:, 3] * 2 - 1) * there,
        kernels.coverage(shapes, places, second[:, 3] * 2 - 1) * there,
        moved - places,
        shapes.centre - centre,
        torch.maximum(moves, (parent >= 0).float().flatten()),
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
