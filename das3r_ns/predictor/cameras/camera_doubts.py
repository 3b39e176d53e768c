"""What is said about cameras that were found: no parallax, much that moves, little explained, a free focal length."""

from __future__ import annotations

import math

from das3r_ns.predictor.cameras.motion_model import MotionEvidence
from das3r_ns.predictor.cameras.sfm import Background, CameraEstimate
from das3r_ns.predictor.cameras.sfm.focal import MAX_FOCAL_STD
from das3r_ns.predictor.preprocess.frame_spacing import frame_spacing
from das3r_ns.runtime.progress import CONSOLE
from das3r_ns.video.clip import Clip

DOUBTFUL_INLIER_SHARE = 0.5
"""With a smaller inlier share the user is told, as by the quality record (`quality.MIN_EXPLAINED_SHARE`)."""
MIN_PLACED_SHARE = 0.9
"""Share of the frames. When fewer have a pose of their own the user is told what would help."""


def tell_doubts(cameras: CameraEstimate, clip: Clip) -> None:
    """Say where cameras explain little or leave frames out, and where the motion does not tell the focal length."""
    size = clip.size
    if cameras.inlier_share < DOUBTFUL_INLIER_SHARE:
        spacing = frame_spacing(clip)
        why = "frames lie too far apart" if spacing.too_far else "objects that move cover most of the image"
        CONSOLE.print(
            f"[yellow]The cameras explain only {100 * cameras.inlier_share:.0f} % of what was followed and may be "
            f"wrong.[/yellow] Either {why} or it is blurred. What helps: {spacing.advice()}; masks of what moves "
            "(--masks); or a part of the clip that shows more of the background (--video.start-s, --video.end-s)."
        )
    elif float(cameras.pose_known.float().mean()) < MIN_PLACED_SHARE:
        missing = int((~cameras.pose_known).sum())
        CONSOLE.print(
            f"[yellow]{missing} of {len(cameras.pose_known)} frames could not be placed[/yellow]: they stand between "
            f"their neighbours and train nothing. What helps: {frame_spacing(clip).advice()}."
        )
    if cameras.focal_std > MAX_FOCAL_STD:
        angle = math.degrees(2 * math.atan(max(size) / (2 * cameras.focal_px)))
        CONSOLE.print(
            f"[yellow]The motion does not tell the focal length[/yellow], as when the camera goes straight ahead: a "
            f"field of view of {angle:.0f} degrees is taken, {100 * cameras.focal_std:.0f} % of it unsure. "
            "Depths are as much too long or too short, and nobody can tell whether the lens zooms. Give the true focal "
            "length (--fov-deg) if you know it."
        )


def tell_much_moves(background: Background) -> None:
    """Say that the cameras are those of the rearmost motion."""
    cameras = background.cameras
    CONSOLE.print(
        f"[yellow]The cameras explain {100 * cameras.inlier_share:.0f} % of what was followed; the rest moves by "
        f"itself.[/yellow] They are those of what lies behind all else (hidden {background.hidden} times, hiding "
        f"{background.hides} times). Where this mistook an object for the background, give masks of what moves."
    )


def tell_no_parallax(evidence: MotionEvidence) -> None:
    """Say that no depth is to be had, and what would help."""
    what = "does not move" if evidence.kind == "static" else "only turns on the spot"
    CONSOLE.print(
        f"[yellow]The camera {what} ({evidence}).[/yellow] Depth comes from parallax, so there is none: the scene "
        "becomes a sphere around the camera, good for a clean background but not for other points of view. Walk "
        "sideways while filming, or choose a part of the clip where the camera moves (--video.start-s, --video.end-s)."
    )
