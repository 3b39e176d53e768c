"""What spoke for motion in a frame, computed from the scene folder when somebody asks.

The cues of the mask (`predictor.masks.evidence`) are collected again for one frame, from its cameras and the flow to
its neighbours; a click is answered from the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from das3r_ns.editing.clip import EditedClip
from das3r_ns.editing.regions import RegionCues
from das3r_ns.predictor.depth.inverse_depth import InverseDepth
from das3r_ns.predictor.flow.flow_maps import sample
from das3r_ns.predictor.masks.bilateral_grid import lab
from das3r_ns.predictor.masks.config import MaskConfig
from das3r_ns.predictor.masks.edge_aware_filter import smooth_within_edges
from das3r_ns.predictor.masks.evidence import SALIENCY_CUES, clean_residual, residual_weight
from das3r_ns.predictor.masks.saliency_cues import contrasts
from das3r_ns.predictor.masks.temporal import SEEN_BELOW_PX

OFFSETS = (1, 2, 4)
"""Distances in frames, both ways, over which flow is compared with the cameras: those of the predictor, without the
farthest, which cost most."""
AROUND = (1, 2, 3)
"""Distances in frames, both ways, at which neighbours are asked what moves."""
REACH_SHARE, EDGE = 0.03, 0.3
"""How far motion is averaged, as a share of the longer side, and the difference of colour that stops it."""
MIN_WEIGHT = 0.02
MOVING_SIGMAS = (1.0, 2.2)
"""Averaged residuals, in standard deviations of the flow's noise, from which a pixel may move, and surely does."""
CUE_NAMES = ("probability", "residual", "reliability", *SALIENCY_CUES, "speed")


@dataclass(frozen=True)
class FrameCues:
    """What speaks for motion in one frame, at the size of the maps."""

    values: dict[str, Float32[np.ndarray, "h w"]]
    """By name: `probability` that was predicted; `residual`, what no depth explains, in standard deviations of the
    flow's noise; `reliability` of it, 0 to 1; how much stands out in `colour`, `depth` and `motion`, 0 to 1; `speed`
    that the camera does not explain, map pixels a frame."""
    fit: InverseDepth | None


def frame_cues(clip: EditedClip, frame: int) -> FrameCues:
    """The cues of a frame. Where its camera is not known only the probability is."""
    values = {"probability": clip.predicted(frame)}
    fit = _fit(clip, frame)
    if fit is not None:
        residual = clean_residual(fit.residual, MaskConfig())
        values["residual"] = residual
        values["reliability"] = residual_weight(residual, fit.reliability)
        stands_out = contrasts(clip.map_image(frame), fit)
        values |= {name: stands_out[..., k] for k, name in enumerate(SALIENCY_CUES)}
        values["speed"] = np.linalg.norm(fit.velocity, axis=0)
    return FrameCues(values, fit)


def region_cues(clip: EditedClip, frame: int, moving: Callable[[int], Bool[np.ndarray, "h w"]]) -> RegionCues:
    """What a region of a frame is found by.

    Args:
        moving: what counts as moving in a frame, as it is now.
    """
    fit = _fit(clip, frame)
    depth = moves = None
    if fit is not None:
        moves = moving_by_itself(clip.map_image(frame), fit)
        d = np.nan_to_num(fit.inverse_depth)
        median = float(np.median(d[d > 0])) if (d > 0).any() else 1.0
        depth = (d / (d + median)).astype(np.float32)
    return RegionCues(
        image=clip.map_image(frame),
        motion=None if fit is None else fit.velocity,
        around=moving_around(clip, frame, moving),
        moves=moves,
        depth=depth,
    )


def moving_by_itself(image: UInt8[np.ndarray, "h w 3"], fit: InverseDepth) -> Float32[np.ndarray, "h w"]:
    """How far the motion of each pixel contradicts every depth, 0 to 1, averaged up to the edges of the image."""
    residual = clean_residual(fit.residual, MaskConfig())
    weight = residual_weight(residual, fit.reliability)
    guide, reach_px = lab(image) / 100, REACH_SHARE * max(image.shape[:2])
    weighted = smooth_within_edges(residual * weight, guide, reach_px, EDGE)
    total = smooth_within_edges(weight.copy(), guide, reach_px, EDGE)
    mean = weighted / np.maximum(total, np.float32(MIN_WEIGHT))
    return np.clip((mean - MOVING_SIGMAS[0]) / (MOVING_SIGMAS[1] - MOVING_SIGMAS[0]), 0, 1)


def moving_around(
    clip: EditedClip, frame: int, moving: Callable[[int], Bool[np.ndarray, "h w"]]
) -> Float32[np.ndarray, "h w"]:
    """Share of the neighbouring frames that call each pixel moving, of those that see it."""
    total, count = (np.zeros(clip.map_size, np.float32) for _ in range(2))
    for other in (frame + sign * offset for offset in AROUND for sign in (-1, 1)):
        if 0 <= other < len(clip):
            forward, error = clip.flow.checked(frame, other)
            seen = (error < SEEN_BELOW_PX).astype(np.float32)
            total += seen * sample(moving(other).astype(np.float32), forward)
            count += seen
    return total / np.maximum(count, 1)


def _fit(clip: EditedClip, frame: int) -> InverseDepth | None:
    return clip.posed.fit(frame, OFFSETS) if clip.posed.pose_known[frame] else None
