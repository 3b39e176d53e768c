"""Depth from another program or a sensor, brought to the scale of the cameras and joined with what was triangulated.

Such depth comes in units of its own, or with another scale in each part of the clip. Where triangulation is sure, the
median of the ratio tells the scale, and the spread around it how exact the depth is at each level of its confidence.
Then each pixel takes the mean of both, weighted by their variances; where they contradict one another, the surer of
them.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float32, Float64

from das3r_ns.predictor.base import DepthPrior
from das3r_ns.runtime.progress import CONSOLE

MIN_CONFIDENCE = 5.0
"""Confidence (depth over its standard deviation) from which a triangulated depth is compared with."""
MIN_PIXELS = 100
"""Of a frame, that are compared: fewer do not tell its scale."""
SAME_SCALE = 0.02
"""Differences of scale that are taken for none: between frames, and from the units of the cameras."""
MIN_STD = 0.005
"""Least relative standard deviation of a depth: maps are read at whole pixels."""
UNTOLD_STD = 0.05
"""Relative standard deviation where nothing can be compared."""
LEVELS = 4
"""Of confidence, with equal numbers of pixels, whose standard deviation is told apart."""
CONTRADICTS = 3.0
"""Standard deviations of the difference beyond which only one of two depths can be right."""
DOUBTED_SHARE = 0.5
"""Of its confidence that a depth keeps which the other contradicts."""
MAX_CONFIDENCE = 100.0
WHITE_NOISE = 1.553
"""Standard deviation of white noise over the median distance from the median of 5x5 pixels, by simulation."""
BLOCK_PX = 5
MEDIAN_OF_BLOCK = np.pi / 2 / BLOCK_PX**2
"""Variance of the median of a block of white noise over that of its pixels."""
MIN_OWN_FACTOR = 0.1
"""Least factor between the true standard deviation of triangulated depth and that which it states."""


@dataclass(frozen=True)
class AlignedDepth:
    """Depth of a prior in the world of the cameras, at map resolution."""

    depth: Float32[np.ndarray, "n h w"]
    """z-depth, 0 where unknown."""
    confidence: Float32[np.ndarray, "n h w"]
    """As the prior has it: 0 unknown .. 1."""
    std: Float32[np.ndarray, "n h w"]
    """Relative standard deviation, by comparison with what was triangulated."""
    scale: Float64[np.ndarray, "n"]
    """By which the depth of each frame was multiplied."""
    own_factor: float = 1.0
    """Of the standard deviation of triangulated depth, as it is stated, that the comparison leaves it."""


def at_size(values: Float32[np.ndarray, "n _ _"], size: tuple[int, int]) -> Float32[np.ndarray, "n h w"]:
    """Maps at another size: the value at each pixel's centre, so that no depth between two surfaces is made up."""
    row, column = (
        ((np.arange(new) + 0.5) * old / new).astype(int) for new, old in zip(size, values.shape[1:], strict=True)
    )
    return np.ascontiguousarray(values[:, row][:, :, column])


def align_depth(
    prior: DepthPrior, depth: Float32[np.ndarray, "n h w"], confidence: Float32[np.ndarray, "n h w"]
) -> AlignedDepth:
    """Bring a prior to the scale of triangulated depth: one scale for the clip, or one for each frame where they
    differ.

    Args:
        depth: triangulated z-depth in the world of the cameras, 0 where unknown.
        confidence: of `depth`, about depth over its standard deviation.
    """
    size = depth.shape[1], depth.shape[2]
    given = at_size(prior.depth.float().numpy(), size)
    certain = at_size(prior.confidence.float().numpy(), size)
    given = np.where(certain > 0, given, 0).astype(np.float32)
    n = len(depth)
    log_scale = np.full(n, np.nan)
    for i in range(n):
        ratio, _ = _compared(given[i], depth[i], confidence[i])
        if len(ratio) >= MIN_PIXELS:
            log_scale[i] = _mode(ratio)
    scale = _scale_of_frames(log_scale, prior.source)
    given *= scale[:, None, None].astype(np.float32)
    std, own_factor = _relative_std(given, certain, depth, confidence)
    return AlignedDepth(given, certain, std, scale, own_factor)


