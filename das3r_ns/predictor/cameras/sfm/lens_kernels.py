"""The inner loops of lens estimation, compiled with Numba. Formulas and names are those of `lens` and
`normal_equations`; the rules for `first` and `last` are those of `kernels`.

Where a point is seen (x, y, rho to X, Y) stands anew in each kernel here and there, because each keeps other parts of
it: `kernels` the ray's share for the focal length, these the radius; and a function of four of its values, called for
every position, would make a view of the pose each time.
"""

from __future__ import annotations

from das3r_ns.predictor.cameras.sfm.kernels import MIN_DEPTH_SHARE
from das3r_ns.runtime.numba_jit import compiled

MAX_RADIUS = 3.0
"""Radius, in half the diagonal, beyond which nothing is sought: some 150 degrees."""


@compiled
def _straight(u, v, cx, cy, radius, k1, k2, zoom):
    """Position (u, v) of an image as the pinhole of reference focal length would have seen it, and by how much lengths
    around it grow."""
    x, y = u - cx, v - cy
    distorted = (x * x + y * y) ** 0.5 / radius
    r, slope = distorted, 1.0
    if k1 != 0.0 or k2 != 0.0:
        for _ in range(12):  # Newton; the polynomial is increasing wherever positions lie
            q = r * r
            slope = 1.0 + q * (3.0 * k1 + 5.0 * k2 * q)
            change = (r * (1.0 + q * (k1 + k2 * q)) - distorted) / max(slope, 0.05)
            r = min(max(r - change, 0.0), MAX_RADIUS)
            if abs(change) < 1e-10:
                break
    scale = r / distorted if distorted > 1e-9 else 1.0
    return cx + scale / zoom * x, cy + scale / zoom * y, (scale / max(slope, 0.05)) ** 0.5 / zoom


@compiled
def straighten(
    first,  # first anchor of the range
    last,  # one past the last
    pixel,  # [a p 2] raw positions in the anchors
    observed,  # [a k p 2] raw positions in the targets
    anchor_zoom,  # [a] focal length of each anchor over the reference
    target_zoom,  # [a k] same, of each target
    cx,  # principal point, pixels of the flow
    cy,
    radius,  # half the diagonal, pixels of the flow
    k1,  # radial coefficients in units of that radius
    k2,
    pixel_out,  # [a p 2] result
    observed_out,  # [a k p 2] result
    stretch_out,  # [a k p] by how much lengths in the targets grow
):
    """Take distortion and zoom out of all positions."""
    for a in range(first, last):
        for p in range(pixel.shape[1]):
            u, v, _ = _straight(pixel[a, p, 0], pixel[a, p, 1], cx, cy, radius, k1, k2, anchor_zoom[a])
            pixel_out[a, p, 0], pixel_out[a, p, 1] = u, v
            for k in range(observed.shape[1]):
                u, v, stretch_out[a, k, p] = _straight(
                    observed[a, k, p, 0], observed[a, k, p, 1], cx, cy, radius, k1, k2, target_zoom[a, k]
                )
                observed_out[a, k, p, 0], observed_out[a, k, p, 1] = u, v


