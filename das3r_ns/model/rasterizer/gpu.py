"""The same call on a GPU: gsplat, in one pass for colour, extra channels and depth."""

from __future__ import annotations

from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from das3r_ns.model.rasterizer.projection import ProjectionSettings


def rasterize_gpu(
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
    rasterize_mode: Literal["classic", "antialiased"],
    extra: Float[Tensor, "n e"] | None,
    packed: bool,
    absgrad: bool,
) -> tuple[Float[Tensor, "c h w x"], Float[Tensor, "c h w 1"], dict[str, Any]]:
    """The GPU side of `rasterize`; depth is accumulated, not yet divided by alpha."""
    from gsplat.cuda._wrapper import spherical_harmonics
    from gsplat.rendering import rasterization

    if extra is not None:
        channels = []
        if with_colors:
            if sh_degree is None:
                channels.append(colors.expand(len(viewmats), -1, -1))
            else:
                eyes = torch.inverse(viewmats)[:, None, :3, 3]
                shaded = spherical_harmonics(sh_degree, means - eyes, colors.expand(len(viewmats), -1, -1, -1))
                channels.append(torch.clamp_min(shaded + 0.5, 0.0))
        channels.append(extra.expand(len(viewmats), -1, -1))
        colors, sh_degree = torch.cat(channels, dim=-1), None
        if backgrounds is not None:
            seen = backgrounds if with_colors else backgrounds[:, :0]
            zeros = backgrounds.new_zeros((len(backgrounds), colors.shape[-1] - seen.shape[-1]))
            backgrounds = torch.cat([seen, zeros], dim=-1)
        with_colors = True
    render, alpha, info = rasterization(
        means,
        quats,
        scales,
        opacities,
        colors,
        viewmats,
        Ks,
        settings.width,
        settings.height,
        near_plane=settings.near_plane,
        far_plane=settings.far_plane,
        radius_clip=settings.radius_clip,
        eps2d=settings.eps2d,
        sh_degree=sh_degree,
        packed=packed,
        backgrounds=backgrounds,
        render_mode="RGB+D" if with_colors and with_depth else "RGB" if with_colors else "D",
        absgrad=absgrad,
        rasterize_mode=rasterize_mode,
    )
    if info["radii"].shape[-1:] == (2,) and info["radii"].ndim == info["means2d"].ndim:
        # gsplat 1.5 gives one radius per image axis. As in 1.4: the larger, and 0 for what is not drawn.
        radii = info["radii"]
        info["radii"] = radii.amax(dim=-1) * (radii > 0).all(dim=-1)
    return render, alpha, info
