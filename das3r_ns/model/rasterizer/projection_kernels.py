"""Compiled projection of 3D Gaussians to the image. The derivative is in `projection_gradient_kernels`.

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

# Gaussians beyond the border of the image still reach into it. The Jacobian is taken no further out than this share of
# the image size past the border (0.3 of the half size), or far-off splats would be smeared all over the image.
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
def camera_point(means, viewmats, c, n):
    x, y, z = np.float64(means[n, 0]), np.float64(means[n, 1]), np.float64(means[n, 2])
    v = viewmats[c]
    return (
        v[0, 0] * x + v[0, 1] * y + v[0, 2] * z + v[0, 3],
        v[1, 0] * x + v[1, 1] * y + v[1, 2] * z + v[1, 3],
        v[2, 0] * x + v[2, 1] * y + v[2, 2] * z + v[2, 3],
    )


@kernel
def held_slope(u, z, focal, centre, size):
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
def image_axes(quats, scales, viewmats, n, c, j00, j02, j11, j12):
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
def covariance(p, sx, sy, sz):
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

            x, y, z = camera_point(means, viewmats, c, n)
            if not (z >= near and z <= far):
                continue
            tx, _ = held_slope(x, z, fx, cx, width)
            ty, _ = held_slope(y, z, fy, cy, height)
            rz = 1.0 / z
            _, p, _ = image_axes(quats, scales, viewmats, n, c, fx * rz, -fx * tx * rz, fy * rz, -fy * ty * rz)
            _, xx, xy, yy, sharp_det = covariance(
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
