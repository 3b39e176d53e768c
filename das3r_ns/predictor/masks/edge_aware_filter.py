"""Smoothing that stops at the edges of an image (Gastal and Oliveira, SIGGRAPH 2011, recursive filtering)."""

import numpy as np
from jaxtyping import Float32

from das3r_ns.runtime.numba_jit import compiled


def smooth_within_edges(
    values: Float32[np.ndarray, "h w"],
    guide: Float32[np.ndarray, "h w c"],
    reach_px: float,
    contrast: float,
    rounds: int = 3,
) -> Float32[np.ndarray, "h w"]:
    """Average of each pixel's surroundings, as far as no edge of the guide lies between.

    Args:
        reach_px: standard deviation of the average where the guide is even.
        contrast: difference of the guide, summed over channels, that weighs as much as `reach_px` pixels.
    """
    steps_x = _cost_of_steps(np.abs(np.diff(guide, axis=1)).sum(axis=-1), reach_px / contrast)
    steps_y = _cost_of_steps(np.abs(np.diff(guide, axis=0)).sum(axis=-1), reach_px / contrast)
    out = values.astype(np.float32)
    for number in range(rounds):
        # The widths of the rounds halve and their variances add up to reach_px squared.
        width = reach_px * np.sqrt(3) * 2 ** (rounds - number - 1) / np.sqrt(4**rounds - 1)
        decay = np.float32(np.exp(-np.sqrt(2) / width))
        _along_rows(out, decay**steps_x)
        out = np.ascontiguousarray(out.T)
        _along_rows(out, np.ascontiguousarray((decay**steps_y).T))
        out = np.ascontiguousarray(out.T)
    return out


def _cost_of_steps(difference: np.ndarray, weight: float) -> np.ndarray:
    return (1 + weight * difference).astype(np.float32)


@compiled
def _along_rows(values, feedback):
    height, width = values.shape
    for y in range(height):
        for x in range(1, width):
            values[y, x] += feedback[y, x - 1] * (values[y, x - 1] - values[y, x])
        for x in range(width - 2, -1, -1):
            values[y, x] += feedback[y, x] * (values[y, x + 1] - values[y, x])
