"""Images that show nothing: black before a fade, white in a flash, a lens that is covered for a moment.

Between two of them, or one of them and an image, flow is zero or anything; taken for a measurement it puts their
cameras anywhere.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float64, UInt8
from torch import Tensor

MIN_INTENSITY_STD = 2.0
"""Grey levels. An image whose standard deviation is less is almost of one colour."""


def intensity_std(frames: UInt8[Tensor, "n h w 3"]) -> Float64[np.ndarray, "n"]:
    """Standard deviation of each image, in grey levels."""
    return np.array([float(frame.float().std()) for frame in frames])


def blank(frames: UInt8[Tensor, "n h w 3"]) -> Bool[np.ndarray, "n"]:
    """Which images show nothing that could be followed."""
    return intensity_std(frames) < MIN_INTENSITY_STD
