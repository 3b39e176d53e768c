"""The same call on a GPU: gsplat, in one pass for colour, extra channels and depth."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from das3r_ns.model.rasterizer.inputs import RasterizerInputs


def rasterize_gpu(
    inputs: RasterizerInputs,
) -> tuple[Float[Tensor, "c h w x"], Float[Tensor, "c h w 1"], dict[str, Any]]:
    """The GPU side of `rasterize`; depth is accumulated, not yet divided by alpha."""
    from gsplat.rendering import rasterization

    settings, with_colors, with_depth = inputs.settings, inputs.with_colors, inputs.with_depth
    colors, sh_degree, backgrounds = inputs.colors, inputs.sh_degree, inputs.backgrounds
    if inputs.extra is not None:
        # gsplat blends one block of channels: colours are shaded here, and the extra ones put behind them.
        colors, sh_degree = _shaded_with_extra(inputs, inputs.extra), None
        backgrounds = _backgrounds_with_extra(inputs, colors.shape[-1])
        with_colors = True
    render, alpha, info = rasterization(
        inputs.means,
        inputs.quats,
        inputs.scales,
        inputs.opacities,
        colors,
        inputs.viewmats,
        inputs.Ks,
        settings.width,
        settings.height,
        near_plane=settings.near_plane,
        far_plane=settings.far_plane,
        radius_clip=settings.radius_clip,
        eps2d=settings.eps2d,
        sh_degree=sh_degree,
        packed=inputs.packed,
        backgrounds=backgrounds,
        render_mode="RGB+D" if with_colors and with_depth else "RGB" if with_colors else "D",
        absgrad=inputs.absgrad,
        rasterize_mode=inputs.rasterize_mode,
    )
    if info["radii"].shape[-1:] == (2,) and info["radii"].ndim == info["means2d"].ndim:
        # gsplat 1.5 gives one radius per image axis. As in 1.4: the larger, and 0 for what is not drawn.
        radii = info["radii"]
        info["radii"] = radii.amax(dim=-1) * (radii > 0).all(dim=-1)
    return render, alpha, info


def _shaded_with_extra(inputs: RasterizerInputs, extra: Float[Tensor, "n e"]) -> Float[Tensor, "c n x"]:
    """Colours as each camera sees them (none where only depth is drawn), then the extra channels."""
    from gsplat.cuda._wrapper import spherical_harmonics

    cameras, degree, channels = len(inputs.viewmats), inputs.sh_degree, []
    if inputs.with_colors:
        if degree is None:
            channels.append(inputs.colors.expand(cameras, -1, -1))
        else:
            eyes = torch.inverse(inputs.viewmats)[:, None, :3, 3]
            shaded = spherical_harmonics(degree, inputs.means - eyes, inputs.colors.expand(cameras, -1, -1, -1))
            channels.append(torch.clamp_min(shaded + 0.5, 0.0))
    channels.append(extra.expand(cameras, -1, -1))
    return torch.cat(channels, dim=-1)


def _backgrounds_with_extra(inputs: RasterizerInputs, channels: int) -> Float[Tensor, "c x"] | None:
    """Backgrounds for so many channels: zeros where they say nothing."""
    backgrounds = inputs.backgrounds
    if backgrounds is None:
        return None
    seen = backgrounds if inputs.with_colors else backgrounds[:, :0]
    zeros = backgrounds.new_zeros((len(backgrounds), channels - seen.shape[-1]))
    return torch.cat([seen, zeros], dim=-1)
