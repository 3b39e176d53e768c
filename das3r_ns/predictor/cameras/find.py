"""Cameras for a clip: bundle adjustment over flow, and point features wherever that leaves a doubt.

Flow uses the whole image and every frame. COLMAP (`colmap`) is a second opinion: it maps keyframes, flow finds the
others and refines all, and the cameras that explain more of what was followed are taken. Incremental mapping, the
slowest by far, comes last. Where flow explains little, objects may cover most of the image: before all that, the
rearmost motion is looked for (`sfm.background`). In long clips loops are closed (`loop_closure`), for flow joins no
frames far apart in time. Clips without parallax are recognised first (`motion_model`), duplicate frames are looked at
once and blank ones not at all (`tracked_clip`). A clip is one shot here (`preprocess.shots`), and where fast motion
makes flow fail, `flow.seeding` has already led it.

Time grows with the number of frames; the mapper, whose own grows faster, is given `second_opinions.MAX_KEYFRAMES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from das3r_ns.predictor.base import PredictionError
from das3r_ns.predictor.cameras.camera_doubts import tell_doubts, tell_much_moves, tell_no_parallax
from das3r_ns.predictor.cameras.colmap import CameraPath
from das3r_ns.predictor.cameras.colmap_features import Features
from das3r_ns.predictor.cameras.focal_choice import has_usual_lens, undecided_focal, usual_lens_first
from das3r_ns.predictor.cameras.focal_starts import best_of_other_starts
from das3r_ns.predictor.cameras.keyframes import select_keyframes
from das3r_ns.predictor.cameras.lens_choice import choose_lens
from das3r_ns.predictor.cameras.loop_closure import close_loops
from das3r_ns.predictor.cameras.motion_model import (
    MotionEvidence,
    MotionKind,
    cameras_from_tracks,
    rotation_cameras,
    select_motion_model,
)
from das3r_ns.predictor.cameras.quality import SURE_SHARE, CameraQuality, assess_cameras, without_runaways
from das3r_ns.predictor.cameras.second_opinions import FromFeatures, SecondOpinions
from das3r_ns.predictor.cameras.sfm import (
    ANY_LENS,
    CameraEstimate,
    FocalKnowledge,
    InitializationError,
    LensEstimate,
    LensSearch,
    background_cameras,
    inlier_share_of,
)
from das3r_ns.predictor.cameras.tracked_clip import TrackedClip, follow
from das3r_ns.predictor.flow.checked import CheckedFlow
from das3r_ns.predictor.preprocess.frame_spacing import frame_spacing
from das3r_ns.runtime.progress import CONSOLE, stage
from das3r_ns.scene import RadialLens
from das3r_ns.video.clip import Clip

MIN_REGISTERED_SHARE = 0.7
"""Share of the frames. When the cameras that were found hold in fewer, the slow mapper is asked too."""

MAX_SHARE_DIFFERENCE = 0.03
"""Relative difference in inlier share that says nothing: an object that moves may agree by chance."""

CONVINCING_INLIER_SHARE = 0.82
"""Inlier share of cameras from flow that need no comparison."""

MIN_LOOP_FRAMES = 100
"""Frames. Twice as far as points are followed: before that there is no drift to speak of."""

DIVIDED_INLIER_SHARE = 0.6
"""With a smaller inlier share several objects may move, each for itself, and cameras may follow the wrong one."""

MIN_ROTATION_SHARE = 0.3
"""Of what was followed: rotations that explain less are no way out where no other cameras hold."""


def find_cameras(
    clip: Clip,
    flow: CheckedFlow,
    from_features: FromFeatures,
    features: Callable[[int], Features],
    focal_px: float | None = None,
    static_mask: Bool[np.ndarray, "n h w"] | None = None,
    lens: LensSearch = ANY_LENS,
) -> CameraPath | RadialLens:
    """Find the camera of every frame.

    A camera that stands still or only turns gets the model that fits it and a warning, for there is no depth to be
    had from it.

    Args:
        flow: between frames, with its round-trip error.
        from_features: gives cameras of the clip by point features of the given keyframes and the named mapper, or
            raises `PredictionError`. Other frames may be left unknown.
        features: of a frame; asked for in long clips only.
        focal_px: the true focal length, kept as it is.
        static_mask: False where something is known to move.
        lens: what is sought of the lens.

    Returns:
        The cameras; or the lens, where it bends straight lines: undistort the clip and ask again, for all that comes
        after (features, flow, depth, training) takes it for a pinhole.

    Raises:
        PredictionError: nothing that a camera could be found from.
    """
    tracks, shown = follow(clip, flow, static_mask)
    tracked = TrackedClip(clip, tracks, shown, FocalKnowledge(focal_px, clip.focal_px))
    failures: list[str] = []
    found = _from_flow(tracked, lens, failures)
    by_flow, bent = found.cameras, found.bent
    if bent is not None:
        CONSOLE.print(f"Lens: {bent}.")
        if bent.distorts:
            return bent.radial_lens(clip.size)
        tracked = replace(tracked, tracks=bent.tracks)
    if by_flow is not None and found.evidence.kind != "general":
        tell_no_parallax(found.evidence)
        quality = _assess(tracked, by_flow, kind=found.evidence.kind)
        return replace(tracked.path(by_flow, quality, bent), parallax=False)

    loops = _LoopCloser(tracked, select_keyframes(tracked.tracks), features, zooms=bent is not None and bent.zooms)
    if by_flow is None or by_flow.inlier_share < DIVIDED_INLIER_SHARE:
        path = _of_the_background(tracked, loops, bent)
        if path is not None:
            return path

    opinions = SecondOpinions(tracked, loops.keyframes, from_features, [], failures)
    _collect_candidates(opinions, by_flow, found.ample_parallax)
    best = best_of(opinions.candidates)
    if best.inlier_share < SURE_SHARE and (bent is None or not bent.zooms):
        with stage("Trying other focal lengths", None):
            best = best_of_other_starts(tracked.tracks, clip.size, best, tracked.focal)
        opinions.candidates.append(best)
    best = usual_lens_first(best, opinions.candidates, clip.size, tracked.focal)
    best = loops.close(without_runaways(best))
    quality = _assess(tracked, best)
    if not quality.sound:
        opinions.ask("incremental")
        best, quality = _first_sound(opinions.candidates, tracked)
        if quality.kind == "rotation":
            CONSOLE.print(
                "[yellow]No path of the camera makes sense[/yellow]: it is taken to turn on the spot, and the scene "
                "for a sphere around it. Choose a part of the clip where the camera moves past objects at rest."
            )
            return replace(tracked.path(best, quality, bent), parallax=False)
    tell_doubts(best, clip)
    if focal_px is None and (doubt := undecided_focal(best, opinions.candidates)) is not None:
        quality = replace(quality, doubts=(*quality.doubts, doubt))
    return tracked.path(best, quality, bent)


def _collect_candidates(opinions: SecondOpinions, by_flow: CameraEstimate | None, ample_parallax: bool) -> None:
    """Cameras from flow, and COLMAP's where those are not beyond doubt: by the global mapper, which is the fast one,
    and by the incremental one where fewer frames than should have a pose.

    Raises:
        PredictionError: nothing gives cameras.
    """
    tracked, candidates = opinions.tracked, opinions.candidates
    if by_flow is not None:
        candidates.append(by_flow)
    if by_flow is None or not (ample_parallax and _beyond_doubt(by_flow, tracked.clip.size, tracked.focal)):
        opinions.ask("global")
    if not any(_registered_share(c) >= MIN_REGISTERED_SHARE for c in candidates):
        opinions.ask("incremental")
    if not candidates:
        spacing = frame_spacing(tracked.clip)
        far = f" Frames lie too far apart. What helps: {spacing.advice()}." if spacing.too_far else ""
        raise PredictionError(" ".join(opinions.failures) + far)


class _FromFlow(NamedTuple):
    evidence: MotionEvidence
    ample_parallax: bool
    """Whether the tracks alone, before any camera was found, showed a camera that moves."""
    cameras: CameraEstimate | None
    bent: LensEstimate | None
    """The lens, where it is more than a pinhole."""


def _from_flow(tracked: TrackedClip, lens: LensSearch, failures: list[str]) -> _FromFlow:
    """Motion model, cameras and lens by the tracks; why there are no cameras is added to `failures`."""
    tracks, size, focal = tracked.tracks, tracked.size, tracked.focal
    cameras: CameraEstimate | None = None
    with stage("Bundle adjustment of tracks", None):
        evidence = select_motion_model(tracks, size, focal)
        ample_parallax = evidence.kind == "general"
        try:
            evidence, cameras = cameras_from_tracks(tracks, size, focal, evidence)
        except InitializationError as e:
            failures.append(f"Optical flow gives no cameras either: {e} ({evidence}).")
    with stage("Looking for distortion, zoom and rolling shutter", None):
        evidence, bent = choose_lens(tracks, size, focal, evidence, cameras, lens)
    return _FromFlow(evidence, ample_parallax, cameras if bent is None else bent.cameras, bent)


def _of_the_background(tracked: TrackedClip, loops: _LoopCloser, bent: LensEstimate | None) -> CameraPath | None:
    """Cameras of the rearmost of several motions; None where there are no several, or its cameras cannot be."""
    with stage("Looking for the motion of the background", None):
        background = background_cameras(tracked.tracks, tracked.size, tracked.focal)
    if background is None or _registered_share(background.cameras) < MIN_REGISTERED_SHARE:
        return None
    tell_much_moves(background)
    room = loops.close(background.cameras)
    # Of all that was followed they explain little by their nature: other points are no second opinion here.
    quality = _assess(tracked, room, second_estimate=False)
    return replace(tracked.path(room, quality, bent), background_verified=True) if quality.sound else None


@dataclass(frozen=True)
class _LoopCloser:
    """Puts places that are seen again where they were, in clips long enough to drift."""

    tracked: TrackedClip
    keyframes: list[int]
    features: Callable[[int], Features]
    zooms: bool

    def close(self, cameras: CameraEstimate) -> CameraEstimate:
        """The cameras without drift, unless what was followed speaks against it: places that only look the same bend a
        path beyond what its neighbours allow."""
        tracks, shown, size = self.tracked.tracks, self.tracked.shown, self.tracked.size
        if self.zooms or len(shown) <= MIN_LOOP_FRAMES:  # places are matched in images of one focal length
            return cameras
        closed = close_loops(
            cameras,
            self.keyframes,
            lambda k: self.features(shown[k]),
            self.tracked.image,
            tracks.size,
            apart=MIN_LOOP_FRAMES,
        )
        if closed is cameras:
            return cameras
        before, after = (inlier_share_of(tracks, size, c) for c in (cameras, closed))
        return closed if after >= (1 - MAX_SHARE_DIFFERENCE) * before else cameras


def _assess(
    tracked: TrackedClip, cameras: CameraEstimate, kind: MotionKind = "general", second_estimate: bool = True
) -> CameraQuality:
    with stage("Checking the cameras", None):
        return assess_cameras(tracked.tracks, tracked.size, cameras, kind, second_estimate)


def _first_sound(candidates: list[CameraEstimate], tracked: TrackedClip) -> tuple[CameraEstimate, CameraQuality]:
    """Of several cameras those that can be, those first that explain most; else rotations.

    Raises:
        PredictionError: not even rotations explain what was seen.
    """
    doubts: list[str] = []
    for cameras in sorted(map(without_runaways, candidates), key=lambda c: -c.inlier_share):
        quality = _assess(tracked, cameras)
        if quality.sound:
            return cameras, quality
        doubts += quality.doubts
    turning = rotation_cameras(tracked.tracks, tracked.size, tracked.focal)
    quality = _assess(tracked, turning, "rotation")
    if quality.explained_share >= MIN_ROTATION_SHARE:
        return turning, quality
    spacing = frame_spacing(tracked.clip)
    why = "Frames lie too far apart" if spacing.too_far else "Moving objects (water, a crowd) may fill the image"
    raise PredictionError(
        f"no cameras of this clip hold: {'; '.join(dict.fromkeys(doubts))}. {why}, or it is blurred. What helps: "
        f"{spacing.advice()}; masks of what moves (--masks); or a part of the clip that shows more of what stands "
        "still (--video.start-s, --video.end-s)."
    )


def best_of(candidates: list[CameraEstimate]) -> CameraEstimate:
    """The cameras that explain most of what was followed (frames without a pose explain nothing); of those that explain
    about as much, which may be due to a moving object, the ones that put points nearest to where they are seen.
    """
    most = max(c.inlier_share for c in candidates)
    alike = [c for c in candidates if c.inlier_share >= (1 - MAX_SHARE_DIFFERENCE) * most]
    return min(alike, key=lambda c: float(c.reprojection_error_px[c.pose_known].median()))


def _beyond_doubt(by_flow: CameraEstimate, size: tuple[int, int], focal: FocalKnowledge) -> bool:
    """Whether features, which take longest, can be saved. With little parallax a wrong focal length and a wrong path
    explain nearly as much as the right ones: then the field of view gives it away."""
    usual = focal.known is not None or has_usual_lens(by_flow, size)
    return usual and by_flow.inlier_share > CONVINCING_INLIER_SHARE and bool(by_flow.pose_known.all())


def _registered_share(estimate: CameraEstimate) -> float:
    return float(estimate.pose_known.float().mean())
