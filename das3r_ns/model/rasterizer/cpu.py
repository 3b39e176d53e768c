"""gsplat's rasterization on the CPU: projection, colours, compositing, and the same `info`."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from das3r_ns.model.rasterizer.compositing import composite, deal_all_to_tiles
from das3r_ns.model.rasterizer.harmonics import MAX_DEGREE, harmonics_to_color
from das3r_ns.model.rasterizer.projection import ProjectionSettings, project
from das3r_ns.model.rasterizer.tiles import TILE


def rasterize_cpu(
    means: Float[Tensor, "n 3"],
    quats: Float[Tensor, "n 4"],
    scales: Float[Tensor, "n 3"],
    opacities: Float[Tensor, " n"],
    colors: Float[Tensor, "n k 3"] | Float[Tensor, "n d"],
    viewmats: Float[Tensor, "c 4 4"],
    Ks: Float[Tensor, "c 3 3"],
    settings: ProjectionSettings,
    sh_degree: int | None,
    backgrounds: Float[Tensor, "c b"] | None,
    with_colors: bool,
    with_depth: bool,
    antialiased: bool,
    extra: Float[Tensor, "n e"] | None,
    absgrad: bool,
) -> tuple[Float[Tensor, "c h w x"], Float[Tensor, "c h w 1"], dict[str, Any]]:
    """The CPU side of `rasterize`; depth is accumulated, not yet divided by alpha.

    Raises:
        ValueError: the degree is more than we have formulas for.
    """
    if sh_degree is not None and sh_degree > MAX_DEGREE:
        raise ValueError(
            f"sh_degree is {sh_degree}, and the CPU rasterizer goes up to {MAX_DEGREE}. "
            f"Lower the model's sh_degree or train on a GPU."
        )
    cameras = len(viewmats)
    splats = project(means, quats, scales, viewmats, Ks, settings)
    view_opacities = opacities.expand(cameras, -1)
    if antialiased:
        view_opacities = view_opacities * splats.compensations

    channels = []
    if with_colors:
        if sh_degree is None:
            channels.append(colors.expand(cameras, -1, -1))
        else:
            # The general inverse, as in gsplat: the rotation, too, gets a gradient through the viewing direction.
            eyes = torch.inverse(viewmats)[:, :3, 3]
            channels.append(harmonics_to_color(colors, means, eyes, splats.radii, sh_degree))
    if extra is not None:
        channels.append(extra.expand(cameras, -1, -1))
    if with_depth:
        channels.append(splats.depths[..., None])
    blended = torch.cat(channels, dim=-1)
    behind = blended.new_zeros((cameras, blended.shape[-1]))
    if backgrounds is not None and with_colors:
        behind = torch.cat([backgrounds, behind[:, backgrounds.shape[-1] :]], dim=-1)

    width, height = settings.width, settings.height
    lists = deal_all_to_tiles(splats, view_opacities, blended, width, height)
    image, alpha = composite(splats, view_opacities, blended, behind, lists, absgrad)
    info = {
        "camera_ids": None,
        "gaussian_ids": None,
        "radii": splats.radii,
        "means2d": splats.means2d,
        "depths": splats.depths,
        "conics": splats.conics,
        "opacities": view_opacities,
        "tile_width": -(-width // TILE),
        "tile_height": -(-height // TILE),
        "tile_size": TILE,
        "width": width,
        "height": height,
        "n_cameras": cameras,
    }
    return image, alpha, info
