"""The geometric predictor, whole: truth recovered on a synthetic clip, and clips it must refuse."""

import cv2
import numpy as np
import pytest
import torch

from das3r_ns.evaluation.metrics.poses import pose_errors
from das3r_ns.predictor.base import PredictionError, UserPriors
from das3r_ns.predictor.geometric import predictor as geometric
from das3r_ns.predictor.geometric.config import GeometricPredictorConfig
from das3r_ns.predictor.geometric.predictor import GeometricPredictor
from das3r_ns.predictor.masks.config import MaskConfig
from das3r_ns.synthetic import SyntheticConfig, make_clip
from das3r_ns.video.clip import Clip

CONFIG = SyntheticConfig(num_frames=16)


def as_clip(frames: torch.Tensor) -> Clip:
    return Clip(frames, 15.0, tuple(f"{i:05d}" for i in range(len(frames))))


@pytest.fixture(scope="module")
def truth():
    return make_clip(CONFIG)


@pytest.fixture(scope="module")
def scene_of_known_cameras(truth):
    K = truth.K.expand(len(truth), 3, 3).clone()
    return GeometricPredictor()(as_clip(truth.frames), UserPriors(T_world_camera=truth.T_world_camera, K=K))


def test_with_known_cameras_depth_is_true_and_stays_in_the_users_world(truth, scene_of_known_cameras):
    scene = scene_of_known_cameras
    torch.testing.assert_close(scene.T_world_camera, truth.T_world_camera)
    static = ~truth.dynamic_mask & (scene.confidence > 5)
    assert static.float().mean() > 0.5
    error = (scene.depth - truth.depth).abs() / truth.depth
    assert error[static].median() < 0.03


def test_with_known_cameras_the_moving_objects_are_found(truth, scene_of_known_cameras):
    moving = scene_of_known_cameras.dynamic_prob > 0.5
    both = (moving & truth.dynamic_mask).sum()
    assert both / (moving | truth.dynamic_mask).sum() > 0.6


def test_an_object_that_stands_for_half_of_the_clip_is_found_while_it_stands():
    clip = make_clip(SyntheticConfig(num_frames=24, height=108, width=192, movers_wait=0.6))
    waiting = slice(0, 12)

    def found(seen_through: float) -> float:
        masks = MaskConfig(refiner="none", seen_through=seen_through)
        scene = GeometricPredictor(GeometricPredictorConfig(masks=masks))(as_clip(clip.frames))
        moving, true = scene.dynamic_prob[waiting] > 0.5, clip.dynamic_mask[waiting]
        return float((moving & true).sum() / (moving | true).sum())

    assert found(seen_through=0.0) < 0.1
    assert found(seen_through=0.15) > 0.45


@pytest.mark.slow
def test_bars_a_caption_and_a_black_frame_are_left_out_and_the_rest_is_as_without(truth, capsys):
    frames = torch.cat((torch.zeros(1, *truth.frames.shape[1:], dtype=torch.uint8), truth.frames))
    frames[:, :20] = frames[:, -20:] = 0
    words = cv2.putText(np.zeros((180, 320), np.uint8), "WAIT FOR IT", (100, 150), 0, 0.5, (255,), 2) > 0
    frames[1:, torch.from_numpy(words)] = 255
    scene = GeometricPredictor()(as_clip(frames))
    assert "bars, which leave 320x136 of 320x180 pixels and signs or words" in " ".join(capsys.readouterr().out.split())
    assert scene.image_size == (180, 320)
    assert scene.pose_known.tolist() == [False] + [True] * 16
    assert pose_errors(scene.T_world_camera[1:], truth.T_world_camera).ate_percent < 0.5
    assert abs(float(scene.K[0, 0, 0] / truth.K[0, 0]) - 1) < 0.02
    assert scene.K[0, 1, 2] == 90
    nothing = torch.zeros(scene.depth.shape, dtype=torch.bool)
    nothing[0] = True  # the black frame
    nothing[:, :20] = nothing[:, -20:] = True
    nothing[:, torch.from_numpy(words)] = True
    assert (scene.dynamic_prob[nothing] == 1).all()
    assert (scene.confidence[nothing] == 0).all()
    assert scene.dynamic_prob[1:, 25:130].mean() < 0.35


def test_nobody_looks_for_bars_and_signs_when_told_not_to(truth, monkeypatch):
    def looked(frames: torch.Tensor) -> None:
        raise AssertionError("looked for bars and signs")

    monkeypatch.setattr(geometric, "find_overlays", looked)
    known = UserPriors(T_world_camera=truth.T_world_camera, K=truth.K.expand(len(truth), 3, 3).clone())
    path = GeometricPredictor(GeometricPredictorConfig(laid_over=False)).cameras(as_clip(truth.frames), known)
    assert path.registered.all()
    with pytest.raises(AssertionError, match="looked"):
        GeometricPredictor().cameras(as_clip(truth.frames), known)


def test_a_clip_of_black_frames_says_there_is_nothing_to_follow():
    with pytest.raises(PredictionError, match="almost of one colour"):
        GeometricPredictor()(as_clip(torch.zeros(8, 120, 160, 3, dtype=torch.uint8)))


def test_too_few_and_too_small_frames_are_refused_with_the_number_needed(truth):
    with pytest.raises(PredictionError, match="has 2 frames, and at least 3"):
        GeometricPredictor()(as_clip(truth.frames[:2]))
    with pytest.raises(PredictionError, match="8x8 pixels are too small: at least 64"):
        GeometricPredictor()(as_clip(truth.frames[:, :8, :8].contiguous()))
