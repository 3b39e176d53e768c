"""The predictor that needs no weights: structure from motion, optical flow, multi-view depth, motion evidence.

Point features give the cameras (`mapping`), dense flow between frames at several distances gives every pixel its
inverse depth (`depth`), and what no depth explains moves (`masks`). Everything runs on a CPU. Memory is bounded: maps
are small, flow is forgotten and computed again when it does not fit.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, UInt8

from das3r_ns import geometry
from das3r_ns.predictor import masks
from das3r_ns.predictor.base import Known, PredictionError
from das3r_ns.predictor.cameras import cameras_of
from das3r_ns.predictor.depth import InverseDepth, fit_inverse_depth, relative_views
from das3r_ns.predictor.features import Features, extract_features
from das3r_ns.predictor.flow import DisFlow, FlowBetweenFrames, FlowEstimator, RaftFlow
from das3r_ns.predictor.mapping import CameraPath, Mapper, MappingConfig, map_cameras
from das3r_ns.predictor.progress import stage, tracked
from das3r_ns.scene import PointCloud, Scene
from das3r_ns.video import Clip

MIN_FRAMES = 3
"""Two frames leave no view to check a depth with: then nothing could be said to move."""
MIN_SIDE = 64
FARTHEST = 100.0
"""Depths beyond this many times the median are cut there: their parallax is noise."""


@dataclass
class GeometricPredictorConfig:
    """Cameras, depth and moving things from motion and geometry alone: no weights, no GPU."""

    mapping: MappingConfig = field(default_factory=MappingConfig)
    """Cameras."""
    masks: masks.MaskConfig = field(default_factory=masks.MaskConfig)
    """How evidence of motion becomes `dynamic_prob`."""
    flow: Literal["dis", "raft"] = "dis"
    """Optical flow: OpenCV's DIS, or torchvision's RAFT from the file in `raft_weights`."""
    raft_weights: Path | None = None
    """Weights of torchvision's `raft_large` or `raft_small`, for `flow` raft."""
    map_longest_side: int = 432
    """Pixels on the longer side of depth, confidence and dynamic_prob. More is slower and noisier, not sharper:
    optical flow has no finer detail."""
    offsets: tuple[int, ...] = (1, 2, 4, 8)
    """Distances in frames, both ways, over which flow is taken."""
    flow_memory_mb: int = 1024
    """Flow kept in memory; what does not fit is computed again."""
    max_points: int = 150_000
    """Size of the seed cloud."""


@dataclass(frozen=True)
class Maps:
    """Per-frame maps in the mapper's world."""

    depth: Float32[np.ndarray, "n h w"]
    confidence: Float32[np.ndarray, "n h w"]
    dynamic_prob: Float32[np.ndarray, "n h w"]


