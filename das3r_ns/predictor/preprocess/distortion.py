"""A clip whose lens bends straight lines, and all that is known about it, as a pinhole would have seen them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool

from das3r_ns.predictor.base import UserPriors
from das3r_ns.scene import RadialLens
from das3r_ns.video.clip import Clip


def undistorted(
    clip: Clip, priors: UserPriors, overlay_mask: Bool[np.ndarray, "h w"] | None, lens: RadialLens
) -> tuple[Clip, UserPriors, Bool[np.ndarray, "h w"] | None]:
    """Clip, priors and overlays of the undistorted images. What nobody filmed shows no static scene: masks that were
    given say that it moves, and it counts as covered.

    Args:
        overlay_mask: of any resolution.
        lens: in pixels of the clip.
    """
    straight = replace(clip, frames=lens.undistort_frames(clip.frames))
    if priors.dynamic_mask is not None:
        priors = replace(priors, dynamic_mask=lens.undistort_maps(priors.dynamic_mask, beyond=1.0))
    height, width = clip.size if overlay_mask is None else overlay_mask.shape
    of_map = lens.resized(width / clip.size[1])
    hidden = torch.zeros(1, height, width) if overlay_mask is None else torch.from_numpy(overlay_mask).float()[None]
    hidden = of_map.undistort_maps(hidden, beyond=1.0)[0].numpy() > 0
    return straight, priors, hidden if hidden.any() else None
