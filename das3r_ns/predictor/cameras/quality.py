"""Cameras that know when they are wrong: what they explain, whether they are possible, whether others would agree.

In: cameras and the tracks they should explain. Out: `CameraQuality`, for the clip and for each frame. Three questions,
each answered from the tracks alone: do points lie where they were seen (reprojection error, share explained); can
cameras lie like that (finite, not absurdly far apart for the depth of the scene); and do other points lead to the same
path and focal length. Where little is explained the second estimate starts from nothing, else from the cameras.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float64

from das3r_ns import geometry
from das3r_ns.predictor.cameras.focal_starts import every_point, finely_explained
from das3r_ns.predictor.cameras.sfm import (
    CameraEstimate,
    FocalKnowledge,
    InitializationError,
    Tracks,
    estimate_cameras,
    refine_cameras,
)
from das3r_ns.predictor.cameras.sfm.bundle_adjustment import noise_by_frame
from das3r_ns.predictor.cameras.sfm.estimate import HALF_EXPLAINED_PX
from das3r_ns.predictor.cameras.sfm.initialization import triangulate
from das3r_ns.predictor.cameras.sfm.normal_equations import State, squared_errors

MIN_EXPLAINED_SHARE = 0.5
"""Of what was followed. With less, objects that move cover most of the image, or the cameras are wrong."""
MIN_SOUND_SHARE = 0.15
"""With less, the cameras follow nothing that was seen."""
MAX_REACH_DEPTHS = 100.0
"""Distance of a camera from the middle of its path, in median depths of the scene. No walk or ride in a clip goes
further while it still sees what it saw."""
MAX_FOCAL_DIFFERENCE = 0.05
"""Relative difference of the focal length that other points lead to; three standard deviations where these are more."""
MAX_PATH_DIFFERENCE = 0.2
"""Of the cameras that other points lead to, as a share of the spread of the path."""
MIN_PARALLAX_PX = 1.5
"""Pixels of the flow by which the path shifts points at median depth. Of less no second estimate says anything."""
MAX_GAIN = 0.25
"""By how much more cameras explain finely, relative, when they are adjusted again. Those at their minimum gain next to
nothing; with a focal length 15 % off it is a multiple."""
MIN_RIVAL_SHARE = 0.95
"""Of what the cameras explain finely: other cameras that explain less are no rivals."""
RUNAWAY_DISTANCE = 30.0
"""Times the usual distance from the middle of the path, at which a single frame's camera is wrong."""
SURE_SHARE = 0.75
"""With more explained, the second estimate starts from the cameras themselves."""
MIN_TRUST = 0.05
"""Of any frame: training hears of each a little."""
FAR_FROM_POSED = 3
"""Frames. A pose interpolated further from a known one is a guess."""
INTERPOLATED_TRUST = 0.2
DISTRUSTED = 0.5
"""Frames of less trust are listed."""


@dataclass(frozen=True)
class CameraQuality:
    """How far the cameras of a clip of n frames are to be believed."""

    kind: str
    """static, rotation or general: the motion model."""
    explained_share: float
    """Of what was followed, by weight: 1 where points lie where they were seen, half at half a pixel of the flow."""
    reprojection_error_px: float
    """Median over the frames, pixels of the image."""
    spread_depths: float
    """Distance of the cameras from the middle of their path, exceeded in a tenth of the frames, in median depths."""
    path_difference: float | None
    """Between the cameras and those that other points lead to, as a share of the spread; None where there was no
    second estimate, or too little parallax for one."""
    focal_difference: float | None
    """Same, of the focal length, relative."""
    frame_explained: Float64[np.ndarray, "n"]
    frame_error_px: Float64[np.ndarray, "n"]
    frame_trust: Float64[np.ndarray, "n"]
    """1 for a frame like most, less for one that explains less than they do: its weight in training."""
    doubts: tuple[str, ...]
    """What is wrong or may be, each as half a sentence. Empty for good cameras."""
    sound: bool = True
    """False for cameras that cannot be: they are not to be used."""

    def expanded(self, original: np.ndarray, lit: Bool[np.ndarray, "m"]) -> CameraQuality:
        """The same for a clip whose frame i is frame `original[i]` of these, or shows nothing where not `lit`."""
        trust = np.where(lit, self.frame_trust[original], MIN_TRUST)
        return replace(
            self,
            frame_explained=self.frame_explained[original] * lit,
            frame_error_px=self.frame_error_px[original],
            frame_trust=trust,
        )

    def record(self) -> dict[str, object]:
        """For `predictor.json`."""

        def rounded(value: float | None) -> float | None:
            return None if value is None or not np.isfinite(value) else round(float(value), 4)

        return {
            "clip": {
                "motion_model": self.kind,
                "explained_share": rounded(self.explained_share),
                "reprojection_error_px": rounded(self.reprojection_error_px),
                "spread_depths": rounded(self.spread_depths),
                "path_difference": rounded(self.path_difference),
                "focal_difference": rounded(self.focal_difference),
                "doubts": list(self.doubts),
            },
            "frames": {
                "explained_share": [rounded(v) for v in self.frame_explained],
                "reprojection_error_px": [rounded(v) for v in self.frame_error_px],
                "trust": [rounded(v) for v in self.frame_trust],
            },
            "distrusted_frames": np.flatnonzero(self.frame_trust < DISTRUSTED).tolist(),
        }


