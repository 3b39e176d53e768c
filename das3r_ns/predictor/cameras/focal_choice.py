"""Which focal length is believed where several explain what was followed about alike.

Cameras of a narrow lens can explain an object that keeps its course as a part of the scene, with a depth of its own:
what explains a little more need not be right. Nor do the two differ by how finely they explain. What is left is what
is known beforehand: few lenses are far from those of phones and camcorders.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from das3r_ns.predictor.cameras.sfm import CameraEstimate, FocalKnowledge

MIN_RIVAL_INLIER_SHARE = 0.9
"""Of the inlier share of the cameras that were taken: others that explain less are no rivals."""
MAX_RIVAL_FOCAL_RATIO = 1.3
"""Between the focal lengths of cameras that explain about as much, for them to be of one lens."""
USUAL_FIELD_OF_VIEW_DEG = (40.0, 85.0)
"""Field of view over the longer side of phones and camcorders that do not zoom."""


def has_usual_lens(cameras: CameraEstimate, size: tuple[int, int]) -> bool:
    """Whether the field of view is one of `USUAL_FIELD_OF_VIEW_DEG`.

    Args:
        size: height and width of the image that the focal length is measured in.
    """
    angle = math.degrees(2 * math.atan(max(size) / (2 * cameras.focal_px)))
    return USUAL_FIELD_OF_VIEW_DEG[0] <= angle <= USUAL_FIELD_OF_VIEW_DEG[1]


def rivals_of(cameras: CameraEstimate, candidates: Sequence[CameraEstimate]) -> list[CameraEstimate]:
    """Candidates that explain nearly as much with quite another focal length."""
    return [
        other
        for other in candidates
        if other.inlier_share >= MIN_RIVAL_INLIER_SHARE * cameras.inlier_share
        and abs(math.log(other.focal_px / cameras.focal_px)) > math.log(MAX_RIVAL_FOCAL_RATIO)
    ]


def usual_lens_first(
    cameras: CameraEstimate, candidates: Sequence[CameraEstimate], size: tuple[int, int], focal: FocalKnowledge
) -> CameraEstimate:
    """The cameras, unless their lens is unusual and a rival with a usual one was found: then that, of several the one
    that explains most.

    Args:
        size: as in `has_usual_lens`.
        focal: nothing is chosen where something is known of the focal length.
    """
    if focal.known is not None or focal.hint is not None or has_usual_lens(cameras, size):
        return cameras
    usual = [other for other in rivals_of(cameras, candidates) if has_usual_lens(other, size)]
    return max(usual, key=lambda other: other.inlier_share, default=cameras)


def undecided_focal(cameras: CameraEstimate, candidates: Sequence[CameraEstimate]) -> str | None:
    """A doubt where other cameras explain about as much with quite another focal length; None where none do."""
    rivals = rivals_of(cameras, candidates)
    if not rivals:
        return None
    rival = max(rivals, key=lambda other: other.inlier_share)
    return (
        f"a focal length of {rival.focal_px:.0f} instead of {cameras.focal_px:.0f} px explains about as much "
        f"({100 * rival.inlier_share:.0f} and {100 * cameras.inlier_share:.0f} % of what was followed)"
    )
