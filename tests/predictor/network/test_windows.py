"""Long clips in windows: cut, joined, looped, against a world whose truth is known."""

import itertools
import math

import pytest
import roma
import torch
from wavy_wall import FOCAL, World

from das3r_ns import geometry
from das3r_ns.evaluation.metrics.poses import pose_errors
from das3r_ns.predictor.cameras.pose_graph import PoseGraphEdge, optimize_pose_graph, similarity_exp, similarity_log
from das3r_ns.predictor.network.alignment import Alignment, KnownGeometry
from das3r_ns.predictor.network.alignment.objective import Objective
from das3r_ns.predictor.network.settings import AlignmentConfig, PairGraph, WindowConfig
from das3r_ns.predictor.network.windows import Window, align_clip, cut, join, robust_similarity, tie_neighbours

SMALL = WindowConfig(frames=12, overlap=4, max_loops=0)
QUICK = AlignmentConfig(num_steps=100, flow_weight=0.0)
GRAPH = PairGraph(window=2)


@pytest.mark.parametrize("num_frames", [2, 79, 80, 81, 100, 149, 500])
def test_windows_cover_the_clip_evenly_and_overlap_enough(num_frames):
    config = WindowConfig()
    windows = cut(num_frames, config)
    assert windows[0].start == 0
    assert windows[-1].stop == num_frames
    assert len({len(window) for window in windows}) == 1
    assert len(windows[0]) <= config.frames
    for a, b in itertools.pairwise(windows):
        assert a.stop - b.start >= config.overlap
    for a, c in zip(windows, windows[2:]):
        assert a.stop <= c.start, "no frame is in three windows"


@pytest.mark.parametrize(("frames", "overlap"), [(30, 1), (30, 11)])
def test_windows_that_cannot_overlap_are_refused(frames, overlap):
    with pytest.raises(ValueError, match="a third of the window"):
        WindowConfig(frames, overlap)


def run(world: World, windows: WindowConfig, known: KnownGeometry | None = None, **settings):
    config = AlignmentConfig(num_steps=100, flow_weight=0.0, **settings)
    return align_clip(world.predict, len(world.T), GRAPH, config, windows, known or KnownGeometry())


@pytest.fixture(scope="module")
def world() -> World:
    return World(26)


def test_joined_windows_are_one_world(world):
    assert len(cut(26, SMALL)) == 3
    found = run(world, SMALL)
    errors = pose_errors(found.T_world_camera, world.T)
    assert errors.ate_percent < 1.5
    scaled = found.depth * float((world.depth / found.depth).median())
    per_frame = (scaled / world.depth - 1).abs().mean(dim=(1, 2))
    assert float(per_frame.max()) < 0.06, "no window has a scale of its own"
    assert torch.equal(found.dynamic_prob > 0.5, world.dynamic)
    assert len(found.K) == len(found.depth) == len(found.confidence) == 26
    torch.testing.assert_close(found.K[0], found.K[-1])
    assert float(found.K[0, 0, 0]) == pytest.approx(FOCAL, rel=0.02)
    rotations = found.T_world_camera[:, :3, :3]
    torch.testing.assert_close(rotations @ rotations.transpose(1, 2), torch.eye(3).expand(26, 3, 3), atol=1e-5, rtol=0)


def true_window(world: World, frames: range, T_own_world: torch.Tensor) -> Window:
    """What a window would hold if its alignment were perfect, in a world of its own."""
    part = slice(frames.start, frames.stop)
    cameras, scale = geometry.apply_similarity(T_own_world, world.T[part])
    ones = torch.ones_like(world.depth[part])
    nothing = torch.zeros(())
    cost = Objective(nothing, nothing, nothing, nothing, nothing)
    K = world.K.repeat(len(frames), 1, 1)
    return Window(frames, Alignment(cameras, K, scale * world.depth[part], ones, 0 * ones, cost, torch.zeros(1)))


