"""Averages over time: what a pixel shows in other frames, fetched along the optical flow."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Float16, Float32

from das3r_ns.predictor.flow.clip_flow import FlowBetweenFrames
from das3r_ns.predictor.flow.flow_maps import sample

SEEN_BELOW_PX = 1.5
"""Round-trip error of the flow, map pixels, below which a pixel counts as seen in the other frame."""


def filter_along_flow(
    values: Float16[np.ndarray, "n h w c"],
    flow: FlowBetweenFrames,
    memory: float,
    on_frame: Callable[[], None] = lambda: None,
) -> None:
    """Replace each pixel's values by their mean over the clip along the flow, those k frames away with weight
    `memory`^k.

    A chain of flow between neighbours leads from frame to frame and ends where one does not see the pixel. Chains are
    followed as running sums, once forwards and once backwards in time, so the reach costs nothing. Of a long clip there
    is no room for a second array: the sums from before are kept at the start of each block of frames only, and followed
    again through the block when the way back comes to it.
    """
    n, shape = len(values), values.shape[1:3]
    block = max(1, math.isqrt(n))
    none = np.zeros((*shape, values.shape[-1]), np.float32), np.zeros(shape, np.float32)

    def follow(total: np.ndarray, count: np.ndarray, i: int, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Sums up to frame `i`, from those up to the frame before it in the direction of `step`."""
        own = values[i].astype(np.float32)
        if not 0 <= i - step < n or memory <= 0:
            return own, np.ones(shape, np.float32)
        forward, error = flow.checked(i, i - step)
        seen = np.float32(memory) * (error < SEEN_BELOW_PX).astype(np.float32)
        return own + seen[..., None] * sample(total, forward), 1 + seen * sample(count, forward)

    starts: list[tuple[np.ndarray, np.ndarray]] = []  # sums before the first frame of each block
    sums = none
    for i in range(n):
        if i % block == 0:
            starts.append(sums)
        sums = follow(*sums, i, 1)
    later = none
    for first in reversed(range(0, n, block)):
        sums, earlier = starts.pop(), []
        for i in range(first, min(first + block, n)):
            sums = follow(*sums, i, 1)
            # Half precision, as the values: counts are at most 2 / (1 - memory), or the frames of the clip.
            earlier.append(((sums[0] / sums[1][..., None]).astype(np.float16), sums[1].astype(np.float16)))
        for i in reversed(range(first, min(first + block, n))):
            own = values[i].astype(np.float32)
            later = follow(*later, i, -1)
            mean, count = (part.astype(np.float32) for part in earlier.pop())
            total = mean * count[..., None] + later[0] - own
            values[i] = total / (count + later[1] - 1)[..., None]
            on_frame()


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
