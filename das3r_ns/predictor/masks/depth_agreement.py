"""What moves, from depth that comes from outside: a network, a sensor, another tool.

Depth that was fitted to the flow explains motion along epipolar lines as depth. A depth of its own does not, so it
gives a sharper test than flow: a point that stands still is seen at its place from every frame that looks there, or
something nearer hides it. Where a frame sees *farther* than the point, the point is gone (free-space violation, as in
the fusion of depth maps: Merrell et al., ICCV 2007). Frames near and far are compared, so that slow objects and those
that rest for a while are found. And the outline is that of the depth, not of the flow, which bleeds over it.

How exact such a depth is nobody needs to say: it is read off how well frames agree with one another, for each level of
its confidence, and all margins follow. A depth too coarse to tell an object from what lies behind it says nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float16, Float32, UInt8

from das3r_ns.predictor.depth.inverse_depth import relative_views
from das3r_ns.predictor.depth.posed_flow import PosedFlow
from das3r_ns.predictor.masks.bilateral_grid import lab
from das3r_ns.predictor.masks.config import MaskConfig
from das3r_ns.predictor.masks.edge_aware_filter import smooth_within_edges
from das3r_ns.predictor.masks.free_space import blurred_lab, frames_to_ask
from das3r_ns.predictor.masks.outside_depth import MAX_STD, MIN_GAP, SIGMAS, TELLING_STD, OutsideDepth
from das3r_ns.predictor.masks.temporal import filter_along_flow
from das3r_ns.runtime.numba_jit import compiled
from das3r_ns.runtime.parallel import parallel_for
from das3r_ns.runtime.progress import stage

MIN_VIEWS = 2
MIN_SHARE = 0.1
"""Share of the frames that can tell, which must see through a point for it to count as gone."""
SAME_COLOUR = 10.0
"""CIELAB. Depth that agrees where the colour differs is of something else at the same place: a paw and the ground."""
REACH = 0.02
"""How far votes are smoothed where neither image nor depth has an edge, as a share of the longer side."""
STEEPNESS = 12.0
"""Logits of the probability for each unit of the share of a pixel's surroundings that is gone."""
UNCERTAIN_WEIGHT = 0.1
"""Weight, against that of a pixel that was compared, of the belief that nothing is gone."""


@dataclass(frozen=True)
class Agreement:
    """What comparing depth between frames says about each pixel."""

    gone: Float32[np.ndarray, "n h w"]
    """Probability that the point is elsewhere in other frames."""
    certain: Float32[np.ndarray, "n h w"]
    """How far that is to be believed, 0 (no frame could tell) to 1."""


def depth_agreement(
    posed: PosedFlow,
    outside: OutsideDepth,
    image: Callable[[int], UInt8[np.ndarray, "h w 3"]],
    config: MaskConfig,
) -> Agreement:
    """Compare each frame's depth with that of frames near and far.

    Args:
        image: RGB frame at map resolution.
    """
    n, size = len(outside), outside.inverse.shape[1:]
    votes = np.zeros((n, *size, 2), np.float16)
    colour = np.empty((n, *size, 3), np.uint8)

    def look(i: int) -> None:
        colour[i] = blurred_lab(image(i))

    parallel_for(look, n)
    with stage(f"Agreement of depth in {n} frames", n) as bar:

        def compare(i: int) -> None:
            if posed.pose_known[i]:
                votes[i] = _votes(posed, outside, colour, i)
            bar.advance()

        parallel_for(compare, n)
    del colour
    voted = votes.any(axis=-1)
    filter_along_flow(votes, posed.flow, config.memory)
    # Ground that comes into view behind an object has no vote, and flow would lend it the object's: what has the same
    # depth and colour around it is the better guess.
    votes *= voted[..., None]
    gone, certain = (np.empty((n, *size), np.float32) for _ in range(2))
    reach = REACH * max(size)
    for i in range(n):
        guide = np.concatenate((lab(image(i)) / 100, outside.edge_guide(i, config.contrast)), axis=-1)
        away, there = (np.ascontiguousarray(votes[i, ..., c], np.float32) for c in (0, 1))
        away, there = (smooth_within_edges(v, guide, reach, config.contrast) for v in (away, there))
        share = away / (away + there + np.float32(UNCERTAIN_WEIGHT))
        gone[i] = 1 / (1 + np.exp(STEEPNESS * (0.5 - share)))
        fades = (outside.std[i] - TELLING_STD[0]) / (TELLING_STD[1] - TELLING_STD[0])
        certain[i] = np.clip(away + there, 0, 1) * np.clip(1 - fades, 0, 1)
    return Agreement(gone, certain)