@compiled
def derivatives(
    first,  # first anchor of the range
    last,  # one past the last
    T,  # [a k 4 4] T_target_anchor
    focal,  # reference focal length, pixels of the flow
    cx,  # principal point, pixels of the flow
    cy,
    pixel,  # [a p 2] straightened positions in the anchors
    inverse_depth,  # [a p]
    radius,  # half the diagonal, pixels of the flow
    k1,  # radial coefficients in units of that radius
    k2,
    terms,  # number of free radial coefficients, 0 .. 2
    anchor_zoom,  # [a] focal length of each anchor over the reference
    target_zoom,  # [a k] same, of each target
    anchor_basis,  # [a m] derivative of the logarithm of each anchor's focal length by the knots of the zoom
    target_basis,  # [a k m] same, of each target
    readout,  # whether the readout time is free
    anchor_row,  # [a p] raw row in the anchor over the height, minus a half
    target_row,  # [a k p] same, in the targets
    anchor_twist,  # [a k 6] motion of the anchor's camera in one frame interval, in the target's axes
    target_twist,  # [a k 6] motion of the target's camera in one frame interval
    out,  # [a k p 2 g] derivative of (reprojected minus straightened position) by all free parameters
):
    """Derivatives by the parameters of the lens: radial coefficients, knots of the zoom, readout time."""
    knots = anchor_basis.shape[1]
    for a in range(first, last):
        for p in range(pixel.shape[1]):
            u, v = pixel[a, p, 0] - cx, pixel[a, p, 1] - cy
            x, y, rho = u / focal, v / focal, inverse_depth[a, p]
            q_anchor = (u * u + v * v) * (anchor_zoom[a] / radius) ** 2
            slope_anchor = max(1.0 + q_anchor * (3.0 * k1 + 5.0 * k2 * q_anchor), 0.05)
            for k in range(T.shape[1]):
                R = T[a, k]
                ax, ay, az = R[0, 0] * x + R[0, 1] * y, R[1, 0] * x + R[1, 1] * y, R[2, 0] * x + R[2, 1] * y
                Yz = az + R[2, 2] + rho * R[2, 3]
                if Yz < MIN_DEPTH_SHARE:
                    out[a, k, p] = 0.0
                    continue
                X = (ax + R[0, 2] + rho * R[0, 3]) / Yz
                Y = (ay + R[1, 2] + rho * R[1, 3]) / Yz
                # by the logarithm of the anchor's radius, and by that of the target's: where the point should be, not
                # where it was seen, else noise is smaller when the image shrinks, and it does
                Au, Av = focal * (ax - X * az) / Yz, focal * (ay - Y * az) / Yz
                Bu, Bv = focal * X, focal * Y
                q = (Bu * Bu + Bv * Bv) * (target_zoom[a, k] / radius) ** 2
                slope = max(1.0 + q * (3.0 * k1 + 5.0 * k2 * q), 0.05)
                for m in range(terms):
                    power_anchor, power = q_anchor, q
                    if m == 1:
                        power_anchor, power = q_anchor * q_anchor, q * q
                    c_anchor, c = -power_anchor / slope_anchor, -power / slope
                    out[a, k, p, 0, m] = Au * c_anchor - Bu * c
                    out[a, k, p, 1, m] = Av * c_anchor - Bv * c
                for m in range(knots):
                    out[a, k, p, 0, terms + m] = Bu * target_basis[a, k, m] - Au * anchor_basis[a, m]
                    out[a, k, p, 1, terms + m] = Bv * target_basis[a, k, m] - Av * anchor_basis[a, m]
                if readout:
                    du, dv = _shift(
                        X,
                        Y,
                        rho / Yz,
                        focal,
                        anchor_row[a, p],
                        target_row[a, k, p],
                        anchor_twist[a, k],
                        target_twist[a, k],
                    )
                    out[a, k, p, 0, terms + knots], out[a, k, p, 1, terms + knots] = du, dv


@compiled
def _shift(X, Y, q, focal, anchor_row, target_row, anchor_twist, target_twist):
    """How far a position moves when the readout takes a whole frame interval: by both cameras' motion between the
    middle of their exposure and the row's own time."""
    w0 = target_row * target_twist[0] - anchor_row * anchor_twist[0]
    w1 = target_row * target_twist[1] - anchor_row * anchor_twist[1]
    w2 = target_row * target_twist[2] - anchor_row * anchor_twist[2]
    w3 = target_row * target_twist[3] - anchor_row * anchor_twist[3]
    w4 = target_row * target_twist[4] - anchor_row * anchor_twist[4]
    w5 = target_row * target_twist[5] - anchor_row * anchor_twist[5]
    du = q * w0 - X * q * w2 - X * Y * w3 + (1 + X * X) * w4 - Y * w5
    dv = q * w1 - Y * q * w2 - (1 + Y * Y) * w3 + X * Y * w4 + X * w5
    return focal * du, focal * dv


@compiled
def unroll(
    first,  # first anchor of the range
    last,  # one past the last
    T,  # [a k 4 4] T_target_anchor
    focal,  # reference focal length, pixels of the flow
    cx,  # principal point, pixels of the flow
    cy,
    pixel,  # [a p 2] straightened positions in the anchors
    inverse_depth,  # [a p]
    readout,  # share of the frame interval in which a frame is read, top row first
    anchor_row,  # as in `derivatives`
    target_row,
    anchor_twist,
    target_twist,
    observed,  # [a k p 2] straightened positions in the targets, changed in place
):
    """Move the positions to where both cameras would have seen them at the middle of their exposures."""
    for a in range(first, last):
        for p in range(pixel.shape[1]):
            x, y, rho = (pixel[a, p, 0] - cx) / focal, (pixel[a, p, 1] - cy) / focal, inverse_depth[a, p]
            for k in range(observed.shape[1]):
                R = T[a, k]
                Yz = R[2, 0] * x + R[2, 1] * y + R[2, 2] + rho * R[2, 3]
                if Yz < MIN_DEPTH_SHARE:
                    continue
                X = (R[0, 0] * x + R[0, 1] * y + R[0, 2] + rho * R[0, 3]) / Yz
                Y = (R[1, 0] * x + R[1, 1] * y + R[1, 2] + rho * R[1, 3]) / Yz
                du, dv = _shift(
                    X, Y, rho / Yz, focal, anchor_row[a, p], target_row[a, k, p], anchor_twist[a, k], target_twist[a, k]
                )
                observed[a, k, p, 0] -= readout * du
                observed[a, k, p, 1] -= readout * dv
