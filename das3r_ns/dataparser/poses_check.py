"""Shift positions that lie too far from the origin for single precision."""

import numpy as np
from jaxtyping import Float64

SHIFT_FROM = 500.0
"""Distance from the origin, in units of the path's extent, from which positions are shifted: in single precision they
would be rounded by a visible part of the path."""


def shift_of(positions: Float64[np.ndarray, "n 3"]) -> Float64[np.ndarray, "3"]:
    """What to subtract from positions so that single precision keeps the path: 0 unless they lie far from the origin
    (UTM and other map coordinates)."""
    extent = float(np.linalg.norm(np.ptp(positions, axis=0)))
    far = float(np.abs(positions).max())
    if far <= SHIFT_FROM * extent or (extent == 0 and far < SHIFT_FROM):
        return np.zeros(3)
    return np.round(positions.mean(axis=0), 3)
