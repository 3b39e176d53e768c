"""Lenses that are more than a pinhole, through the whole predictor."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from das3r_ns import geometry
from das3r_ns.predictor.base import UserPriors
from das3r_ns.predictor.cameras.colmap import CameraPath
from das3r_ns.predictor.cameras.config import MappingConfig
from das3r_ns.predictor.geometric.config import GeometricPredictorConfig
from das3r_ns.predictor.geometric.predictor import GeometricPredictor
from das3r_ns.predictor.masks.config import MaskConfig
from das3r_ns.predictor.preprocess.distortion import undistorted
from das3r_ns.predictor.preprocess.overlays import Overlays, restore_full_frame
from das3r_ns.scene import RadialLens
from das3r_ns.synthetic import SyntheticConfig, make_clip
from das3r_ns.video.clip import Clip

FRAMES = 16


def as_clip(frames: np.ndarray) -> Clip:
    return Clip(torch.from_numpy(frames), 15.0, tuple(f"{i:05d}" for i in range(len(frames))))


def predictor(**mapping) -> GeometricPredictor:
    config = GeometricPredictorConfig(
        mapping=MappingConfig(**mapping), masks=MaskConfig(refiner="none"), max_points=2000
    )
    return GeometricPredictor(config)


@pytest.fixture(scope="module")
def large():
    """Rendered larger than it is filmed, so that a barrel has something to show in its corners."""
    return make_clip(SyntheticConfig(num_frames=FRAMES, height=150, width=264, field_of_view=75.0, movers=1, seed=1))


def filmed(frames: np.ndarray, focal: float, k1: float) -> np.ndarray:
    """96 by 168 pixels through a lens of OpenCV's k1."""
    height, width = 96, 168
    K = np.array([[focal, 0, width / 2 - 0.5], [0, focal, height / 2 - 0.5], [0, 0, 1]])
    v, u = np.mgrid[:height, :width].astype(np.float64)
    straight = cv2.undistortPoints(np.stack((u.ravel(), v.ravel()), axis=-1), K, np.array([k1, 0, 0, 0]))[:, 0]
    x, y = (straight.T.reshape(2, height, width) * focal).astype(np.float32)
    at = x + frames.shape[2] / 2 - 0.5, y + frames.shape[1] / 2 - 0.5
    return np.stack([cv2.remap(frame, *at, cv2.INTER_CUBIC) for frame in frames])


def test_a_barrel_is_taken_out_of_the_images_and_all_that_is_of_them(large):
    focal = float(large.K[0, 0])
    clip = as_clip(filmed(large.frames.numpy(), focal, -0.18))
    scene = predictor()(clip)
    assert scene.lens is not None
    assert scene.lens.focal_px == pytest.approx(focal, rel=0.03)
    torch.testing.assert_close(scene.K[:, 0, 0], torch.full((FRAMES,), focal), rtol=0.03, atol=0)
    # What was cut out of the middle of the large render is what the undistorted images must show.
    frames = scene.lens.undistort_frames(clip.frames).float()
    true = large.frames[:, 27:-27, 48:-48].float()
    inside = (slice(None), slice(8, -8), slice(12, -12))
    assert (frames[inside] - true[inside]).abs().mean() < 6
    static = ~large.dynamic_mask[:, 27:-27, 48:-48] & (scene.confidence > 5)
    depth, true_depth = scene.depth[static], large.depth[:, 27:-27, 48:-48][static]
    scale = (true_depth / depth).median()
    assert ((depth * scale - true_depth).abs() / true_depth).median() < 0.05
    assert scene.provenance["zooms"] is False


def test_a_zoom_gives_each_frame_its_focal_length():
    zoom = np.array([0.8, 1.0, 1.25])
    none = np.zeros((0, 3))
    path = CameraPath(np.tile(np.eye(4), (3, 1, 1)), np.ones(3, bool), 100.0, none, none.astype(np.uint8), 0.1, zoom)
    K = predictor()._intrinsics(as_clip(np.zeros((3, 96, 168, 3), np.uint8)), UserPriors(), path)
    np.testing.assert_allclose(K[:, 0, 0].numpy(), [80, 100, 125], rtol=1e-6)
    np.testing.assert_allclose(K[:, 1, 1].numpy(), [80, 100, 125], rtol=1e-6)
    assert (K[:, 0, 2] == 84).all()
    assert (K[:, 1, 2] == 48).all()


def test_what_nobody_filmed_shows_no_static_scene():
    lens = RadialLens(100.0, 80.0, 45.0, 0.1)
    clip = as_clip(np.zeros((2, 90, 160, 3), np.uint8))
    known = UserPriors(dynamic_mask=torch.zeros(2, 90, 160))
    _, known, overlay_mask = undistorted(clip, known, None, lens)
    assert overlay_mask is not None
    assert known.dynamic_mask is not None
    np.testing.assert_array_equal(overlay_mask, ~lens.filmed(90, 160))
    np.testing.assert_array_equal(known.dynamic_mask[0].numpy() == 1, overlay_mask)
    signs = np.zeros((45, 80), bool)
    signs[10:20, 30:40] = True
    _, _, both = undistorted(clip, UserPriors(), signs, lens)
    assert both is not None
    assert both[15, 35]
    assert both[0, 0]
    assert not both[30, 40]


def test_the_lens_of_a_clip_with_bars_is_that_of_the_whole_image(large):
    clip = as_clip(large.frames.numpy()[:3])
    K = geometry.intrinsics(170.0, *clip.size).expand(3, 3, 3)
    eye = torch.eye(4).expand(3, 4, 4)
    scene = predictor()(as_clip(large.frames.numpy()[:3]), UserPriors(T_world_camera=large.T_world_camera[:3], K=K))
    scene = replace(scene, lens=RadialLens(170.0, 132.0, 75.0, -0.1), T_world_camera=eye)
    over = Overlays(np.zeros((170, 264), bool), (20, 170), (0, 264))
    whole = restore_full_frame(scene, over)
    assert whole.lens == RadialLens(170.0, 132.0, 95.0, -0.1)
    assert whole.lens.cy == whole.K[0, 1, 2]