def test_windows_of_different_scale_and_place_are_joined_exactly(world):
    moved = similarity_exp(torch.tensor([0.1, -0.2, 0.3, 1.0, 2.0, -1.0, 0.7]), 1.0)
    parts = [true_window(world, range(12), torch.eye(4)), true_window(world, range(8, 20), moved)]
    T_a_b = tie_neighbours(*parts)
    torch.testing.assert_close(T_a_b, geometry.invert(moved), atol=1e-4, rtol=1e-4)
    found = join(parts, torch.stack([torch.eye(4), T_a_b]))
    torch.testing.assert_close(found.T_world_camera, world.T[:20], atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(found.depth, world.depth[:20], atol=1e-3, rtol=1e-3)


def test_only_pairs_within_a_window_are_asked_for(world):
    asked = []

    def predict(frames, edges):
        asked.append((len(frames), len(edges)))
        return world.predict(frames, edges)

    align_clip(predict, 26, GRAPH, QUICK, SMALL, KnownGeometry())
    assert asked == [(12, len(GRAPH.edges(12)))] * 3


def test_known_cameras_need_no_joining(world):
    known = KnownGeometry(T_world_camera=world.T, K=world.K.repeat(26, 1, 1))
    found = run(world, SMALL, known)
    torch.testing.assert_close(found.T_world_camera, world.T, atol=1e-4, rtol=1e-4)
    assert float((found.depth / world.depth - 1).abs().mean()) < 0.06


def test_flow_is_asked_for_by_the_frames_of_the_clip(world):
    asked = set()

    def flow(source, target):
        asked.add((source, target))
        K, T = world.K, geometry.invert(world.T[target]) @ world.T[source]
        vectors, _ = geometry.rigid_flow(world.depth[source], K, K, T)
        return vectors.numpy(), torch.zeros(32, 48).numpy()

    config = AlignmentConfig(num_steps=30, flow_max_distance=1)
    align_clip(world.predict, 26, GRAPH, config, SMALL, KnownGeometry(), flow)
    assert asked == {edge for k in range(25) for edge in ((k, k + 1), (k + 1, k))}


def test_a_loop_pulls_the_ends_together():
    world = World(26, returns=True)
    open_ended, looped = (run(world, WindowConfig(12, 4, loops)) for loops in (0, 8))

    def gap(found) -> float:
        """Largest distance between cameras that should stand in the same place, first frames and last."""
        position = found.T_world_camera[:, :3, 3] * float((world.depth / found.depth).median())
        return float((position[:3] - position.flip(0)[:3]).norm(dim=-1).max())

    assert gap(looped) < 0.5 * gap(open_ended)
    before, after = (pose_errors(found.T_world_camera, world.T).ate for found in (open_ended, looped))
    assert after < before


def test_a_robust_similarity_survives_wrong_points():
    torch.manual_seed(2)
    source = torch.randn(500, 3) + torch.tensor([0.0, 0, 5])
    T = similarity_exp(torch.tensor([0.1, -0.2, 0.3, 1.0, 2.0, -1.0, 0.4]), 1.0)
    target = geometry.transform(T, source)
    target[:150] += torch.randn(150, 3)
    found = robust_similarity(source, target, torch.ones(500))
    torch.testing.assert_close(found, T, atol=2e-2, rtol=0)


def test_similarity_codes_come_back():
    code = torch.tensor([0.1, -0.2, 0.3, 1.0, 2.0, -1.0, 0.4])
    torch.testing.assert_close(similarity_log(similarity_exp(code, 3.0), 3.0), code)
    torch.testing.assert_close(similarity_log(torch.eye(4), 3.0), torch.zeros(7), atol=1e-6, rtol=0)


def test_a_closed_ring_spreads_the_error_evenly():
    # Four windows in a square, each tie a quarter turn and a step, each measured 5 % too long; a loop ties 3 to 0.
    exact = torch.eye(4)
    exact[:3, :3] = roma.rotvec_to_rotmat(torch.tensor([0.0, 0, math.pi / 2]))
    exact[0, 3] = 1.0
    long = exact.clone()
    long[:3, :3] *= 1.05
    ties = [PoseGraphEdge(k, k + 1, long) for k in range(3)]
    drifted = optimize_pose_graph(4, ties, 1.0)
    torch.testing.assert_close(torch.linalg.det(drifted[3, :3, :3]) ** (1 / 3), torch.tensor(1.05**3))
    closed = optimize_pose_graph(4, [*ties, PoseGraphEdge(3, 0, long)], 1.0)
    scales = torch.linalg.det(closed[:, :3, :3]) ** (1 / 3)
    # Four equal ties that multiply to 1.05^4 around a ring that must close: each gives up its whole 5 %.
    torch.testing.assert_close(scales, torch.ones(4), atol=0.02, rtol=0)


def test_ties_that_contradict_one_another_are_noticed():
    tie = PoseGraphEdge(0, 2, torch.eye(4))
    turned = torch.eye(4)
    turned[:3, :3] = roma.rotvec_to_rotmat(torch.tensor([0.0, 0.1, 0]))
    shifted = torch.eye(4)
    shifted[0, 3] = 0.5
    assert tie.agrees(tie, 4.0)
    assert not tie.agrees(PoseGraphEdge(0, 2, turned), 4.0)
    assert not tie.agrees(PoseGraphEdge(0, 2, shifted), 4.0)
    assert tie.agrees(PoseGraphEdge(0, 2, shifted), 10.0)
    assert not tie.agrees(PoseGraphEdge(0, 2, 1.3 * torch.eye(4)), 4.0)
