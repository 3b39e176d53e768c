"""Maps that change while a model is trained: somebody looks, and corrects what was taken for moving.

Where pixels are called moving, what was trained on them goes: Gaussians that paint them and that no static pixel
supports are a ghost. Where pixels are called static, Gaussians are missing: they are put where the render does not yet
show what the frame shows there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from das3r_ns import geometry
from das3r_ns.model.density import append, prune
from das3r_ns.model.rendering import draw
from das3r_ns.model.start import Seeds, initialize_gaussians
from das3r_ns.model.staticness import initial_staticness

if TYPE_CHECKING:
    from das3r_ns.model.das3r import Das3rModel

MOVING = 0.5
"""dynamic_prob above which a pixel counts as moving."""
PAINTS_PX = 0.1
"""Contribution to pixels that were called moving, summed, from which a Gaussian is judged."""
MAX_FRAMES_TO_FILL = 12
"""Frames, spread over those that changed, from which Gaussians are added: neighbours show the same."""
MIN_ERROR = 0.06
"""Mean absolute difference of colours in 0..1 from which the render does not show what the frame shows."""
MAX_POINTS_A_FRAME = 4000


@dataclass
class MapChange:
    """What other maps changed."""

    moving: dict[int, Bool[Tensor, "h w"]] = field(default_factory=dict)
    """Pixels that count as moving now and did not before, by training frame."""
    static: dict[int, Bool[Tensor, "h w"]] = field(default_factory=dict)
    """The other way round."""
    removed: int = 0
    """Gaussians."""
    added: int = 0

    def __bool__(self) -> bool:
        return bool(self.moving or self.static)


@torch.no_grad()
def take_maps(model: Das3rModel, frames: dict[int, Float[Tensor, "h w"]]) -> MapChange:
    """Put `dynamic_prob` of training frames in place of what the model has. What was learned of pixels of which nothing
    else is said now stays."""
    change, maps = MapChange(), model.maps
    assert maps is not None
    optimizer = model.optimizers.get("staticness_maps")
    for frame, given in frames.items():
        before, now = model.dynamic_prob[frame].clone(), given.to(model.dynamic_prob)
        if torch.equal(before, now):
            continue
        model.dynamic_prob[frame] = now
        was, static = (initial_staticness(m[None], maps.config)[0] for m in (before, now))
        where = was != static
        maps.begin_anew(frame, where, static)
        if optimizer is not None:
            _forget_moments(optimizer, maps.maps, frame, where)
        if model.hidden_ground is not None:
            model.hidden_ground.replace(frame, now)
        for found, pixels in (
            (change.moving, (now > 0.5) & (before <= 0.5)),
            (change.static, (now <= 0.5) & (before > 0.5)),
        ):
            if bool(pixels.any()):
                found[frame] = pixels
    return change


def _forget_moments(
    optimizer: torch.optim.Optimizer, maps: torch.nn.ParameterList, frame: int, where: Bool[Tensor, "h w"]
) -> None:
    parameter, place = (maps[0], (frame, where)) if len(maps) == 1 and maps[0].ndim == 3 else (maps[frame], (where,))
    for value in optimizer.state.get(parameter, {}).values():
        if isinstance(value, Tensor) and value.shape == parameter.shape:
            value[place] = 0


def remove_ghosts(model: Das3rModel, change: MapChange) -> int:
    """Remove Gaussians that paint pixels which were called moving, and that hardly a static pixel supports."""
    if not change.moving:
        return 0
    config, maps = model.config.remarking, model.maps
    assert maps is not None
    values = model.means.new_zeros(model.num_points, 2)
    painted = values[:, 0].clone()
    for frame, pixels in change.moving.items():
        painted += _contributions(model, frame, _at_size(pixels, model.image_sizes[frame]).expand(-1, -1, 2))[:, 0]
    suspects = painted > PAINTS_PX
    if not bool(suspects.any()):
        return 0
    total = torch.zeros_like(values)
    for frame in range(maps.num_frames):
        static = maps.counted(frame, *model.image_sizes[frame])
        total += _contributions(model, frame, torch.cat((static, torch.ones_like(static)), dim=-1))
    static, everywhere = total.unbind(-1)
    doomed = suspects & ((static < config.min_support) | (static < config.min_share * everywhere))
    return prune(model.gauss_params, model.optimizers, model.strategy_state, doomed)


def _contributions(model: Das3rModel, frame: int, weight: Float[Tensor, "h w 2"]) -> Float[Tensor, "n 2"]:
    """Blending weights of each Gaussian in a training frame, summed over the pixels with two kinds of weights."""
    splats = model.splats(shown=False)
    with torch.enable_grad():
        leaf = torch.zeros(model.num_points, 2, device=model.device, requires_grad=True)
        with torch.no_grad():
            view = model.training_view(frame)
        drawn = draw(splats.carrying(leaf), view, model.config.rasterize_mode, rasterizer=model.config.rasterizer).color
        return torch.autograd.grad((drawn * weight).sum(), leaf)[0]


@torch.no_grad()
def add_uncovered(model: Das3rModel, change: MapChange, images: dict[int, Float[Tensor, "H W 3"]]) -> int:
    """Put Gaussians where pixels were called static and the render does not show them."""
    depth = model.kwargs.get("metadata", {}).get("depth")
    room = model.config.max_gaussians - model.num_points
    if not change.static or depth is None or room <= 0:
        return 0
    frames = sorted(frame for frame in change.static if frame in images)
    step = max(1, -(-len(frames) // MAX_FRAMES_TO_FILL))
    found = [_uncovered(model, i, change.static[i], depth[i].to(model.device), images[i]) for i in frames[::step]]
    seeds = _joined([seeds for seeds in found if len(seeds) > 1], min(room, model.config.max_gaussians // 10))
    if seeds is None:
        return 0
    new = initialize_gaussians(seeds, model.config.start, model.num_train_data, model.config.sh_degree, model.device)
    return append(model.gauss_params, model.optimizers, model.strategy_state, new)


def _uncovered(
    model: Das3rModel,
    frame: int,
    static: Bool[Tensor, "h w"],
    depth: Float[Tensor, "h w"],
    image: Float[Tensor, "H W 3"],
) -> Seeds:
    """Points of a training frame that its render does not show."""
    view, size = model.training_view(frame), static.shape
    shown = draw(
        model.splats(shown=False), view, model.config.rasterize_mode,
        model.background_color.to(model.device), rasterizer=model.config.rasterizer,
    ).color  # fmt: skip
    colour, rendered = (_shrunk(each.to(model.device), size) for each in (image, shown))
    wanted = static & (depth > 0) & ((colour - rendered).abs().mean(dim=-1) > MIN_ERROR)
    row, column = torch.nonzero(wanted, as_tuple=True)
    every = max(1, -(-len(row) // MAX_POINTS_A_FRAME))
    row, column = row[::every], column[::every]
    K = geometry.rescale_intrinsics(view.K[0], model.image_sizes[frame], (size[0], size[1]))
    z = depth[row, column]
    x = (column + 0.5 - K[0, 2]) / K[0, 0] * z
    y = (row + 0.5 - K[1, 2]) / K[1, 1] * z
    T_world_camera = torch.linalg.inv(view.T_camera_world.reshape(-1, 4, 4)[0])  # a focal correction scales x and y
    return Seeds(
        xyz=geometry.transform(T_world_camera, torch.stack((x, y, z), dim=-1)),
        rgb=(colour[row, column] * 255).round().clamp(0, 255).to(torch.uint8),
        staticness=torch.ones(len(row), device=model.device),
        pixel_size=z / K[0, 0] * every**0.5,
        pixel=None,
    )


def _joined(found: list[Seeds], most: int) -> Seeds | None:
    if not found:
        return None
    sizes = [seeds.pixel_size for seeds in found if seeds.pixel_size is not None]
    joined = Seeds(
        torch.cat([seeds.xyz for seeds in found]),
        torch.cat([seeds.rgb for seeds in found]),
        torch.cat([seeds.staticness for seeds in found]),
        torch.cat(sizes),
        None,
    )
    every = max(1, -(-len(joined) // max(most, 1)))
    return joined[torch.arange(0, len(joined), every, device=joined.xyz.device)]


def _at_size(mask: Bool[Tensor, "h w"], size: tuple[int, int]) -> Float[Tensor, "H W 1"]:
    return F.interpolate(mask[None, None].float(), size, mode="nearest")[0, 0, ..., None]


def _shrunk(image: Float[Tensor, "H W 3"], size: tuple[int, ...]) -> Float[Tensor, "h w 3"]:
    return F.interpolate(image.permute(2, 0, 1)[None], tuple(size), mode="area")[0].permute(1, 2, 0)
