"""From the residual that no depth explains to the probability that a pixel moves."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float32


@dataclass
class MaskConfig:
    """How evidence of motion becomes `dynamic_prob`."""

    threshold: float = 2.0
    """Residual, in standard deviations of the flow's noise, at which a pixel is as likely to move as not."""
    softness: float = 0.25
    """Width of the transition, in the same unit. Smaller gives harder maps."""
    median_px: int = 5
    """Side of the median filter over the residual, map pixels; odd. 1 turns it off."""


def motion_probability(residual: Float32[np.ndarray, "h w"], config: MaskConfig) -> Float32[np.ndarray, "h w"]:
    """Probability that each pixel moves; where no view sees it (NaN) it is 0: nothing speaks for motion."""
    filled = np.nan_to_num(residual, nan=0.0)
    if config.median_px > 1:
        filled = cv2.medianBlur(filled, config.median_px)
    return 1 / (1 + np.exp(-(filled - config.threshold) / config.softness))
