"""The inner loops of bundle adjustment, compiled with Numba.

Those with `first` and `last` work on a range of anchors, one after the other, and write only what is each anchor's own,
so ranges can run on threads in any order with the same result. Formulas and names are those of `normal_equations`.
"""

from __future__ import annotations

import numpy as np

from das3r_ns.runtime.numba_jit import compiled

MIN_DEPTH_SHARE = 0.05
"""A point that comes nearer to the target camera than this share of its depth in the anchor frame counts as wrong."""


@compiled
def squared_errors(first, last, T, focal, cx, cy, pixel, observed, inverse_depth, errors):
    """Squared distance between reprojected and observed position; infinite behind the camera."""
    for a in range(first, last):
        _squared_errors(T[a], focal, cx, cy, pixel[a], observed[a], inverse_depth[a], errors[a])


@compiled
def _squared_errors(T, focal, cx, cy, pixel, observed, inverse_depth, errors):
    for p in range(pixel.shape[0]):
        x, y = (pixel[p, 0] - cx) / focal, (pixel[p, 1] - cy) / focal
        rho = inverse_depth[p]
        for k in range(T.shape[0]):
            Yz = T[k, 2, 0] * x + T[k, 2, 1] * y + T[k, 2, 2] + rho * T[k, 2, 3]
            if Yz < MIN_DEPTH_SHARE:
                errors[k, p] = np.inf
                continue
            Yx = T[k, 0, 0] * x + T[k, 0, 1] * y + T[k, 0, 2] + rho * T[k, 0, 3]
            Yy = T[k, 1, 0] * x + T[k, 1, 1] * y + T[k, 1, 2] + rho * T[k, 1, 3]
            du = cx + focal * Yx / Yz - observed[k, p, 0]
            dv = cy + focal * Yy / Yz - observed[k, p, 1]
            errors[k, p] = du * du + dv * dv


@compiled
def robust_cost(first, last, weight, errors, sigma, width, cost):
    """Sum over an anchor's positions of weight times Geman-McClure cost."""
    for a in range(first, last):
        total = 0.0
        for k in range(weight.shape[1]):
            scale = 1.0 / (sigma[a, k] * sigma[a, k] * width * width)
            for p in range(weight.shape[2]):
                if weight[a, k, p] > 0:
                    total += weight[a, k, p] * (1.0 - 1.0 / (1.0 + errors[a, k, p] * scale))
        cost[a] = width * width * total


@compiled
def accumulate(
    first,  # first anchor of the range
    last,  # one past the last
    T,  # [a k 4 4] T_target_anchor
    focal,  # pixels of the flow
    cx,  # principal point, pixels of the flow
    cy,
    pixel,  # [a p 2] positions in the anchors
    observed,  # [a k p 2] positions in the targets
    weight,  # [a k p] 0 where a target does not see a point
    inverse_depth,  # [a p]
    sigma,  # [a k] standard deviation of positions, pixels of the flow
    width,  # of the robust cost, in standard deviations
    damping,  # of the points
    free_depth,  # False holds the points
    extra,  # [a k p 2 g] derivatives of reprojected minus observed position by g further unknowns that all frames share
    before,  # [a c c] c = 6 k + 1 + g, with the points held
    after,  # [a c c] with the points eliminated
    gradient,  # [a c] as `before`
    gradient_after,  # [a c] as `after`
    coupling,  # [a p c] each point against all that
    point_gradient,  # [a p]
    point_diagonal,  # [a p] damped
):
    """Add up each anchor's normal equations in relative poses (6 a target), the focal length, and further
    unknowns that all frames share (last).

    `before` and `gradient` are those with the points held, `after` and `gradient_after` with the points eliminated.
    All outputs are zero on entry. Points without depth (`free_depth` false) are held.
    """
    for a in range(first, last):
        _accumulate(
            T[a],
            focal,
            cx,
            cy,
            pixel[a],
            observed[a],
            weight[a],
            inverse_depth[a],
            sigma[a],
            width,
            damping,
            free_depth,
            extra[a],
            before[a],
            after[a],
            gradient[a],
            gradient_after[a],
            coupling[a],
            point_gradient[a],
            point_diagonal[a],
        )


