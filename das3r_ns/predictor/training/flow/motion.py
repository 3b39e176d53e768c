"""How the layers of a flow world move from the first image to the second: exact flow for every pixel.

A layer is a surface with an inverse depth at every pixel of the first image, seen by a camera that turns and moves, and
perhaps an object with a motion of its own. Everything is a function of the place in the first image, so its flow is
known to rounding. Lengths are pixels, inverse depths have the nearest layer at about 1.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from das3r_ns.predictor.training.flow.draws import log_uniform, uniform

PLANES = 4
"""Planes of a background: the nearest at each pixel is seen, as from inside a convex room."""


class CameraMotion(NamedTuple):
    """Motion of the camera between the images of each pair."""

    focal: Float[Tensor, "b"]
    rotation: Float[Tensor, "b 3 3"]
    """Second camera from first; x right, y down, z forward."""
    translation: Float[Tensor, "b 3"]
    """Second camera from first, times the inverse depth of 1."""


class ObjectMotion(NamedTuple):
    """Motion of a layer of its own, in the image; none where everything is zero."""

    matrix: Float[Tensor, "b 2 2"]
    """Turn, scale and shear about the layer's centre."""
    shift: Float[Tensor, "b 2"]
    bend: Float[Tensor, "b 2 h w"]
    """Smooth deformation."""


class Surface(NamedTuple):
    """Inverse depth of a layer, over the first image."""

    planes: Float[Tensor, "b planes 3"]
    """Inverse depth of plane i at (x, y): `planes[i, 0] x + planes[i, 1] y + planes[i, 2]`."""
    relief: Float[Tensor, "b h w"]


CALM_SHARE, CALM_PX = 0.35, 4.0
"""Pairs in which the camera moves by no more than so many pixels: then what moves is what objects do."""
BEND_SHARE = 0.6
"""Moving objects that bend."""
BEND_CELLS = (5, 14)
"""Parts of the image over which they bend, for half of them each: as a whole, and within themselves."""


def smooth_field(shape: tuple[int, ...], size: tuple[int, int], generator: torch.Generator, cells: int) -> Tensor:
    """Random fields (b, c, h, w) with values from about -1 to 1 that vary over a `cells`-th of the image."""
    grid = uniform((*shape, cells + 1, cells + 2), generator, -1, 1)
    return F.interpolate(grid, size, mode="bicubic", align_corners=True)


def draw_camera(batch: int, size: tuple[int, int], generator: torch.Generator) -> CameraMotion:
    """Camera motion of all kinds: still, turning alone, moving alone, both; from a tenth of a pixel to a third of the
    image."""
    width = size[1]
    focal = width * log_uniform((batch,), generator, 0.6, 2.0)
    amount = log_uniform((batch,), generator, 0.7, 0.3 * width) * (uniform((batch,), generator) > 0.08)
    calm = uniform((batch,), generator, 0, 1) ** 2 * CALM_PX
    amount = torch.where(uniform((batch,), generator) < CALM_SHARE, calm, amount)
    share = uniform((batch,), generator)  # of turning
    share = torch.where(uniform((batch,), generator) < 0.2, torch.ones_like(share), share)
    share = torch.where(uniform((batch,), generator) < 0.25, 0.1 * share, share)
    direction = uniform((batch,), generator, 0, 2 * math.pi)
    pan = (amount * share / focal)[:, None] * torch.stack((direction.cos(), direction.sin()), -1)
    roll = uniform((batch,), generator, -1, 1) * (amount * share) / (0.5 * width) * 0.6
    rotation = _rotation(torch.stack((pan[:, 1], pan[:, 0], roll), -1))
    direction = uniform((batch,), generator, 0, 2 * math.pi)
    sideways = (amount * (1 - share) / focal)[:, None] * torch.stack((direction.cos(), direction.sin()), -1)
    forward = uniform((batch, 1), generator, -1, 1) ** 3 * (amount * (1 - share) / (0.35 * width))[:, None]
    # Nothing comes nearer than a third of its depth or the images would hold hardly anything in common.
    return CameraMotion(focal, rotation, torch.cat((sideways, forward.clamp(-0.5, 0.5)), -1))


