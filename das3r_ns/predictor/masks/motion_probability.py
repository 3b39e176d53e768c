"""From the residual that no depth explains to the probability that a pixel moves.

The residual of a single frame is noisy, and silent where a thing is even or rests for a moment. It is averaged over
the frames before and after along the flow, spread over pixels of the same place and colour (`appearance`), smoothed up
to the edges of the picture (`edge_aware`), and only then compared with a threshold: averaging decisions instead of
residuals loses everything that moves slowly but steadily. Where motion is in doubt, things that stand out from their
surroundings are preferred (`contrast`). What an object looks like is the business of `refiners`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, Float16, Float32, UInt8

from das3r_ns.predictor.flow.clip_flow import FlowBetweenFrames, sample
from das3r_ns.predictor.masks.bilateral_grid import AppearanceGrid, lab
from das3r_ns.predictor.masks.edge_aware_filter import smooth_within_edges
from das3r_ns.predictor.masks.refiners import RefinerName
from das3r_ns.predictor.masks.saliency_cues import NEUTRAL, border_share, floating, log_odds, trust

SEEN_BELOW_PX = 1.5
"""Round-trip error of the flow, map pixels, below which a pixel counts as seen in the other frame."""
OWN_BLUR_PX = 1.5
"""Standard deviation of the blur, map pixels, that takes out the noise of what single pixels show themselves."""
IN_DOUBT = (0.1, 0.4)
"""Shares of the border that move: with the first, motion is believed, with the second, it is in doubt."""


@dataclass
class MaskConfig:
    """How evidence of motion becomes `dynamic_prob`."""

    refiner: RefinerName = "auto"
    """What says where objects end, besides motion: `none`, nothing; `salience`, a small network for objects that stand
    out (extra `salience`); `sam2`, SAM 2 prompted by the moving parts (extra `sam2`, a GPU advised); `auto`, salience
    where its extra is installed."""
    threshold: float = 1.8
    """Averaged residual, in standard deviations of the flow's noise, at which a pixel is as likely to move as not."""
    softness: float = 0.4
    """Width of the transition, in the same unit. Smaller gives harder maps."""
    median_px: int = 5
    """Side of the median filter over the residual, map pixels; odd. 1 turns it off."""
    memory: float = 0.9
    """Weight of a neighbouring frame in the average along the flow, its square for the frame after next, and so on:
    0.9 looks about ten frames each way. 0 turns it off, 1 averages over all that is followed."""
    colour_contrast: float = 1.5
    """Weight of what stands out in colour from all that reaches the border of the picture, where such things move.
    0 turns it off."""
    depth_contrast: float = 0.5
    """Same, for what stands out in depth: a thing that moves seems to float, or to lie behind its surroundings."""
    floating: float = 0.0
    """Weight of floating free: being several times nearer than the scene and meeting nothing of it. A thing that drives
    along with the camera does, for the depth that explains its motion is wrong. Needs no other sign of motion, but
    widens outlines; try 8 where such a thing is missed altogether. 0 turns it off."""
    motion_contrast: float = 3.0
    """Same, for what moves unlike the border; weighs in only as far as much of the border itself seems to move, as
    with water, or cameras that follow the wrong thing."""
    appearance: float = 0.5
    """Share of the evidence that comes from pixels of the same place and colour. 0 turns it off."""
    reach: float = 0.055
    """How far evidence is smoothed where the picture is even, as a share of its longer side. 0 turns it off."""
    contrast: float = 0.3
    """Difference of colour (1: black to white) that stops the smoothing. Smaller stops it at weaker edges."""
    seen_through: float = 0.15
    """Share of the frames to compare with, near and far, that must see through the place of a thing that stands still
    for it to count as moving: it stood there for a while. 0 turns it off."""
    own: float = 1.0
    """Weight of what a pixel itself shows against what place, colour and surroundings lend it: so much is taken off
    for each unit by which its own residual, averaged along the flow, stays below the threshold. A thing at rest beside
    one that moves keeps still. 0 turns it off."""


def frame_evidence(
    residual: Float32[np.ndarray, "h w"], outstanding: Float32[np.ndarray, "h w 3"], config: MaskConfig
) -> Float16[np.ndarray, "h w 4"]:
    """Evidence of one frame: its residual, and what stands out in colour, depth and motion (`contrast.contrasts`).

    Where no view sees a pixel (NaN) the residual is 0: nothing speaks for motion.
    """
    filled = np.nan_to_num(residual, nan=0.0)
    filled = cv2.medianBlur(filled, config.median_px) if config.median_px > 1 else filled
    # Half precision: a thousandth, and half the memory of a long clip.
    return np.concatenate((filled[..., None], outstanding), axis=-1).astype(np.float16)


