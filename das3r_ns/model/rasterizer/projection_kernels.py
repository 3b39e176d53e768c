"""Compiled projection of 3D Gaussians to the image, and its derivative.

Elliptical weighted average splatting (Zwicker et al., "EWA Volume Splatting", 2001) with the constants of Kerbl et al.
("3D Gaussian Splatting", 2023) and the derivatives of Ye et al. ("gsplat", 2024, appendix), rearranged. With the
world-to-camera rotation W, the Jacobian J of the pinhole projection at the centre, and the Gaussian's rotation R and
scales S, the image covariance is A A^T with A = J W R S (2x3). We keep A rather than the 3x3 covariance: the derivative
is two matrix products (dL/dA = 2 G A), and the determinant is the squared cross product of A's rows, which does not
cancel for thin splats.

Arithmetic is in float64 for either dtype; only what is stored is rounded.
"""

from __future__ import annotations

import math

import numpy as np

from das3r_ns.model.rasterizer.jit import kernel

CAMERA_GRADS = 16  # rotation (9, row by row), translation (3), fx, fy, cx, cy

# Gaussians beyond the border of the image still reach into it. The Jacobian is taken no further out than this share of
# the image size past the border (0.3 of the half size), or far-off splats would be smeared all over the picture.
_BORDER = 0.15


@kernel
def _rotation(quats, n):
    """Rotation matrix of a quaternion (wxyz, any length), nine numbers row by row, then the inverse length."""
    w, x, y, z = np.float64(quats[n, 0]), np.float64(quats[n, 1]), np.float64(quats[n, 2]), np.float64(quats[n, 3])
    inv = 1.0 / math.sqrt(w * w + x * x + y * y + z * z)
    w, x, y, z = w * inv, x * inv, y * inv, z * inv
    return (
        1.0 - 2.0 * (y * y + z * z),
        2.0 * (x * y - w * z),
        2.0 * (x * z + w * y),
        2.0 * (x * y + w * z),
        1.0 - 2.0 * (x * x + z * z),
        2.0 * (y * z - w * x),
        2.0 * (x * z - w * y),
        2.0 * (y * z + w * x),
        1.0 - 2.0 * (x * x + y * y),
        inv,
    )


@kernel
def _camera_point(means, viewmats, c, n):
    x, y, z = np.float64(means[n, 0]), np.float64(means[n, 1]), np.float64(means[n, 2])
    v = viewmats[c]
    return (
        v[0, 0] * x + v[0, 1] * y + v[0, 2] * z + v[0, 3],
        v[1, 0] * x + v[1, 1] * y + v[1, 2] * z + v[1, 3],
        v[2, 0] * x + v[2, 1] * y + v[2, 2] * z + v[2, 3],
    )


@kernel
def _held_slope(u, z, focal, centre, size):
    """u / z, held within the image and its border; and whether it was left as it is."""
    border = _BORDER * size
    low, high = -(centre + border) / focal, (size - centre + border) / focal
    slope = u / z
    if slope < low:
        return low, False
    if slope > high:
        return high, False
    return slope, True


@kernel
def _image_axes(quats, scales, viewmats, n, c, j00, j02, j11, j12):
    """U = J W and p = U R (both 2x3, row by row) and the rotation R with the quaternion's inverse length.

    A = p S, so column i of A is column i of p times scale i.
    """
    r = _rotation(quats, n)
    v = viewmats[c]
    u = (
        j00 * v[0, 0] + j02 * v[2, 0],
        j00 * v[0, 1] + j02 * v[2, 1],
        j00 * v[0, 2] + j02 * v[2, 2],
        j11 * v[1, 0] + j12 * v[2, 0],
        j11 * v[1, 1] + j12 * v[2, 1],
        j11 * v[1, 2] + j12 * v[2, 2],
    )
    p = (
        u[0] * r[0] + u[1] * r[3] + u[2] * r[6],
        u[0] * r[1] + u[1] * r[4] + u[2] * r[7],
        u[0] * r[2] + u[1] * r[5] + u[2] * r[8],
        u[3] * r[0] + u[4] * r[3] + u[5] * r[6],
        u[3] * r[1] + u[4] * r[4] + u[5] * r[7],
        u[3] * r[2] + u[4] * r[5] + u[5] * r[8],
    )
    return u, p, r


@kernel
def _covariance(p, sx, sy, sz):
    """A = p S, the image covariance (xx, xy, yy) and its determinant, before any blur."""
    a = (p[0] * sx, p[1] * sy, p[2] * sz, p[3] * sx, p[4] * sy, p[5] * sz)
    xx = a[0] * a[0] + a[1] * a[1] + a[2] * a[2]
    xy = a[0] * a[3] + a[1] * a[4] + a[2] * a[5]
    yy = a[3] * a[3] + a[4] * a[4] + a[5] * a[5]
    cx = a[1] * a[5] - a[2] * a[4]
    cy = a[2] * a[3] - a[0] * a[5]
    cz = a[0] * a[4] - a[1] * a[3]
    return a, xx, xy, yy, cx * cx + cy * cy + cz * cz