def assess_cameras(
    tracks: Tracks,
    size: tuple[int, int],
    cameras: CameraEstimate,
    kind: str = "general",
    second_estimate: bool = True,
) -> CameraQuality:
    """Judge cameras by the tracks of their clip.

    Args:
        size: height and width of the image that the focal length is measured in.
        kind: of the motion model. Cameras without parallax have no depth: points are taken to be far away.
        second_estimate: whether to ask other points; takes about a quarter of what the first estimate took.
    """
    T = cameras.T_world_camera.numpy()
    n, registered = len(T), cameras.pose_known.numpy()
    if not (np.isfinite(T).all() and np.isfinite(cameras.focal_px) and cameras.focal_px > 0):
        none = np.zeros(n)
        said = ("the cameras are not finite",)
        return CameraQuality(kind, 0.0, np.inf, np.inf, None, None, none, none + np.inf, none + MIN_TRUST, said, False)
    to_flow = tracks.size[1] / size[1]
    state = _state(tracks, cameras, to_flow, kind)
    errors = squared_errors(tracks, state)
    explained = _explained_by_frame(tracks, errors, registered)
    total = _explained(tracks, errors, registered)
    noise = noise_by_frame(tracks, errors) / to_flow
    centres = T[registered, :3, 3] if registered.any() else T[:, :3, 3]
    distance = np.linalg.norm(centres - np.median(centres, axis=0), axis=1) / _median_depth(tracks, state, registered)
    spread, reach = float(np.quantile(distance, 0.9)), float(distance.max())
    doubts: list[str] = []
    if total < MIN_EXPLAINED_SHARE:
        doubts.append(f"they explain only {100 * total:.0f} % of what was followed")
    if reach > MAX_REACH_DEPTHS:
        doubts.append(f"they lie up to {reach:.3g} times the depth of the scene apart")
    path, focal = None, None
    if second_estimate and kind == "general" and registered.sum() > 2 and reach <= MAX_REACH_DEPTHS:
        second = _second_opinion(tracks, size, cameras, from_nothing=total < SURE_SHARE)
        path, focal = second.path_difference, second.focal_difference
        unsure = 3 * float(np.hypot(cameras.focal_std, second.focal_std))
        if second.gain > MAX_GAIN:
            doubts.append(f"adjusted again they would explain {100 * second.gain:.0f} % more")
        if focal is not None and abs(np.log1p(focal)) > max(MAX_FOCAL_DIFFERENCE, unsure):
            doubts.append(f"other points ask for a focal length {100 * focal:+.0f} % off")
        if path is not None and path > MAX_PATH_DIFFERENCE and spread * state.focal > MIN_PARALLAX_PX:
            doubts.append(f"other points lead to a path {100 * path:.0f} % of its spread away")
    return CameraQuality(
        kind,
        total,
        float(np.median(noise[registered])) if registered.any() else float(np.median(noise)),
        spread,
        path,
        focal,
        explained,
        noise,
        _trust(explained, noise, registered),
        tuple(doubts),
        total >= MIN_SOUND_SHARE and reach <= MAX_REACH_DEPTHS,
    )


def without_runaways(cameras: CameraEstimate) -> CameraEstimate:
    """The cameras with no pose for single frames that lie absurdly far from all others."""
    registered = cameras.pose_known
    if registered.sum() < 4:
        return cameras
    centres = cameras.T_world_camera[:, :3, 3]
    distance = (centres - centres[registered].median(dim=0).values).norm(dim=1)
    usual = distance[registered].quantile(0.75)
    away = registered & ((distance > RUNAWAY_DISTANCE * usual.clamp_min(1e-9)) | ~torch.isfinite(distance))
    if not away.any() or away.sum() > 0.2 * registered.sum():
        return cameras
    T = geometry.interpolate_poses(cameras.T_world_camera, registered & ~away)
    return replace(cameras, T_world_camera=T, pose_known=registered & ~away)


def _state(tracks: Tracks, cameras: CameraEstimate, to_flow: float, kind: str) -> State:
    T = geometry.invert(cameras.T_world_camera).numpy()
    focal = cameras.focal_px * to_flow
    inverse_depth = np.zeros(tracks.pixel.shape[:2])
    if kind == "general":
        inverse_depth, _ = triangulate(tracks, T, focal, cameras.pose_known.numpy())
    return State(T, focal, inverse_depth)


