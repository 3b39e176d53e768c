"""From the residual that no depth explains to the probability that a pixel moves.

The residual of a single frame is noisy, and silent where a thing is even or rests for a moment. It is averaged over
the frames before and after along the flow, spread over pixels of the same place and colour (`appearance`), smoothed up
to the edges of the picture (`edge_aware`), and only then compared with a threshold: averaging decisions instead of
residuals loses everything that moves slowly but steadily. Where motion is in doubt, things that stand out from their
surroundings are preferred (`contrast`). What an object looks like is the business of `refiners`.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from das3r_ns.predictor.flow.clip_flow import FlowBetweenFrames
from das3r_ns.predictor.masks.bilateral_grid import AppearanceGrid, lab
from das3r_ns.predictor.masks.config import MaskConfig
from das3r_ns.predictor.masks.edge_aware_filter import smooth_within_edges
from das3r_ns.predictor.masks.evidence import Evidence, SaliencyCue
from das3r_ns.predictor.masks.saliency_cues import NEUTRAL, border_share, floating, log_odds, trust
from das3r_ns.predictor.masks.temporal import filter_along_flow

OWN_BLUR_PX = 1.5
"""Standard deviation of the blur, map pixels, that takes out the noise of what single pixels show themselves."""
IN_DOUBT = (0.1, 0.4)
"""Shares of the border that move: with the first, motion is believed, with the second, it is in doubt."""


def pool_evidence(
    evidence: Evidence,
    picture: Callable[[int], UInt8[np.ndarray, "h w 3"]],
    flow: FlowBetweenFrames,
    config: MaskConfig,
    on_frame: Callable[[], None] = lambda: None,
) -> None:
    """Average the evidence of single frames over time, the residual also over appearance and surroundings, in place.

    Args:
        picture: RGB frame at map resolution.
        on_frame: called after each frame.
    """
    measured = evidence.residual > 0  # exactly 0: no view sees the pixel, and it shows nothing itself
    evidence.values[:] = filter_along_flow(evidence.values, flow, config.memory, on_frame)
    height, width = evidence.residual.shape[1:]
    grid = AppearanceGrid(len(evidence), (height, width))
    if config.appearance > 0:
        grid.fill(evidence.residual, picture)
    for i in range(len(evidence)):
        own = evidence.residual[i].astype(np.float32)
        frame, residual = picture(i), own
        if config.appearance > 0:
            residual = (1 - config.appearance) * residual + config.appearance * grid.look_up(i, frame)
        if config.reach > 0:
            residual = smooth_within_edges(
                residual, lab(frame) / 100, config.reach * max(height, width), config.contrast
            )
        if config.own > 0:
            steady = cv2.GaussianBlur(own, (0, 0), OWN_BLUR_PX)
            residual = residual - config.own * measured[i] * np.maximum(0, config.threshold - steady)
        evidence.residual[i] = residual


def motion_probability(evidence: Evidence, config: MaskConfig, sure: bool = False) -> Float32[np.ndarray, "n h w"]:
    """Probability that each pixel moves, from pooled evidence.

    Args:
        evidence: as `pool_evidence` leaves it.
        sure: the cameras are known to follow what stands still, however much of the border moves.
    """
    # One array for the whole clip, changed frame by frame: with copies of it a long clip would not fit the memory.
    moving = evidence.residual.astype(np.float32)
    moving -= np.float32(config.threshold)
    moving /= np.float32(config.softness)
    if config.floating > 0:
        for i, frame in enumerate(moving):
            frame += config.floating * floating(evidence.cue("depth")[i].astype(np.float32))
    # Where much of the border moves, the cameras follow the wrong thing or water surrounds the right one. Only what
    # moves unlike the border is then a thing. But where cameras are beyond doubt, it is things that reach the border:
    # then they stand out from nothing, and what no depth explains says all.
    border_moves = np.clip((border_share(moving) - IN_DOUBT[0]) / (IN_DOUBT[1] - IN_DOUBT[0]), 0, 1)
    still = 1 - border_moves if sure else 1.0
    in_doubt = 0.0 if sure else border_moves
    weights: dict[SaliencyCue, float | np.ndarray] = {
        "colour": config.colour_contrast * still,
        "depth": config.depth_contrast * still,
        "motion": config.motion_contrast * in_doubt,
    }
    trusted: dict[SaliencyCue, np.ndarray] = {
        cue: weight * trust(moving, evidence.cue(cue)) for cue, weight in weights.items() if np.any(weight > 0)
    }
    for i in range(len(moving)):
        for cue, weight in trusted.items():
            outstanding = evidence.cue(cue)[i].astype(np.float32)
            moving[i] += weight[i] * log_odds(outstanding + np.float32(0.5 - NEUTRAL[cue]), 0.05)
        moving[i] = 1 / (1 + np.exp(-moving[i]))
    return moving
