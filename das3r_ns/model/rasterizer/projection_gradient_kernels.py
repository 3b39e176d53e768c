"""Compiled derivative of the projection; notation as in `projection_kernels`, and `v_x` is dL/dx throughout."""

from __future__ import annotations

import math

import numpy as np

from das3r_ns.model.rasterizer.jit import kernel
from das3r_ns.model.rasterizer.projection_kernels import camera_point, covariance, held_slope, image_axes

CAMERA_GRADS = 16  # rotation (9, row by row), translation (3), fx, fy, cx, cy


@kernel
def _add_quaternion_gradient(v_quats, n, quats, inv, r00, r01, r02, r10, r11, r12, r20, r21, r22):
    """Add the gradient of quaternion n, given dL/dR; it has no part along the quaternion, whose length is free."""
    w, x, y, z = quats[n, 0] * inv, quats[n, 1] * inv, quats[n, 2] * inv, quats[n, 3] * inv
    v_w = 2.0 * (x * (r21 - r12) + y * (r02 - r20) + z * (r10 - r01))
    v_x = 2.0 * (y * (r01 + r10) + z * (r02 + r20) + w * (r21 - r12)) - 4.0 * x * (r11 + r22)
    v_y = 2.0 * (x * (r01 + r10) + z * (r12 + r21) + w * (r02 - r20)) - 4.0 * y * (r00 + r22)
    v_z = 2.0 * (x * (r02 + r20) + y * (r12 + r21) + w * (r10 - r01)) - 4.0 * z * (r00 + r11)
    along = v_w * w + v_x * x + v_y * y + v_z * z
    v_quats[n, 0] += inv * (v_w - along * w)
    v_quats[n, 1] += inv * (v_x - along * x)
    v_quats[n, 2] += inv * (v_y - along * y)
    v_quats[n, 3] += inv * (v_z - along * z)


