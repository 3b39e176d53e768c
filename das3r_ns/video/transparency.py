"""The one rule for transparency: what is not opaque is laid over white, in videos, animations and images alike."""

import numpy as np
from jaxtyping import UInt8


def over_white(rgb: UInt8[np.ndarray, "h w 3"], opaque: UInt8[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """Colours laid over white by their opacity."""
    weight = opaque[..., None].astype(np.uint16)
    return ((rgb * weight + 255 * (255 - weight) + 127) // 255).astype(np.uint8)
