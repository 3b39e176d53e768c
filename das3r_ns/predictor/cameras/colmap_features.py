"""Point features of a clip and their matches, written into a COLMAP database.

Features come from OpenCV's SIFT (four times as fast as COLMAP's on a CPU), turned into RootSIFT (Arandjelovic and
Zisserman, CVPR 2012); matching and geometric verification are COLMAP's. Frames never touch the disk. Image ids are
frame numbers plus one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pycolmap
from jaxtyping import Bool, Float32, UInt8

from das3r_ns.predictor.cameras.config import FeatureConfig
from das3r_ns.runtime.progress import stage
from das3r_ns.runtime.signals import take_back_sigterm

take_back_sigterm()

CAMERA_ID = 1


@dataclass(frozen=True)
class Features:
    """SIFT features of one frame."""

    xy: Float32[np.ndarray, "k 2"]
    """Pixels of the clip's frames; the first pixel's centre is (0.5, 0.5)."""
    descriptors: UInt8[np.ndarray, "k 128"]


def extract_features(
    frame: UInt8[np.ndarray, "h w 3"], config: FeatureConfig, keep: Bool[np.ndarray, "mh mw"] | None = None
) -> Features:
    """Features of one RGB frame, none where `keep` (at any resolution) is False."""
    height, width = frame.shape[:2]
    scale = min(1.0, config.longest_side / max(height, width))
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    if scale < 1:
        grey = cv2.resize(grey, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)
    mask = np.ones(grey.shape, np.uint8)
    if keep is not None:
        mask = cv2.resize(keep.astype(np.uint8), grey.shape[::-1], interpolation=cv2.INTER_NEAREST)
    # The contrast threshold is half of Lowe's: the best `nfeatures` are taken anyway, and dark clips need the weak.
    sift = cv2.SIFT.create(nfeatures=config.max_features, contrastThreshold=0.02)
    found, descriptors = sift.detectAndCompute(grey, mask)
    if len(found) == 0:
        return Features(np.zeros((0, 2), np.float32), np.zeros((0, 128), np.uint8))
    # OpenCV puts the centre of the first pixel at 0.
    xy = (np.asarray(cv2.KeyPoint.convert(found)) + 0.5) / np.array(
        [grey.shape[1] / width, grey.shape[0] / height], np.float32
    )
    root = np.sqrt(descriptors / np.maximum(descriptors.sum(axis=1, keepdims=True), 1e-6))
    return Features(xy.astype(np.float32), np.clip(np.round(512 * root), 0, 255).astype(np.uint8))


def pairs_to_match(num_frames: int, config: FeatureConfig) -> list[tuple[int, int]]:
    """Pairs (i, j), i < j: neighbours, then 2, 4, 8 times further on, then keyframes with one another."""
    steps = list(range(1, config.overlap + 1))
    while steps[-1] * 2 < num_frames and steps[-1] * 2 <= 8 * config.overlap:
        steps.append(steps[-1] * 2)
    pairs = {(i, i + step) for i in range(num_frames) for step in steps if i + step < num_frames}
    if config.loop_period > 0:
        keys = range(0, num_frames, config.loop_period)
        pairs |= {(i, j) for i in keys for j in keys if i < j}
    return sorted(pairs)


def write_database(
    path: Path, features: Sequence[Features], size: tuple[int, int], focal_px: float, focal_is_prior: bool
) -> None:
    """Create a COLMAP database with one pinhole camera (square pixels, centred) and one image a frame."""
    camera = pycolmap.Camera.create_from_model_name(
        camera_id=CAMERA_ID, model_name="SIMPLE_PINHOLE", focal_length=focal_px, width=size[1], height=size[0]
    )
    camera.has_prior_focal_length = focal_is_prior
    with pycolmap.Database.open(path) as database, pycolmap.DatabaseTransaction(database):
        database.write_camera(camera, use_camera_id=True)
        rig = pycolmap.Rig(rig_id=1)
        rig.add_ref_sensor(camera.sensor_id)
        database.write_rig(rig, use_rig_id=True)
        for i, feature in enumerate(features):
            image = pycolmap.Image(name=frame_key(i), camera_id=CAMERA_ID, image_id=i + 1)
            database.write_image(image, use_image_id=True)
            frame = pycolmap.Frame(frame_id=i + 1, rig_id=1)
            frame.add_data_id(image.data_id)
            database.write_frame(frame, use_frame_id=True)
            database.write_keypoints(i + 1, feature.xy)
            database.write_descriptors(
                i + 1, pycolmap.FeatureDescriptors(type=pycolmap.FeatureExtractorType.SIFT, data=feature.descriptors)
            )


def match_features(path: Path, pairs: Sequence[tuple[int, int]], max_error_px: float, threads: int) -> None:
    """Match and verify the given pairs of frames in the database."""
    matching = pycolmap.FeatureMatchingOptions(num_threads=threads, use_gpu=False)
    verification = pycolmap.TwoViewGeometryOptions()
    verification.ransac.random_seed = 0
    verification.ransac.max_error = max_error_px
    listed = path.with_suffix(".pairs.txt")
    at_once = 50
    with stage(f"Matching {len(pairs)} pairs of frames", len(pairs), "pairs") as bar:
        for start in range(0, len(pairs), at_once):
            part = pairs[start : start + at_once]
            listed.write_text("".join(f"{frame_key(i)} {frame_key(j)}\n" for i, j in part), encoding="utf-8")
            pycolmap.match_image_pairs(
                path,
                matching,
                pycolmap.ImportedPairingOptions(match_list_path=listed),
                verification,
                device=pycolmap.Device.cpu,
            )
            bar.advance(len(part))


def frame_key(index: int) -> str:
    """Name of a frame in the database."""
    return f"{index:06d}"
