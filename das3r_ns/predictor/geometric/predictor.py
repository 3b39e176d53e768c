"""The predictor that needs no weights: structure from motion, optical flow, multi-view depth, motion evidence.

Flow and, in doubt, point features give the cameras (`cameras`), dense flow between frames at several distances gives
every pixel its inverse depth (`depth`), and what no depth explains moves (`masks`). Everything runs on a CPU. Memory is
bounded: maps are small, flow is forgotten and computed again when it does not fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import cv2
import numpy as np
import torch
from jaxtyping import Bool, UInt8

from das3r_ns import geometry
from das3r_ns.files.json_files import to_jsonable
from das3r_ns.predictor.base import PredictionError, UserPriors
from das3r_ns.predictor.cameras.colmap import CameraPath, reconstruct_with_colmap
from das3r_ns.predictor.cameras.colmap_features import Features, extract_features
from das3r_ns.predictor.cameras.config import Mapper
from das3r_ns.predictor.cameras.find import find_cameras
from das3r_ns.predictor.cameras.sfm import LensSearch
from das3r_ns.predictor.depth.posed_flow import PosedFlow
from das3r_ns.predictor.flow.clip_flow import FlowBetweenFrames
from das3r_ns.predictor.geometric.checks import check_clip, check_reach, doubt_masks
from das3r_ns.predictor.geometric.clip_flow import _flow_estimator, flow_between
from das3r_ns.predictor.geometric.config import GeometricPredictorConfig
from das3r_ns.predictor.geometric.dense import Maps, estimate_depth_and_masks, on_a_sphere
from das3r_ns.predictor.geometric.memory import check_memory
from das3r_ns.predictor.masks.prompts.build import build_prompted_objects
from das3r_ns.predictor.masks.prompts.objects import PromptedObjects
from das3r_ns.predictor.masks.refiners.build import build_refiner
from das3r_ns.predictor.preprocess.blank_frames import blank
from das3r_ns.predictor.preprocess.distortion import undistorted
from das3r_ns.predictor.preprocess.overlays import find_overlays, priors_inside, remove_overlays, restore_full_frame
from das3r_ns.predictor.preprocess.shots import check_one_shot
from das3r_ns.predictor.seed_points import no_points, seed_points
from das3r_ns.runtime.memory import return_freed_memory
from das3r_ns.runtime.parallel import parallel_for
from das3r_ns.runtime.progress import CONSOLE, stage, timed
from das3r_ns.scene import PointCloud, RadialLens, Scene
from das3r_ns.video.clip import Clip


@dataclass(frozen=True)
class _Filmed:
    """What cameras are found from."""

    clip: Clip
    flow: FlowBetweenFrames
    priors: UserPriors
    overlay_mask: Bool[np.ndarray, "h w"] | None
    """True where an overlay hides the scene, or where nobody filmed."""


class GeometricPredictor:
    """See the module. Satisfies `Predictor`."""

    name = "geometric"

    def __init__(self, config: GeometricPredictorConfig | None = None) -> None:
        self.config = (config or GeometricPredictorConfig()).resolve_auto()
        self.config.check()
        self._estimator = _flow_estimator(self.config)
        self._refiner = build_refiner(self.config.masks.refiner)  # a missing extra is said before the long work

    def __call__(self, clip: Clip, priors: UserPriors = UserPriors()) -> Scene:  # noqa: B008  (frozen)
        """See `Predictor`.

        Raises:
            PredictionError: too few or too small frames, nothing to see in them, more than one shot, or no way to the
                cameras.
            ImportError, PromptWeightsError: what finds the objects that the user names is missing.
        """
        check_clip(clip)
        prompted = build_prompted_objects(priors.prompt)  # before the long work
        warning = check_memory(len(clip), clip.size, self.config)
        if warning is not None:
            CONSOLE.print(warning, markup=False, highlight=False, soft_wrap=True)
        with stage("Looking for overlays", None):
            over = find_overlays(clip.frames) if self.config.laid_over else None
        if over is None:
            return self._predict(clip, priors, prompted)
        CONSOLE.print(f"Over the scene lie {over}. What they cover is left out, as what moves is.")
        scene = self._predict(remove_overlays(clip, over), priors_inside(priors, over), prompted, over.overlay_mask)
        return restore_full_frame(scene, over)

    def _predict(
        self,
        clip: Clip,
        priors: UserPriors,
        prompted: PromptedObjects | None,
        overlay_mask: Bool[np.ndarray, "h w"] | None = None,
    ) -> Scene:
        flow = flow_between(clip, self._estimator, self.config)
        if priors.T_world_camera is None:
            _check_shots(clip, flow)
        with timed("Cameras, the rest"):
            filmed, cameras = self._undistorted(_Filmed(clip, flow, priors, _at_map_size(overlay_mask, flow.map_size)))
        clip, flow, priors, overlay_mask = filmed.clip, filmed.flow, filmed.priors, filmed.overlay_mask
        return_freed_memory()
        T_world_camera = torch.from_numpy(cameras.T_world_camera)
        pose_known = torch.from_numpy(cameras.registered)
        T_world_camera = geometry.interpolate_poses(T_world_camera, pose_known)
        K = self._intrinsics(clip, priors, cameras)
        K_maps = geometry.rescale_intrinsics(K.double(), clip.size, flow.map_size).numpy()
        posed = PosedFlow(flow, T_world_camera.numpy(), K_maps, cameras.registered, cameras.background_verified)
        with timed("Maps, the rest"):
            maps = self._maps(clip, posed, priors, overlay_mask, prompted)
        if not cameras.parallax:
            maps = on_a_sphere(maps, K_maps)
        elif not (maps.confidence > 0).any():
            raise PredictionError(
                "no pixel of this clip has a depth that its views agree on: either the camera hardly moves or "
                "everything in the image does. Choose a part of the clip where the camera moves past objects that "
                "stand still." + doubt_masks(priors)
            )
        scale = 1.0
        xyz = torch.from_numpy(cameras.points)
        if priors.T_world_camera is None:
            T_level_world = geometry.level_world(T_world_camera, maps.median_static_depth(cameras.registered))
            T_world_camera, scale = geometry.apply_similarity(T_level_world, T_world_camera)
            xyz = geometry.transform(T_level_world, xyz)
            check_reach(T_world_camera, pose_known)
        scene = Scene(
            T_world_camera=T_world_camera.float(),
            K=K,
            image_size=clip.size,
            depth=torch.from_numpy(maps.depth).mul_(scale),
            confidence=torch.from_numpy(maps.confidence),
            dynamic_prob=torch.from_numpy(maps.dynamic_prob),
            points=no_points(),
            pose_known=pose_known,
            names=clip.names,
            fps=clip.fps,
            lens=cameras.lens,
            provenance={
                "predictor": self.name,
                "settings": to_jsonable(self.config),
                "zooms": cameras.zoom is not None,
                "readout_share": cameras.readout,
                **({} if cameras.quality is None else {"quality": cameras.quality.record()}),
                **({} if prompted is None else {"prompt": prompted.record}),
            },
        )
        with timed("Seed points"):
            dense = seed_points(scene, clip.frames, self.config.max_points - len(xyz))
        return _with_points(scene, dense, xyz.float(), torch.from_numpy(cameras.colours))

    def cameras(self, clip: Clip, priors: UserPriors = UserPriors()) -> CameraPath:  # noqa: B008  (frozen)
        """The cameras alone, in the mapper's own world, without depth and masks; those of the undistorted images where
        the lens bends straight lines.

        Raises:
            PredictionError: see `find_cameras`.
        """
        over, overlay_mask = find_overlays(clip.frames) if self.config.laid_over else None, None
        if over is not None:
            clip, priors, overlay_mask = remove_overlays(clip, over), priors_inside(priors, over), over.overlay_mask
        flow = flow_between(clip, self._estimator, self.config)
        _check_shots(clip, flow)
        return self._undistorted(_Filmed(clip, flow, priors, overlay_mask))[1]

    def _undistorted(self, filmed: _Filmed) -> tuple[_Filmed, CameraPath]:
        """All as it would have been without distortion, and the cameras."""
        search = LensSearch.of(self.config.mapping.lens, self.config.mapping.rolling_shutter)
        path = self._cameras(filmed, search)
        if isinstance(path, CameraPath):
            return filmed, path
        clip, priors, overlay_mask = undistorted(filmed.clip, filmed.priors, filmed.overlay_mask, path)
        flow = flow_between(clip, self._estimator, self.config)  # that of the images as filmed is of no more use
        straight = _Filmed(clip, flow, priors, _at_map_size(overlay_mask, flow.map_size))
        cameras = self._cameras(straight, search.without("radial"))
        assert isinstance(cameras, CameraPath)
        return straight, replace(cameras, lens=path)

    def _cameras(self, filmed: _Filmed, lens: LensSearch) -> CameraPath | RadialLens:
        clip, flow, priors, overlay_mask = filmed.clip, filmed.flow, filmed.priors, filmed.overlay_mask
        if priors.T_world_camera is not None and priors.K is not None:
            none = np.zeros((0, 3))
            T = priors.T_world_camera.double().numpy()
            posed = np.ones(len(T), bool) if priors.pose_known is None else priors.pose_known.numpy()
            return CameraPath(T, posed, float(priors.K[0, 0, 0]), none, none.astype(np.uint8), 0.0)
        config = self.config.mapping
        keep = _keep(priors.excluded_mask)
        if overlay_mask is not None:
            keep = _and_not(keep, overlay_mask, len(clip))

        frames = [frame.numpy() for frame in clip.frames]

        @cache
        def features(i: int) -> Features:
            return extract_features(frames[i], config.features, None if keep is None else keep[i])

        def from_features(mapper: Mapper, chosen: Sequence[int]) -> CameraPath:
            with stage(f"Features of {len(chosen)} frames", len(chosen)) as bar:

                def extract(k: int) -> None:
                    features(chosen[k])
                    bar.advance()

                parallel_for(extract, len(chosen))
            images, found = [frames[i] for i in chosen], [features(i) for i in chosen]
            path = reconstruct_with_colmap(images, found, config, priors.focal_px, clip.focal_px, (mapper,))
            return path.spread(chosen, len(clip))

        return find_cameras(clip, flow.checked, from_features, features, priors.focal_px, keep, lens)

    def _intrinsics(self, clip: Clip, priors: UserPriors, cameras: CameraPath) -> torch.Tensor:
        if priors.K is not None:
            return priors.K.float()
        K = geometry.intrinsics(cameras.focal_px, *clip.size).expand(len(clip), 3, 3).clone()
        if cameras.zoom is not None:
            K[:, [0, 1], [0, 1]] *= torch.from_numpy(cameras.zoom).to(K)[:, None]
        return K

    def _maps(
        self,
        clip: Clip,
        posed: PosedFlow,
        priors: UserPriors,
        overlay_mask: Bool[np.ndarray, "h w"] | None,
        prompted: PromptedObjects | None,
    ) -> Maps:
        size = posed.flow.map_size

        def map_image(i: int) -> UInt8[np.ndarray, "h w 3"]:
            return cv2.resize(clip.frames[i].numpy(), size[::-1], interpolation=cv2.INTER_AREA)

        empty = blank(clip.frames)
        refiner = None if priors.all_masks_given else self._refiner
        given = None if priors.mask_given is None else priors.mask_given.numpy()
        return estimate_depth_and_masks(
            posed, map_image, self.config.offsets, self.config.masks,
            image=lambda i: clip.frames[i].numpy(), refiner=refiner, prompted=prompted,
            static=_keep(priors.dynamic_mask), static_given=given, mask_mode=priors.mask_mode,
            overlay_mask=overlay_mask, blank=empty, prior=priors.depth,
        )  # fmt: skip


def _check_shots(clip: Clip, flow: FlowBetweenFrames) -> None:
    if flow.matcher is not None and not clip.one_shot:
        with timed("Telling shots apart"):
            check_one_shot(clip, flow.matcher)


def _keep(dynamic_mask: torch.Tensor | None) -> Bool[np.ndarray, "n h w"] | None:
    return None if dynamic_mask is None else dynamic_mask.numpy() < 0.5


def _at_map_size(overlay_mask: Bool[np.ndarray, "_ _"] | None, size: tuple[int, int]) -> Bool[np.ndarray, "h w"] | None:
    """Every map pixel that is covered in part."""
    if overlay_mask is None:
        return None
    return cv2.resize(overlay_mask.astype(np.float32), size[::-1], interpolation=cv2.INTER_AREA) > 0


def _and_not(
    keep: Bool[np.ndarray, "n H W"] | None, overlay_mask: Bool[np.ndarray, "h w"], num_frames: int
) -> Bool[np.ndarray, "n _ _"]:
    if keep is None:
        return np.broadcast_to(~overlay_mask, (num_frames, *overlay_mask.shape))
    return keep & (cv2.resize(overlay_mask.astype(np.uint8), keep.shape[:0:-1], interpolation=cv2.INTER_NEAREST) == 0)


def _with_points(scene: Scene, dense: PointCloud, xyz: torch.Tensor, rgb: torch.Tensor) -> Scene:
    points = PointCloud(
        torch.cat((xyz, dense.xyz)),
        torch.cat((rgb, dense.rgb)),
        torch.cat((torch.ones(len(xyz)), dense.staticness)),
        torch.cat((torch.full((len(xyz),), -1), dense.frame)),
    )
    return replace(scene, points=points)
