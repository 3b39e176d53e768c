"""Which lens a clip was filmed through, once a pinhole's cameras are there, and how the camera moved then.

A camera that turns, or stands, while its lens zooms shows no parallax, though the image grows as if it went ahead. What
tells the two apart: with the growth taken out as a zoom, nothing but a rotation is left. A camera that goes ahead
leaves parallax, unless all that it sees is equally far; then nobody can tell, and a zoom is what people do.
"""

from __future__ import annotations

from dataclasses import replace

from das3r_ns.predictor.cameras.motion_model import MotionEvidence, rotation_cameras, select_motion_model
from das3r_ns.predictor.cameras.sfm import CameraEstimate
from das3r_ns.predictor.cameras.sfm.estimate import explained_share
from das3r_ns.predictor.cameras.sfm.focal import FocalKnowledge
from das3r_ns.predictor.cameras.sfm.lens import straightened
from das3r_ns.predictor.cameras.sfm.lens_search import Search
from das3r_ns.predictor.cameras.sfm.lens_selection import LensEstimate, LensSearch, select_lens, zoom_by_divergence
from das3r_ns.predictor.cameras.sfm.tracks import Tracks

MIN_EXPLAINED = 0.6
"""Share of what was followed that rotations and a zoom must explain."""


def choose_lens(
    tracks: Tracks,
    size: tuple[int, int],
    focal: FocalKnowledge,
    evidence: MotionEvidence,
    cameras: CameraEstimate | None,
    looked_for: LensSearch,
) -> tuple[MotionEvidence, LensEstimate | None]:
    """The kind of motion and the lens; no lens where a pinhole explains as much.

    Args:
        size: height and width of the image that focal lengths are measured in.
        cameras: what `evidence` led to with a pinhole; None where there were none.
    """
    if evidence.kind == "static":  # points that do not move are bent alike in all frames
        return evidence, None
    if evidence.kind == "general" and "zoom" in (*looked_for.sought, *looked_for.forced):
        turning = turning_and_zooming(tracks, size, focal)
        if turning is not None:
            return replace(evidence, kind="rotation"), turning
    if cameras is None:
        return evidence, None
    return evidence, select_lens(tracks, size, cameras, focal, looked_for)


def turning_and_zooming(tracks: Tracks, size: tuple[int, int], focal: FocalKnowledge) -> LensEstimate | None:
    """Cameras that only turn and a focal length for each frame; None where that does not explain the tracks.

    Args:
        size: height and width of the image that focal lengths are measured in.
    """
    lens = None if focal.known is not None else zoom_by_divergence(tracks)
    if lens is None:
        return None
    straight = straightened(tracks, lens).tracks
    if select_motion_model(straight, size, focal).kind == "general":
        return None
    cameras = rotation_cameras(straight, size, focal)
    search = Search.begin(tracks, size, cameras, focal, lens, has_depth=False)
    fit = search.fit(("zoom",))
    explained = explained_share(fit.straight.tracks, fit.adjusted.state, search.registered)
    if explained < MIN_EXPLAINED or not search.is_real(fit, ("zoom",), "zoom"):
        return None
    return LensEstimate(search.estimate(fit), fit.lens, fit.straight.tracks, ("zoom",))
