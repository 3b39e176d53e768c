"""Cameras for a clip: bundle adjustment over flow, and point features wherever that leaves a doubt.

Flow uses the whole image and every frame. COLMAP (`colmap`) is a second opinion: it maps keyframes, flow finds the
others and refines all, and the cameras that explain more of what was followed are taken. Incremental mapping, the
slowest by far, comes last. Where flow explains little, objects may cover most of the image: before all that, the
rearmost motion is looked for (`sfm.background`). In long clips loops are closed (`loop_closure`), for flow joins no
frames far apart in time. Clips without parallax are recognised first (`motion_model`), duplicate frames are looked at
once and blank ones not at all (`preprocess`). A clip is one shot here: `preprocess.shots` has seen to that. Where fast
motion makes flow fail, `flow.seeding` has already led it.

Time grows with the number of frames: the mapper, whose own grows faster, is given `MAX_KEYFRAMES` at most.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float64, UInt8

from das3r_ns.predictor.base import PredictionError
from das3r_ns.predictor.cameras.colmap import CameraPath
from das3r_ns.predictor.cameras.colmap_features import Features
from das3r_ns.predictor.cameras.config import Mapper
from das3r_ns.predictor.cameras.lens_choice import choose_lens
from das3r_ns.predictor.cameras.loop_closure import close_loops
from das3r_ns.predictor.cameras.motion_model import (
    MotionEvidence,
    cameras_from_tracks,
    rotation_cameras,
    select_motion_model,
)
from das3r_ns.predictor.cameras.quality import CameraQuality, assess_cameras, without_runaways
from das3r_ns.predictor.cameras.sfm import (
    ANY_LENS,
    Background,
    CameraEstimate,
    FocalKnowledge,
    InitializationError,
    LensEstimate,
    LensSearch,
    Tracks,
    background_cameras,
    follow_grid,
    inlier_share_of,
    refine_cameras,
    weigh,
)
from das3r_ns.predictor.cameras.sfm.focal import MAX_FOCAL_STD
from das3r_ns.predictor.cameras.sfm.tracks import MIN_WEIGHT
from das3r_ns.predictor.flow.checked import CheckedFlow
from das3r_ns.predictor.preprocess.blank_frames import blank
from das3r_ns.predictor.preprocess.duplicate_frames import unique_frames
from das3r_ns.predictor.preprocess.frame_spacing import frame_spacing
from das3r_ns.runtime.progress import CONSOLE, stage
from das3r_ns.scene import RadialLens
from das3r_ns.video.clip import Clip

MIN_REGISTERED_SHARE = 0.7
"""Share of the frames. When the cameras that were found hold in fewer, the slow mapper is asked too."""
MIN_PLACED_SHARE = 0.9
"""Share of the frames. When fewer have a pose of their own the user is told what would help."""
MAX_SHARE_DIFFERENCE = 0.03
"""Relative difference in inlier share that says nothing: an object that moves may agree by chance."""
CONVINCING_INLIER_SHARE = 0.82
"""Inlier share of cameras from flow that need no comparison."""
MIN_LOOP_FRAMES = 100
"""Frames. Twice as far as points are followed: no drift to speak of, and what is seen again after as many is a visit of
its own."""
USUAL_FIELD_OF_VIEW_DEG = (40.0, 85.0)
"""Field of view over the longer side of phones and camcorders that do not zoom. Others are possible but looked at
twice."""
DIVIDED_INLIER_SHARE = 0.6
"""With a smaller inlier share several objects may move, each for itself, and cameras may follow the wrong one."""
DOUBTFUL_INLIER_SHARE = 0.45
"""With a smaller inlier share the user is told."""
MIN_ROTATION_SHARE = 0.3
"""Of what was followed: rotations that explain less are no way out where no other cameras hold."""
MIN_KEYFRAMES = 16
"""Fewest keyframes: with fewer, one that cannot be placed takes many frames with it."""
MIN_SEEN_AGAIN_SHARE = 0.5
"""Share of the points that the next keyframe but one must still see: mapping asks for three views of a point."""
MAX_KEYFRAMES = 100
"""Keyframes that are mapped. Twice as many take global mapping over ten times as long."""


def find_cameras(
    clip: Clip,
    flow: CheckedFlow,
    from_features: Callable[[Mapper, Sequence[int]], CameraPath],
    features: Callable[[int], Features],
    focal_px: float | None = None,
    keep: Bool[np.ndarray, "n h w"] | None = None,
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
        keep: False where something is known to move.
        lens: what is sought of the lens.

    Returns:
        The cameras; or the lens, where it bends straight lines: undistort the clip and ask again, for all that comes
        after (features, flow, depth, training) takes it for a pinhole.

    Raises:
        PredictionError: nothing that a camera could be found from.
    """
    tracks, shown = _follow(clip, flow, keep)
    focal = FocalKnowledge(focal_px, clip.focal_px)
    evidence = select_motion_model(tracks, clip.size, focal)
    candidates: list[CameraEstimate] = []
    failures: list[str] = []
    ample_parallax = evidence.kind == "general"
    by_flow: CameraEstimate | None = None
    try:
        evidence, by_flow = cameras_from_tracks(tracks, clip.size, focal, evidence)
    except InitializationError as e:
        failures.append(f"Optical flow gives no cameras either: {e} ({evidence}).")
    evidence, bent = choose_lens(tracks, clip.size, focal, evidence, by_flow, lens)
    if bent is not None:
        CONSOLE.print(f"Lens: {bent}.")
        if bent.distorts:
            return bent.radial_lens(clip.size)
        by_flow, tracks = bent.cameras, bent.tracks
    if by_flow is not None:
        if evidence.kind != "general":
            _say_no_parallax(evidence)
            quality = assess_cameras(tracks, clip.size, by_flow, evidence.kind)
            return replace(_path(clip, by_flow, shown, quality, bent), parallax=False)
        candidates.append(by_flow)

    keys = select_keyframes(tracks)
    if not candidates or candidates[0].inlier_share < DIVIDED_INLIER_SHARE:
        background = background_cameras(tracks, clip.size, focal)
        if background is not None and _posed(background.cameras) >= MIN_REGISTERED_SHARE:
            _say_much_moves(background)
            room = background.cameras
            if bent is None or not bent.zooms:
                room = _without_drift(room, tracks, keys, clip, shown, features)
            # Of all that was followed they explain little by their nature: other points are no second opinion here.
            quality = assess_cameras(tracks, clip.size, room, second_estimate=False)
            if quality.sound:
                return replace(_path(clip, room, shown, quality, bent), background_verified=True)

    left_out = max(len(keys) - MAX_KEYFRAMES, 0)
    mapped = [shown[k] for k in keys[left_out // 2 :][:MAX_KEYFRAMES]]  # flow grows from the middle both ways

    def by_features(mapper: Mapper) -> None:
        try:
            path = from_features(mapper, mapped)
        except PredictionError as e:
            failures.insert(0, str(e))
            return
        T, registered = torch.from_numpy(path.T_world_camera[shown]), torch.from_numpy(path.registered[shown])
        candidates.append(refine_cameras(tracks, clip.size, T, path.focal_px, registered, focal))

    if not (ample_parallax and candidates and _beyond_doubt(candidates[0], clip.size, focal)):
        by_features("global")
    if not any(_posed(c) >= MIN_REGISTERED_SHARE for c in candidates):
        by_features("incremental")
    if not candidates:
        spacing = frame_spacing(clip)
        far = f" Frames lie too far apart. What helps: {spacing.advice()}." if spacing.too_far else ""
        raise PredictionError(" ".join(failures) + far)
    best = without_runaways(best_of(candidates))
    if bent is None or not bent.zooms:  # places are matched in images of one focal length
        best = _without_drift(best, tracks, keys, clip, shown, features)
    quality = assess_cameras(tracks, clip.size, best)
    if not quality.sound:
        by_features("incremental")
        best, quality = _first_sound(candidates, tracks, clip, focal)
        if quality.kind == "rotation":
            CONSOLE.print(
                "[yellow]No path of the camera makes sense[/yellow]: it is taken to turn on the spot, and the scene "
                "for a sphere around it. Choose a part of the clip where the camera moves past objects at rest."
            )
            return replace(_path(clip, best, shown, quality, bent), parallax=False)
    if best.inlier_share < DOUBTFUL_INLIER_SHARE:
        spacing = frame_spacing(clip)
        why = "frames lie too far apart" if spacing.too_far else "objects that move cover most of the image"
        CONSOLE.print(
            f"[yellow]The cameras explain only {100 * best.inlier_share:.0f} % of what was followed and may be "
            f"wrong.[/yellow] Either {why} or it is blurred. What helps: {spacing.advice()}; masks of what moves "
            "(--masks); or a part of the clip that shows more of the background (--video.start-s, --video.end-s)."
        )
    elif _posed(best) < MIN_PLACED_SHARE:
        missing = int((~best.pose_known).sum())
        CONSOLE.print(
            f"[yellow]{missing} of {len(best.pose_known)} frames could not be placed[/yellow]: they stand between "
            f"their neighbours and train nothing. What helps: {frame_spacing(clip).advice()}."
        )
    if best.focal_std > MAX_FOCAL_STD:
        angle = math.degrees(2 * math.atan(max(clip.size) / (2 * best.focal_px)))
        CONSOLE.print(
            f"[yellow]The motion does not tell the focal length[/yellow], as when the camera goes straight ahead: a "
            f"field of view of {angle:.0f} degrees is taken, {100 * best.focal_std:.0f} % of the focal length unsure. "
            "Depths are as much too long or too short, and nobody can tell whether the lens zooms. Give the true focal "
            "length (--fov-deg) if you know it."
        )
    return _path(clip, best, shown, quality, bent)


def _first_sound(
    candidates: list[CameraEstimate], tracks: Tracks, clip: Clip, focal: FocalKnowledge
) -> tuple[CameraEstimate, CameraQuality]:
    """Of several cameras those that can be, those first that explain most; else rotations.

    Raises:
        PredictionError: not even rotations explain what was seen.
    """
    doubts: list[str] = []
    for cameras in sorted(map(without_runaways, candidates), key=lambda c: -c.inlier_share):
        quality = assess_cameras(tracks, clip.size, cameras)
        if quality.sound:
            return cameras, quality
        doubts += quality.doubts
    turning = rotation_cameras(tracks, clip.size, focal)
    quality = assess_cameras(tracks, clip.size, turning, "rotation")
    if quality.explained_share >= MIN_ROTATION_SHARE:
        return turning, quality
    spacing = frame_spacing(clip)
    why = "Frames lie too far apart" if spacing.too_far else "Moving objects (water, a crowd) may fill the image"
    raise PredictionError(
        f"no cameras of this clip hold: {'; '.join(dict.fromkeys(doubts))}. {why}, or it is blurred. What helps: "
        f"{spacing.advice()}; masks of what moves (--masks); or a part of the clip that shows more of what stands "
        "still (--video.start-s, --video.end-s)."
    )


def select_keyframes(tracks: Tracks) -> list[int]:
    """Frames that tell nearly as much about the cameras as all of them, the first and the last among them: as far apart
    as the next but one still sees `MIN_SEEN_AGAIN_SHARE` of the points, but `MIN_KEYFRAMES` if there are so many."""
    n, offset = tracks.num_frames, tracks.target - tracks.anchor[:, None]
    share = (tracks.weight > MIN_WEIGHT).mean(axis=2)
    reach = 0
    for distance in sorted(set(offset[(tracks.target >= 0) & (offset > 0)].tolist())):
        if np.median(share[(tracks.target >= 0) & (offset == distance)]) < MIN_SEEN_AGAIN_SHARE:
            break
        reach = distance
    step = max(min(reach // 2, (n - 1) // (MIN_KEYFRAMES - 1)), 1)
    return sorted({*range(0, n, step), n - 1})


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
    angle = math.degrees(2 * math.atan(max(size) / (2 * by_flow.focal_px)))
    usual = focal.known is not None or USUAL_FIELD_OF_VIEW_DEG[0] <= angle <= USUAL_FIELD_OF_VIEW_DEG[1]
    return usual and by_flow.inlier_share > CONVINCING_INLIER_SHARE and bool(by_flow.pose_known.all())


def _without_drift(
    cameras: CameraEstimate,
    tracks: Tracks,
    keys: list[int],
    clip: Clip,
    shown: list[int],
    features: Callable[[int], Features],
) -> CameraEstimate:
    """The cameras with places that are seen again where they were, in clips long enough to drift, unless what was
    followed speaks against it: places that only look the same bend a path beyond what its neighbours allow."""
    if len(shown) <= MIN_LOOP_FRAMES:
        return cameras
    closed = close_loops(
        cameras,
        keys,
        lambda k: features(shown[k]),
        lambda k: clip.frames[shown[k]].numpy(),
        tracks.size,
        apart=MIN_LOOP_FRAMES,
    )
    if closed is cameras:
        return cameras
    before, after = (inlier_share_of(tracks, clip.size, c) for c in (cameras, closed))
    return closed if after >= (1 - MAX_SHARE_DIFFERENCE) * before else cameras


def _posed(estimate: CameraEstimate) -> float:
    return float(estimate.pose_known.float().mean())


def _say_much_moves(background: Background) -> None:
    cameras = background.cameras
    CONSOLE.print(
        f"[yellow]The cameras explain {100 * cameras.inlier_share:.0f} % of what was followed; the rest moves by "
        f"itself.[/yellow] They are those of what lies behind all else (hidden {background.hidden} times, hiding "
        f"{background.hides} times). Where this took an object for the room, give masks of what moves."
    )


def _say_no_parallax(evidence: MotionEvidence) -> None:
    what = "does not move" if evidence.kind == "static" else "only turns on the spot"
    CONSOLE.print(
        f"[yellow]The camera {what} ({evidence}).[/yellow] Depth comes from parallax, so there is none: the scene "
        "becomes a sphere around the camera, good for a clean background but not for other points of view. Walk "
        "sideways while filming, or choose a part of the clip where the camera moves (--video.start-s, --video.end-s)."
    )


def _follow(clip: Clip, flow: CheckedFlow, keep: Bool[np.ndarray, "n h w"] | None) -> tuple[Tracks, list[int]]:
    """Tracks through the frames that show something and are no repeats, and which frames of the clip those are."""
    lit = np.flatnonzero(~blank(clip.frames)).tolist()
    with stage(f"Following points of {len(clip)} frames", len(clip)) as bar:
        shown = [lit[k] for k in unique_frames(lambda i, j: flow(lit[i], lit[j]), len(lit))]
        bar.advance(len(clip) - len(shown))
        tracks = follow_grid(
            lambda i, j: flow(shown[i], shown[j]),
            len(shown),
            lambda i: clip.frames[shown[i]].numpy(),
            advance=bar.advance,
        )
    return tracks if keep is None else weigh(tracks, torch.from_numpy(keep[shown].astype(np.float32))), shown


def _path(
    clip: Clip,
    estimate: CameraEstimate,
    shown: list[int],
    quality: CameraQuality,
    bent: LensEstimate | None = None,
) -> CameraPath:
    """Cameras of all frames of the clip, a repeat's being that of the frame it repeats. One that shows nothing has
    none."""
    original = np.maximum(np.searchsorted(shown, np.arange(len(clip)), side="right") - 1, 0)
    frame = np.array(shown)[estimate.point_frame.numpy()]
    zoom = np.ones(len(shown)) if bent is None else bent.lens.zoom(len(shown))
    middle = np.array([clip.size[1], clip.size[0]]) / 2
    pixel = middle + (estimate.point_pixel.numpy() - middle) * zoom[estimate.point_frame.numpy()][:, None]
    return CameraPath(
        estimate.T_world_camera.numpy()[original],
        estimate.pose_known.numpy()[original] & ~blank(clip.frames),
        estimate.focal_px,
        estimate.points.numpy(),
        _colours(clip, frame, pixel),
        float(estimate.reprojection_error_px[estimate.pose_known].median()),
        zoom[original] if bent is not None and bent.zooms else None,
        0.0 if bent is None else bent.lens.readout,
        quality=quality.expanded(original, ~blank(clip.frames)),
    )


def _colours(clip: Clip, frame: np.ndarray, pixel: Float64[np.ndarray, "m 2"]) -> UInt8[np.ndarray, "m 3"]:
    column = np.clip(np.floor(pixel[:, 0]).astype(int), 0, clip.size[1] - 1)
    row = np.clip(np.floor(pixel[:, 1]).astype(int), 0, clip.size[0] - 1)
    return clip.frames[torch.from_numpy(frame), torch.from_numpy(row), torch.from_numpy(column)].numpy()