@compiled
def _accumulate(
    T,
    focal,
    cx,
    cy,
    pixel,
    observed,
    weight,
    inverse_depth,
    sigma,
    width,
    damping,
    free_depth,
    extra,
    before,
    after,
    gradient,
    gradient_after,
    coupling,
    point_gradient,
    point_diagonal,
):
    slots = T.shape[0]
    last = 6 * slots
    further = extra.shape[3]
    E_extra = np.empty(further)
    visible = np.empty(slots, np.int64)
    E = np.empty(last)  # of one point, zero for the targets that do not see it
    J = np.zeros((2, 6))
    for p in range(pixel.shape[0]):
        x, y = (pixel[p, 0] - cx) / focal, (pixel[p, 1] - cy) / focal
        rho = inverse_depth[p]
        count = 0
        C, c, E_focal = 0.0, 0.0, 0.0
        E[:] = 0.0
        E_extra[:] = 0.0
        for k in range(slots):
            if weight[k, p] <= 0:
                continue
            # the part of the ray that depends on the focal length, in the target's axes
            ax = T[k, 0, 0] * x + T[k, 0, 1] * y
            ay = T[k, 1, 0] * x + T[k, 1, 1] * y
            az = T[k, 2, 0] * x + T[k, 2, 1] * y
            Yz = az + T[k, 2, 2] + rho * T[k, 2, 3]
            if Yz < MIN_DEPTH_SHARE:
                continue
            X = (ax + T[k, 0, 2] + rho * T[k, 0, 3]) / Yz
            Y = (ay + T[k, 1, 2] + rho * T[k, 1, 3]) / Yz
            du = cx + focal * X - observed[k, p, 0]
            dv = cy + focal * Y - observed[k, p, 1]
            variance = sigma[k] * sigma[k]
            fade = 1.0 / (1.0 + (du * du + dv * dv) / (variance * width * width))
            w = weight[k, p] * fade * fade / variance
            q = rho / Yz
            J[0, 0], J[0, 2] = focal * q, -focal * X * q
            J[0, 3], J[0, 4], J[0, 5] = -focal * X * Y, focal * (1 + X * X), -focal * Y
            J[1, 1], J[1, 2] = focal * q, -focal * Y * q
            J[1, 3], J[1, 4], J[1, 5] = -focal * (1 + Y * Y), focal * X * Y, focal * X
            ju_rho = focal * (T[k, 0, 3] - X * T[k, 2, 3]) / Yz
            jv_rho = focal * (T[k, 1, 3] - Y * T[k, 2, 3]) / Yz
            ju_focal = focal * X - focal * (ax - X * az) / Yz
            jv_focal = focal * Y - focal * (ay - Y * az) / Yz
            o = 6 * k
            for i in range(6):
                wu, wv = w * J[0, i], w * J[1, i]
                for j in range(i + 1):
                    before[o + i, o + j] += wu * J[0, j] + wv * J[1, j]
                before[last, o + i] += wu * ju_focal + wv * jv_focal
                gradient[o + i] += wu * du + wv * dv
                E[o + i] = wu * ju_rho + wv * jv_rho
            before[last, last] += w * (ju_focal * ju_focal + jv_focal * jv_focal)
            gradient[last] += w * (ju_focal * du + jv_focal * dv)
            C += w * (ju_rho * ju_rho + jv_rho * jv_rho)
            c += w * (ju_rho * du + jv_rho * dv)
            E_focal += w * (ju_rho * ju_focal + jv_rho * jv_focal)
            for m in range(further):
                gu, gv = w * extra[k, p, 0, m], w * extra[k, p, 1, m]
                row = last + 1 + m
                for i in range(6):
                    before[row, o + i] += gu * J[0, i] + gv * J[1, i]
                before[row, last] += gu * ju_focal + gv * jv_focal
                for n in range(m + 1):
                    before[row, last + 1 + n] += gu * extra[k, p, 0, n] + gv * extra[k, p, 1, n]
                gradient[row] += gu * du + gv * dv
                E_extra[m] += gu * ju_rho + gv * jv_rho
            visible[count] = k
            count += 1
        if C <= 0 or not free_depth:
            continue
        C *= 1 + damping
        point_gradient[p], point_diagonal[p] = c, C
        for m in range(count):
            end = 6 * visible[m] + 6
            for row in range(end - 6, end):
                coupling[p, row] = E[row]
                scaled = E[row] / C
                gradient_after[row] -= scaled * c
                after[last, row] -= scaled * E_focal
                for n in range(further):
                    after[last + 1 + n, row] -= scaled * E_extra[n]
                # Most of the time of an adjustment is spent here. Unseen targets add zeros: a loop over neighbouring
                # columns is compiled to vector instructions, one that skips them is not.
                line = after[row]
                for column in range(end):
                    line[column] -= scaled * E[column]
        coupling[p, last] = E_focal
        after[last, last] -= E_focal * E_focal / C
        gradient_after[last] -= E_focal * c / C
        for m in range(further):
            row = last + 1 + m
            coupling[p, row] = E_extra[m]
            gradient_after[row] -= E_extra[m] * c / C
            after[row, last] -= E_extra[m] * E_focal / C
            for n in range(m + 1):
                after[row, last + 1 + n] -= E_extra[m] * E_extra[n] / C
    # Both were filled in the lower triangle (some diagonal blocks wholly): mirror it.
    for i in range(last + 1 + further):
        gradient_after[i] += gradient[i]
        for j in range(i + 1):
            before[j, i] = before[i, j]
            after[i, j] += before[i, j]
            after[j, i] = after[i, j]


