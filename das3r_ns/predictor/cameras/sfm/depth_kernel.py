"""The inner loop of triangulation, compiled with Numba."""

from __future__ import annotations

import numpy as np

from das3r_ns.predictor.cameras.sfm.kernels import MIN_DEPTH_SHARE
from das3r_ns.runtime.numba_jit import compiled


@compiled
def search_depth(T, focal, cx, cy, pixel, observed, weight, tolerance, inverse_depth, inlier_weight):
    """Inverse depth of each point that most targets agree with, and the weight of those within the tolerance.

    Each target alone gives one candidate, the point of its epipolar line nearest to what it sees (linear least
    squares); infinity is one more. The best by summed Cauchy weight is refined by five Gauss-Newton steps.
    """
    slots = T.shape[0]
    A, t = np.empty((slots, 3)), np.empty((slots, 3))  # Y = A + rho t
    seen, limit, use = np.empty((slots, 2)), np.empty(slots), np.empty(slots)
    for p in range(pixel.shape[0]):
        rx, ry = (pixel[p, 0] - cx) / focal, (pixel[p, 1] - cy) / focal
        count = 0
        for k in range(slots):
            if weight[k, p] <= 0:
                continue
            for i in range(3):
                A[count, i] = T[k, i, 0] * rx + T[k, i, 1] * ry + T[k, i, 2]
                t[count, i] = T[k, i, 3]
            seen[count, 0], seen[count, 1] = (observed[k, p, 0] - cx) / focal, (observed[k, p, 1] - cy) / focal
            limit[count] = (tolerance[k] / focal) ** 2
            use[count] = weight[k, p]
            count += 1
        best, rho = 0.0, 0.0
        for candidate in range(-1, count):
            guess = 0.0
            if candidate >= 0:
                k = candidate
                nx, ny = t[k, 0] - seen[k, 0] * t[k, 2], t[k, 1] - seen[k, 1] * t[k, 2]
                mx, my = A[k, 0] - seen[k, 0] * A[k, 2], A[k, 1] - seen[k, 1] * A[k, 2]
                guess = -(mx * nx + my * ny) / max(nx * nx + ny * ny, 1e-30)
                if not guess > 0:
                    continue
            score = 0.0
            for k in range(count):
                z = A[k, 2] + guess * t[k, 2]
                if z >= MIN_DEPTH_SHARE:
                    dx = (A[k, 0] + guess * t[k, 0]) / z - seen[k, 0]
                    dy = (A[k, 1] + guess * t[k, 1]) / z - seen[k, 1]
                    score += use[k] / (1 + (dx * dx + dy * dy) / limit[k])
            if score > best:
                best, rho = score, guess
        for step in range(6):
            H, g, within = 0.0, 0.0, 0.0
            for k in range(count):
                z = A[k, 2] + rho * t[k, 2]
                if z < MIN_DEPTH_SHARE:
                    continue
                x, y = (A[k, 0] + rho * t[k, 0]) / z, (A[k, 1] + rho * t[k, 1]) / z
                dx, dy = x - seen[k, 0], y - seen[k, 1]
                e2 = (dx * dx + dy * dy) / limit[k]
                within += use[k] if e2 < 1 else 0.0
                jx, jy = (t[k, 0] - x * t[k, 2]) / z, (t[k, 1] - y * t[k, 2]) / z
                w = use[k] / ((1 + e2) * (1 + e2) * limit[k])
                H += w * (jx * jx + jy * jy)
                g += w * (jx * dx + jy * dy)
            if step < 5 and H > 0:
                rho = max(rho - g / H, 0.0)
        inverse_depth[p], inlier_weight[p] = rho, within
