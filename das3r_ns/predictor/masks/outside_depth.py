"""Depth that comes from outside, made fit for comparison: outliers taken out, and how exact it is read off how well
frames agree with one another, for each level of its confidence. See `depth_agreement`, which finds what moves by it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float32

from das3r_ns.predictor.depth.inverse_depth import relative_views
from das3r_ns.predictor.depth.posed_flow import PosedFlow
from das3r_ns.runtime.numba_jit import compiled
from das3r_ns.runtime.parallel import parallel_for

MIN_STD = 0.01
"""Least relative standard deviation of an inverse depth: points are looked up at whole pixels."""
MAX_STD = 0.15
"""Relative standard deviation beyond which depth cannot tell an object from what lies behind it."""
MAX_NEIGHBOUR_SIGMAS = 4.0
"""Standard deviations within which a pixel needs `MIN_ALIKE` of its eight neighbours; else its depth is an outlier. A
wire one pixel wide has two."""
MIN_ALIKE = 2
CONFIDENCE_LEVELS = 4
"""Confidence has any unit and scale. Its levels hold equal numbers of pixels and each has a standard deviation."""
NEAR_FRAMES = (1, 2, 4)
"""Distances of the frames whose agreement says how exact the depth is."""
STANDS_STILL = 0.3
"""Share of a frame that stands still even where most moves: the agreement of the best so many pixels counts."""
QUANTILE_STD = 0.3853
"""|x| of a normal distribution of deviation 1 at the quantile `STANDS_STILL`."""
SIGMAS = 3.0
"""Standard deviations of the difference by which a frame must see farther than the point."""
MIN_GAP = 0.04
"""The same as a relative difference of inverse depth."""
OUTLINE_PX = 0.012
"""How far flow bleeds from the nearer surface over its outline, as a share of the longer side."""
DEPTH_EDGE_SIGMAS = 4.0
"""Step of depth, in standard deviations, that weighs as much as an edge of `MaskConfig.contrast` in the image."""
TELLING_STD = (0.05, 0.12)
"""Relative standard deviations between which the belief that what stays at its place stands still fades."""


@dataclass(frozen=True)
class OutsideDepth:
    """Depth of its own, at map resolution, as `clean_outside_depth` leaves it."""

    inverse: Float32[np.ndarray, "n h w"]
    """1 / z-depth in the cameras' world, 0 where unknown."""
    std: Float32[np.ndarray, "n h w"]
    """Relative standard deviation, as frames agree with one another."""

    def __len__(self) -> int:
        return len(self.inverse)

    @property
    def tells(self) -> bool:
        """Whether frames agree well enough for what most of them see to be trusted to stand still."""
        known = self.inverse[:: max(1, len(self) // 40)] > 0
        return bool(known.any() and np.median(self.std[:: max(1, len(self) // 40)][known]) < TELLING_STD[0])

    def edge_guide(self, index: int, contrast: float) -> Float32[np.ndarray, "h w 1"]:
        """Channel of a guide for `smooth_within_edges` in which a step of `DEPTH_EDGE_SIGMAS` weighs `contrast`."""
        known = self.inverse[index] > 0
        if not known.any():
            return np.zeros((*known.shape, 1), np.float32)
        typical = float(np.median(self.std[index][known]))
        log_inverse = np.log(np.where(known, self.inverse[index], np.median(self.inverse[index][known])))
        return (log_inverse * contrast / (DEPTH_EDGE_SIGMAS * typical))[..., None].astype(np.float32)

    def behind_outline(self, index: int) -> Float32[np.ndarray, "h w"]:
        """1 where a nearer surface begins so close by that flow may be its flow, else 0."""
        inverse, std = self.inverse[index], self.std[index]
        reach = max(1, round(OUTLINE_PX * max(inverse.shape)))
        nearest = cv2.dilate(inverse, np.ones((2 * reach + 1, 2 * reach + 1), np.uint8))
        return ((inverse > 0) & (nearest > inverse * (1 + np.maximum(SIGMAS * 2**0.5 * std, MIN_GAP)))).astype(
            np.float32
        )


def clean_outside_depth(
    posed: PosedFlow,
    depth: Float32[np.ndarray, "n h w"],
    confidence: Float32[np.ndarray, "n h w"] | None = None,
) -> OutsideDepth:
    """Depth without single outliers and smoothed within its noise, and how exact it then is.

    Args:
        depth: z-depth in the world of `posed`, 0 where unknown.
        confidence: in any unit, larger is surer; 0 is unknown. None: all that is known is alike.
    """
    inverse = np.zeros(depth.shape, np.float32)

    def one_frame(i: int) -> None:
        known = depth[i] > 0 if confidence is None else (depth[i] > 0) & (confidence[i] > 0)
        inverse[i] = _without_noise(np.where(known, 1 / np.maximum(depth[i], 1e-12), 0).astype(np.float32))

    parallel_for(one_frame, len(depth))
    return OutsideDepth(inverse, relative_std(posed, inverse, confidence))


def _without_noise(inverse: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    known = inverse > 0
    if not known.any():
        return inverse
    logs = np.log(np.where(known, inverse, np.median(inverse[known]))).astype(np.float32)
    median = cv2.medianBlur(logs, 5)
    noise = max(float(np.median(np.abs(logs - median)[known])) / 0.6745, MIN_STD / 2)
    alike = np.zeros(logs.shape, np.int32)
    padded = np.pad(np.where(known, logs, np.inf), 1, constant_values=np.inf)
    with np.errstate(invalid="ignore"):
        for row in range(3):
            for column in range(3):
                if (row, column) != (1, 1):
                    near = padded[row : row + logs.shape[0], column : column + logs.shape[1]]
                    alike += np.abs(near - logs) < MAX_NEIGHBOUR_SIGMAS * noise
    logs = np.where(alike < MIN_ALIKE, median, logs)
    logs = cv2.bilateralFilter(logs, 5, 3 * noise, 1.5)
    return np.where(known, np.exp(logs), 0).astype(np.float32)


def relative_std(
    posed: PosedFlow, inverse: Float32[np.ndarray, "n h w"], confidence: Float32[np.ndarray, "n h w"] | None
) -> Float32[np.ndarray, "n h w"]:
    """Relative standard deviation of an inverse depth, from how well neighbouring frames agree about what stands still,
    for each level of confidence."""
    known = inverse > 0
    level = np.zeros(inverse.shape, np.uint8)
    if confidence is not None and known.any():
        sample = confidence[known][:: max(1, int(known.sum()) // 100_000)]
        bounds = np.unique(np.quantile(sample, np.arange(1, CONFIDENCE_LEVELS) / CONFIDENCE_LEVELS))
        for bound in bounds:
            level += confidence > bound
    differences: list[list[np.ndarray]] = [[] for _ in range(CONFIDENCE_LEVELS)]
    step = max(1, len(inverse) // 40)
    for i in range(0, len(inverse), step):
        others = [j for offset in NEAR_FRAMES for j in (i - offset, i + offset) if 0 <= j < len(inverse)]
        others = [j for j in others if posed.pose_known[j] and posed.pose_known[i]]
        for j, H, e in zip(others, *relative_views(posed.T_world_camera, posed.K, i, others)):
            difference = _differences(inverse[i], inverse[j], H, e)
            for k in range(CONFIDENCE_LEVELS):
                found = difference[(level[i] == k) & np.isfinite(difference)]
                differences[k].append(found[::4])
    stds = np.full(CONFIDENCE_LEVELS, np.nan, np.float32)
    for k, found in enumerate(differences):
        values = np.concatenate(found) if found else np.zeros(0)
        if len(values) >= 100:  # of both frames: hence the root of two
            stds[k] = np.quantile(np.abs(values), STANDS_STILL) / (QUANTILE_STD * 2**0.5)
    stds = np.where(np.isnan(stds), np.nanmax(stds) if np.isfinite(stds).any() else MAX_STD, stds)
    return np.maximum(stds, MIN_STD)[level].astype(np.float32)


@compiled
def _differences(inverse, inverse_j, H, e):
    """Of the logarithm of the inverse depth between each pixel's point and what frame j sees there."""
    h, w = inverse.shape
    out = np.full((h, w), np.nan, np.float32)
    for y in range(0, h, 2):
        for x in range(0, w, 2):
            d = inverse[y, x]
            if d <= 0:
                continue
            z = H[2, 0] * (x + 0.5) + H[2, 1] * (y + 0.5) + H[2, 2] + d * e[2]
            if z <= 1e-6:
                continue
            column = int(np.floor((H[0, 0] * (x + 0.5) + H[0, 1] * (y + 0.5) + H[0, 2] + d * e[0]) / z))
            row = int(np.floor((H[1, 0] * (x + 0.5) + H[1, 1] * (y + 0.5) + H[1, 2] + d * e[1]) / z))
            if column < 0 or row < 0 or column >= w or row >= h or inverse_j[row, column] <= 0:
                continue
            out[y, x] = np.log(d / z / inverse_j[row, column])
    return out
