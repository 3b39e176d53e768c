"""Long clips that come back: which frames look alike, and drift that is taken out where places are seen again."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import roma
import torch

from das3r_ns import geometry
from das3r_ns.evaluation.metrics.poses import pose_errors
from das3r_ns.predictor.cameras.colmap_features import Features, extract_features
from das3r_ns.predictor.cameras.config import FeatureConfig
from das3r_ns.predictor.cameras.loop_closure import _bent, close_loops
from das3r_ns.predictor.cameras.pose_graph import PoseGraphEdge, optimize_pose_graph
from das3r_ns.predictor.cameras.retrieval import retrieve_pairs, vlad_descriptors
from das3r_ns.predictor.cameras.sfm import CameraEstimate
from das3r_ns.predictor.cameras.sfm.subpixel import SubpixelMatcher
from das3r_ns.synthetic import SyntheticClip, SyntheticConfig, make_clip

WALK = [*range(16), *range(14, -1, -1), *range(1, 16)]
"""Frames of the clip in the order they are walked through: there, back, and there again."""
APART = 20
SIZE = (168, 224)


@pytest.fixture(scope="module")
def truth() -> SyntheticClip:
    return make_clip(SyntheticConfig(num_frames=16, height=168, width=224, movers=0))


def estimate(truth: SyntheticClip, turn: float = 0.0, stretch: float = 1.0) -> CameraEstimate:
    """True cameras of the walk and points on corners, each step turned (radians) and stretched by a little more."""
    T_true = truth.T_world_camera[WALK].double()
    # Exact again, as they were before single precision.
    T_true[:, :3, :3] = roma.rotvec_to_rotmat(roma.rotmat_to_rotvec(T_true[:, :3, :3]))
    sharpener = SubpixelMatcher(lambda i: truth.frames[WALK[i]].numpy(), SIZE, 8)
    v, u = np.mgrid[6:168:12, 6:224:12]
    grid = np.stack((u, v), axis=-1).reshape(-1, 2).astype(np.float32)
    turned = torch.eye(4, dtype=torch.float64)
    turned[0, 0] = turned[2, 2] = np.cos(turn)
    turned[0, 2], turned[2, 0] = np.sin(turn), -np.sin(turn)
    T, points, frame, pixels = [T_true[0]], [], [], []
    for i in range(len(WALK)):
        if i > 0:
            step = geometry.invert(T_true[i - 1]) @ T_true[i]
            step[:3, 3] *= stretch**i
            T.append(T[-1] @ step @ turned)
        pixel = torch.from_numpy(sharpener.corners(i, grid, 6.0)).double()
        column, row = pixel.long().unbind(1)
        depth = truth.depth[WALK[i]][row, column].double() * stretch**i
        focal = float(truth.K[0, 0])
        ray = torch.cat(((pixel - torch.tensor([112.0, 84.0])) / focal, torch.ones(len(pixel), 1)), dim=1)
        points.append(geometry.transform(T[i], ray * depth[:, None]))
        frame.append(torch.full((len(pixel),), i))
        pixels.append(pixel)
    n = len(WALK)
    return CameraEstimate(
        torch.stack(T),
        float(truth.K[0, 0]),
        0.01,
        torch.ones(n, dtype=torch.bool),
        torch.full((n,), 0.1, dtype=torch.float64),
        0.9,
        torch.cat(points),
        torch.cat(frame),
        torch.cat(pixels),
    )


def close(truth: SyntheticClip, cameras: CameraEstimate, features=None, apart: int = APART) -> CameraEstimate:
    def image(i: int) -> np.ndarray:
        return truth.frames[WALK[i]].numpy()

    found = features or cache(lambda i: extract_features(image(i), FeatureConfig()))
    return close_loops(cameras, range(0, len(WALK), 3), found, image, SIZE, apart)


def ate(cameras: CameraEstimate, truth: SyntheticClip) -> float:
    return pose_errors(cameras.T_world_camera, truth.T_world_camera[WALK].double()).ate


@pytest.mark.parametrize(("turn", "stretch"), [(0.004, 1.0), (0.0, 1.004), (-0.003, 0.997)])
def test_drift_is_gone_where_places_are_seen_again(truth, turn, stretch):
    drifted = estimate(truth, turn, stretch)
    closed = close(truth, drifted)
    assert ate(drifted, truth) > 0.02  # metres
    assert ate(closed, truth) < 0.2 * ate(drifted, truth)
    rotation = closed.T_world_camera[:, :3, :3]  # cameras stay rigid though their parts change in size
    torch.testing.assert_close(
        rotation @ rotation.mT, torch.eye(3, dtype=torch.float64).expand(len(WALK), 3, 3), atol=1e-9, rtol=0
    )


def test_the_bend_is_spread_over_the_frames_between_key_frames():
    # Seven cameras along x; frame 4 belongs 0.4 higher, and its surroundings are twice as large as they seemed.
    T = torch.eye(4, dtype=torch.float64).repeat(7, 1, 1)
    T[:, 0, 3] = torch.arange(7)
    parts = T[[0, 4]].clone()
    parts[1, 1, 3], parts[1, :3, :3] = 0.4, 2 * torch.eye(3)
    point, pixel = torch.tensor([[4.0, 0.0, 1.0]], dtype=torch.float64), torch.zeros(1, 2, dtype=torch.float64)
    one = CameraEstimate(T, 1.0, 0.0, torch.ones(7, dtype=torch.bool), T[:, 0, 0], 1.0, point, torch.tensor([4]), pixel)
    bent = _bent(one, [0, 4], parts, 1.0)
    heights = torch.tensor([0.0, 0.1, 0.2, 0.3, 0.4, 0.4, 0.4], dtype=torch.float64)
    torch.testing.assert_close(bent.T_world_camera[:, 1, 3], heights)
    assert float(bent.T_world_camera[6, 0, 3]) == pytest.approx(8)  # 4 and twice 2
    torch.testing.assert_close(bent.T_world_camera[:, :3, :3], T[:, :3, :3])
    torch.testing.assert_close(bent.points, torch.tensor([[4.0, 0.4, 2.0]], dtype=torch.float64))


def test_points_move_with_the_cameras_that_saw_them(truth):
    closed = close(truth, estimate(truth, 0.004, 1.004))
    T_camera_world = geometry.invert(closed.T_world_camera)[closed.point_frame]
    seen = geometry.transform(T_camera_world, closed.points)
    pixel = closed.focal_px * seen[:, :2] / seen[:, 2:] + torch.tensor([112.0, 84.0])
    torch.testing.assert_close(pixel, closed.point_pixel, atol=1e-6, rtol=0)


def test_good_cameras_stay_good(truth):
    exact = estimate(truth)
    assert ate(close(truth, exact), truth) < 0.005  # metres; the path is a metre and a half long


def test_a_clip_too_short_to_come_back_is_left_alone(truth):
    drifted = estimate(truth, 0.004)
    assert close(truth, drifted, apart=len(WALK)) is drifted


def test_frames_that_look_alike_but_fit_no_camera_tie_nothing(truth):
    drifted, rng = estimate(truth, 0.004), np.random.default_rng(0)
    descriptors = rng.integers(0, 255, (300, 128)).astype(np.uint8)
    places = [(rng.uniform(0, 1, (300, 2)) * (224, 168)).astype(np.float32) for _ in WALK]
    assert close(truth, drifted, lambda i: Features(places[i], descriptors)) is drifted


def test_pairs_grow_with_the_number_of_frames_and_not_with_its_square():
    def pairs(n: int) -> int:
        return len(retrieve_pairs(np.ones((n, 4), np.float32), range(n), apart=5, most=2))

    # The first 5 frames have nobody before them, the next but one, every other two.
    assert pairs(40) == 2 * 34 + 1
    assert pairs(600) == 2 * 594 + 1  # more than are compared at a time


def test_each_frame_is_paired_with_the_earlier_ones_most_like_it():
    here, there, between = [1.0, 0.0], [0.0, 1.0], [0.6, 0.8]
    vectors = np.array([here, there, between, here, there], np.float32)
    # 10 frames apart; 3 looks like 0 and then like 2, but 2 is too near in time; 4 like 1.
    assert retrieve_pairs(vectors, [0, 10, 20, 25, 40], apart=10, most=1) == [(0, 3), (1, 2), (1, 4)]
    assert retrieve_pairs(vectors[:2], [0, 10], apart=10, most=1) == []  # nothing in common


def test_the_same_place_is_described_alike_and_another_is_not(truth):
    other = make_clip(SyntheticConfig(num_frames=2, height=168, width=224, movers=0, seed=3))
    frames = [truth.frames[0], truth.frames[1], other.frames[0], other.frames[1]]
    found = [extract_features(frame.numpy(), FeatureConfig()).descriptors for frame in frames]
    vectors = vlad_descriptors([*found, found[0][:0]])
    alike = vectors @ vectors.T
    assert min(alike[0, 1], alike[2, 3]) > 2 * alike[:2, 2:4].max()
    assert np.allclose(np.diag(alike)[:4], 1, atol=1e-5)
    assert not vectors[4].any()  # a frame without features looks like nothing


def test_a_long_way_back_to_its_start_is_closed():
    # 200 steps of 1 along a line, each measured 1 % too long; the last part is known to lie 200 from the first.
    def shift(x: float) -> torch.Tensor:
        T = torch.eye(4, dtype=torch.float64)
        T[0, 3] = x
        return T

    chain = [PoseGraphEdge(k, k + 1, shift(1.01)) for k in range(200)]
    assert float(optimize_pose_graph(201, chain, 1.0)[-1, 0, 3]) == pytest.approx(202)
    closed = optimize_pose_graph(201, [*chain, PoseGraphEdge(0, 200, shift(200.0))], 1.0)
    assert float(closed[-1, 0, 3]) == pytest.approx(200, abs=0.02)
    steps = closed[:, 0, 3].diff()
    torch.testing.assert_close(steps, torch.ones_like(steps), atol=0.012, rtol=0)


def test_frames_without_points_or_pose_tie_nothing(truth):
    cameras = estimate(truth)
    nothing = {name: getattr(cameras, name)[:0] for name in ("points", "point_frame", "point_pixel")}
    none = replace(cameras, **nothing)
    assert close(truth, none) is none
    unposed = replace(cameras, pose_known=torch.zeros(len(WALK), dtype=torch.bool))
    assert close(truth, unposed) is unposed
