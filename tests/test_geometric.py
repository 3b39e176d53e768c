"""The geometric predictor, whole: truth recovered on a synthetic clip, and clips it must refuse."""

import pytest
import torch

from das3r_ns.predictor.base import Known, PredictionError
from das3r_ns.predictor.geometric import GeometricPredictor
from das3r_ns.synthetic import SyntheticConfig, make_clip
from das3r_ns.video import Clip

CONFIG = SyntheticConfig(num_frames=16)


def as_clip(frames: torch.Tensor) -> Clip:
    return Clip(frames, 15.0, tuple(f"{i:05d}" for i in range(len(frames))))


@pytest.fixture(scope="module")
def truth():
    return make_clip(CONFIG)


@pytest.fixture(scope="module")
def scene_of_known_cameras(truth):
    K = truth.K.expand(len(truth), 3, 3).clone()
    return GeometricPredictor()(as_clip(truth.frames), Known(T_world_camera=truth.T_world_camera, K=K))


def test_with_known_cameras_depth_is_true_and_stays_in_the_users_world(truth, scene_of_known_cameras):
    scene = scene_of_known_cameras
    torch.testing.assert_close(scene.T_world_camera, truth.T_world_camera)
    static = ~truth.dynamic_mask & (scene.confidence > 5)
    assert static.float().mean() > 0.5
    error = (scene.depth - truth.depth).abs() / truth.depth
    assert error[static].median() < 0.03


def test_with_known_cameras_the_moving_things_are_found(truth, scene_of_known_cameras):
    moving = scene_of_known_cameras.dynamic_prob > 0.5
    both = (moving & truth.dynamic_mask).sum()
    assert both / (moving | truth.dynamic_mask).sum() > 0.6


def test_a_clip_of_black_frames_says_there_is_nothing_to_follow():
    with pytest.raises(PredictionError, match="almost of one colour"):
        GeometricPredictor()(as_clip(torch.zeros(8, 120, 160, 3, dtype=torch.uint8)))


def test_too_few_and_too_small_frames_are_refused_with_the_number_needed(truth):
    with pytest.raises(PredictionError, match="has 2 frames, and at least 3"):
        GeometricPredictor()(as_clip(truth.frames[:2]))
    with pytest.raises(PredictionError, match="8x8 pixels are too small: at least 64"):
        GeometricPredictor()(as_clip(truth.frames[:, :8, :8].contiguous()))