def _rotation(vector: Float[Tensor, "b 3"]) -> Float[Tensor, "b 3 3"]:
    """Rodrigues' formula. `torch.matrix_exp` would wait for the GPU, and the drawing of a batch must not."""
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack((zero, -z, y, z, zero, -x, -y, x, zero), -1).reshape(-1, 3, 3)
    angle = vector.norm(dim=-1).clamp_min(1e-4)[:, None, None]
    square = cross @ cross
    return torch.eye(3, device=vector.device) + angle.sin() / angle * cross + (1 - angle.cos()) / angle**2 * square


def draw_surface(
    batch: int, size: tuple[int, int], generator: torch.Generator, near: Float[Tensor, "b"], room: bool
) -> Surface:
    """A surface at inverse depths up to about `near`: a room of planes with relief, or one plane, hardly tilted."""
    width = size[1]
    number = PLANES if room else 1
    tilt = uniform((batch, number, 2), generator, -1, 1) / width * (1.6 if room else 0.3)
    offset = uniform((batch, number, 1), generator, 0.1 if room else 0.8, 1)
    planes = torch.cat((tilt, offset), -1) * near[:, None, None]
    relief = smooth_field((batch, 1), size, generator, 6)[:, 0] * near[:, None, None]
    return Surface(planes, relief * uniform((batch, 1, 1), generator, 0, 0.25) ** 2 * 4 * (0.25 if not room else 1))


def draw_object_motion(
    batch: int, size: tuple[int, int], generator: torch.Generator, moving: Float[Tensor, "b"]
) -> ObjectMotion:
    """Motion of objects where `moving` is 1, none where it is 0."""
    width = size[1]
    amount = log_uniform((batch,), generator, 0.8, 0.28 * width) * moving
    direction = uniform((batch,), generator, 0, 2 * math.pi)
    shift = amount[:, None] * torch.stack((direction.cos(), direction.sin()), -1)
    turned = uniform((batch,), generator, -1, 1) ** 3 * 0.6 * moving
    scale = torch.exp(uniform((batch,), generator, -1, 1) ** 3 * 0.35 * moving)
    shear = uniform((batch,), generator, -1, 1) ** 3 * 0.3 * moving
    cos, sin = turned.cos() * scale, turned.sin() * scale
    matrix = torch.stack((cos, -sin + shear, sin, cos), -1).reshape(-1, 2, 2)
    bends = moving * (uniform((batch,), generator) < BEND_SHARE)
    counts = (batch // 2, batch - batch // 2)
    # The finer the bending, the less of it, or what bends would fold over.
    fields = [
        smooth_field((count, 2), size, generator, cells)
        * log_uniform((count,), generator, 0.3, 0.2 * width / cells).view(-1, 1, 1, 1)
        for count, cells in zip(counts, BEND_CELLS, strict=True)
    ]
    bend = torch.cat(fields)[uniform((batch,), generator).argsort()] * bends.view(-1, 1, 1, 1)
    return ObjectMotion(matrix, shift, bend)


def move(
    places: Float[Tensor, "b 2 h w"],
    camera: CameraMotion,
    surface: Surface,
    motion: ObjectMotion | None,
    centre: Float[Tensor, "b 2"],
) -> Float[Tensor, "b 2 h w"]:
    """Where each place of the first image is in the second; both from the middle of the image.

    Args:
        centre: about which the object turns and scales.
    """
    x, y = places.unbind(1)
    planes = surface.planes[..., None, None]
    depth = planes[:, :, 0] * x[:, None] + planes[:, :, 1] * y[:, None] + planes[:, :, 2]
    inverse = (depth.amax(1) + surface.relief).clamp_min(0.01)
    if motion is not None:
        around = places - centre[..., None, None]
        places = (
            torch.einsum("bij,bjhw->bihw", motion.matrix, around)
            + (centre + motion.shift)[..., None, None]
            + motion.bend
        )
    focal = camera.focal[:, None, None, None]
    rays = torch.cat((places / focal, torch.ones_like(places[:, :1])), 1)
    turned = torch.einsum("bij,bjhw->bihw", camera.rotation, rays)
    moved = turned + inverse[:, None] * camera.translation[..., None, None]
    return focal * moved[:, :2] / moved[:, 2:].clamp_min(0.2)
