"""Cameras for a clip: point features first, flow to refine them, flow alone where features fail.

COLMAP (`mapping`) joins frames far apart in time, which flow cannot; bundle adjustment over flow (`bundle`) uses the
whole picture and every frame, so it makes its cameras better, adds the frames that were left out, and takes over when
no mapper succeeds. Clips without parallax and clips of more than one shot are told before the long work (`motion`).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Bool, Float64, UInt8

from das3r_ns.predictor.base import PredictionError
from das3r_ns.predictor.bundle import (
    CameraEstimate,
    CheckedFlow,
    FocalKnowledge,
    NoStart,
    Tracks,
    follow_grid,
    refine_cameras,
    weigh,
)
from das3r_ns.predictor.mapping import CameraPath
from das3r_ns.predictor.motion import classify_motion, find_cameras
from das3r_ns.predictor.progress import CONSOLE, stage
from das3r_ns.video import Clip

REFINED_SHARE = 0.7
"""Cameras of features that hold in fewer frames than this share are given up for those of flow alone."""


def cameras_of(
    clip: Clip,
    flow: CheckedFlow,
    from_features: Callable[[], CameraPath],
    focal_px: float | None = None,
    keep: Bool[np.ndarray, "n h w"] | None = None,
) -> CameraPath:
    """Find the camera of every frame.

    Args:
        flow: between frames, with its round-trip error.
        from_features: gives cameras by point features, or raises `PredictionError`; called once, if at all.
        focal_px: the true focal length, kept as it is.
        keep: False where something is known to move.

    Raises:
        PredictionError: a cut, a camera that only turns, or nothing that a camera could be found from.
    """
    tracks = _follow(clip, flow, keep)
    focal = FocalKnowledge(focal_px, clip.focal_px)
    evidence = classify_motion(tracks, clip.size, focal)
    if evidence.cuts:
        times = ", ".join(f"{k / clip.fps:.2f} s (frame {k})" for k in evidence.cuts[:5])
        raise PredictionError(
            f"the clip has {len(evidence.cuts) + 1} shots: the picture changes wholly at {times}. Only one shot can be "
            "reconstructed at a time: choose it with --video.start-s and --video.end-s."
        )
    if evidence.kind == "rotation":
        evidence, estimate = find_cameras(tracks, clip.size, focal)
        if evidence.kind == "rotation":
            raise PredictionError(
                f"the camera turns on the spot ({evidence}; focal length {estimate.focal_px:.0f} px). Depth comes from "
                "parallax, so a pan cannot be reconstructed. Walk sideways while filming, or choose a part of the clip "
                "where the camera moves (--video.start-s, --video.end-s)."
            )
        return _path(clip, estimate)
    refined, failure = _refined(clip, tracks, from_features, focal)
    if refined is not None and refined.pose_known.float().mean() >= REFINED_SHARE:
        return _path(clip, refined)
    try:
        evidence, estimate = find_cameras(tracks, clip.size, focal)
    except NoStart as e:
        if refined is not None:
            return _path(clip, refined)
        raise PredictionError(f"{failure} Optical flow gives no cameras either: {e} ({evidence}).") from e
    CONSOLE.print(f"Cameras of {int(estimate.pose_known.sum())} of {len(clip)} frames from flow alone")
    return _path(clip, estimate)


def _follow(clip: Clip, flow: CheckedFlow, keep: Bool[np.ndarray, "n h w"] | None) -> Tracks:
    with stage(f"Following points of {len(clip)} frames", len(clip)) as bar:
        tracks = follow_grid(flow, len(clip), lambda i: clip.frames[i].numpy(), advance=bar.advance)
    return tracks if keep is None else weigh(tracks, torch.from_numpy(keep.astype(np.float32)))


def _refined(
    clip: Clip, tracks: Tracks, from_features: Callable[[], CameraPath], focal: FocalKnowledge
) -> tuple[CameraEstimate | None, str]:
    try:
        path = from_features()
    except PredictionError as e:
        return None, str(e)
    T, known = torch.from_numpy(path.T_world_camera), torch.from_numpy(path.known)
    return refine_cameras(tracks, clip.size, T, path.focal_px, known, focal), ""


def _path(clip: Clip, estimate: CameraEstimate) -> CameraPath:
    return CameraPath(
        estimate.T_world_camera.numpy(),
        estimate.pose_known.numpy(),
        estimate.focal_px,
        estimate.points.numpy(),
        _colours(clip, estimate.point_frame.numpy(), estimate.point_pixel.numpy()),
        float(estimate.noise_px[estimate.pose_known].median()),
    )


def _colours(clip: Clip, frame: np.ndarray, pixel: Float64[np.ndarray, "m 2"]) -> UInt8[np.ndarray, "m 3"]:
    column = np.clip(np.floor(pixel[:, 0]).astype(int), 0, clip.size[1] - 1)
    row = np.clip(np.floor(pixel[:, 1]).astype(int), 0, clip.size[0] - 1)
    return clip.frames[torch.from_numpy(frame), torch.from_numpy(row), torch.from_numpy(column)].numpy()
