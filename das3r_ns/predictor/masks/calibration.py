"""Probabilities that mean what they say: of the pixels given 0.8, four fifths move.

A monotone table, for maps from motion alone and for maps refined by salience, says which share of the pixels of a
value moves. It was fitted (isotonic regression: pool adjacent violators) to 20 frames of each of 14 DAVIS clips that
all count the same; docs/what_was_tried.md has the errors with each clip left out of its own table. One half stays one
half, so that masks cut there are what they were.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32

from das3r_ns.predictor.masks.config import RefinerName

VALUES = (0.0, 0.05, 0.15, 0.25, 0.35, 0.45, 0.5, 0.55, 0.65, 0.75, 0.85, 0.95, 1.0)
"""What the stages give."""
SHARES: dict[RefinerName, tuple[float, ...]] = {
    "none": (0.0, 0.002, 0.017, 0.039, 0.053, 0.149, 0.5, 0.57, 0.591, 0.758, 0.828, 0.947, 0.99),
    "salience": (0.0, 0.005, 0.055, 0.145, 0.265, 0.38, 0.5, 0.529, 0.621, 0.719, 0.825, 0.914, 0.99),
}
"""Which share of the pixels of each value moves, by refiner. SAM 2 could not be measured and is left as it is."""


def calibrated(dynamic_prob: Float32[np.ndarray, "n h w"], refiner: RefinerName) -> Float32[np.ndarray, "n h w"]:
    """Dynamic maps whose values are shares of pixels that move, changed in place.

    Args:
        refiner: what made the maps; never `auto`.
    """
    shares = SHARES.get(refiner)
    if shares is not None:
        for frame in dynamic_prob:  # no copy of a long clip
            frame[:] = np.interp(frame, VALUES, shares)
    return dynamic_prob
