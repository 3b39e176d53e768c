"""gsplat's rasterization on the CPU: projection, colours, compositing, and the same `info`."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from das3r_ns.model.rasterizer.compositing import composite, deal_all_to_tiles
from das3r_ns.model.rasterizer.harmonics import MAX_DEGREE, harmonics_to_color
from das3r_ns.model.rasterizer.inputs import RasterizerInputs
from das3r_ns.model.rasterizer.projection import Splats, project
from das3r_ns.model.rasterizer.tiles import TILE


def rasterize_cpu(
    inputs: RasterizerInputs,
) -> tuple[Float[Tensor, "c h w x"], Float[Tensor, "c h w 1"], dict[str, Any]]:
    """The CPU side of `rasterize`; depth is accumulated, not yet divided by alpha.

    Raises:
        ValueError: the degree is more than we have formulas for.
    """
    if inputs.sh_degree is not None and inputs.sh_degree > MAX_DEGREE:
        raise ValueError(
            f"sh_degree is {inputs.sh_degree}, and the CPU rasterizer goes up to {MAX_DEGREE}. "
            f"Lower the model's sh_degree or train on a GPU."
        )
    settings, cameras = inputs.settings, len(inputs.viewmats)
    splats = project(inputs.means, inputs.quats, inputs.scales, inputs.viewmats, inputs.Ks, settings)
    view_opacities = inputs.opacities.expand(cameras, -1)
    if inputs.rasterize_mode == "antialiased":
        view_opacities = view_opacities * splats.compensations
    blended = _blended_channels(inputs, splats)
    behind = blended.new_zeros((cameras, blended.shape[-1]))
    if inputs.backgrounds is not None and inputs.with_colors:
        behind = torch.cat([inputs.backgrounds, behind[:, inputs.backgrounds.shape[-1] :]], dim=-1)

    width, height = settings.width, settings.height
    lists = deal_all_to_tiles(splats, view_opacities, blended, width, height)
    image, alpha = composite(splats, view_opacities, blended, behind, lists, inputs.absgrad)
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


def _blended_channels(inputs: RasterizerInputs, splats: Splats) -> Float[Tensor, "c n x"]:
    """Values of every Gaussian in every camera that are blended: colours, extra, depth."""
    cameras, degree, channels = len(inputs.viewmats), inputs.sh_degree, []
    if inputs.with_colors:
        if degree is None:
            channels.append(inputs.colors.expand(cameras, -1, -1))
        else:
            # The general inverse, as in gsplat: the rotation, too, gets a gradient through the viewing direction.
            eyes = torch.inverse(inputs.viewmats)[:, :3, 3]
            channels.append(harmonics_to_color(inputs.colors, inputs.means, eyes, splats.radii, degree))
    if inputs.extra is not None:
        channels.append(inputs.extra.expand(cameras, -1, -1))
    if inputs.with_depth:
        channels.append(splats.depths[..., None])
    return torch.cat(channels, dim=-1)
