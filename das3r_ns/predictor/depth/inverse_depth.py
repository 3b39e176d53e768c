"""Inverse depth of every pixel of a frame from its optical flow to other frames, given the cameras.

A pixel x of frame i with inverse depth d is seen in frame j at pi(A_j + d b_j), with A_j = K R_ji K^-1 x and
b_j = K t_ji. The flow says where it is seen, which gives two equations a view that are linear in d after
multiplying by the third coordinate. Each view alone proposes a d; the proposal with the smallest truncated cost over
all views is refined by reweighted least squares. What no d explains is the residual, the raw evidence that a pixel
moves. Points behind the camera are not allowed: where the flow asks for one, d is 0 and the residual says so; which
negative d it asks for is told apart, since nothing that stands still has one.

Everything is at map resolution, in pixels whose first centre is (0.5, 0.5).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64

from das3r_ns.runtime.numba_jit import compiled

TRUNCATION = 3.0
"""Normalised residual beyond which a view counts as an outlier, whatever its size."""
AGREES_BELOW = 1.5
"""Normalised residual below which a view agrees with the depth."""


@dataclass(frozen=True)
class InverseDepth:
    """What the views say about each pixel of one frame."""

    inverse_depth: Float32[np.ndarray, "h w"]
    """1 / z-depth in the cameras' world units, 0 or more; NaN where no view sees the pixel."""
    std: Float32[np.ndarray, "h w"]
    """Standard deviation of the inverse depth that the noise of the agreeing views' flow leaves; infinite where none
    agrees."""
    residual: Float32[np.ndarray, "h w"]
    """Root mean square over the views of the distance between flow and fit, each divided by the view's noise and
    truncated at 3; NaN where no view sees the pixel."""
    agreeing: Float32[np.ndarray, "h w"]
    """Share of the views that agree with the fit, 0 where none sees the pixel."""
    views: Float32[np.ndarray, "h w"]
    """Number of views that see the pixel."""
    signed: Float32[np.ndarray, "h w"]
    """Inverse depth of the best fit when negative ones are allowed; NaN where no view sees the pixel."""
    velocity: Float32[np.ndarray, "2 h w"]
    """Motion in the image that the fit leaves, pixels a frame: the slope of what is left over the distance in frames,
    robust; 0 where no view sees the pixel."""
    reliability: Float32[np.ndarray, "h w"] | None = None
    """Mean over the views of the variance of flow at its best over that of this pixel's flow: 1 where every view sees
    it well, 0 where none does. None where nobody asked."""


def relative_views(
    T_world_camera: Float64[np.ndarray, "n 4 4"], K: Float64[np.ndarray, "n 3 3"], source: int, targets: list[int]
) -> tuple[Float64[np.ndarray, "m 3 3"], Float64[np.ndarray, "m 3"]]:
    """For each target j: the homography of the plane at infinity K_j R_ji K_i^-1, and the epipole K_j t_ji."""
    T = np.linalg.inv(T_world_camera[targets]) @ T_world_camera[source]
    return K[targets] @ T[:, :3, :3] @ np.linalg.inv(K[source]), (K[targets] @ T[:, :3, 3:])[..., 0]


def fit_inverse_depth(
    flow: Float32[np.ndarray, "m h w 2"],
    noise: Float32[np.ndarray, "m h w"],
    homography: Float64[np.ndarray, "m 3 3"],
    epipole: Float64[np.ndarray, "m 3"],
    steps: Float64[np.ndarray, "m"],
) -> InverseDepth:
    """Robust multi-view fit for one frame.

    Args:
        flow: from the frame to each of m others, map pixels.
        noise: its standard deviation in map pixels; infinite where the view does not see the pixel.
        homography, epipole: as from `relative_views`.
        steps: distance of each view from the frame, in frames; negative before it.
    """
    return InverseDepth(*_fit(flow, noise, homography, epipole, steps))


@compiled
def _normalised(d, A, target, sigma, e):
    z = A[2] + d * e[2]
    if z <= 1e-6:
        return 1e6
    u, v = (A[0] + d * e[0]) / z - target[0], (A[1] + d * e[1]) / z - target[1]
    return np.sqrt(u * u + v * v) / sigma


@compiled
def _cost(d, A, target, sigma, view, epipole, count):
    total = 0.0
    for c in range(count):
        r = _normalised(d, A[c], target[c], sigma[c], epipole[view[c]])
        total += min(r * r, TRUNCATION * TRUNCATION)
    return total


