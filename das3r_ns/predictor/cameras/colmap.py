"""Cameras of keyframes from matched point features, by COLMAP: global mapping first, incremental mapping second.

One pinhole camera with square pixels and a centred principal point is shared by all frames. The result is in the
mapper's own world and scale; levelling comes later, when depth is known.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pycolmap
from jaxtyping import Bool, Float64, UInt8

from das3r_ns.files.whole import temporary_folder
from das3r_ns.predictor.base import PredictionError
from das3r_ns.predictor.cameras.colmap_features import (
    CAMERA_ID,
    Features,
    match_features,
    pairs_to_match,
    write_database,
)
from das3r_ns.predictor.cameras.config import Mapper, MappingConfig
from das3r_ns.predictor.cameras.quality import CameraQuality
from das3r_ns.runtime.parallel import thread_count
from das3r_ns.runtime.progress import CONSOLE, stage
from das3r_ns.scene import RadialLens

BYTES_A_FEATURE, BYTES_A_MATCH = 128 + 24, 2 * 8
"""A descriptor and a keypoint; two feature numbers, as matched and as verified."""
MIN_ROOM_BYTES = 16 << 20

FOCAL_RANGE_DEGREES = (15.0, 120.0)
"""Fields of view of the longer side that a video camera may have; outside, the focal length has run away."""


@dataclass(frozen=True)
class CameraPath:
    """Cameras of all frames and the points they were found with, in an arbitrary world."""

    T_world_camera: Float64[np.ndarray, "n 4 4"]
    """OpenCV axes; identity where unknown."""
    registered: Bool[np.ndarray, "n"]
    """Which frames have a pose."""
    focal_px: float
    """Pixels of the clip's frames."""
    points: Float64[np.ndarray, "p 3"]
    """Triangulated features."""
    colours: UInt8[np.ndarray, "p 3"]
    error_px: float
    """Mean reprojection error."""
    zoom: Float64[np.ndarray, "n"] | None = None
    """Focal length of each frame over `focal_px`; None: all have one."""
    readout: float = 0.0
    """Share of a frame interval in which the rows of a frame are read, the top one first."""
    lens: RadialLens | None = None
    """Distortion that was taken out of the images that all this is of."""
    parallax: bool = True
    """False for a camera that stands still or only turns: no depth follows from such cameras."""
    background_verified: bool = False
    """Whether they were found to follow what all else passes before: then what moves is no reason to doubt them, though
    it fill the image."""
    quality: CameraQuality | None = None
    """How far they are to be believed; None for cameras that were given, and before that was asked."""

    def spread(self, frames: Sequence[int], num_frames: int) -> CameraPath:
        """The same as cameras of those `frames` in a clip of `num_frames`; nothing is known of the others."""
        T, registered = np.tile(np.eye(4), (num_frames, 1, 1)), np.zeros(num_frames, bool)
        T[frames], registered[frames] = self.T_world_camera, self.registered
        return replace(self, T_world_camera=T, registered=registered)


def database_bytes(features: Sequence[Features], num_pairs: int) -> int:
    """Room that COLMAP's database and the models written beside it may take, rather more than less."""
    counts = [len(feature.xy) for feature in features]
    matches = num_pairs * max(counts, default=0) * BYTES_A_MATCH
    return MIN_ROOM_BYTES + 2 * (sum(counts) * BYTES_A_FEATURE + matches)


def default_focal(size: tuple[int, int], field_of_view: float) -> float:
    """Focal length in pixels when the longer side covers `field_of_view` degrees."""
    return max(size) / (2 * math.tan(math.radians(field_of_view) / 2))


def reconstruct_with_colmap(
    frames: Sequence[UInt8[np.ndarray, "h w 3"]],
    features: Sequence[Features],
    config: MappingConfig,
    focal_px: float | None = None,
    focal_hint_px: float | None = None,
    mappers: Sequence[Mapper] = ("global", "incremental"),
) -> CameraPath:
    """Find the camera of every frame.

    Args:
        mappers: tried in this order until one succeeds.
        focal_px: the true focal length, kept as it is.
        focal_hint_px: a guess (EXIF) that is refined.
    Raises:
        PredictionError: no mapper posed enough frames.
    """
    size = (frames[0].shape[0], frames[0].shape[1])
    start = focal_px or focal_hint_px or default_focal(size, config.field_of_view)
    pairs = pairs_to_match(len(frames), config.features)
    # COLMAP ends the whole process when its database cannot be written.
    needed = database_bytes(features, len(pairs))
    with temporary_folder("das3r-map-", needed, "the database of features") as folder, quiet_colmap():
        database = folder / "features.db"
        write_database(database, features, size, start, focal_is_prior=focal_px is not None)
        match_features(database, pairs, config.max_error_px, thread_count())  # any number gives the same
        attempts = []
        for mapper in mappers:
            run = _global if mapper == "global" else _incremental
            reconstruction = run(database, folder / mapper, config, refine_focal=focal_px is None)
            if reconstruction is None:
                attempts.append(f"{mapper} mapping posed none")
                continue
            path = _camera_path(reconstruction, frames)
            posed = int(path.registered.sum())
            problem = _problem(path, size, config)
            if problem is None:
                return path
            attempts.append(f"{mapper} mapping posed {posed} and {problem}")
    counts = [len(feature.xy) for feature in features]
    raise PredictionError(
        f"the cameras of this clip of {len(frames)} frames could not be found: {'; '.join(attempts)}. "
        f"Frames have {int(np.median(counts))} point features on average (some hundreds are needed). What helps: a "
        "part of the clip without cuts or blur (--video.start-s, --video.end-s), more frames per second, larger frames "
        "(--video.longest-side), or a known focal length."
    )


