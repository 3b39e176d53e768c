"""The public call: checks its input once, chooses the backend by device, finishes depth the same way for both."""

from __future__ import annotations

from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from das3r_ns.machine.checks import draws_on_cpu
from das3r_ns.model.rasterizer.inputs import ProjectionSettings, RasterizeMode, RasterizerInputs, RenderMode

Rasterizer = Literal["auto", "cpu"]


def rasterize(
    means: Float[Tensor, "n 3"],
    quats: Float[Tensor, "n 4"],
    scales: Float[Tensor, "n 3"],
    opacities: Float[Tensor, " n"],
    colors: Float[Tensor, "n k 3"] | Float[Tensor, "n d"],
    viewmats: Float[Tensor, "c 4 4"],
    Ks: Float[Tensor, "c 3 3"],
    width: int,
    height: int,
    *,
    near_plane: float = 0.01,
    far_plane: float = 1e10,
    radius_clip: float = 0.0,
    eps2d: float = 0.3,
    sh_degree: int | None = None,
    backgrounds: Float[Tensor, "c b"] | None = None,
    render_mode: RenderMode = "RGB",
    rasterize_mode: RasterizeMode = "classic",
    extra: Float[Tensor, "n e"] | None = None,
    packed: bool = False,
    absgrad: bool = False,
    rasterizer: Rasterizer = "auto",
) -> tuple[Float[Tensor, "c h w x"], Float[Tensor, "c h w 1"], dict[str, Any]]:
    """Render Gaussians into cameras, differentiably; what comes out is on the device the Gaussians are on.

    Gradients reach means, quats, scales, opacities, colors, extra, backgrounds and viewmats; with spherical harmonics
    also through the viewing direction. On the CPU they reach Ks too (focal lengths and principal point); gsplat's
    kernels leave Ks without a gradient. On the CPU all tensors are float32, or all float64.

    Args:
        quats: wxyz, of any length.
        scales: standard deviations in world units (not their logarithm).
        opacities: 0 .. 1 (not logits).
        colors: spherical-harmonics coefficients (n k 3) when `sh_degree` is given, else values of any number of
            channels (n d).
        viewmats: T_camera_world, OpenCV axes.
        Ks: pinhole intrinsics in pixels; the centre of the first pixel is (0.5, 0.5). Skew is not used.
        near_plane: Gaussians whose centre has a smaller z-depth are left out; `far_plane` likewise.
        radius_clip: splats of this radius (pixels) or less are left out.
        eps2d: variance in square pixels added to every splat.
        sh_degree: degree to use, at most what `colors` holds (and at most 3 on the CPU).
        backgrounds: what shows behind, for the channels of `colors`; extra and depth end on 0.
        render_mode: "RGB" colours, "D" accumulated z-depth (sum of weights times depth), "ED" expected z-depth (that
            divided by alpha), or colours and depth.
        rasterize_mode: "antialiased" lowers the opacity of splats that `eps2d` widens (Mip-Splatting, Yu et al. 2024).
        extra: further values per Gaussian, blended like colour but never shaded (staticness, features).
        packed: gsplat's sparse layout of `info`; GPU only.
        absgrad: after backward, `info["means2d"].absgrad` holds the sums of absolute gradients.
        rasterizer: "auto" takes gsplat on a GPU; "cpu" draws on the CPU even then, for machines on which gsplat's
            kernels cannot be built. The environment variable DAS3R_RASTERIZER=cpu says the same for every call.
            Tensors of `info` are on the device that drew.

    Returns:
        render: channels in the order colours, extra, depth.
        alpha: share of light the Gaussians took, 0 .. 1.
        info: what gsplat's strategies read: `means2d` (c n 2; keeps its gradient), `radii`, `depths`, `conics`,
            `opacities`, `gaussian_ids`, `width`, `height`, `n_cameras` and so on. Entries of `means2d`, `depths`
            and `conics` mean nothing where the radius is 0.

    Raises:
        ValueError: shapes, types or options that do not fit.
    """
    settings = ProjectionSettings(width, height, near_plane, far_plane, eps2d, radius_clip)
    inputs = RasterizerInputs(
        means,
        quats,
        scales,
        opacities,
        colors,
        viewmats,
        Ks,
        settings,
        sh_degree,
        backgrounds,
        extra,
        render_mode,
        rasterize_mode,
        packed,
        absgrad,
    )
    inputs.check()
    if means.is_cuda and not draws_on_cpu(rasterizer):
        from das3r_ns.model.rasterizer.gpu import rasterize_gpu

        render, alpha, info = rasterize_gpu(inputs)
    else:
        from das3r_ns.model.rasterizer.cpu import rasterize_cpu  # here: it brings Numba, and methods are listed

        render, alpha, info = rasterize_cpu(inputs.cpu() if means.is_cuda else inputs)
    if info["means2d"].requires_grad:
        info["means2d"].retain_grad()
    render, alpha = render.to(means.device), alpha.to(means.device)
    if inputs.expects_depth:
        render = torch.cat([render[..., :-1], render[..., -1:] / alpha.clamp_min(1e-10)], dim=-1)
    return render, alpha, info


def warm_up(dtype: torch.dtype = torch.float32) -> None:
    """Compile or load the CPU kernels, by one tiny render and its gradient, so that the first real step is not slow."""
    with torch.inference_mode(False), torch.enable_grad():
        means = torch.tensor([[0.0, 0.0, 1.0]], dtype=dtype, requires_grad=True)
        render, _, _ = rasterize(
            means,
            torch.ones(1, 4, dtype=dtype),
            torch.full((1, 3), 0.1, dtype=dtype),
            torch.full((1,), 0.5, dtype=dtype),
            torch.ones(1, 1, 3, dtype=dtype),
            torch.eye(4, dtype=dtype)[None],
            torch.tensor([[[8.0, 0.0, 8.0], [0.0, 8.0, 8.0], [0.0, 0.0, 1.0]]], dtype=dtype),
            width=16,
            height=16,
            sh_degree=0,
        )
        render.sum().backward()
