"""How far apart the frames of a clip lie, and the frame rate that would do.

Frames between which the view moves by a tenth of the image and more are hard to follow and to match. A clip that fails
for that reason is told so, with a number, instead of "more frames per second".
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from das3r_ns.predictor.preprocess.shots import motion_between_frames
from das3r_ns.video.clip import Clip

STEP_SHARE = 0.05
"""Of the longer side: motion from frame to frame that is followed without difficulty."""
MAX_STEP_SHARE = 0.1
"""Motion from frame to frame above which frames are too far apart."""
LOST_STEP_SHARE = 0.25
"""What a step counts as in which small flow finds nothing: about the most that it can follow."""
FAST_QUANTILE = 0.8
"""Of the steps of a clip: most are no larger."""


@dataclass(frozen=True)
class FrameSpacing:
    """Motion from frame to frame, as a share of the longer side, and what follows from it."""

    step_share: float
    """Exceeded in a fifth of the steps."""
    fps: float
    """Of the frames as read."""

    @property
    def too_far(self) -> bool:
        """Whether frames are too far apart to be followed well."""
        return self.step_share > MAX_STEP_SHARE

    @property
    def wanted_fps(self) -> float:
        """Frames per second at which the same motion is followed without difficulty, with two digits."""
        wanted = self.fps * max(self.step_share / STEP_SHARE, 1.0)
        digit = 10.0 ** (math.floor(math.log10(wanted)) - 1)
        return math.ceil(round(wanted / digit, 6)) * digit

    def advice(self) -> str:
        """What to do about it, as an item of a list of what helps."""
        if not self.too_far:
            return "more frames per second (--video.fps)"
        return (
            f"frames that lie closer: the view moves by {100 * self.step_share:.0f} % of the image from one to the "
            f"next, about {self.wanted_fps:g} frames per second (--video.fps {self.wanted_fps:g}; now {self.fps:.3g}) "
            "would do if the video has them"
        )


def frame_spacing(clip: Clip) -> FrameSpacing:
    """How far apart the frames of a clip lie, by flow between small images."""
    moved = motion_between_frames(lambda i: clip.frames[i].numpy(), len(clip))
    return FrameSpacing(_fast_step(moved), clip.fps)


def _fast_step(moved: Float64[np.ndarray, "n"]) -> float:
    steps = np.where(np.isnan(moved[1:]), LOST_STEP_SHARE, moved[1:])
    return float(np.quantile(steps, FAST_QUANTILE)) if len(steps) else 0.0