@kernel
def project_backward(
    start,
    stop,
    means,
    quats,
    scales,
    viewmats,
    intrinsics,
    width,
    height,
    eps2d,
    radii,
    v_means2d,
    v_depths,
    v_conics,
    v_compensations,
    v_means,
    v_quats,
    v_scales,
    v_cameras,
):
    """Fill the gradients of Gaussians start..stop, and row c of `v_cameras` with their share in camera c's gradient.

    `v_x` is dL/dx. `v_cameras` is (cameras, CAMERA_GRADS) of float64.
    """
    for n in range(start, stop):
        for i in range(3):
            v_means[n, i] = 0.0
            v_scales[n, i] = 0.0
        for i in range(4):
            v_quats[n, i] = 0.0
    for c in range(viewmats.shape[0]):
        view = viewmats[c]
        fx, fy = np.float64(intrinsics[c, 0, 0]), np.float64(intrinsics[c, 1, 1])
        cx, cy = np.float64(intrinsics[c, 0, 2]), np.float64(intrinsics[c, 1, 2])
        cam = v_cameras[c]
        for i in range(CAMERA_GRADS):
            cam[i] = 0.0
        for n in range(start, stop):
            d00, d01, d11 = np.float64(v_conics[c, n, 0]), 0.5 * v_conics[c, n, 1], np.float64(v_conics[c, n, 2])
            v_u, v_v = np.float64(v_means2d[c, n, 0]), np.float64(v_means2d[c, n, 1])
            v_z = np.float64(v_depths[c, n])
            # Zero times an infinite or missing opacity is not a number; such a Gaussian is not drawn, so it has none.
            v_compensation = np.float64(v_compensations[c, n])
            v_compensation = v_compensation if math.isfinite(v_compensation) else 0.0
            if radii[c, n] <= 0 or (
                d00 == 0.0
                and d01 == 0.0
                and d11 == 0.0
                and v_u == 0.0
                and v_v == 0.0
                and v_z == 0.0
                and v_compensation == 0.0
            ):
                continue
            x, y, z = camera_point(means, viewmats, c, n)
            tx, free_x = held_slope(x, z, fx, cx, width)
            ty, free_y = held_slope(y, z, fy, cy, height)
            rz = 1.0 / z
            j00, j02, j11, j12 = fx * rz, -fx * tx * rz, fy * rz, -fy * ty * rz
            sx, sy, sz = np.float64(scales[n, 0]), np.float64(scales[n, 1]), np.float64(scales[n, 2])
            u, p, r = image_axes(quats, scales, viewmats, n, c, j00, j02, j11, j12)
            a, xx, xy, yy, sharp_det = covariance(p, sx, sy, sz)
            det = sharp_det + eps2d * (xx + yy) + eps2d * eps2d
            q00, q01, q11 = (yy + eps2d) / det, -xy / det, (xx + eps2d) / det

            # Conic Q = C^-1, so dL/dC = -Q (dL/dQ) Q; the off-diagonal element stands for both.
            e00, e01 = q00 * d00 + q01 * d01, q00 * d01 + q01 * d11
            e10, e11 = q01 * d00 + q11 * d01, q01 * d01 + q11 * d11
            g00 = -(e00 * q00 + e01 * q01)
            g01 = -(e00 * q01 + e01 * q11)
            g11 = -(e10 * q01 + e11 * q11)
            # Compensation^2 = det(C - eps I) / det(C), and d det(C) / dC is the adjugate.
            compensation = math.sqrt(sharp_det / det)
            if v_compensation != 0.0 and compensation > 1e-6:
                k = 0.5 * v_compensation / (compensation * det)
                square = sharp_det / det
                g00 += k * (yy - square * (yy + eps2d))
                g01 += k * (square - 1.0) * xy
                g11 += k * (xx - square * (xx + eps2d))

            # C = A A^T, A = p S, p = U R, U = J W.
            h0, h1, h2 = (
                2.0 * (g00 * a[0] + g01 * a[3]),
                2.0 * (g00 * a[1] + g01 * a[4]),
                2.0 * (g00 * a[2] + g01 * a[5]),
            )
            h3, h4, h5 = (
                2.0 * (g01 * a[0] + g11 * a[3]),
                2.0 * (g01 * a[1] + g11 * a[4]),
                2.0 * (g01 * a[2] + g11 * a[5]),
            )
            v_scales[n, 0] += h0 * p[0] + h3 * p[3]
            v_scales[n, 1] += h1 * p[1] + h4 * p[4]
            v_scales[n, 2] += h2 * p[2] + h5 * p[5]
            h0, h1, h2, h3, h4, h5 = h0 * sx, h1 * sy, h2 * sz, h3 * sx, h4 * sy, h5 * sz
            _add_quaternion_gradient(
                v_quats,
                n,
                quats,
                r[9],
                u[0] * h0 + u[3] * h3,
                u[0] * h1 + u[3] * h4,
                u[0] * h2 + u[3] * h5,
                u[1] * h0 + u[4] * h3,
                u[1] * h1 + u[4] * h4,
                u[1] * h2 + u[4] * h5,
                u[2] * h0 + u[5] * h3,
                u[2] * h1 + u[5] * h4,
                u[2] * h2 + u[5] * h5,
            )
            u0, u1, u2 = (
                r[0] * h0 + r[1] * h1 + r[2] * h2,
                r[3] * h0 + r[4] * h1 + r[5] * h2,
                r[6] * h0 + r[7] * h1 + r[8] * h2,
            )
            u3, u4, u5 = (
                r[0] * h3 + r[1] * h4 + r[2] * h5,
                r[3] * h3 + r[4] * h4 + r[5] * h5,
                r[6] * h3 + r[7] * h4 + r[8] * h5,
            )
            v_j00 = u0 * view[0, 0] + u1 * view[0, 1] + u2 * view[0, 2]
            v_j02 = u0 * view[2, 0] + u1 * view[2, 1] + u2 * view[2, 2]
            v_j11 = u3 * view[1, 0] + u4 * view[1, 1] + u5 * view[1, 2]
            v_j12 = u3 * view[2, 0] + u4 * view[2, 1] + u5 * view[2, 2]

            # The centre: its pixel, its depth, and its part in J. A held slope does not move with x.
            v_x, v_y = j00 * v_u, j11 * v_v
            v_z -= (j00 * x * v_u + j11 * y * v_v) * rz
            v_z -= rz * (j00 * v_j00 + j11 * v_j11 + j02 * v_j02 + j12 * v_j12)
            if free_x:
                v_x -= j00 * rz * v_j02
                v_z -= rz * j02 * v_j02
                cam[12] += rz * (x * v_u + v_j00) - tx * rz * v_j02
                cam[14] += v_u
            else:
                cam[12] += rz * (x * v_u + v_j00)
                cam[14] += v_u + rz * v_j02
            if free_y:
                v_y -= j11 * rz * v_j12
                v_z -= rz * j12 * v_j12
                cam[13] += rz * (y * v_v + v_j11) - ty * rz * v_j12
                cam[15] += v_v
            else:
                cam[13] += rz * (y * v_v + v_j11)
                cam[15] += v_v + rz * v_j12

            mx, my, mz = np.float64(means[n, 0]), np.float64(means[n, 1]), np.float64(means[n, 2])
            v_means[n, 0] += view[0, 0] * v_x + view[1, 0] * v_y + view[2, 0] * v_z
            v_means[n, 1] += view[0, 1] * v_x + view[1, 1] * v_y + view[2, 1] * v_z
            v_means[n, 2] += view[0, 2] * v_x + view[1, 2] * v_y + view[2, 2] * v_z
            cam[0] += v_x * mx + j00 * u0
            cam[1] += v_x * my + j00 * u1
            cam[2] += v_x * mz + j00 * u2
            cam[3] += v_y * mx + j11 * u3
            cam[4] += v_y * my + j11 * u4
            cam[5] += v_y * mz + j11 * u5
            cam[6] += v_z * mx + j02 * u0 + j12 * u3
            cam[7] += v_z * my + j02 * u1 + j12 * u4
            cam[8] += v_z * mz + j02 * u2 + j12 * u5
            cam[9] += v_x
            cam[10] += v_y
            cam[11] += v_z