def _median_depth(tracks: Tracks, state: State, registered: np.ndarray) -> float:
    near = state.inverse_depth[registered[tracks.anchor]]
    return float(1 / np.median(near[near > 0])) if (near > 0).any() else 1.0


def _explained_by_frame(tracks: Tracks, errors: np.ndarray, registered: np.ndarray) -> Float64[np.ndarray, "n"]:
    total, fine = np.zeros(tracks.num_frames), np.zeros(tracks.num_frames)
    posed = registered[tracks.anchor][:, None] & registered[tracks.target] & (tracks.target >= 0)
    closeness = tracks.weight / (1 + errors / HALF_EXPLAINED_PX**2) * posed[..., None]
    present = tracks.target >= 0
    anchor = np.broadcast_to(tracks.anchor[:, None], tracks.target.shape)
    for frames in (anchor, tracks.target):
        np.add.at(total, frames[present], tracks.weight.sum(axis=2)[present])
        np.add.at(fine, frames[present], closeness.sum(axis=2)[present])
    return fine / np.maximum(total, 1e-9)


def _explained(tracks: Tracks, errors: np.ndarray, registered: np.ndarray) -> float:
    posed = registered[tracks.anchor][:, None] & registered[tracks.target] & (tracks.target >= 0)
    closeness = tracks.weight / (1 + errors / HALF_EXPLAINED_PX**2) * posed[..., None]
    return float(closeness.sum() / max(float(tracks.weight.sum()), 1e-9))


@dataclass(frozen=True)
class _SecondOpinion:
    """What every third point says of cameras."""

    gain: float
    """By how much more they explain finely, relative, once they were adjusted again."""
    path_difference: float | None
    focal_difference: float | None
    focal_std: float
    """Of the logarithm of the other focal length."""


def _second_opinion(
    tracks: Tracks, size: tuple[int, int], cameras: CameraEstimate, from_nothing: bool
) -> _SecondOpinion:
    """Adjust the cameras again, and find others from nothing: rivals if they explain as much of the points."""
    part = every_point(tracks)
    before = finely_explained(part, size, cameras)
    try:
        other = refine_cameras(part, size, cameras.T_world_camera, cameras.focal_px, cameras.pose_known)
    except InitializationError:
        return _SecondOpinion(0.0, None, None, 0.0)
    after = finely_explained(part, size, other)
    gain = after / max(before, 1e-9) - 1
    if from_nothing:
        try:
            rival = estimate_cameras(part, size, FocalKnowledge())
        except InitializationError:
            rival = None
        if rival is not None and finely_explained(part, size, rival) >= MIN_RIVAL_SHARE * after:
            other = rival
    both = cameras.pose_known & other.pose_known
    if both.sum() < 3:
        return _SecondOpinion(gain, None, None, 0.0)
    path = _path_difference(cameras.T_world_camera[both], other.T_world_camera[both])
    return _SecondOpinion(gain, path, other.focal_px / cameras.focal_px - 1, other.focal_std)


def _path_difference(first: torch.Tensor, second: torch.Tensor) -> float | None:
    """Root mean square distance of two paths after a similarity, over the spread of the first."""
    a, b = (T[:, :3, 3].double().numpy() for T in (first, second))
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    spread, other = np.sqrt((a**2).sum(axis=1).mean()), (b**2).sum()
    if spread < 1e-9 or other < 1e-18:
        return None
    U, singular, Vt = np.linalg.svd(a.T @ b)
    sign = np.array([1, 1, np.linalg.det(U @ Vt)])
    moved = (singular * sign).sum() / other * b @ (U @ np.diag(sign) @ Vt).T
    return float(np.sqrt(((moved - a) ** 2).sum(axis=1).mean()) / spread)


def _trust(explained: np.ndarray, noise: np.ndarray, registered: np.ndarray) -> Float64[np.ndarray, "n"]:
    if not registered.any():
        return np.full(len(registered), MIN_TRUST)
    usual_share, usual_noise = np.median(explained[registered]), np.median(noise[registered])
    trust = np.clip(explained / max(0.7 * usual_share, 1e-9), MIN_TRUST, 1)
    trust *= np.clip(3 * usual_noise / np.maximum(noise, 1e-9), MIN_TRUST, 1)
    posed = np.flatnonzero(registered)
    distance = np.abs(np.arange(len(registered))[:, None] - posed).min(axis=1)
    guessed = np.where(distance <= FAR_FROM_POSED, INTERPOLATED_TRUST, MIN_TRUST)
    return np.maximum(np.where(registered, trust, guessed), MIN_TRUST)
