"""What a clip must bring, and what cameras and masks of it cannot be."""

from __future__ import annotations

import numpy as np
import torch

from das3r_ns.predictor.base import PredictionError, UserPriors
from das3r_ns.predictor.preprocess.blank_frames import MIN_INTENSITY_STD, intensity_std
from das3r_ns.video.clip import Clip

MIN_FRAMES = 3
"""Two frames leave no view to check a depth with: then nothing could be said to move."""
MIN_SIDE = 64
MAX_REACH_DEPTHS = 300.0
"""Distance of a camera from the middle of its path, in median depths of the dense maps."""


def doubt_masks(priors: UserPriors) -> str:
    """A sentence for an error, where masks of the user mark nearly everything; else empty."""
    if priors.dynamic_mask is None:
        return ""
    given = slice(None) if priors.mask_given is None else priors.mask_given
    share = float(priors.dynamic_mask[given].mean())
    return (
        f" By the given masks {share:.0%} of the images moves. If they are inverted (white where nothing moves, as in "
        "nerfstudio), say --masks-white-is-static; if that was said and white is what moves, leave it out."
    )


def check_reach(T_world_camera: torch.Tensor, pose_known: torch.Tensor) -> None:
    """Cameras of a levelled world, whose static scene is at depth 1, against what a camera can have travelled.

    Raises:
        PredictionError: they are impossible; written down they would make a scene of nothing without a word.
    """
    centres = T_world_camera[pose_known, :3, 3]
    reach = float((centres - centres.median(dim=0).values).norm(dim=-1).max()) if len(centres) else 0.0
    if not reach <= MAX_REACH_DEPTHS:
        raise PredictionError(
            f"the cameras that were found lie {reach:.3g} times the depth of the scene apart, which no camera travels: "
            "the motion of this clip was not understood. Read more frames per second (--video.fps), choose a part with "
            "less blur (--video.start-s, --video.end-s), or give the cameras (--cameras)."
        )


def check_clip(clip: Clip) -> None:
    """Raises PredictionError: too few frames, too small ones, or frames that show nothing."""
    if len(clip) < MIN_FRAMES:
        raise PredictionError(
            f"the clip has {len(clip)} frame{'' if len(clip) == 1 else 's'}, and at least {MIN_FRAMES} are needed to "
            "tell what moves (12 or more for a good result). Give a longer clip or read more frames per second "
            "(--video.fps)."
        )
    if min(clip.size) < MIN_SIDE:
        raise PredictionError(
            f"frames of {clip.size[1]}x{clip.size[0]} pixels are too small: at least {MIN_SIDE} on the shorter side "
            "are needed to follow anything. Give the footage in its original size (--video.longest-side)."
        )
    typical = float(np.median(intensity_std(clip.frames)))
    if typical < MIN_INTENSITY_STD:
        raise PredictionError(
            f"the frames are almost of one colour (standard deviation {typical:.1f} of 255): there is "
            "nothing to follow. Is the lens covered or the exposure wrong? Choose a part of the clip that shows "
            "something (--video.start-s)."
        )