class GeometricPredictor:
    """See the module. Satisfies `Predictor`."""

    name = "geometric"

    def __init__(self, config: GeometricPredictorConfig | None = None) -> None:
        self.config = config or GeometricPredictorConfig()
        self._estimator = _flow_estimator(self.config)

    def __call__(self, clip: Clip, known: Known = Known()) -> Scene:  # noqa: B008  (frozen)
        """See `Predictor`.

        Raises:
            PredictionError: too few or too small frames, nothing to see in them, more than one shot, or no way to the
                cameras.
        """
        _check_clip(clip)
        flow = self._flow_of(clip)
        keep = None if known.dynamic_mask is None else known.dynamic_mask.numpy() < 0.5
        cameras = self._cameras(clip, flow, known, keep)
        T_world_camera = torch.from_numpy(cameras.T_world_camera)
        pose_known = torch.from_numpy(cameras.known)
        T_world_camera = geometry.interpolate_poses(T_world_camera, pose_known)
        K = self._intrinsics(clip, known, cameras.focal_px)
        K_maps = geometry.rescale_intrinsics(K.double(), clip.size, flow.map_size).numpy()
        maps = self._maps(clip, flow, T_world_camera.numpy(), K_maps, cameras.known, keep)
        if not cameras.parallax:
            maps = _on_a_sphere(maps, K_maps)
        elif not (maps.confidence > 0).any():
            raise PredictionError(
                "no pixel of this clip has a depth that its views agree on: either the camera hardly moves or "
                "everything in the picture does. Choose a part of the clip where the camera moves past things that "
                "stand still."
            )
        scale = 1.0
        xyz = torch.from_numpy(cameras.points)
        if known.T_world_camera is None:
            T_level_world = geometry.level_world(T_world_camera, _median_static_depth(maps))
            T_world_camera, scale = geometry.apply_similarity(T_level_world, T_world_camera)
            xyz = geometry.transform(T_level_world, xyz)
        scene = Scene(
            T_world_camera=T_world_camera.float(),
            K=K,
            image_size=clip.size,
            depth=torch.from_numpy(maps.depth) * scale,
            confidence=torch.from_numpy(maps.confidence),
            dynamic_prob=torch.from_numpy(maps.dynamic_prob),
            points=_no_points(),
            pose_known=pose_known,
            names=clip.names,
            fps=clip.fps,
            provenance={"predictor": self.name, "settings": _plain(asdict(self.config))},
        )
        dense = _seed_points(scene, clip.frames, self.config.max_points - len(xyz))
        return _with_points(scene, dense, xyz.float(), torch.from_numpy(cameras.colours))

    def _flow_of(self, clip: Clip) -> FlowBetweenFrames:
        factor = min(1.0, self.config.map_longest_side / max(clip.size))
        map_size = (round(clip.size[0] * factor), round(clip.size[1] * factor))
        # Flow at twice the resolution of the maps: finer finds no more, coarser loses thin and small things.
        flow_size = min(clip.size, (2 * map_size[0], 2 * map_size[1]))

        def frame(i: int) -> UInt8[np.ndarray, "h w 3"]:
            return cv2.resize(clip.frames[i].numpy(), flow_size[::-1], interpolation=cv2.INTER_AREA)

        return FlowBetweenFrames(frame, map_size, self._estimator, self.config.flow_memory_mb << 20)

    def _cameras(
        self, clip: Clip, flow: FlowBetweenFrames, known: Known, keep: Bool[np.ndarray, "n h w"] | None
    ) -> CameraPath:
        if known.T_world_camera is not None and known.K is not None:
            none = np.zeros((0, 3))
            T = known.T_world_camera.double().numpy()
            return CameraPath(T, np.ones(len(T), bool), float(known.K[0, 0, 0]), none, none.astype(np.uint8), 0.0)
        config = self.config.mapping

        frames = [frame.numpy() for frame in clip.frames]

        @cache
        def features() -> list[Features]:
            return [
                extract_features(frame, config.features, None if keep is None else keep[i])
                for i, frame in tracked(enumerate(frames), f"Features of {len(clip)} frames", len(clip))
            ]

        def from_features(mapper: Mapper) -> CameraPath:
            return map_cameras(frames, features(), config, known.focal_px, clip.focal_px, (mapper,))

        return cameras_of(clip, flow.checked, from_features, known.focal_px, keep)

    def _intrinsics(self, clip: Clip, known: Known, focal_px: float) -> torch.Tensor:
        if known.K is not None:
            return known.K.float()
        return geometry.intrinsics(focal_px, *clip.size).expand(len(clip), 3, 3).clone()

    def _maps(
        self,
        clip: Clip,
        flow: FlowBetweenFrames,
        T_world_camera: Float64[np.ndarray, "n 4 4"],
        K_maps: Float64[np.ndarray, "n 3 3"],
        pose_known: Bool[np.ndarray, "n"],
        keep: Bool[np.ndarray, "n h w"] | None,
    ) -> Maps:
        n, size = len(T_world_camera), flow.map_size

        def picture(i: int) -> UInt8[np.ndarray, "h w 3"]:
            return cv2.resize(clip.frames[i].numpy(), size[::-1], interpolation=cv2.INTER_AREA)

        depth, confidence = (np.zeros((n, *size), np.float32) for _ in range(2))
        evidence = np.zeros((n, *size), np.float32)
        for i in tracked(range(n), f"Flow and depth of {n} frames", n):
            # An interpolated pose would call the whole picture moving: only posed views count.
            targets = [j for step in self.config.offsets for j in (i - step, i + step) if 0 <= j < n and pose_known[j]]
            if not targets:
                continue
            fit = self._fit(flow, T_world_camera, K_maps, i, targets)
            depth[i], confidence[i] = _depth_and_confidence(fit)
            if pose_known[i]:
                evidence[i] = masks.motion_probability(fit.residual, self.config.masks)
        if keep is None:
            with stage(f"Cleaning {n} dynamic maps", n) as bar:
                dynamic = masks.clean_masks(evidence, picture, flow, self.config.masks, bar.advance)
        else:
            resize = lambda mask: cv2.resize(mask.astype(np.float32), size[::-1], interpolation=cv2.INTER_AREA)  # noqa: E731
            dynamic = np.stack([1 - resize(mask) for mask in keep])
        cut = FARTHEST * _median_static_depth(Maps(depth, confidence, dynamic))
        return Maps(np.minimum(depth, cut), confidence, dynamic)

    def _fit(
        self,
        flow: FlowBetweenFrames,
        T_world_camera: Float64[np.ndarray, "n 4 4"],
        K_maps: Float64[np.ndarray, "n 3 3"],
        source: int,
        targets: list[int],
    ) -> InverseDepth:
        flows, noises = [], []
        for target in targets:
            forward, error = flow.checked(source, target)
            noise = np.full(error.shape, 0.5 + 0.15 * abs(target - source), np.float32)
            noise[error > 1.5 + 0.1 * np.linalg.norm(forward, axis=-1)] = np.inf
            flows.append(forward)
            noises.append(noise)
        views = relative_views(T_world_camera, K_maps, source, targets)
        return fit_inverse_depth(np.stack(flows), np.stack(noises), *views)


