"""Of the inverse depths found around a pixel, the one under which the pictures match: sharp depth at edges.

Optical flow is smooth and its patches are some pixels wide, so beside an edge of depth it follows the nearer or the
more textured side. The right depth is then found a few pixels away. Each pixel is offered the planes of its
surroundings (PatchMatch's spatial propagation: Bleyer et al., BMVC 2011), and takes the one for which small windows of
the other frames look like its own, pixels of the window weighed by likeness of colour (Yoon and Kweon, PAMI 2006).
What is hidden behind an edge in the frames before is seen in those after, or the other way round, so the better side
in time decides.

Only pixels whose surroundings disagree are looked at. Everything is at map resolution, first pixel centre (0.5, 0.5).
"""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Float64

from das3r_ns.predictor.compiled import compiled

OFFSETS = (2, 4, 8)
"""Distances in frames, both ways, over which pictures are compared."""
ROUNDS = ((5, 10), (3, 7), (2, 4))
"""Distances in pixels from which planes are offered, in eight directions, by round."""
WINDOW = 2
"""Half side of the windows, map pixels."""
LIKENESS = 12.0
"""Difference of colour (CIE Lab) within a window that lowers a pixel's weight to 1 / e."""
WORST = 20.0
"""Difference of lightness (0 to 100) above which all differences cost alike."""
GAIN = 0.3
"""Lightness by which a neighbour's plane must match better than the pixel's own."""
DIFFERENT_PX = 0.4
"""Planes that agree within this many pixels of parallax in the farthest view are one."""
SLOPE_PX = 3
"""Distance over which slopes of inverse depth are taken."""


def match_inverse_depth(
    inverse_depth: Float32[np.ndarray, "h w"],
    colour: Float32[np.ndarray, "h w 3"],
    others: Float32[np.ndarray, "m h w"],
    homography: Float64[np.ndarray, "m 3 3"],
    epipole: Float64[np.ndarray, "m 3"],
    after: Bool[np.ndarray, "m"],
) -> Float32[np.ndarray, "h w"]:
    """Better inverse depth for pixels beside edges.

    Args:
        inverse_depth: 1 / z-depth; 0 where nothing is known.
        colour: the frame in CIE Lab.
        others: lightness of the other frames, as bright as this one.
        homography, epipole: of the other frames, as from `depth.relative_views`.
        after: which of them come later.
    """
    found = inverse_depth
    for distances in ROUNDS:
        ring = np.array(
            [(r * dv, r * du) for r in distances for dv in (-1, 0, 1) for du in (-1, 0, 1) if (dv, du) != (0, 0)]
        )
        found = _propagate(found, *_slopes(found), colour, others, homography, epipole, after, ring)
    return found


def _slopes(d: Float32[np.ndarray, "h w"]) -> tuple[np.ndarray, np.ndarray]:
    """Change of inverse depth a pixel, to the right and downwards: the smaller of both sides', 0 where they differ in
    sign. So an edge does not count as a slope."""
    steady = cv2.medianBlur(d, 5)
    slopes = []
    for axis in (1, 0):
        ahead = np.roll(steady, -SLOPE_PX, axis) - steady
        behind = steady - np.roll(steady, SLOPE_PX, axis)
        slope = np.where(ahead * behind > 0, np.where(np.abs(ahead) < np.abs(behind), ahead, behind), 0) / SLOPE_PX
        ends = np.moveaxis(slope, axis, 0)
        ends[:SLOPE_PX] = 0
        ends[-SLOPE_PX:] = 0
        slopes.append(slope.astype(np.float32))
    return slopes[0], slopes[1]


@compiled
def _window_weights(colour, y, x, weights):
    h, w = colour.shape[:2]
    k = 0
    for dy in range(-WINDOW, WINDOW + 1):
        for dx in range(-WINDOW, WINDOW + 1):
            qy, qx = y + dy, x + dx
            if qy < 0 or qx < 0 or qy >= h or qx >= w:
                weights[k] = 0.0
            else:
                difference = (
                    abs(colour[qy, qx, 0] - colour[y, x, 0])
                    + abs(colour[qy, qx, 1] - colour[y, x, 1])
                    + abs(colour[qy, qx, 2] - colour[y, x, 2])
                )
                weights[k] = np.exp(-difference / LIKENESS)
            k += 1