@contextmanager
def quiet_colmap() -> Iterator[None]:
    """Keep COLMAP's log off the screen; its failures come back as results."""
    before = pycolmap.logging.minloglevel, pycolmap.logging.stderrthreshold
    pycolmap.logging.minloglevel = pycolmap.logging.stderrthreshold = pycolmap.logging.FATAL.value
    try:
        yield
    finally:
        pycolmap.logging.minloglevel, pycolmap.logging.stderrthreshold = before


def _global(database: Path, folder: Path, config: MappingConfig, refine_focal: bool) -> pycolmap.Reconstruction | None:
    options = pycolmap.GlobalPipelineOptions(num_threads=config.threads, random_seed=0)
    options.mapper.global_positioning.use_gpu = False
    options.mapper.bundle_adjustment.ceres.use_gpu = False
    options.mapper.bundle_adjustment.refine_focal_length = refine_focal
    folder.mkdir()
    with stage("Mapping cameras (global)", None):
        try:
            found = pycolmap.global_mapping(database, folder, folder, options)
        except (RuntimeError, ValueError) as e:
            CONSOLE.log(f"Global mapping gave up: {e}")
            return None
    return _largest(found)


def _incremental(
    database: Path, folder: Path, config: MappingConfig, refine_focal: bool
) -> pycolmap.Reconstruction | None:
    options = pycolmap.IncrementalPipelineOptions(
        num_threads=config.threads, random_seed=0, ba_refine_focal_length=refine_focal, extract_colors=False
    )
    options.mapper.abs_pose_refine_focal_length = False  # one camera is shared; bundle adjustment refines it
    # Neighbouring frames of a video are close together: COLMAP's 16 degrees, made for photo collections, find no pair.
    options.mapper.init_min_tri_angle = 4.0
    options.mapper.init_min_num_inliers = 50
    folder.mkdir()
    with pycolmap.Database.open(database) as opened:
        total = opened.num_images()
    with stage("Mapping cameras (incremental)", total) as bar:
        found = pycolmap.incremental_mapping(
            database,
            folder,
            folder,
            options,
            initial_image_pair_callback=lambda: bar.advance(2),
            next_image_callback=lambda: bar.advance(1),
        )
    return _largest(found)


def _largest(found: dict[int, pycolmap.Reconstruction]) -> pycolmap.Reconstruction | None:
    return max(found.values(), key=lambda model: model.num_reg_images(), default=None)


def _camera_path(model: pycolmap.Reconstruction, frames: Sequence[UInt8[np.ndarray, "h w 3"]]) -> CameraPath:
    n = len(frames)
    T_world_camera = np.tile(np.eye(4), (n, 1, 1))
    registered = np.zeros(n, bool)
    for image_id in model.reg_image_ids():
        T_world_camera[image_id - 1, :3] = model.images[image_id].cam_from_world().inverse().matrix()
        registered[image_id - 1] = True
    points = list(model.points3D.values())
    xyz = np.array([point.xyz for point in points]).reshape(-1, 3)
    colours = np.zeros((len(points), 3), np.uint8)
    for k, point in enumerate(points):
        element = point.track.elements[0]
        u, v = model.images[element.image_id].points2D[element.point2D_idx].xy
        frame = frames[element.image_id - 1]
        colours[k] = frame[min(int(v), frame.shape[0] - 1), min(int(u), frame.shape[1] - 1)]
    focal = float(model.cameras[CAMERA_ID].focal_length)
    return CameraPath(T_world_camera, registered, focal, xyz, colours, float(model.compute_mean_reprojection_error()))


def _problem(path: CameraPath, size: tuple[int, int], config: MappingConfig) -> str | None:
    """What is wrong with a reconstruction, in words; None when nothing is."""
    if path.registered.mean() < config.min_posed_share or path.registered.sum() < 2:
        return f"left {int((~path.registered).sum())} frames without a pose"
    if not (np.isfinite(path.T_world_camera).all() and np.isfinite(path.points).all()):
        return "its cameras are not finite"
    angle = math.degrees(2 * math.atan(max(size) / (2 * path.focal_px)))
    if not FOCAL_RANGE_DEGREES[0] <= angle <= FOCAL_RANGE_DEGREES[1]:
        return f"its focal length ran away to {path.focal_px:.0f} px ({angle:.1f} degrees)"
    if len(path.points) < 50:
        return f"found only {len(path.points)} points"
    return None