@kernel
def project_forward(
    start,
    stop,
    means,
    quats,
    scales,
    viewmats,
    intrinsics,
    width,
    height,
    near,
    far,
    eps2d,
    radius_clip,
    radii,
    means2d,
    depths,
    conics,
    compensations,
    variances,
):
    """Fill `radii` .. `variances` for Gaussians start..stop of every camera.

    Where a Gaussian is not visible (outside near and far, outside the image, or not finite) its radius is 0 and so is
    all the rest. `variances` are the diagonal of the blurred image covariance.
    """
    for c in range(viewmats.shape[0]):
        fx, fy = np.float64(intrinsics[c, 0, 0]), np.float64(intrinsics[c, 1, 1])
        cx, cy = np.float64(intrinsics[c, 0, 2]), np.float64(intrinsics[c, 1, 2])
        for n in range(start, stop):
            radii[c, n] = 0
            depths[c, n] = 0.0
            compensations[c, n] = 0.0
            for i in range(2):
                means2d[c, n, i] = 0.0
                variances[c, n, i] = 0.0
            for i in range(3):
                conics[c, n, i] = 0.0

            x, y, z = _camera_point(means, viewmats, c, n)
            if not (z >= near and z <= far):
                continue
            tx, _ = _held_slope(x, z, fx, cx, width)
            ty, _ = _held_slope(y, z, fy, cy, height)
            rz = 1.0 / z
            _, p, _ = _image_axes(quats, scales, viewmats, n, c, fx * rz, -fx * tx * rz, fy * rz, -fy * ty * rz)
            _, xx, xy, yy, sharp_det = _covariance(
                p, np.float64(scales[n, 0]), np.float64(scales[n, 1]), np.float64(scales[n, 2])
            )
            det = sharp_det + eps2d * (xx + yy) + eps2d * eps2d
            xx += eps2d
            yy += eps2d
            u, v = fx * x * rz + cx, fy * y * rz + cy
            if not (det > 0.0 and math.isfinite(det) and math.isfinite(u) and math.isfinite(v)):
                continue

            mid = 0.5 * (xx + yy)
            radius = math.ceil(3.0 * math.sqrt(mid + math.sqrt(max(0.01, mid * mid - det))))
            if radius <= radius_clip:
                continue
            if u + radius <= 0 or u - radius >= width or v + radius <= 0 or v - radius >= height:
                continue
            radii[c, n] = int(min(radius, 1e9))
            means2d[c, n, 0] = u
            means2d[c, n, 1] = v
            depths[c, n] = z
            conics[c, n, 0] = yy / det
            conics[c, n, 1] = -xy / det
            conics[c, n, 2] = xx / det
            compensations[c, n] = math.sqrt(sharp_det / det)
            variances[c, n, 0] = xx
            variances[c, n, 1] = yy


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
            if radii[c, n] <= 0:
                continue
            x, y, z = _camera_point(means, viewmats, c, n)
            tx, free_x = _held_slope(x, z, fx, cx, width)
            ty, free_y = _held_slope(y, z, fy, cy, height)
            rz = 1.0 / z
            j00, j02, j11, j12 = fx * rz, -fx * tx * rz, fy * rz, -fy * ty * rz
            sx, sy, sz = np.float64(scales[n, 0]), np.float64(scales[n, 1]), np.float64(scales[n, 2])
            u, p, r = _image_axes(quats, scales, viewmats, n, c, j00, j02, j11, j12)
            a, xx, xy, yy, sharp_det = _covariance(p, sx, sy, sz)
            det = sharp_det + eps2d * (xx + yy) + eps2d * eps2d
            q00, q01, q11 = (yy + eps2d) / det, -xy / det, (xx + eps2d) / det

            # Conic Q = C^-1, so dL/dC = -Q (dL/dQ) Q; the off-diagonal element stands for both.
            d00, d01, d11 = np.float64(v_conics[c, n, 0]), 0.5 * v_conics[c, n, 1], np.float64(v_conics[c, n, 2])
            e00, e01 = q00 * d00 + q01 * d01, q00 * d01 + q01 * d11
            e10, e11 = q01 * d00 + q11 * d01, q01 * d01 + q11 * d11
            g00 = -(e00 * q00 + e01 * q01)
            g01 = -(e00 * q01 + e01 * q11)
            g11 = -(e10 * q01 + e11 * q11)
            # Compensation^2 = det(C - eps I) / det(C), and d det(C) / dC is the adjugate.
            compensation = math.sqrt(sharp_det / det)
            if v_compensations[c, n] != 0.0 and compensation > 1e-6:
                k = 0.5 * v_compensations[c, n] / (compensation * det)
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
            v_u, v_v = np.float64(v_means2d[c, n, 0]), np.float64(v_means2d[c, n, 1])
            v_x, v_y = j00 * v_u, j11 * v_v
            v_z = v_depths[c, n] - (j00 * x * v_u + j11 * y * v_v) * rz
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
