"""The whole alignment on a small scene whose truth is known, with what a user may know beforehand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from wavy_wall import FOCAL, HEIGHT, WIDTH, World

from das3r_ns import geometry
from das3r_ns.evaluation.metrics.poses import pose_errors
from das3r_ns.predictor.network import settings
from das3r_ns.predictor.network.alignment import KnownGeometry, align
from das3r_ns.predictor.network.alignment.align import flow_measurement
from das3r_ns.predictor.network.alignment.objective import flow_disagreement, observe
from das3r_ns.predictor.network.alignment.state import AlignmentState, encode_translation
from das3r_ns.predictor.network.settings import AlignmentConfig, PairGraph
from das3r_ns.predictor.network.simulated_pairs import PairErrors, simulate_pairs

FRAMES = 6
QUICK = AlignmentConfig(num_steps=120, flow_weight=0.0)


@pytest.fixture(scope="module")
def world() -> World:
    return World(FRAMES)


def assert_depth_fits(found: torch.Tensor, truth: torch.Tensor, tolerance: float, scale: float | None = None) -> None:
    scale = float((truth / found).median()) if scale is None else scale
    assert float((found * scale / truth - 1).abs().mean()) < tolerance


def test_a_scene_is_recovered_up_to_a_similarity(world):
    found = align(world.pairs(), FRAMES, QUICK)
    errors = pose_errors(found.T_world_camera, world.T)
    assert errors.ate_percent < 2
    assert errors.rpe_rotation_deg < 0.3
    assert float(found.K[0, 0, 0]) == pytest.approx(FOCAL, rel=0.01)
    assert_depth_fits(found.depth, world.depth, 0.01)
    assert torch.equal(found.dynamic_prob > 0.5, world.dynamic)
    assert (found.confidence > 0).float().mean() > 0.9
    assert found.confidence.min() >= 0
    assert found.trace[-1] < found.trace[0]


def test_fewer_pixels_in_the_steps_give_the_same_world(world, monkeypatch):
    dense = align(world.pairs(), FRAMES, QUICK)
    assert QUICK.stride_for(HEIGHT, WIDTH) < 3
    monkeypatch.setattr(settings, "MIN_PIXELS", 150)
    assert QUICK.stride_for(HEIGHT, WIDTH) == 3
    sparse = align(world.pairs(), FRAMES, QUICK)
    assert float(sparse.objective.total) < 1.05 * float(dense.objective.total)
    assert sparse.depth.shape == dense.depth.shape
    assert pose_errors(sparse.T_world_camera, world.T).ate_percent < 2


def test_a_known_focal_length_is_kept(world):
    found = align(world.pairs(), FRAMES, QUICK, KnownGeometry(focal_px=44.0))
    torch.testing.assert_close(found.K[:, 0, 0], torch.full((FRAMES,), 44.0))
    torch.testing.assert_close(found.K[:, 1, 1], torch.full((FRAMES,), 44.0))


def test_known_cameras_are_kept_and_set_the_unit_of_the_depth(world):
    # The user's world: elsewhere, turned, three times as large, with a principal point off the middle.
    S = torch.eye(4)
    S[:3, :3] = 3 * torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    S[:3, 3] = torch.tensor([5.0, -2, 1])
    T, scale = geometry.apply_similarity(S, world.T)
    assert scale == pytest.approx(3)
    K = world.K.repeat(FRAMES, 1, 1)
    found = align(world.pairs(), FRAMES, replace(QUICK, num_steps=300), KnownGeometry(T_world_camera=T, K=K))
    torch.testing.assert_close(found.T_world_camera, T, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.K, K)
    assert_depth_fits(found.depth, 3 * world.depth, 0.015, scale=1.0)


def test_known_cameras_that_stand_still_are_kept(world):
    T = world.T.clone()
    T[:, :3, 3] = torch.tensor([1.0, 2, 3])
    found = align(world.pairs(), FRAMES, QUICK, KnownGeometry(T_world_camera=T, K=world.K.repeat(FRAMES, 1, 1)))
    torch.testing.assert_close(found.T_world_camera, T, atol=1e-5, rtol=1e-5)
    assert found.depth.isfinite().all()


def test_an_off_centre_principal_point_and_oblong_pixels_come_back_in_K(world):
    K = world.K.clone()
    K[0, 2] += 3
    K[1, 1] *= 1.05
    T = world.T
    depth = world.depth
    pairs = simulate_pairs(
        depth, world.dynamic, T, K, PairGraph().edges(FRAMES), PairErrors(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    )
    found = align(pairs, FRAMES, QUICK, KnownGeometry(T_world_camera=T, K=K.repeat(FRAMES, 1, 1)))
    torch.testing.assert_close(found.K[0], K, rtol=1e-5, atol=1e-4)
    assert float(found.objective.first) < 0.01 * float(world.depth.mean())


def test_known_cameras_must_fit_the_clip(world):
    with pytest.raises(ValueError, match="2 known cameras for 6 frames"):
        align(world.pairs(), FRAMES, QUICK, KnownGeometry(T_world_camera=world.T[:2], K=world.K.repeat(2, 1, 1)))


def test_zooming_footage_may_have_a_focal_length_per_frame(world):
    found = align(world.pairs(), FRAMES, replace(QUICK, shared_focal=False))
    focal = found.K[:, 0, 0]
    assert len(focal.unique()) > 1
    torch.testing.assert_close(focal, torch.full((FRAMES,), FOCAL), rtol=0.02, atol=0)


def test_two_frames_are_enough():
    two = World(2)
    found = align(two.pairs(), 2, QUICK)
    relative = geometry.invert(found.T_world_camera[0]) @ found.T_world_camera[1]
    expected = geometry.invert(two.T[0]) @ two.T[1]
    torch.testing.assert_close(relative[:3, :3], expected[:3, :3], atol=0.01, rtol=0)
    direction = relative[:3, 3] / relative[:3, 3].norm()
    assert direction @ (expected[:3, 3] / expected[:3, 3].norm()) > 0.95


def test_a_pair_in_one_direction_only_is_enough():
    two = World(2)
    found = align(two.pairs([(0, 1)]), 2, QUICK)
    assert found.T_world_camera.isfinite().all()
    assert found.dynamic_prob[1].eq(0).all(), "frame 1 is first in no pair"


def test_identical_frames_give_a_camera_that_stands_still():
    still = World(FRAMES)
    still.T = still.T[:1].repeat(FRAMES, 1, 1)
    still.depth = still.depth[:1].repeat(FRAMES, 1, 1)
    found = align(still.pairs(), FRAMES, QUICK)
    position = found.T_world_camera[:, :3, 3]
    assert float((position - position.mean(0)).norm(dim=-1).max()) < 0.01 * float(found.depth.median())
    assert found.depth.isfinite().all()


def test_flow_is_measured_between_near_frames_once_and_where_static(world):
    asked = []

    def flow(source: int, target: int):
        asked.append((source, target))
        K, T = world.K, geometry.invert(world.T[target]) @ world.T[source]
        exact, _ = geometry.rigid_flow(world.depth[source], K, K, T)
        vectors = exact.numpy().copy()
        vectors[10:20, 10:20] = 30  # what moves has another flow, and must not pull
        return vectors, np.zeros((HEIGHT, WIDTH), np.float32)

    config = replace(QUICK, flow_weight=0.01, flow_max_distance=1)
    found = align(world.pairs(), FRAMES, config, flow=flow)
    assert sorted(asked) == sorted(PairGraph(window=1).edges(FRAMES))
    without = align(world.pairs(), FRAMES, replace(config, flow_weight=0.0), flow=flow)
    assert len(asked) == 10
    ours, theirs = (pose_errors(run.T_world_camera, world.T) for run in (found, without))
    assert ours.rpe_translation < theirs.rpe_translation
    assert ours.ate_percent < 2


def test_flow_of_oblong_pixels_is_counted_in_horizontal_ones():
    # A camera 0.2 to the right and 0.1 down, depth 4, focal lengths 40 and 50: points move by (-2, -1.25) pixels.
    K = torch.tensor([[40.0, 0, 24], [0, 50, 16], [0, 0, 1]])
    T = torch.eye(4).repeat(2, 1, 1)
    T[1, :2, 3] = torch.tensor([0.2, 0.1])
    flat, still = torch.full((2, HEIGHT, WIDTH), 4.0), torch.zeros(2, HEIGHT, WIDTH, dtype=torch.bool)
    exact = PairErrors(smooth=0.0, noise=0.0, rotation_deg=0.0, translation=0.0, log_scale=0.0, mask=0.0)
    pairs = simulate_pairs(flat, still, T, K, [(0, 1), (1, 0)], exact)
    asked = []

    def flow(source: int, target: int):
        asked.append((source, target))
        step = np.array([-2.0, -1.25], np.float32) * (target - source)
        return np.broadcast_to(step, (HEIGHT, WIDTH, 2)).copy(), np.zeros((HEIGHT, WIDTH), np.float32)

    seen = observe(pairs, 2, 1, (24.0, 16.0), 40 / 50)
    config = replace(QUICK, flow_weight=0.01)
    measure = flow_measurement(flow, [[0, 1], [1, 0]], seen, torch.zeros(2, HEIGHT, WIDTH), config, 1, 40 / 50)
    assert measure is not None
    measured = measure()
    assert measure() is measured
    assert asked == [(0, 1), (1, 0)]
    still_quat = torch.tensor([[0.0, 0, 0, 1]] * 2)
    truth = AlignmentState(
        edge_quat_xyzw=still_quat,
        edge_translation_code=torch.zeros(2, 3),
        edge_log_scale=torch.zeros(2),
        camera_quat_xyzw=still_quat,
        camera_translation_code=encode_translation(T[:, :3, 3]),
        focal_code=20 * torch.tensor([40.0]).log(),
        log_depth=flat.flatten(1).log(),
        log_base_scale=torch.tensor(0.5).log(),
    )
    left = flow_disagreement(truth, truth.world_points(seen.offsets), seen.offsets, measured)
    assert float(left) == pytest.approx(0, abs=1e-6)
