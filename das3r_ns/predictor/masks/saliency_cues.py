"""Which objects stand out from all that reaches the border of the image: their extent, without weights.

An object differs from what surrounds it on every path to the border: in colour, in depth, or in how it moves. The
measure is the minimum barrier distance (Strand et al., CVIU 2013; for objects in images Zhang et al., ICCV 2015):
over all paths to the border, the least difference between the largest and the smallest value on the way. Most of what
stands out stands still; what a cue says is weighed by how much of what it shows moves (`trust`).
"""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8

from das3r_ns.predictor.depth.inverse_depth import InverseDepth
from das3r_ns.predictor.masks.bilateral_grid import lab
from das3r_ns.predictor.masks.edge_aware_filter import smooth_within_edges
from das3r_ns.runtime.numba_jit import compiled

PASSES = 3
"""Over the image, in turns from its first and from its last pixel."""
REACH = 0.02
"""How far depth and motion are smoothed before, as a share of the longer side."""
EDGE = 0.3
"""Difference of colour (1: black to white) that stops that smoothing."""
FASTEST_PX = 1.5
"""Pixels a frame; motion above is cut there: differences among fast parts of one object say nothing."""
DEPTH_CONTRAST = 0.15
"""Barrier in d / (|d| + median d), with d the inverse depth, that is neither small nor large."""
MOTION_CONTRAST_PX = 0.4
"""Barrier in the motion that depth leaves, pixels a frame, that is neither small nor large."""
NEUTRAL = {"colour": 0.4, "depth": 0.5, "motion": 0.5}
"""How much must stand out to speak neither for an object nor against it."""
FLOATING_CONTRAST = 0.7
"""Of depth: what stands out more is over five times nearer than the median, or beyond infinity, and meets nothing
that is."""
MIN_MOTION = 0.2
"""Probability of motion above which something that stands out counts as moving: less than would convince alone."""
MIN_AREA_SHARE = 0.003
"""Share of the image that must stand out for a cue to be trusted."""
FADE_FRAMES = 15.0
"""Standard deviation of the time over which trust is averaged."""


def contrasts(image: UInt8[np.ndarray, "h w 3"], fit: InverseDepth) -> Float32[np.ndarray, "h w 3"]:
    """How much each pixel of a frame stands out in colour, depth and motion, each 0 (not at all) to 1."""
    colour = lab(image)
    reach_px = REACH * max(colour.shape[:2])

    def barrier(values: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
        steady = cv2.medianBlur(np.ascontiguousarray(values, np.float32), 5)
        return barrier_to_border(smooth_within_edges(steady, colour / 100, reach_px, EDGE))

    d = np.nan_to_num(fit.signed)
    median = float(np.median(d[d > 0])) if (d > 0).any() else 1.0
    depth = barrier(d / (np.abs(d) + median))
    speed = np.linalg.norm(fit.velocity, axis=0)
    velocity = fit.velocity * np.minimum(1, FASTEST_PX / np.maximum(speed, 1e-6))
    motion = barrier(velocity[0]) + barrier(velocity[1])
    blurred = cv2.GaussianBlur(colour, (0, 0), 2)
    hue = np.sum([barrier_to_border(np.ascontiguousarray(blurred[..., k])) for k in range(3)], axis=0)
    hue = np.clip(hue / max(float(np.quantile(hue, 0.99)), 1.0), 0, 1)
    return np.stack((hue, depth / (depth + DEPTH_CONTRAST), motion / (motion + MOTION_CONTRAST_PX)), axis=-1)


def floating(depth_contrast: Float32[np.ndarray, "*s"]) -> Float32[np.ndarray, "*s"]:
    """Log-odds that an object floats free rather than stands on something: 0 up to `FLOATING_CONTRAST`, then more.

    An object that moves along with the camera shows parallax of its own, so it seems to hang before the scene: what it
    stands on has another depth. Objects at rest reach the border at their own depth, over the ground they stand on.
    """
    return np.maximum(
        log_odds(depth_contrast, 0.02) - np.float32(np.log(FLOATING_CONTRAST / (1 - FLOATING_CONTRAST))), 0
    )


def trust(
    moving: Float32[np.ndarray, "n h w"],
    outstanding: Float[np.ndarray, "n h w"],
    moves_from: float = MIN_MOTION,
) -> Float32[np.ndarray, "n 1 1"]:
    """Share of what stands out that moves, around each frame's time; near 0 where next to nothing stands out.

    Args:
        moving: log-odds of motion.
        moves_from: probability of motion above which a pixel counts as moving.
    """
    moving_area, whole_area = np.zeros(len(moving)), np.zeros(len(moving))
    for i, here in enumerate(moving):  # frame by frame: copies of a long clip's maps would fill the memory
        area = outstanding[i].astype(np.float32) ** 2
        moves = 1 / (1 + np.exp((np.float32(np.log(moves_from / (1 - moves_from))) - here) / np.float32(0.375)))
        moving_area[i], whole_area[i] = (area * moves).mean(), area.mean()
    share = around_time(moving_area) / (around_time(whole_area) + MIN_AREA_SHARE)
    return share.astype(np.float32)[:, None, None]


def border_strips(maps: Float[np.ndarray, "n h w"]) -> Float[np.ndarray, "n _"]:
    """Values along the image border. Not the outermost pixels: flow ends there."""
    return np.concatenate((maps[:, 2], maps[:, -3], maps[:, :, 2], maps[:, :, -3]), axis=1)


def around_time(values: np.ndarray) -> np.ndarray:
    """Weighted mean of one value a frame over the frames around."""
    frames = np.arange(len(values))
    near = np.exp(-0.5 * ((frames[:, None] - frames) / FADE_FRAMES) ** 2)
    return near @ values / near.sum(axis=1)


def log_odds(probability: Float32[np.ndarray, "*s"], least: float) -> Float32[np.ndarray, "*s"]:
    """Logarithm of p / (1 - p), for p no nearer to 0 or 1 than `least`."""
    kept = np.clip(probability, least, 1 - least)
    return np.log(kept / (1 - kept))


def barrier_to_border(values: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    """Minimum barrier distance of each pixel to the border, by raster scans (close to the exact one)."""
    return _barrier(values, PASSES)


@compiled
def _barrier(values, passes):
    height, width = values.shape
    high, low = values.copy(), values.copy()
    distance = np.full((height, width), np.inf, np.float32)
    distance[0], distance[height - 1], distance[:, 0], distance[:, width - 1] = 0, 0, 0, 0
    for number in range(passes):
        back = 1 if number % 2 == 0 else -1
        for row in range(1, height - 1):
            y = row if back == 1 else height - 1 - row
            for column in range(1, width - 1):
                x = column if back == 1 else width - 1 - column
                for k in range(2):
                    from_y, from_x = (y - back, x) if k == 0 else (y, x - back)
                    up = max(high[from_y, from_x], values[y, x])
                    down = min(low[from_y, from_x], values[y, x])
                    if up - down < distance[y, x]:
                        distance[y, x] = up - down
                        high[y, x], low[y, x] = up, down
    return distance
