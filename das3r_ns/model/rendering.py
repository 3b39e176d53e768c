"""What is rendered and from where: plain tensors between the model's parameters and the rasterizer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from das3r_ns.model.rasterizer import RasterizeMode, Rasterizer, rasterize


@dataclass(frozen=True)
class Splats:
    """Gaussians as the rasterizer takes them: no logarithms, no logits."""

    means: Float[Tensor, "n 3"]
    quats: Float[Tensor, "n 4"]
    scales: Float[Tensor, "n 3"]
    opacities: Float[Tensor, "n"]
    """Staticness included."""
    colors: Float[Tensor, "n k 3"] | Float[Tensor, "n d"]
    """Spherical harmonics, or colours when there is no degree."""
    degree: int | None = None
    """Degree of the harmonics in use."""

    def __getitem__(self, which: Bool[Tensor, "n"]) -> Splats:
        """The chosen Gaussians."""
        return Splats(
            self.means[which],
            self.quats[which],
            self.scales[which],
            self.opacities[which],
            self.colors[which],
            self.degree,
        )

    def carrying(self, values: Float[Tensor, "n d"]) -> Splats:
        """The same Gaussians, held still, with `values` in place of their colours."""
        return Splats(self.means.detach(), self.quats.detach(), self.scales.detach(), self.opacities.detach(), values)


@dataclass(frozen=True)
class View:
    """A camera and the size of its image."""

    T_camera_world: Float[Tensor, "1 4 4"]
    """OpenCV axes; x and y may be scaled by a focal correction."""
    K: Float[Tensor, "1 3 3"]
    """Pixels of the image."""
    height: int
    width: int

    def shrunk(self, factor: int) -> View:
        """The same view in an image smaller by a whole factor; what does not fill a pixel is cut off."""
        if factor == 1:
            return self
        K = torch.cat((self.K[:, :2] / factor, self.K[:, 2:]), dim=1)
        return replace(self, K=K, height=self.height // factor, width=self.width // factor)


@dataclass(frozen=True)
class RenderedImage:
    """A rendered view."""

    color: Float[Tensor, "h w d"]
    extra: Float[Tensor, "h w e"]
    """What `extra` blends to, not divided by alpha."""
    depth: Float[Tensor, "h w 1"] | None
    """Expected z-depth; 0 where nothing is."""
    alpha: Float[Tensor, "h w 1"]
    info: dict[str, Any]
    """What density strategies read."""


def draw(
    splats: Splats,
    view: View,
    mode: RasterizeMode = "classic",
    background: Float[Tensor, "3"] | None = None,
    extra: Float[Tensor, "n e"] | None = None,
    with_depth: bool = False,
    absgrad: bool = False,
    rasterizer: Rasterizer = "auto",
) -> RenderedImage:
    """Render one view."""
    render, alpha, info = rasterize(
        splats.means,
        splats.quats,
        splats.scales,
        splats.opacities,
        splats.colors,
        view.T_camera_world,
        view.K,
        view.width,
        view.height,
        sh_degree=splats.degree,
        backgrounds=None if background is None else background[None],
        render_mode="RGB+ED" if with_depth else "RGB",
        rasterize_mode=mode,
        extra=extra,
        absgrad=absgrad,
        rasterizer=rasterizer,
    )
    depth = render.shape[-1] - (1 if with_depth else 0)
    color = depth - (0 if extra is None else extra.shape[-1])
    return RenderedImage(
        color=render[0, ..., :color],
        extra=render[0, ..., color:depth],
        depth=render[0, ..., depth:] if with_depth else None,
        alpha=alpha[0],
        info=info,
    )