def _compared(
    given: Float32[np.ndarray, "h w"], depth: Float32[np.ndarray, "h w"], confidence: Float32[np.ndarray, "h w"]
) -> tuple[Float64[np.ndarray, "m"], Float64[np.ndarray, "m"]]:
    """Logarithm of triangulated over given depth where both are known, and the relative variance of the former."""
    both = (given > 0) & (depth > 0) & (confidence > MIN_CONFIDENCE)
    ratio = np.log(depth[both].astype(np.float64) / given[both])
    return ratio, 1 / np.square(confidence[both].astype(np.float64))


def _mode(values: Float64[np.ndarray, "m"]) -> float:
    """Centre of what most values agree on: the mean within two deviations, from the median on. What moves lies on one
    side and would shift the median by a part of the noise."""
    centre = float(np.median(values))
    for _ in range(6):
        off = np.abs(values - centre)
        near = values[off <= max(2 * 1.4826 * float(np.median(off)), 1e-6)]
        centre = float(near.mean())
    return centre


def _scale_of_frames(log_scale: Float64[np.ndarray, "n"], source: str) -> Float64[np.ndarray, "n"]:
    told = np.isfinite(log_scale)
    if not told.any():
        CONSOLE.print(
            f"Depth of {source}: nothing could be triangulated to compare it with (the camera hardly moves?). It is "
            "taken as it is, in the units of the cameras.",
            markup=False, highlight=False, soft_wrap=True,
        )  # fmt: skip
        return np.ones(len(log_scale))
    common = float(np.median(log_scale[told]))
    spread = 1.4826 * float(np.median(np.abs(log_scale[told] - common)))
    far = float((np.abs(log_scale[told] - common) > 2 * SAME_SCALE).mean())
    if spread > SAME_SCALE or far > 0.1:
        CONSOLE.print(
            f"Depth of {source}: its scale differs from frame to frame (by {np.exp(np.ptp(log_scale[told])):.2f} "
            "times). Each frame is brought to that of the cameras.",
            markup=False, highlight=False, soft_wrap=True,
        )  # fmt: skip
        frames = np.arange(len(log_scale))
        return np.exp(np.interp(frames, frames[told], log_scale[told]))
    if abs(common) < SAME_SCALE:
        return np.ones(len(log_scale))
    CONSOLE.print(
        f"Depth of {source}: it is multiplied by {np.exp(common):.4g} to fit the cameras.",
        markup=False, highlight=False, soft_wrap=True,
    )  # fmt: skip
    return np.full(len(log_scale), np.exp(common))


