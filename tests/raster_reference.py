"""A slow, plain rasterizer to compare with: gsplat's torch projection and harmonics, then every pixel against every
Gaussian in float64, with gradients by autograd. Also the random scenes of the rasterizer tests."""

from __future__ import annotations

import torch
from gsplat.cuda._torch_impl import _fully_fused_projection, _quat_scale_to_covar_preci, _spherical_harmonics
from torch import Tensor


def composite_densely(means2d, conics, opacities, colors, depths, radii, background, width, height):
    """One camera: (h w d) image and (h w) alpha."""
    front_to_back = torch.argsort(depths, stable=True)
    front_to_back = front_to_back[radii[front_to_back] > 0]
    means2d, conics, opacities, colors, radii = (t[front_to_back] for t in (means2d, conics, opacities, colors, radii))
    x = torch.arange(width, dtype=means2d.dtype) + 0.5
    y = torch.arange(height, dtype=means2d.dtype) + 0.5
    image = torch.zeros(height, width, colors.shape[-1], dtype=means2d.dtype)
    light = torch.ones(height, width, dtype=means2d.dtype)
    going_on = torch.ones(height, width, dtype=torch.bool)
    for i in range(len(means2d)):
        dx, dy = x[None, :] - means2d[i, 0], y[:, None] - means2d[i, 1]
        a, b, c = conics[i]
        alpha = (opacities[i] * torch.exp(-(0.5 * (a * dx**2 + c * dy**2) + b * dx * dy))).clamp_max(0.999)
        # The footprint: all 16-pixel tiles that the square of the radius touches.
        low = ((means2d[i] - radii[i]) / 16).floor() * 16
        high = ((means2d[i] + radii[i]) / 16).ceil() * 16
        inside = (x[None, :] > low[0]) & (x[None, :] < high[0]) & (y[:, None] > low[1]) & (y[:, None] < high[1])
        hit = inside & (alpha >= 1 / 255) & going_on
        after = light * (1 - alpha)
        going_on = going_on & ~(hit & (after <= 1e-4))
        hit = hit & going_on
        weight = torch.where(hit, light * alpha, 0.0)
        image = image + weight[..., None] * colors[i]
        light = torch.where(hit, after, light)
    return image + light[..., None] * background, 1 - light


def rasterize_reference(
    means,
    quats,
    scales,
    opacities,
    colors,
    viewmats,
    Ks,
    width,
    height,
    sh_degree=None,
    backgrounds=None,
    extra=None,
    rasterize_mode="classic",
    near_plane=0.01,
    far_plane=1e10,
    expected_depth=False,
):
    """RGB + extra + depth of `das3r_ns.model.rasterizer.rasterize`, plainly."""
    covars, _ = _quat_scale_to_covar_preci(quats, scales, compute_preci=False)
    radii, means2d, depths, conics, compensations = _fully_fused_projection(
        means, covars, viewmats, Ks, width, height, near_plane=near_plane, far_plane=far_plane, calc_compensations=True
    )
    images, alphas = [], []
    for c in range(len(viewmats)):
        seen = opacities * compensations[c] if rasterize_mode == "antialiased" else opacities
        shades = colors
        if sh_degree is not None:
            eye = torch.inverse(viewmats[c])[:3, 3]
            shades = torch.clamp_min(_spherical_harmonics(sh_degree, means - eye, colors) + 0.5, 0.0)
        blended = torch.cat([shades] + ([extra] if extra is not None else []) + [depths[c][:, None]], dim=-1)
        background = torch.zeros(blended.shape[-1], dtype=means.dtype)
        if backgrounds is not None:
            background = torch.cat([backgrounds[c], background[backgrounds.shape[-1] :]])
        image, alpha = composite_densely(
            means2d[c], conics[c], seen, blended, depths[c], radii[c], background, width, height
        )
        if expected_depth:
            image = torch.cat([image[..., :-1], image[..., -1:] / alpha.clamp_min(1e-10)[..., None]], dim=-1)
        images.append(image)
        alphas.append(alpha[..., None])
    return torch.stack(images), torch.stack(alphas)


def look_from(eye: list[float], target: list[float]) -> Tensor:
    """T_camera_world of a camera at `eye` that looks at `target`, y down."""
    eye_, target_ = torch.tensor(eye, dtype=torch.float64), torch.tensor(target, dtype=torch.float64)
    z = torch.nn.functional.normalize(target_ - eye_, dim=0)
    x = torch.nn.functional.normalize(torch.linalg.cross(torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64), z), dim=0)
    rotation = torch.stack([x, torch.linalg.cross(z, x), z])
    T_camera_world = torch.eye(4, dtype=torch.float64)
    T_camera_world[:3, :3], T_camera_world[:3, 3] = rotation, -rotation @ eye_
    return T_camera_world


def random_scene(
    count: int, width: int, height: int, cameras: int = 1, degree: int = 3, dtype=torch.float64, seed: int = 0
) -> dict[str, Tensor]:
    """Gaussians of all sizes about the origin, some behind the camera or out of view, seen by cameras around them."""
    g = torch.Generator().manual_seed(seed)
    eyes = [[0.0, 0.0, -4.0], [1.5, -0.5, -3.5], [-2.0, 0.6, -3.0]][:cameras]
    scene = {
        "means": torch.randn(count, 3, generator=g, dtype=torch.float64) * torch.tensor([1.4, 1.0, 1.6]),
        "quats": torch.randn(count, 4, generator=g, dtype=torch.float64),
        "scales": torch.exp(torch.randn(count, 3, generator=g, dtype=torch.float64) * 0.7 - 2.3),
        "opacities": torch.rand(count, generator=g, dtype=torch.float64) * 1.05 - 0.02,
        "colors": torch.randn(count, (degree + 1) ** 2, 3, generator=g, dtype=torch.float64) * 0.4,
        "viewmats": torch.stack([look_from(eye, [0.1, 0.0, 0.2]) for eye in eyes]),
        "Ks": torch.tensor([[1.1 * width, 0.0, 0.52 * width], [0.0, 1.05 * width, 0.48 * height], [0.0, 0.0, 1.0]])
        .double()
        .repeat(cameras, 1, 1),
        "extra": torch.rand(count, 2, generator=g, dtype=torch.float64),
        "backgrounds": torch.rand(cameras, 3, generator=g, dtype=torch.float64),
    }
    scene["means"][: count // 20, 2] -= 5.0  # behind the camera
    scene["opacities"].clamp_(0.0, 1.0)
    return {name: value.to(dtype) for name, value in scene.items()}
