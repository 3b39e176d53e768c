"""The one rule for transparency: what is not opaque is laid over white, in videos, animations and images alike."""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8

MIN_TOLD_TRANSPARENCY = 0.001
"""Share of transparent pixels from which it is said that they were laid over white."""


def over_white(rgb: UInt8[np.ndarray, "h w 3"], opaque: UInt8[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """Colours laid over white by their opacity."""
    weight = opaque[..., None].astype(np.uint16)
    return ((rgb * weight + 255 * (255 - weight) + 127) // 255).astype(np.uint8)


def transparency_note(share: float, path: Path) -> str:
    """The line that says what became of transparent parts."""
    return (
        f"{share:.0%} of {path.name} is transparent: laid over white. --video.alpha transparent-moves (or "
        "opaque-moves) takes transparency as the mask of what moves."
    )
