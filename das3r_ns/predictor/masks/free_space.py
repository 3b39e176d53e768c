"""Objects that stood still for a while: what other frames see through was there, and went.

An object at rest shows no motion, and its depth fits all frames around it. But frames from before it came or after it
left see farther than it along the same rays: the space that it filled is free in them (free-space violation, as in the
fusion of depth maps: Merrell et al., ICCV 2007). Each pixel's point is carried into frames near and far; where it
would stand clearly in front of what they see, and does not look like it either, it is *seen through*. What several
frames see through is spread over the object, along the flow and up to the edges of the image (`edge_aware_filter`).

What never moves while the clip lasts stays: nothing tells it from the scene.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from jaxtyping import Float16, Float32, UInt8

from das3r_ns.predictor.depth.inverse_depth import relative_views
from das3r_ns.predictor.depth.posed_flow import PosedFlow
from das3r_ns.predictor.masks.bilateral_grid import lab
from das3r_ns.predictor.masks.config import MaskConfig
from das3r_ns.predictor.masks.edge_aware_filter import smooth_within_edges
from das3r_ns.predictor.masks.temporal import filter_along_flow
from das3r_ns.runtime.numba_jit import compiled
from das3r_ns.runtime.parallel import parallel_for
from das3r_ns.runtime.progress import stage

NEAREST_FRAME = 4
"""Frames. Closer ones see about the same, and share the errors of the flow."""
SPREAD_FRAMES = 16
"""Frames over the whole clip that each frame is compared with."""
MIN_CONFIDENCE = 3.0
"""Of both depths; about their inverse relative error."""
MARGIN = 0.08
"""Least relative difference of inverse depth between a point and what is seen behind it."""
SIGMAS = 3.0
"""The same in standard deviations of the difference."""
COLOUR_BLUR_PX = 1.0
"""Standard deviation, map pixels: points are looked up at whole pixels."""
OTHER_COLOUR = 8.0
"""CIELAB. What looks the same may be the same, at a depth that is wrong in one of the frames."""
MIN_VIEWS = 2
MIN_AGREEING_SHARE = 0.5
"""Share of what two frames both see that must lie at the same depth in both. Else a pose is wrong, not the scene."""
STEEPNESS = 16.0
"""Logits of the probability for each unit of the share of a pixel's surroundings that is seen through."""
UNCERTAIN_WEIGHT = 0.02
"""Weight, against that of a pixel whose own depth was compared, of the belief that nothing was seen through."""


def add_free_space_violations(
    dynamic: Float32[np.ndarray, "n h w"],
    posed: PosedFlow,
    depth: Float32[np.ndarray, "n h w"],
    confidence: Float32[np.ndarray, "n h w"],
    image: Callable[[int], UInt8[np.ndarray, "h w 3"]],
    config: MaskConfig,
) -> None:
    """Raise `dynamic`, in place, to the probability that other frames see through what a pixel shows.

    Args:
        dynamic: probability of motion from the frames around. What moves has no depth to compare with.
        depth: z-depth, 0 where unknown, in the world of `posed`.
        confidence: as from `dense.depth_and_confidence`.
        image: RGB frame at map resolution.
    """
    n, size = len(depth), depth.shape[1:]
    colour = np.empty((n, *size, 3), np.uint8)
    votes = np.zeros((n, *size, 2), np.float16)

    def look(i: int) -> None:
        colour[i] = blurred_lab(image(i))

    parallel_for(look, n)
    with stage(f"Free space of {n} frames", n) as bar:

        def compare(i: int) -> None:
            if posed.pose_known[i]:
                votes[i] = _votes(posed, i, depth, confidence, dynamic, colour, config.seen_through)
            bar.advance()

        parallel_for(compare, n)
    if not votes[..., 0].any():
        return
    del colour

    def spread(i: int) -> None:
        guide, reach = lab(image(i)) / 100, config.reach * max(size)
        gone, stays = (np.ascontiguousarray(votes[i, ..., c], np.float32) for c in (0, 1))
        if reach > 0:
            gone, stays = (smooth_within_edges(v, guide, reach, config.contrast) for v in (gone, stays))
        share = gone / (gone + stays + np.float32(UNCERTAIN_WEIGHT))
        np.maximum(dynamic[i], 1 / (1 + np.exp(STEEPNESS * (0.5 - share))), out=dynamic[i])

    with stage(f"Free space over time of {n} frames", n) as bar:
        filter_along_flow(votes, posed.flow, config.memory, bar.advance)
        parallel_for(spread, n)


