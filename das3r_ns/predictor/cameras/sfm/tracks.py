"""A grid of pixels of every frame, followed through the frames around it.

In: a function that gives the flow between two frames and its round-trip error (`FlowBetweenFrames.checked`), and the
images if they are at hand. Out: `Tracks`, some tens of megabytes that hold all that the cameras are computed from.
Short offsets are looked up directly; long ones are composed of them, so that points are seen over a wide baseline
without asking an estimator for flow that it cannot find. With the images every position is sharpened against the
anchor's own image (`subpixel`), so compositions do not drift.

Everything here is in pixels of the flow, first pixel's centre at (0.5, 0.5).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np
from jaxtyping import Float, Float32, Float64, Int64, UInt8
from torch import Tensor

from das3r_ns.predictor.cameras.sfm.subpixel import SubpixelMatcher
from das3r_ns.predictor.flow.checked import CheckedFlow
from das3r_ns.runtime.parallel import parallel_for

DIRECT = (1, 2, 4, 8)
"""Offsets in frames at which the flow itself is looked up."""
COMPOSED = (12, 16, 20, 24, 28, 32, 40, 48)
"""Offsets reached by following a direct flow from a nearer offset."""
ROUND_TRIP = (0.7, 0.03)
"""A step is trusted up to this round-trip error: pixels, plus this share of the step's length."""
NOT_SHARP = 0.05
"""Weight of a position that could not be sharpened against one that could: enough to carry a clip without texture."""
MIN_WEIGHT = 0.02
"""Positions of more weight than this count as seen: `NOT_SHARP` and probably static."""


@dataclass(frozen=True)
class Tracks:
    """`p` pixels of each of `a` anchor frames, and where `k` other frames (targets) see them."""

    anchor: Int64[np.ndarray, "a"]
    """Frame that the pixels belong to, ascending."""
    target: Int64[np.ndarray, "a k"]
    """Frames that see them; -1 where an anchor has fewer than k."""
    hops: Float64[np.ndarray, "k"]
    """Variance of the positions, in that of one flow: the number of flows that were composed; 1 when sharpened."""
    pixel: Float32[np.ndarray, "a p 2"]
    """Positions (u, v) in the anchor frame."""
    observed: Float32[np.ndarray, "a k p 2"]
    """Positions in the target frames; of no meaning where the weight is 0."""
    seen: Float32[np.ndarray, "a k p"]
    """1 where the position is trusted (`NOT_SHARP` where images were given and did not confirm it), else 0."""
    weight: Float32[np.ndarray, "a k p"]
    """`seen` times how likely the point is static."""
    num_frames: int
    size: tuple[int, int]
    """Height and width of the flow that all positions are measured in."""

    @property
    def centre(self) -> tuple[float, float]:
        """Principal point (cx, cy)."""
        return self.size[1] / 2, self.size[0] / 2


