"""From the residual that no depth explains to the probability that a pixel moves.

Evidence of a single frame is noisy. It is averaged over neighbouring frames along the flow, spread over pixels of the
same place and colour (`appearance`), and smoothed up to the edges of the picture (`edge_aware`).
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


@dataclass
class MaskConfig:
    """How evidence of motion becomes `dynamic_prob`."""

    threshold: float = 2.2
    """Residual, in standard deviations of the flow's noise, at which a pixel is as likely to move as not."""
    softness: float = 0.25
    """Width of the transition, in the same unit. Smaller gives harder maps."""
    median_px: int = 5
    """Side of the median filter over the residual, map pixels; odd. 1 turns it off."""
    neighbours: int = 2
    """Evidence is averaged over this many frames before and after, along the flow. 0 turns it off."""
    appearance: float = 0.5
    """Share of the evidence that comes from pixels of the same place and colour. 0 turns it off."""
    reach: float = 0.055
    """How far evidence is smoothed where the picture is even, as a share of its longer side. 0 turns it off."""
    contrast: float = 0.3
    """Difference of colour (1: black to white) that stops the smoothing. Smaller stops it at weaker edges."""
    decide_at: float = 0.45
    """Averaged evidence above this is more likely moving than not; it becomes 0.5 in `dynamic_prob`."""


def motion_probability(residual: Float32[np.ndarray, "h w"], config: MaskConfig) -> Float32[np.ndarray, "h w"]:
    """Probability that each pixel moves; where no view sees it (NaN) it is 0: nothing speaks for motion."""
    filled = np.nan_to_num(residual, nan=0.0)
    if config.median_px > 1:
        filled = cv2.medianBlur(filled, config.median_px)
    return 1 / (1 + np.exp(-(filled - config.threshold) / config.softness))


def clean_masks(
    evidence: Float32[np.ndarray, "n h w"],
    picture: Callable[[int], UInt8[np.ndarray, "h w 3"]],
    flow: FlowBetweenFrames,
    config: MaskConfig,
    on_frame: Callable[[], None] = lambda: None,
) -> Float32[np.ndarray, "n h w"]:
    """`dynamic_prob` from the evidence of single frames.

    Args:
        evidence: as from `motion_probability`.
        picture: RGB frame at map resolution.
        on_frame: called after each frame.
    """
    if config.neighbours > 0:
        evidence = np.stack([_average_along_flow(evidence, i, flow, config.neighbours) for i in range(len(evidence))])
    height, width = evidence.shape[1:]
    grid = AppearanceGrid(len(evidence), (height, width))
    if config.appearance > 0:
        grid.fill(evidence, picture)
    out = np.empty_like(evidence)
    sharpen = np.log(0.5) / np.log(config.decide_at)
    for i in range(len(evidence)):
        frame = picture(i)
        mixed = evidence[i]
        if config.appearance > 0:
            mixed = (1 - config.appearance) * mixed + config.appearance * grid.look_up(i, frame)
        if config.reach > 0:
            mixed = smooth_within_edges(mixed, lab(frame) / 100, config.reach * max(height, width), config.contrast)
        out[i] = np.clip(mixed, 0, 1) ** sharpen
        on_frame()
    return out


def _average_along_flow(
    evidence: Float32[np.ndarray, "n h w"], index: int, flow: FlowBetweenFrames, neighbours: int
) -> Float32[np.ndarray, "h w"]:
    total, count = evidence[index].copy(), np.ones_like(evidence[index])
    for other in range(max(index - neighbours, 0), min(index + neighbours + 1, len(evidence))):
        if other == index:
            continue
        forward, error = flow.checked(index, other)
        seen = (error < 1.5).astype(np.float32)
        total += seen * sample(evidence[other], forward)
        count += seen
    return total / count