@compiled
def _best(A, target, sigma, view, epipole, count, least):
    """Inverse depth of least cost that is at least `least`, and its information."""
    # The proposal of each view, and infinity.
    best, best_cost = 0.0, _cost(0.0, A, target, sigma, view, epipole, count)
    for c in range(count):
        e = epipole[view[c]]
        bu, bv = e[0] - target[c, 0] * e[2], e[1] - target[c, 1] * e[2]
        au, av = A[c, 0] - target[c, 0] * A[c, 2], A[c, 1] - target[c, 1] * A[c, 2]
        norm = bu * bu + bv * bv
        if norm < 1e-18:
            continue
        d = -(au * bu + av * bv) / norm
        if d <= least:
            continue
        cost = _cost(d, A, target, sigma, view, epipole, count)
        if cost < best_cost:
            best, best_cost = d, cost
    d = best
    information = 0.0
    for _ in range(4):
        numerator, information = 0.0, 0.0
        for c in range(count):
            e = epipole[view[c]]
            z = A[c, 2] + d * e[2]
            if z <= 1e-6:
                continue
            ru = (A[c, 0] + d * e[0]) / z - target[c, 0]
            rv = (A[c, 1] + d * e[1]) / z - target[c, 1]
            ju = (e[0] - (A[c, 0] + d * e[0]) / z * e[2]) / z
            jv = (e[1] - (A[c, 1] + d * e[1]) / z * e[2]) / z
            s2 = sigma[c] * sigma[c]
            q = (ru * ru + rv * rv) / s2 / (TRUNCATION * TRUNCATION)
            if q >= 1:
                continue
            weight = (1 - q) * (1 - q) / s2  # Tukey's biweight
            numerator -= weight * (ju * ru + jv * rv)
            information += weight * (ju * ju + jv * jv)
        if information <= 0:
            break
        d = max(d + numerator / information, least)
    if _cost(d, A, target, sigma, view, epipole, count) > best_cost:
        d = best
    return d, information


@compiled
def _slope(d, A, target, sigma, view, epipole, steps, count):
    """Robust slope of what the inverse depth `d` leaves, over the distance in frames."""
    vu, vv = 0.0, 0.0
    for iteration in range(4):
        total, su, sv = 0.0, 0.0, 0.0
        for c in range(count):
            e, step = epipole[view[c]], steps[view[c]]
            z = A[c, 2] + d * e[2]
            if z <= 1e-6:
                continue
            ru = target[c, 0] - (A[c, 0] + d * e[0]) / z
            rv = target[c, 1] - (A[c, 1] + d * e[1]) / z
            s2 = sigma[c] * sigma[c]
            weight = 1 / s2
            if iteration > 0:
                weight /= 1 + ((ru - vu * step) ** 2 + (rv - vv * step) ** 2) / (4 * s2)
            su += weight * step * ru
            sv += weight * step * rv
            total += weight * step * step
        if total > 0:
            vu, vv = su / total, sv / total
    return vu, vv


@compiled
def _fit(flow, noise, homography, epipole, steps):
    m, h, w = noise.shape
    inverse_depth = np.full((h, w), np.nan, np.float32)
    std = np.full((h, w), np.inf, np.float32)
    residual = np.full((h, w), np.nan, np.float32)
    agreeing = np.zeros((h, w), np.float32)
    views = np.zeros((h, w), np.float32)
    signed = np.full((h, w), np.nan, np.float32)
    velocity = np.zeros((2, h, w), np.float32)
    A = np.empty((m, 3))
    target = np.empty((m, 2))
    sigma = np.empty(m)
    view = np.empty(m, np.int64)
    for y in range(h):
        for x in range(w):
            count = 0
            for k in range(m):
                if not np.isfinite(noise[k, y, x]):
                    continue
                H = homography[k]
                px, py = x + 0.5, y + 0.5
                for r in range(3):
                    A[count, r] = H[r, 0] * px + H[r, 1] * py + H[r, 2]
                target[count, 0] = px + flow[k, y, x, 0]
                target[count, 1] = py + flow[k, y, x, 1]
                sigma[count] = noise[k, y, x]
                view[count] = k
                count += 1
            if count == 0:
                continue
            views[y, x] = count
            d, information = _best(A, target, sigma, view, epipole, count, 0.0)
            inverse_depth[y, x] = d
            signed[y, x], _ = _best(A, target, sigma, view, epipole, count, -np.inf)
            velocity[0, y, x], velocity[1, y, x] = _slope(d, A, target, sigma, view, epipole, steps, count)
            total, agree = 0.0, 0
            for c in range(count):
                r = _normalised(d, A[c], target[c], sigma[c], epipole[view[c]])
                total += min(r, TRUNCATION) ** 2
                agree += r < AGREES_BELOW
            residual[y, x] = np.sqrt(total / count)
            agreeing[y, x] = agree / count
            if information > 0 and agree > 0:
                std[y, x] = 1 / np.sqrt(information)
    return inverse_depth, std, residual, agreeing, views, signed, velocity