def _flow_estimator(config: GeometricPredictorConfig) -> FlowEstimator:
    if config.flow == "dis":
        return DisFlow()
    if config.raft_weights is None:
        raise ValueError("flow raft needs raft_weights, a file of torchvision's RAFT weights; flow dis needs none")
    return RaftFlow(config.raft_weights)


def _check_clip(clip: Clip) -> None:
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
    contrast = np.array([float(frame.float().std()) for frame in clip.frames])
    if np.median(contrast) < 2.0:
        raise PredictionError(
            f"the frames are almost of one colour (standard deviation {np.median(contrast):.1f} of 255): there is "
            "nothing to follow. Is the lens covered or the exposure wrong? Choose a part of the clip that shows "
            "something (--video.start-s)."
        )


def _on_a_sphere(maps: Maps, K_maps: Float64[np.ndarray, "n 3 3"]) -> Maps:
    """All pixels at distance 1. From the one place where the camera stands that looks like any true depth, and frames
    that overlap agree about it."""
    h, w = maps.depth.shape[1:]
    v, u = np.mgrid[:h, :w] + 0.5
    x = (u - K_maps[:, 0, 2, None, None]) / K_maps[:, 0, 0, None, None]
    y = (v - K_maps[:, 1, 2, None, None]) / K_maps[:, 1, 1, None, None]
    depth = (1 / np.sqrt(x**2 + y**2 + 1)).astype(np.float32)
    return replace(maps, depth=depth, confidence=np.ones_like(depth))


def _depth_and_confidence(
    fit: InverseDepth,
) -> tuple[Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w"]]:
    """z-depth (0 unknown) and its confidence: depth over its standard deviation, times the share of agreeing views.
    A pixel that a single view sees, or whose parallax is below the noise, has none."""
    d = np.nan_to_num(fit.inverse_depth)
    usable = (d > 0) & (fit.views >= 2)
    depth = np.where(usable, 1 / np.maximum(d, 1e-12), 0).astype(np.float32)
    with np.errstate(invalid="ignore"):
        confidence = np.where(usable, fit.agreeing * np.minimum(d / fit.std, 100.0), 0)
    return depth, confidence.astype(np.float32)


def _median_static_depth(maps: Maps) -> float:
    """1 where no static pixel has a depth."""
    static = (maps.depth > 0) & (maps.dynamic_prob < 0.5) & (maps.confidence > 0)
    return float(np.median(maps.depth[static])) if static.any() else 1.0


def _no_points() -> PointCloud:
    return PointCloud(
        torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.uint8), torch.zeros(0), torch.zeros(0, dtype=torch.long)
    )


def _seed_points(scene: Scene, frames: torch.Tensor, budget: int) -> PointCloud:
    """Static pixels lifted to points, drawn with a chance that grows with confidence; the same ones every time."""
    weight = scene.confidence.clamp(max=20) * (scene.dynamic_prob < 0.25) * (scene.depth > 0)
    h, w = scene.map_size
    budget = min(max(budget, 0), int((weight > 0).sum()))
    if budget == 0:
        return _no_points()
    # Systematic sampling: evenly spaced steps through the cumulative weight, in picture order.
    edges = weight.flatten().double().cumsum(0)
    steps = (torch.arange(budget, dtype=torch.float64) + 0.5) * (edges[-1] / budget)
    chosen = torch.searchsorted(edges, steps).clamp(max=edges.numel() - 1).unique()
    frame, row, column = chosen // (h * w), chosen % (h * w) // w, chosen % w
    K = scene.K_maps[frame]
    depth = scene.depth[frame, row, column]
    camera = torch.stack(
        (
            (column + 0.5 - K[:, 0, 2]) / K[:, 0, 0] * depth,
            (row + 0.5 - K[:, 1, 2]) / K[:, 1, 1] * depth,
            depth,
        ),
        dim=-1,
    )
    y = ((row + 0.5) * frames.shape[1] / h).long()
    x = ((column + 0.5) * frames.shape[2] / w).long()
    return PointCloud(
        geometry.transform(scene.T_world_camera[frame], camera),
        frames[frame, y, x],
        1 - scene.dynamic_prob[frame, row, column],
        frame,
    )


def _with_points(scene: Scene, dense: PointCloud, xyz: torch.Tensor, rgb: torch.Tensor) -> Scene:
    points = PointCloud(
        torch.cat((xyz, dense.xyz)),
        torch.cat((rgb, dense.rgb)),
        torch.cat((torch.ones(len(xyz)), dense.staticness)),
        torch.cat((torch.full((len(xyz),), -1), dense.frame)),
    )
    return replace(scene, points=points)


def _plain(value: object) -> object:
    """Settings as JSON can hold them."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
