"""From the residual that no depth explains to the probability that a pixel moves.

The residual of a single frame is noisy, silent where an object is even or rests for a moment, and unknown where flow
fails. It is averaged over the frames before and after along the flow, spread over pixels of the same place and colour
(`bilateral_grid`), smoothed up to the edges of the image (`edge_aware_filter`), each time weighted by how far it is to
be believed (normalized convolution: Knutsson and Westin, CVPR 1993), and only then compared with a threshold: averaging
decisions instead of residuals loses everything that moves slowly but steadily. A pixel whose own flow is measured well
is judged by it, others by what surrounds them. Where motion is in doubt, objects that stand out from their surroundings
are preferred (`saliency_cues`). What an object looks like is the business of `refiners`.
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
from das3r_ns.predictor.masks.saliency_cues import (
    NEUTRAL,
    around_time,
    border_strips,
    floating,
    log_odds,
    trust,
)
from das3r_ns.predictor.masks.temporal import filter_along_flow
from das3r_ns.runtime.parallel import parallel_for

OWN_BLUR_PX = 1.5
"""Standard deviation of the blur, map pixels, that takes out the noise of what single pixels show themselves."""
WELL_MEASURED = 0.2
"""Weight of the evidence with which a pixel's own residual counts as much as what surrounds it."""
UNKNOWN = (1.0, 0.02)
"""Residual that is taken where nothing is known, which speaks against motion, and its weight."""
CAMERA_RESIDUAL = 0.75
"""Residual that exact cameras leave at most in `MIN_STATIC_SHARE` of a frame. Where all of a frame has more, the
cameras are inexact (rolling shutter, distortion, drift), and residuals count in units of what they leave everywhere."""
MIN_STATIC_SHARE = 0.3
"""Share of a frame that is static even where most moves."""
IN_DOUBT = (0.1, 0.4)
"""Shares of the border that move: with the first, motion is believed, with the second, it is in doubt."""
DOUBTED_SHARE = 0.95
"""Share of the log-odds that is taken off where motion is wholly in doubt: with cameras that follow the wrong object,
or water all around, residuals are large and say little."""


def pool_evidence(
    evidence: Evidence,
    image: Callable[[int], UInt8[np.ndarray, "h w 3"]],
    flow: FlowBetweenFrames,
    config: MaskConfig,
    on_frame: Callable[[], None] = lambda: None,
) -> None:
    """Average the evidence of single frames over time, the residual also over appearance and surroundings, in place.

    Args:
        image: RGB frame at map resolution.
        on_frame: called twice a frame.
    """
    # Weighted means: residuals times weights are averaged, weights as well, and divided at the end.
    evidence.residual[:] *= evidence.weight
    filter_along_flow(evidence.values, flow, config.memory, on_frame)
    height, width = evidence.residual.shape[1:]
    grid = AppearanceGrid(len(evidence), (height, width))
    if config.appearance > 0:
        grid.fill(evidence.values[..., :2], image)

    def spread(i: int) -> None:
        frame = image(i)
        own = (evidence.residual[i].astype(np.float32), evidence.weight[i].astype(np.float32))
        around = own
        if config.appearance > 0:
            alike = grid.look_up(i, frame)
            around = tuple((1 - config.appearance) * o + config.appearance * a for o, a in zip(own, alike))
        if config.reach > 0:
            guide, reach_px = lab(frame) / 100, config.reach * max(height, width)
            around = tuple(smooth_within_edges(part, guide, reach_px, config.contrast) for part in around)
        residual = _divided(*around)
        if config.own > 0:
            steady = cv2.GaussianBlur(_divided(*own), (0, 0), OWN_BLUR_PX)
            share = config.own * own[1] / (config.own * own[1] + WELL_MEASURED)
            residual += share * (steady - residual)
        evidence.residual[i] = residual
        on_frame()

    parallel_for(spread, len(evidence))


def _divided(weighted: Float32[np.ndarray, "h w"], weight: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    """Weighted mean from its two sums, which goes to what is taken for the unknown where the weight is next to none."""
    residual, least = np.float32(UNKNOWN[0]), np.float32(UNKNOWN[1])
    return (weighted + residual * least) / (weight + least)


def camera_doubt(evidence: Evidence, config: MaskConfig) -> Float32[np.ndarray, "n 1 1"]:
    """How far the motion evidence of each frame is in doubt, 0 to 1: where much of the border seems to move, the
    cameras follow the wrong object, or water surrounds the right one.

    Args:
        evidence: as `pool_evidence` leaves it.
    """
    border = (border_strips(evidence.residual).astype(np.float32) - config.threshold) / config.softness
    share = around_time((1 / (1 + np.exp(-border))).mean(axis=1)).astype(np.float32)[:, None, None]
    return np.clip((share - IN_DOUBT[0]) / (IN_DOUBT[1] - IN_DOUBT[0]), 0, 1)


def camera_residual(evidence: Evidence) -> Float32[np.ndarray, "n 1 1"]:
    """What the cameras leave everywhere around each frame's time, over what exact ones leave; 1 or more."""
    lowest = [np.quantile(frame[::2, ::2].astype(np.float32), MIN_STATIC_SHARE) for frame in evidence.residual]
    return np.maximum(1, around_time(np.array(lowest)) / CAMERA_RESIDUAL).astype(np.float32)[:, None, None]


def motion_probability(
    evidence: Evidence, config: MaskConfig, background_verified: bool = False
) -> Float32[np.ndarray, "n h w"]:
    """Probability that each pixel moves, from pooled evidence.

    Args:
        evidence: as `pool_evidence` leaves it.
        background_verified: the cameras are known to follow what stands still, however much of the border moves.
    """
    # One array for the whole clip, changed frame by frame: with copies of it a long clip would not fit the memory.
    moving = evidence.residual.astype(np.float32)
    if not background_verified:
        moving /= camera_residual(evidence)
    moving -= np.float32(config.threshold)
    moving /= np.float32(config.softness)
    if config.floating > 0:
        for i, frame in enumerate(moving):
            frame += config.floating * floating(evidence.cue("depth")[i].astype(np.float32))
    # Only what moves unlike a border in doubt is an object. But where cameras are beyond doubt, it is objects that
    # reach the border: then they stand out from nothing, and what no depth explains says all.
    border_moves = camera_doubt(evidence, config)
    still = 1 - border_moves if background_verified else np.ones_like(border_moves)
    in_doubt = np.zeros_like(border_moves) if background_verified else border_moves
    weights: dict[SaliencyCue, np.ndarray] = {
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
        moving[i] *= 1 - DOUBTED_SHARE * in_doubt[i]
        moving[i] = 1 / (1 + np.exp(-moving[i]))
    return moving