def follow_grid(
    flow: CheckedFlow,
    num_frames: int,
    image: Callable[[int], UInt8[np.ndarray, "H W 3"]] | None = None,
    points: int = 600,
    max_anchors: int = 250,
    advance: Callable[[int], None] = lambda frames: None,
) -> Tracks:
    """Follow a regular grid of every frame (every few frames of a long clip) forwards and backwards.

    Args:
        flow: asked for offsets of +-1, 2, 4 and 8 only, about in order of the source frame, by several threads.
        image: frame i, of any resolution. Positions are then accurate to a few hundredths of a pixel and free of
            the bias of smooth flow, which alone makes the focal length some per cent too long.
        points: grid points a frame, about. Accuracy grows with their root, time with their number.
        max_anchors: in longer clips only every second, third, ... frame is an anchor.
        advance: told how many frames further the work has come, by the thread that did it.

    Raises:
        ValueError: fewer than two frames.
    """
    if num_frames < 2:
        raise ValueError(f"{num_frames} frame cannot be followed; camera motion needs at least 2")
    height, width = flow(0, 1)[0].shape[:2]
    step = (height * width / points) ** 0.5
    rows, columns = max(round(height / step), 2), max(round(width / step), 2)
    anchors = np.unique(np.append(np.arange(0, num_frames, -(-num_frames // max_anchors)), num_frames - 1))
    offsets = [sign * offset for offset in DIRECT + COMPOSED if offset < num_frames for sign in (1, -1)]
    sharpener = SubpixelMatcher(image, (height, width), 2 * max(offsets) + 2) if image else None
    k, p = len(offsets), rows * columns
    target = np.full((len(anchors), k), -1)
    pixel = np.empty((len(anchors), p, 2), np.float32)
    observed = np.zeros((len(anchors), k, p, 2), np.float32)
    seen = np.zeros((len(anchors), k, p), np.float32)
    # Each frame's grid has a shift of its own: grids that coincide would repeat one another's errors.
    shift = np.random.default_rng(0).uniform(0.2, 0.8, (len(anchors), 2))

    def follow(a: int) -> None:
        i = int(anchors[a])
        pixel[a] = _grid(rows, columns, (height, width), shift[a])
        if sharpener:
            pixel[a] = sharpener.corners(i, pixel[a], step / 2)
        reached = {0: (pixel[a], np.ones(p, bool))}
        for slot, offset in enumerate(offsets):
            j = i + offset
            if not 0 <= j < num_frames:
                continue
            hop = _last_hop(offset)
            end, fine = _step(*flow(j - hop, j), *reached[offset - hop])
            seen[a, slot] = fine
            if sharpener:
                end, sharp = sharpener.sharpen(i, j, pixel[a], end, fine)
                seen[a, slot] *= np.where(sharp, 1, NOT_SHARP)
            reached[offset] = (end, fine)
            target[a, slot], observed[a, slot] = j, end
        advance(i - (int(anchors[a - 1]) if a else -1))

    parallel_for(follow, len(anchors))
    hops = np.array([1.0 if sharpener else float(_number_of_hops(offset)) for offset in offsets])
    return Tracks(anchors, target, hops, pixel, observed, seen, seen, num_frames, (height, width))


def weigh(tracks: Tracks, staticness: Float[Tensor, "n h w"]) -> Tracks:
    """The same tracks, each position weighted by 1 - dynamic_prob at both of its ends.

    Args:
        staticness: 1 static .. 0 moving, one map a frame, of any resolution.

    Raises:
        ValueError: another number of maps than frames.
    """
    if len(staticness) != tracks.num_frames:
        raise ValueError(f"{len(staticness)} maps of staticness do not fit {tracks.num_frames} frames")
    maps = staticness.float().cpu().numpy()
    weight = np.zeros_like(tracks.seen)
    for a, i in enumerate(tracks.anchor.tolist()):
        own = _look_up(maps[i], tracks.pixel[a], tracks.size)
        for slot, j in enumerate(tracks.target[a].tolist()):
            if j >= 0:
                other = _look_up(maps[j], tracks.observed[a, slot], tracks.size)
                weight[a, slot] = tracks.seen[a, slot] * np.minimum(own, other)
    return replace(tracks, weight=weight)


def _grid(rows: int, columns: int, size: tuple[int, int], shift: np.ndarray) -> np.ndarray:
    """Positions of a regular grid; `shift` is (u, v) of its first point in steps."""
    u, v = np.meshgrid(
        (np.arange(columns) + shift[0]) / columns * size[1], (np.arange(rows) + shift[1]) / rows * size[0]
    )
    return np.stack((u, v), axis=-1).reshape(-1, 2)


def _last_hop(offset: int) -> int:
    """The direct flow that ends at `offset`: itself, or the longest that starts at an offset already reached."""
    length, sign = abs(offset), 1 if offset > 0 else -1
    return sign * (length if length in DIRECT else next(d for d in reversed(DIRECT) if length - d in DIRECT + COMPOSED))


def _number_of_hops(offset: int) -> int:
    hop = _last_hop(offset)
    return 1 if hop == offset else 1 + _number_of_hops(offset - hop)


def _step(
    flow: np.ndarray, round_trip: np.ndarray, start: np.ndarray, fine: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Move positions along a flow; and whether they can still be trusted."""
    height, width = flow.shape[:2]
    moved = _look_up(flow, start, (height, width))
    error = _look_up(round_trip, start, (height, width))
    end = start + moved
    inside = (end > 0.5).all(axis=1) & (end[:, 0] < width - 0.5) & (end[:, 1] < height - 0.5)
    with np.errstate(invalid="ignore"):  # an infinite error beside a finite one gives NaN, which is not trusted either
        fine = fine & inside & (error < ROUND_TRIP[0] + ROUND_TRIP[1] * np.linalg.norm(moved, axis=1))
    return np.where(fine[:, None], end, start), fine


def _look_up(values: np.ndarray, position: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear values of a map at positions that are measured in pixels of `size`."""
    scale = np.array([values.shape[1] / size[1], values.shape[0] / size[0]], np.float32)
    index = (position * scale - 0.5).astype(np.float32)[:, None]  # OpenCV counts pixel centres from 0
    return cv2.remap(values, index[..., 0], index[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[:, 0]
