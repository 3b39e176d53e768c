"""From the residual that no depth explains to the probability that a pixel moves.

The residual of a single frame is noisy, and silent where a thing is even or rests for a moment. It is averaged over
neighbouring frames along the flow, spread over pixels of the same place and colour (`appearance`), smoothed up to the
edges of the picture (`edge_aware`), and only then compared with a threshold: averaging decisions instead of residuals
loses everything that moves slowly but steadily. What an object looks like is the business of `refiners`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from das3r_ns.predictor.appearance import AppearanceGrid, lab
from das3r_ns.predictor.edge_aware import smooth_within_edges
from das3r_ns.predictor.flow import FlowBetweenFrames, sample
from das3r_ns.predictor.refiners import RefinerName

SEEN_BELOW_PX = 1.5
"""Round-trip error of the flow, map pixels, below which a pixel counts as seen in the other frame."""


@dataclass
class MaskConfig:
    """How evidence of motion becomes `dynamic_prob`."""

    refiner: RefinerName = "none"
    """What says where objects end, besides motion: nothing; `salience`, a small network for objects that stand out
    (extra `salience`); `sam2`, SAM 2 prompted by the moving parts (extra `sam2`, a GPU advised)."""
    threshold: float = 1.8
    """Averaged residual, in standard deviations of the flow's noise, at which a pixel is as likely to move as not."""
    softness: float = 0.4
    """Width of the transition, in the same unit. Smaller gives harder maps."""
    median_px: int = 5
    """Side of the median filter over the residual, map pixels; odd. 1 turns it off."""
    offsets: tuple[int, ...] = (1, 2, 4, 8)
    """Distances in frames, both ways, over which residuals are averaged along the flow. Empty turns it off; distances
    that depth is not fitted over cost more flow."""
    appearance: float = 0.5
    """Share of the evidence that comes from pixels of the same place and colour. 0 turns it off."""
    reach: float = 0.055
    """How far evidence is smoothed where the picture is even, as a share of its longer side. 0 turns it off."""
    contrast: float = 0.3
    """Difference of colour (1: black to white) that stops the smoothing. Smaller stops it at weaker edges."""


def motion_evidence(residual: Float32[np.ndarray, "h w"], config: MaskConfig) -> Float32[np.ndarray, "h w"]:
    """Evidence of one frame from its residual; where no view sees a pixel (NaN) it is 0: nothing speaks for motion."""
    filled = np.nan_to_num(residual, nan=0.0)
    return cv2.medianBlur(filled, config.median_px) if config.median_px > 1 else filled


def pool_evidence(
    evidence: Float32[np.ndarray, "n h w"],
    picture: Callable[[int], UInt8[np.ndarray, "h w 3"]],
    flow: FlowBetweenFrames,
    config: MaskConfig,
    on_frame: Callable[[], None] = lambda: None,
) -> Float32[np.ndarray, "n h w"]:
    """Evidence of single frames, averaged over time, appearance and surroundings.

    Args:
        evidence: as from `motion_evidence`.
        picture: RGB frame at map resolution.
        on_frame: called after each frame.
    """
    pooled = np.stack([average_along_flow(evidence, i, flow, config.offsets) for i in range(len(evidence))])
    height, width = evidence.shape[1:]
    grid = AppearanceGrid(len(evidence), (height, width))
    if config.appearance > 0:
        grid.fill(pooled, picture)
    for i in range(len(evidence)):
        frame = picture(i)
        if config.appearance > 0:
            pooled[i] = (1 - config.appearance) * pooled[i] + config.appearance * grid.look_up(i, frame)
        if config.reach > 0:
            reach_px = config.reach * max(height, width)
            pooled[i] = smooth_within_edges(pooled[i], lab(frame) / 100, reach_px, config.contrast)
        on_frame()
    return pooled


def motion_probability(evidence: Float32[np.ndarray, "*n h w"], config: MaskConfig) -> Float32[np.ndarray, "*n h w"]:
    """Probability that each pixel moves, from pooled evidence."""
    return 1 / (1 + np.exp((config.threshold - evidence) / np.float32(config.softness)))


def average_along_flow(
    values: Float32[np.ndarray, "n h w"], index: int, flow: FlowBetweenFrames, offsets: tuple[int, ...]
) -> Float32[np.ndarray, "h w"]:
    """Mean of frame `index` and of the frames at `offsets` before and after it, each where it sees the pixel."""
    total, count = values[index].copy(), np.ones_like(values[index])
    for other in (index + sign * offset for offset in offsets for sign in (-1, 1)):
        if 0 <= other < len(values):
            forward, error = flow.checked(index, other)
            seen = (error < SEEN_BELOW_PX).astype(np.float32)
            total += seen * sample(values[other], forward)
            count += seen
    return total / count