def _votes(
    posed: PosedFlow, outside: OutsideDepth, colour: UInt8[np.ndarray, "n h w 3"], index: int
) -> Float16[np.ndarray, "h w 2"]:
    """1 in the first channel where a point is gone, in the second where it is found at its place."""
    through, compared, found_there = (np.zeros(outside.inverse.shape[1:], np.uint8) for _ in range(3))
    asked = [j for j in frames_to_ask(index, len(outside)) if posed.pose_known[j]]
    own = outside.inverse[index], outside.std[index], colour[index]
    for j, H, e in zip(asked, *relative_views(posed.T_world_camera, posed.K, index, asked)):
        found = _compare(*own, outside.inverse[j], outside.std[j], colour[j], H, e)
        through += found == 3
        compared += found > 0
        found_there += found == 2
    gone = (through >= MIN_VIEWS) & (through >= MIN_SHARE * compared)
    return np.stack((gone, (found_there >= MIN_VIEWS) & ~gone), axis=-1).astype(np.float16)


@compiled
def _compare(inverse, std, colour, inverse_j, std_j, colour_j, H, e):
    """0 where frame j cannot tell (out of view, hidden by something nearer, no depth), 1 where something is at the
    point's place, 2 where it also has its colour, 3 where frame j sees farther."""
    h, w = inverse.shape
    found = np.zeros((h, w), np.uint8)
    for y in range(h):
        for x in range(w):
            d = inverse[y, x]
            if d <= 0 or std[y, x] > MAX_STD:
                continue
            z = H[2, 0] * (x + 0.5) + H[2, 1] * (y + 0.5) + H[2, 2] + d * e[2]
            if z <= 1e-6:
                continue
            column = int(np.floor((H[0, 0] * (x + 0.5) + H[0, 1] * (y + 0.5) + H[0, 2] + d * e[0]) / z))
            row = int(np.floor((H[1, 0] * (x + 0.5) + H[1, 1] * (y + 0.5) + H[1, 2] + d * e[1]) / z))
            if column < 1 or row < 1 or column >= w - 1 or row >= h - 1 or std_j[row, column] > MAX_STD:
                continue
            # Outlines are a pixel off: the nearest and the farthest surface around count.
            nearest, farthest, complete = 0.0, np.inf, True
            for b in range(row - 1, row + 2):
                for a in range(column - 1, column + 2):
                    if inverse_j[b, a] <= 0:
                        complete = False
                    nearest = max(nearest, inverse_j[b, a])
                    farthest = min(farthest, inverse_j[b, a])
            if not complete:
                continue
            here = d / z  # inverse depth of the point in frame j
            margin = max(MIN_GAP, SIGMAS * np.sqrt(std[y, x] ** 2 + std_j[row, column] ** 2)) * here
            if here - nearest > margin:
                found[y, x] = 3
            elif farthest - here <= margin:
                difference = 0.0
                for c in range(3):
                    difference += (float(colour[y, x, c]) - float(colour_j[row, column, c])) ** 2
                found[y, x] = 2 if difference < SAME_COLOUR * SAME_COLOUR else 1
    return found