def _relative_std(
    given: Float32[np.ndarray, "n h w"],
    certain: Float32[np.ndarray, "n h w"],
    depth: Float32[np.ndarray, "n h w"],
    confidence: Float32[np.ndarray, "n h w"],
) -> tuple[Float32[np.ndarray, "n h w"], float]:
    """Relative standard deviation of each given depth, by level of confidence, and `AlignedDepth.own_factor`.

    The spread of the ratio has two parts. What makes neighbouring pixels differ is the given depth's own and is seen in
    it alone; it is nearly gone in medians of blocks. What these still show is counted as the triangulated depth's, with
    its own unevenness: mostly less than it states.
    """
    known = certain[given > 0]
    bounds = np.zeros(0)
    if len(known):
        sample = known[:: max(1, len(known) // 100_000)]
        bounds = np.unique(np.quantile(sample, np.arange(1, LEVELS) / LEVELS))
        bounds = bounds[(bounds > sample.min()) & (bounds < sample.max())]
    level = np.digitize(certain, bounds, right=True)
    rough = [_roughness(values) for values in given]
    spread, stated, own, count = (np.full(len(bounds) + 1, np.nan) for _ in range(4))
    for k in range(len(spread)):
        parts = [_compared(given[i] * (level[i] == k), depth[i], confidence[i]) for i in range(len(given))]
        ratio, variance = (np.concatenate([part[j] for part in parts]) for j in (0, 1))
        if len(ratio) >= MIN_PIXELS:
            spread[k] = (1.4826 * np.median(np.abs(ratio))) ** 2
            stated[k], count[k] = np.median(variance), len(ratio)
            uneven = np.concatenate([rough[i][level[i] == k] for i in range(len(given))])
            own[k] = (WHITE_NOISE * np.median(uneven[np.isfinite(uneven)])) ** 2
    told = np.isfinite(spread)
    factor = 1.0
    if told.any():
        sure = np.concatenate([_roughness(depth[i])[confidence[i] > MIN_CONFIDENCE] for i in range(len(depth))])
        sure = sure[np.isfinite(sure)]
        uneven = (WHITE_NOISE * float(np.median(sure)) if len(sure) else 0.0) ** 2
        white = MEDIAN_OF_BLOCK * (np.average(own[told], weights=count[told]) + uneven)
        even = max(_spread_of_blocks(given, depth, confidence) - white, 0)
        rest = (uneven + even) / np.average(stated[told], weights=count[told])
        factor = float(np.sqrt(np.clip(rest, MIN_OWN_FACTOR**2, 1)))
    std = np.sqrt(np.maximum(np.maximum(spread - factor**2 * stated, own), MIN_STD**2))
    typical = np.nanmax(std) if told.any() else UNTOLD_STD
    return np.where(told, std, typical)[level].astype(np.float32), factor


def _spread_of_blocks(
    given: Float32[np.ndarray, "n h w"], depth: Float32[np.ndarray, "n h w"], confidence: Float32[np.ndarray, "n h w"]
) -> float:
    """Relative variance of the ratio of depths, by the medians of blocks."""
    n, height, width = (given.shape[0], given.shape[1] // BLOCK_PX, given.shape[2] // BLOCK_PX)
    inside = (slice(None), slice(height * BLOCK_PX), slice(width * BLOCK_PX))
    given, depth, confidence = (values[inside] for values in (given, depth, confidence))
    both = (given > 0) & (depth > 0) & (confidence > MIN_CONFIDENCE)
    ratio = np.where(both, np.log(np.maximum(depth, 1e-12) / np.maximum(given, 1e-12)), np.nan)
    blocks = ratio.reshape(n, height, BLOCK_PX, width, BLOCK_PX).transpose(0, 1, 3, 2, 4).reshape(-1, BLOCK_PX**2)
    blocks = blocks[np.isfinite(blocks).sum(axis=1) > BLOCK_PX**2 // 2]
    if len(blocks) < MIN_PIXELS // 4:
        return float("inf")
    return float((1.4826 * np.median(np.abs(np.nanmedian(blocks, axis=1)))) ** 2)


def _roughness(depth: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    """How far the logarithm of each depth is from the median of its surroundings; NaN beside pixels without depth."""
    known = cv2.erode((depth > 0).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    log = np.log(np.maximum(depth, 1e-12)).astype(np.float32)
    return np.where(known, np.abs(log - cv2.medianBlur(log, 5)), np.nan).astype(np.float32)


def join_depth(
    prior: AlignedDepth, depth: Float32[np.ndarray, "n h w"], confidence: Float32[np.ndarray, "n h w"]
) -> None:
    """Join a prior to triangulated depth and its confidence, in place."""
    for i in range(len(depth)):
        own, given = depth[i], prior.depth[i]
        own_std = prior.own_factor / np.maximum(confidence[i], 1e-6)
        given_std = prior.std[i]
        has_own, has_given = (own > 0) & (confidence[i] > 0), given > 0
        log_own, log_given = (np.log(np.where(values > 0, values, 1)) for values in (own, given))
        weight_own = np.where(has_own, 1 / np.square(own_std), 0)
        weight_given = np.where(has_given, 1 / np.square(given_std), 0)
        apart = np.abs(log_own - log_given) > CONTRADICTS * np.hypot(own_std, given_std) + SAME_SCALE
        contradicts = has_own & has_given & apart
        takes_own = contradicts & (weight_own > weight_given)
        weight_given = np.where(takes_own, 0, weight_given)
        weight_own = np.where(contradicts & ~takes_own, 0, weight_own)
        total = weight_own + weight_given
        mean = np.exp((weight_own * log_own + weight_given * log_given) / np.maximum(total, 1e-12))
        depth[i] = np.where(total > 0, mean, own)
        sure = np.sqrt(prior.own_factor**2 * weight_own + weight_given)  # as sure as it states itself
        confidence[i] = np.minimum(sure, MAX_CONFIDENCE) * np.where(contradicts, DOUBTED_SHARE, 1)