def pool_evidence(
    evidence: Float16[np.ndarray, "n h w 4"],
    picture: Callable[[int], UInt8[np.ndarray, "h w 3"]],
    flow: FlowBetweenFrames,
    config: MaskConfig,
    on_frame: Callable[[], None] = lambda: None,
) -> Float16[np.ndarray, "n h w 4"]:
    """Evidence of single frames, averaged over time, the residual also over appearance and surroundings.

    Args:
        evidence: as from `frame_evidence`.
        picture: RGB frame at map resolution.
        on_frame: called after each frame.
    """
    pooled = remember_along_flow(evidence, flow, config.memory, on_frame)
    height, width = evidence.shape[1:3]
    grid = AppearanceGrid(len(evidence), (height, width))
    if config.appearance > 0:
        grid.fill(pooled[..., 0], picture)
    for i in range(len(evidence)):
        own = pooled[i, ..., 0].astype(np.float32)
        frame, residual = picture(i), own
        if config.appearance > 0:
            residual = (1 - config.appearance) * residual + config.appearance * grid.look_up(i, frame)
        if config.reach > 0:
            residual = smooth_within_edges(
                residual, lab(frame) / 100, config.reach * max(height, width), config.contrast
            )
        if config.own > 0:
            measured = evidence[i, ..., 0] > 0  # exactly 0: no view sees the pixel, and it shows nothing itself
            steady = cv2.GaussianBlur(own, (0, 0), OWN_BLUR_PX)
            residual = residual - config.own * measured * np.maximum(0, config.threshold - steady)
        pooled[i, ..., 0] = residual
    return pooled


def motion_probability(
    pooled: Float16[np.ndarray, "n h w 4"], config: MaskConfig, sure: bool = False
) -> Float32[np.ndarray, "n h w"]:
    """Probability that each pixel moves, from pooled evidence.

    Args:
        sure: the cameras are known to follow what stands still, however much of the border moves.
    """
    # One array for the whole clip, changed frame by frame: with copies of it a long clip would not fit the memory.
    moving = pooled[..., 0].astype(np.float32)
    moving -= np.float32(config.threshold)
    moving /= np.float32(config.softness)
    if config.floating > 0:
        for i, frame in enumerate(moving):
            frame += config.floating * floating(pooled[i, ..., 2].astype(np.float32))
    # Where much of the border moves, the cameras follow the wrong thing or water surrounds the right one. Only what
    # moves unlike the border is then a thing. But where cameras are beyond doubt, it is things that reach the border:
    # then they stand out from nothing, and what no depth explains says all.
    border_moves = np.clip((border_share(moving) - IN_DOUBT[0]) / (IN_DOUBT[1] - IN_DOUBT[0]), 0, 1)
    still = 1 - border_moves if sure else 1.0
    in_doubt = 0.0 if sure else border_moves
    weights = (config.colour_contrast * still, config.depth_contrast * still, config.motion_contrast * in_doubt)
    used = [cue for cue, weight in enumerate(weights) if np.any(weight > 0)]
    trusted = {cue: weights[cue] * trust(moving, pooled[..., cue + 1]) for cue in used}
    for i in range(len(moving)):
        for cue in used:
            outstanding = pooled[i, ..., cue + 1].astype(np.float32)
            moving[i] += trusted[cue][i] * log_odds(outstanding + np.float32(0.5 - NEUTRAL[cue]), 0.05)
        moving[i] = 1 / (1 + np.exp(-moving[i]))
    return moving


def remember_along_flow(
    values: Float16[np.ndarray, "n h w c"],
    flow: FlowBetweenFrames,
    memory: float,
    on_frame: Callable[[], None] = lambda: None,
) -> Float16[np.ndarray, "n h w c"]:
    """Mean of each pixel's values over the clip along the flow, those k frames away with weight `memory`^k.

    A chain of flow between neighbours leads from frame to frame and ends where one does not see the pixel. Chains are
    followed as running sums, once forwards and once backwards in time, so the reach costs nothing.
    """
    n, shape = len(values), values.shape[1:3]
    mean = np.empty_like(values)
    # Half precision again: counts are at most 2 / (1 - memory), or the frames of the clip.
    count = np.empty((n, *shape), np.float16)
    for step in (1, -1):
        total_before, count_before = np.zeros((*shape, values.shape[-1]), np.float32), np.zeros(shape, np.float32)
        for i in range(n)[::step]:
            own = values[i].astype(np.float32)
            total_here, count_here = own, np.ones(shape, np.float32)
            if 0 <= i - step < n and memory > 0:
                forward, error = flow.checked(i, i - step)
                seen = np.float32(memory) * (error < SEEN_BELOW_PX).astype(np.float32)
                total_here = total_here + seen[..., None] * sample(total_before, forward)
                count_here = count_here + seen * sample(count_before, forward)
            if step == 1:
                mean[i], count[i] = total_here / count_here[..., None], count_here
            else:
                earlier = count[i].astype(np.float32)
                total = mean[i].astype(np.float32) * earlier[..., None] + total_here - own
                mean[i] = total / (earlier + count_here - 1)[..., None]
                on_frame()
            total_before, count_before = total_here, count_here
    return mean


def average_along_flow(
    values: Float[np.ndarray, "n h w *c"], index: int, flow: FlowBetweenFrames, offsets: tuple[int, ...]
) -> Float32[np.ndarray, "h w *c"]:
    """Mean of frame `index` and of the frames at `offsets` before and after it, each where it sees the pixel.

    Args:
        values: of one channel, or of up to four.
    """
    total = values[index].astype(np.float32)
    count = np.ones_like(total)
    for other in (index + sign * offset for offset in offsets for sign in (-1, 1)):
        if 0 <= other < len(values):
            forward, error = flow.checked(index, other)
            seen = (error < SEEN_BELOW_PX).astype(np.float32)
            seen = seen if total.ndim == 2 else seen[..., None]
            total += seen * sample(values[other].astype(np.float32), forward)
            count += seen
    return total / count