@compiled
def to_absolute(frames, Ad, before, after, gradient_after, band, diagonal, gradient, focal_column):
    """Add the normal equations of all anchors, in relative poses, to those in absolute ones: M' H M with
    M = [-Ad, 1] for the anchor's pose and the targets'.

    `frames` holds each anchor's own frame and then its targets, -1 where there is none.
    """
    slots = Ad.shape[1]
    last = 6 * slots
    from_anchor = np.empty((6, last))
    for a in range(frames.shape[0]):
        own = frames[a, 0]
        from_anchor[:] = 0.0
        for row in range(last):
            for r in range(6):
                factor = Ad[a, row // 6, row % 6, r]
                for c in range(last):
                    from_anchor[r, c] -= factor * after[a, row, c]
        for k in range(slots):
            j = frames[a, k + 1]
            if j < 0:
                continue
            for r in range(6):
                row = 6 * k + r
                gradient[j, r] += gradient_after[a, row]
                focal_column[j, r] += after[a, last, row]
                diagonal[j, r] += before[a, row, row]
                for c in range(6):
                    gradient[own, c] -= Ad[a, k, r, c] * gradient_after[a, row]
                    focal_column[own, c] -= Ad[a, k, r, c] * after[a, last, row]
                    # Only blocks (i, j) with i <= j are kept.
                    if j > own:
                        band[own, j - own, c, r] += from_anchor[c, row]
                    else:
                        band[j, own - j, r, c] += from_anchor[c, row]
                    for q in range(6):
                        band[own, 0, q, c] -= from_anchor[q, row] * Ad[a, k, r, c]
                        diagonal[own, c] += Ad[a, k, r, c] * before[a, row, 6 * k + q] * Ad[a, k, q, c]
                for m in range(slots):
                    other = frames[a, m + 1]
                    if other >= j:
                        for c in range(6):
                            band[j, other - j, r, c] += after[a, row, 6 * m + c]
