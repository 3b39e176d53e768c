"""Averages over time: what a pixel shows in other frames, fetched along the optical flow."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Float16, Float32

from das3r_ns.predictor.flow.clip_flow import FlowBetweenFrames, sample

SEEN_BELOW_PX = 1.5
"""Round-trip error of the flow, map pixels, below which a pixel counts as seen in the other frame."""


def filter_along_flow(
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