@compiled
def _mismatch(colour, others, homography, epipole, after, weights, y, x, d, du, dv):
    """Mean difference of lightness for the plane of inverse depth d and slopes du, dv; the better side in time."""
    h, w = colour.shape[:2]
    m = others.shape[0]
    total = np.zeros(2)
    count = np.zeros(2)
    for view in range(m):
        H, e, other = homography[view], epipole[view], others[view]
        cost, weight, k = 0.0, 0.0, 0
        for dy in range(-WINDOW, WINDOW + 1):
            for dx in range(-WINDOW, WINDOW + 1):
                weigh = weights[k]
                k += 1
                if weigh < 0.01:
                    continue
                here = d + du * dx + dv * dy
                px, py = x + dx + 0.5, y + dy + 0.5
                z = H[2, 0] * px + H[2, 1] * py + H[2, 2] + here * e[2]
                if z <= 1e-6:
                    continue
                u = (H[0, 0] * px + H[0, 1] * py + H[0, 2] + here * e[0]) / z - 0.5
                v = (H[1, 0] * px + H[1, 1] * py + H[1, 2] + here * e[1]) / z - 0.5
                if u < 0 or v < 0 or u >= w - 1 or v >= h - 1:
                    continue
                left, top = int(u), int(v)
                fu, fv = u - left, v - top
                seen = (1 - fv) * ((1 - fu) * other[top, left] + fu * other[top, left + 1]) + fv * (
                    (1 - fu) * other[top + 1, left] + fu * other[top + 1, left + 1]
                )
                cost += weigh * min(abs(seen - colour[y + dy, x + dx, 0]), WORST)
                weight += weigh
        if weight > 0.5:
            side = 1 if after[view] else 0
            total[side] += cost / weight
            count[side] += 1
    best = np.inf
    for side in range(2):
        if count[side] > 0:
            best = min(best, total[side] / count[side])
    return best


@compiled
def _propagate(inverse_depth, slope_u, slope_v, colour, others, homography, epipole, after, ring):
    h, w = inverse_depth.shape
    out = inverse_depth.copy()
    weights = np.empty((2 * WINDOW + 1) ** 2)
    tried = np.empty(len(ring) + 1)
    for y in range(h):
        for x in range(w):
            own = inverse_depth[y, x]
            # Pixels of parallax a unit of inverse depth, in the view that shows most.
            parallax = 0.0
            for view in range(len(epipole)):
                H, e = homography[view], epipole[view]
                z = H[2, 0] * (x + 0.5) + H[2, 1] * (y + 0.5) + H[2, 2] + own * e[2]
                if z > 1e-6:
                    u = (H[0, 0] * (x + 0.5) + H[0, 1] * (y + 0.5) + H[0, 2] + own * e[0]) / z
                    v = (H[1, 0] * (x + 0.5) + H[1, 1] * (y + 0.5) + H[1, 2] + own * e[1]) / z
                    parallax = max(parallax, np.hypot(e[0] - u * e[2], e[1] - v * e[2]) / z)
            if parallax <= 0:
                continue
            apart = DIFFERENT_PX / parallax
            tried[0] = own
            number, best = 1, np.inf
            for k in range(len(ring)):
                qy, qx = y + ring[k, 0], x + ring[k, 1]
                if qy < 0 or qx < 0 or qy >= h or qx >= w or inverse_depth[qy, qx] <= 0:
                    continue
                du, dv = slope_u[qy, qx], slope_v[qy, qx]
                d = inverse_depth[qy, qx] - ring[k, 1] * du - ring[k, 0] * dv
                if d <= 0:
                    continue
                new = True
                for t in range(number):
                    if abs(tried[t] - d) < apart:
                        new = False
                        break
                if not new:
                    continue
                if number == 1:  # the first that disagrees: only now is the pixel's own worth a look
                    _window_weights(colour, y, x, weights)
                    best = np.inf
                    if own > 0:
                        best = _mismatch(
                            colour, others, homography, epipole, after, weights, y, x, own, slope_u[y, x], slope_v[y, x]
                        )
                        best -= GAIN
                tried[number] = d
                number += 1
                cost = _mismatch(colour, others, homography, epipole, after, weights, y, x, d, du, dv)
                if cost < best:
                    best = cost
                    out[y, x] = d
    return out
