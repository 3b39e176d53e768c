"""Cameras and depths that cannot be are never written, and what nobody filmed has the size of the maps."""

import numpy as np
import pytest
import torch

from das3r_ns.predictor.base import PredictionError, UserPriors
from das3r_ns.predictor.cameras.colmap import CameraPath
from das3r_ns.predictor.depth.inverse_depth import InverseDepth
from das3r_ns.predictor.geometric.checks import check_reach
from das3r_ns.predictor.geometric.clip_flow import flow_between
from das3r_ns.predictor.geometric.config import GeometricPredictorConfig
from das3r_ns.predictor.geometric.dense import depth_and_confidence
from das3r_ns.predictor.geometric.predictor import GeometricPredictor, _Filmed
from das3r_ns.predictor.masks.decide import median_static_depth
from das3r_ns.scene.lens import RadialLens
from das3r_ns.video.clip import Clip


def fit_of(inverse_depth: list[float]) -> InverseDepth:
    d = np.array([inverse_depth], np.float32)
    ones = np.ones_like(d)
    return InverseDepth(d, 0.1 * ones, ones, ones, 2 * ones, d, np.zeros((2, *d.shape), np.float32))


def test_a_depth_that_the_path_of_the_cameras_makes_impossible_is_unknown():
    depth, confidence = depth_and_confidence(fit_of([0.5, 1e11]), nearest=0.01)
    assert depth.tolist() == [[2.0, 0.0]]
    assert confidence[0, 0] > 0
    assert confidence[0, 1] == 0
    depth, _ = depth_and_confidence(fit_of([0.5, 1e11]))  # cameras that stand still say nothing about it
    assert (depth > 0).all()


def test_frames_whose_pose_is_a_guess_do_not_set_the_scale():
    depth = np.full((3, 2, 2), 4.0, np.float32)
    depth[1:] = 1e-6
    known, nothing = np.array([True, False, False]), np.zeros_like(depth)
    assert median_static_depth(depth, depth, nothing) == pytest.approx(1e-6)
    assert median_static_depth(depth, depth, nothing, known) == 4.0
    depth[0] = 0
    assert median_static_depth(depth, depth, nothing, known) == pytest.approx(1e-6)


@pytest.mark.parametrize("far", [1e4, float("inf"), float("nan")])
def test_cameras_further_apart_than_any_camera_travels_are_an_error(far):
    T = torch.eye(4, dtype=torch.float64).repeat(5, 1, 1)
    T[:, 0, 3] = torch.arange(5)
    known = torch.ones(5, dtype=torch.bool)
    check_reach(T, known)
    T[4, 0, 3] = far
    with pytest.raises(PredictionError, match="which no camera travels"):
        check_reach(T, known)
    known[4] = False  # a guess between others is judged nowhere
    check_reach(T, known)


def test_what_nobody_filmed_through_a_pincushion_lens_is_covered_at_the_size_of_the_maps(monkeypatch):
    frames = torch.from_numpy(np.random.default_rng(0).integers(0, 255, (4, 120, 200, 3)).astype(np.uint8))
    clip = Clip(frames, 30.0, tuple("abcd"))
    predictor = GeometricPredictor(GeometricPredictorConfig(map_longest_side=100))
    nothing = np.zeros((0, 3))
    path = CameraPath(np.tile(np.eye(4), (4, 1, 1)), np.ones(4, bool), 150.0, nothing, nothing.astype(np.uint8), 0.0)
    answers = [RadialLens(150.0, 100.0, 60.0, 0.3), path]
    seen = []
    monkeypatch.setattr(predictor, "_cameras", lambda filmed, lens: seen.append(filmed) or answers[len(seen) - 1])
    flow = flow_between(clip, predictor._estimator, predictor.config)
    filmed, cameras = predictor._undistorted(_Filmed(clip, flow, UserPriors(), None))
    assert cameras.lens == answers[0]
    assert filmed.overlay_mask is not None
    assert filmed.overlay_mask.shape == filmed.flow.map_size == (60, 100)
    assert filmed.overlay_mask[0, 0]
    assert not filmed.overlay_mask[30, 50]
