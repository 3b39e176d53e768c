"""One depth from what neighbouring frames say about the same point, and how many of them agree.

Each frame's inverse depth is uncertain by itself; the frames around it see the same static points. A pixel is carried
into each of them, what lies there is carried back, and those that agree within the noise are averaged (consistency
check and fusion of depth maps: Merrell et al., ICCV 2007; Schoenberger et al., ECCV 2016). Where nothing agrees with a
pixel but its neighbours agree with one another, theirs is taken.

Everything is at map resolution, first pixel centre (0.5, 0.5).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Float64

from das3r_ns.runtime.numba_jit import compiled

MAX_DIFFERENCE = 0.05
"""Relative difference of inverse depth within which two frames say the same."""


def fuse_inverse_depth(
    own: Float32[np.ndarray, "h w"],
    own_weight: Float32[np.ndarray, "h w"],
    others: Float32[np.ndarray, "m h w"],
    other_weights: Float32[np.ndarray, "m h w"],
    homography: Float64[np.ndarray, "m 3 3"],
    epipole: Float64[np.ndarray, "m 3"],
) -> tuple[Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w"]]:
    """Average of a frame's inverse depth and of those of other frames that agree with it.

    Args:
        own, others: 1 / z-depth in each frame; 0 where nothing is known.
        own_weight, other_weights: how far each is to be believed, 0 or more.
        homography, epipole: of the other frames, as from `depth.relative_views`.

    Returns:
        Inverse depth, and the share of the frames that see the pixel and agree (1 where none sees it).
    """
    return _fuse(own, own_weight, others, other_weights, homography, epipole)


@compiled
def _fuse(own, own_weight, others, other_weights, homography, epipole):
    h, w = own.shape
    m = len(others)
    out = own.copy()
    share = np.ones((h, w), np.float32)
    value, weight = np.empty(m + 1), np.empty(m + 1)
    for y in range(h):
        for x in range(w):
            d = own[y, x]
            if d <= 0:
                continue
            value[0], weight[0] = d, own_weight[y, x] + 1e-3
            count = 1
            for k in range(m):
                H, e = homography[k], epipole[k]
                az = H[2, 0] * (x + 0.5) + H[2, 1] * (y + 0.5) + H[2, 2]
                z = az + d * e[2]
                if z <= 1e-6:
                    continue
                u = (H[0, 0] * (x + 0.5) + H[0, 1] * (y + 0.5) + H[0, 2] + d * e[0]) / z
                v = (H[1, 0] * (x + 0.5) + H[1, 1] * (y + 0.5) + H[1, 2] + d * e[1]) / z
                column, row = int(np.floor(u)), int(np.floor(v))
                if column < 0 or row < 0 or column >= w or row >= h or others[k, row, column] <= 0:
                    continue
                # The point of inverse depth 1 / Z there has, along this pixel's ray, Z = (az + d ez) / d.
                there = others[k, row, column]
                if 1 / there - e[2] <= 1e-9:
                    continue
                value[count] = az / (1 / there - e[2])
                weight[count] = other_weights[k, row, column] + 1e-3
                count += 1
            best, best_score = 0, -1.0
            for a in range(count):
                score = 0.0
                for b in range(count):
                    near = abs(value[b] - value[a]) / (MAX_DIFFERENCE * value[a])
                    score += weight[b] * max(0.0, 1 - near * near)
                if a == 0:
                    score *= 1.5  # its own flow was looked up at this very pixel
                if score > best_score:
                    best, best_score = a, score
            total, mean, agree = 0.0, 0.0, 0
            for b in range(count):
                near = abs(value[b] - value[best]) / (MAX_DIFFERENCE * value[best])
                if near < 1:
                    share_here = weight[b] * (1 - near * near)
                    total += share_here
                    mean += share_here * value[b]
                    agree += 1
            out[y, x] = mean / total
            share[y, x] = agree / count
    return out, share