def blurred_lab(image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """CIELAB of a slightly blurred RGB image, in bytes: L, a + 128, b + 128."""
    # OpenCV's own 8-bit CIELAB stretches the lightness and not the hue.
    colour = lab(cv2.GaussianBlur(image, (0, 0), COLOUR_BLUR_PX)) + np.array([0, 128, 128], np.float32)
    return np.rint(colour).astype(np.uint8)


def frames_to_ask(index: int, num_frames: int) -> list[int]:
    """Frames to compare frame `index` with: some spread over the clip, and some at growing distances from it, for a
    object may rest for a moment or for most of a clip."""
    spread = {round(k) for k in np.linspace(0, num_frames - 1, min(SPREAD_FRAMES, num_frames)).tolist()}
    distance = float(NEAREST_FRAME)
    while distance < num_frames:
        spread |= {index - round(distance), index + round(distance)}
        distance *= np.sqrt(2)
    return sorted(j for j in spread if 0 <= j < num_frames and abs(j - index) >= NEAREST_FRAME)


def _votes(
    posed: PosedFlow,
    index: int,
    depth: Float32[np.ndarray, "n h w"],
    confidence: Float32[np.ndarray, "n h w"],
    dynamic: Float32[np.ndarray, "n h w"],
    colour: UInt8[np.ndarray, "n h w 3"],
    least_share: float,
) -> Float16[np.ndarray, "h w 2"]:
    """1 in the first channel where a pixel is seen through, in the second where it was compared and is not."""
    size = depth.shape[1:]
    through, compared = np.zeros(size, np.uint8), np.zeros(size, np.uint8)
    asked = [j for j in frames_to_ask(index, len(depth)) if posed.pose_known[j]]
    homographies, epipoles = relative_views(posed.T_world_camera, posed.K, index, asked)
    for j, H, e in zip(asked, homographies, epipoles):
        own = depth[index], confidence[index], dynamic[index], colour[index]
        found, agreeing = _compare(*own, depth[j], confidence[j], dynamic[j], colour[j], H, e)
        overlap = np.count_nonzero(found)
        if overlap and agreeing >= MIN_AGREEING_SHARE * overlap:
            through += found == 2
            compared += found > 0
    gone = (through >= MIN_VIEWS) & (through >= least_share * compared)
    return np.stack((gone, (compared > 0) & ~gone), axis=-1).astype(np.float16)


@compiled
def _compare(depth, confidence, dynamic, colour, depth_j, confidence_j, dynamic_j, colour_j, H, e):
    """0 where nothing can be compared, 1 where the point of this pixel may be what frame j sees, 2 where j sees
    through it; and the number of pixels at the same depth in both."""
    h, w = depth.shape
    found = np.zeros((h, w), np.uint8)
    agreeing = 0
    for y in range(h):
        for x in range(w):
            if depth[y, x] <= 0 or confidence[y, x] < MIN_CONFIDENCE or dynamic[y, x] >= 0.5:
                continue
            d = 1.0 / depth[y, x]
            z = H[2, 0] * (x + 0.5) + H[2, 1] * (y + 0.5) + H[2, 2] + d * e[2]
            if z <= 1e-6:
                continue
            column = int(np.floor((H[0, 0] * (x + 0.5) + H[0, 1] * (y + 0.5) + H[0, 2] + d * e[0]) / z))
            row = int(np.floor((H[1, 0] * (x + 0.5) + H[1, 1] * (y + 0.5) + H[1, 2] + d * e[1]) / z))
            if column < 1 or row < 1 or column >= w - 1 or row >= h - 1:
                continue
            if confidence_j[row, column] < MIN_CONFIDENCE or dynamic_j[row, column] >= 0.5:
                continue
            # The nearest surface around counts, for outlines of depth are a pixel off.
            nearest, complete = 0.0, True
            for b in range(row - 1, row + 2):
                for a in range(column - 1, column + 2):
                    if depth_j[b, a] <= 0:
                        complete = False
                    else:
                        nearest = max(nearest, 1.0 / depth_j[b, a])
            if not complete:
                continue
            here = d / z  # inverse depth of the point in frame j
            sigma = np.sqrt(1 / confidence[y, x] ** 2 + 1 / confidence_j[row, column] ** 2)
            margin = max(MARGIN, SIGMAS * sigma)
            found[y, x] = 1
            if abs(here - 1.0 / depth_j[row, column]) < margin * here:
                agreeing += 1
            if here - nearest > margin * here:
                difference = 0.0
                for c in range(3):
                    difference += (float(colour[y, x, c]) - float(colour_j[row, column, c])) ** 2
                if difference > OTHER_COLOUR * OTHER_COLOUR:
                    found[y, x] = 2
    return found, agreeing
