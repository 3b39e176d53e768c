"""3D Gaussians in, 2D splats out: the first differentiable stage of the CPU rasterizer."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from das3r_ns.model.rasterizer.inputs import ProjectionSettings
from das3r_ns.model.rasterizer.jit import as_array, in_blocks
from das3r_ns.model.rasterizer.projection_gradient_kernels import CAMERA_GRADS, project_backward
from das3r_ns.model.rasterizer.projection_kernels import project_forward

_BLOCK = 2048  # Gaussians per task; fixed, so that sums over blocks do not depend on the number of threads


class Splats(NamedTuple):
    """Gaussians as seen by each camera; all zero where `radii` is 0 (not visible)."""

    radii: Int[Tensor, "c n"]
    """Three standard deviations of the longer axis, rounded up."""
    means2d: Float[Tensor, "c n 2"]
    depths: Float[Tensor, "c n"]
    conics: Float[Tensor, "c n 3"]
    """Inverse image covariance: xx, xy, yy."""
    compensations: Float[Tensor, "c n"]
    """Factor on opacity that undoes the brightening by `eps2d` (antialiased mode)."""
    variances: Float[Tensor, "c n 2"]
    """Diagonal of the image covariance. Carries no gradient."""


class _Project(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, means, quats, scales, viewmats, intrinsics, settings):  # type: ignore[override]
        inputs = [as_array(t) for t in (means, quats, scales, viewmats, intrinsics)]
        cameras, count = viewmats.shape[0], means.shape[0]
        shapes = ((), (2,), (), (3,), (), (2,))
        outputs = [means.new_empty((cameras, count, *shape)) for shape in shapes]
        outputs[0] = outputs[0].to(torch.int32)
        arrays = [t.numpy() for t in outputs]
        s: ProjectionSettings = settings
        in_blocks(
            lambda start, stop: project_forward(
                start,
                stop,
                *inputs,
                s.width,
                s.height,
                float(s.near_plane),
                float(s.far_plane),
                float(s.eps2d),
                float(s.radius_clip),
                *arrays,
            ),
            count,
            _BLOCK,
        )
        ctx.save_for_backward(means, quats, scales, viewmats, intrinsics, outputs[0])
        ctx.settings = settings
        ctx.mark_non_differentiable(outputs[0], outputs[5])
        return tuple(outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _, v_means2d, v_depths, v_conics, v_compensations, __):  # type: ignore[override]
        means, quats, scales, viewmats, intrinsics, radii = ctx.saved_tensors
        s: ProjectionSettings = ctx.settings
        inputs = [as_array(t) for t in (means, quats, scales, viewmats, intrinsics)]
        count, cameras = means.shape[0], viewmats.shape[0]
        grads = [torch.empty(t.shape, dtype=t.dtype) for t in (means, quats, scales)]
        arrays = [as_array(v) for v in (radii, v_means2d, v_depths, v_conics, v_compensations)]
        out = [t.numpy() for t in grads]
        shares = np.zeros((-(-count // _BLOCK), cameras, CAMERA_GRADS))
        in_blocks(
            lambda start, stop: project_backward(
                start, stop, *inputs, s.width, s.height, float(s.eps2d), *arrays, *out, shares[start // _BLOCK]
            ),
            count,
            _BLOCK,
        )
        camera = torch.from_numpy(shares.sum(axis=0)).to(means.dtype)
        v_viewmats = torch.zeros_like(viewmats)
        v_viewmats[:, :3, :3] = camera[:, :9].reshape(-1, 3, 3)
        v_viewmats[:, :3, 3] = camera[:, 9:12]
        v_intrinsics = torch.zeros_like(intrinsics)
        v_intrinsics[:, 0, 0], v_intrinsics[:, 1, 1] = camera[:, 12], camera[:, 13]
        v_intrinsics[:, 0, 2], v_intrinsics[:, 1, 2] = camera[:, 14], camera[:, 15]
        return *grads, v_viewmats, v_intrinsics, None


def project(
    means: Float[Tensor, "n 3"],
    quats_wxyz: Float[Tensor, "n 4"],
    scales: Float[Tensor, "n 3"],
    viewmats: Float[Tensor, "c 4 4"],
    intrinsics: Float[Tensor, "c 3 3"],
    settings: ProjectionSettings,
) -> Splats:
    """Project Gaussians into cameras (`viewmats` are T_camera_world, OpenCV axes).

    Gradients reach all five tensors; of `intrinsics` the focal lengths and the principal point (skew is not used).
    The derivative of `viewmats` is that of its twelve numbers; it does not know that a rotation has three degrees.
    """
    return Splats(*_Project.apply(means, quats_wxyz, scales, viewmats, intrinsics, settings))
