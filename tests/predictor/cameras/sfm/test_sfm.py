"""Bundle adjustment over flow: derivatives against finite differences, cameras against clips whose truth is known."""

import numpy as np
import pytest
import torch
from exact_tracks import ExactFlow, reproject, small_problem
from scipy.spatial.transform import Rotation

from das3r_ns import geometry
from das3r_ns.evaluation.metrics.poses import pose_errors
from das3r_ns.predictor.cameras.sfm import (
    FocalKnowledge,
    InitializationError,
    Tracks,
    estimate,
    estimate_cameras,
    follow_grid,
    refine_cameras,
    weigh,
)
from das3r_ns.predictor.cameras.sfm.bundle_adjustment import Adjusted, FocalPrior, adjust
from das3r_ns.predictor.cameras.sfm.focal import focal_prior, with_usual_focal
from das3r_ns.predictor.cameras.sfm.initialization import triangulate
from das3r_ns.predictor.cameras.sfm.normal_equations import (
    State,
    adjoint,
    invert,
    linearise,
    point_step,
    relative_poses,
    robust_cost,
    squared_errors,
)
from das3r_ns.predictor.cameras.sfm.tracks import COMPOSED, DIRECT, _last_hop
from das3r_ns.predictor.flow.dis import DisFlow
from das3r_ns.predictor.flow.flow_maps import round_trip_error
from das3r_ns.synthetic import SyntheticClip, SyntheticConfig, make_clip


@pytest.fixture(scope="module")
def clip() -> SyntheticClip:
    return make_clip(SyntheticConfig(num_frames=20, height=90, width=160, movers=0, seed=2))


@pytest.fixture(scope="module")
def exact(clip: SyntheticClip) -> Tracks:
    return follow_grid(ExactFlow(clip), len(clip), points=300)


def focal_of(clip: SyntheticClip) -> float:
    return float(clip.K[0, 0])


def moved_state(state: State, cameras: np.ndarray, log_focal: float, points: np.ndarray) -> State:
    T = state.T_camera_world.copy()
    T[:, :3] = Rotation.from_rotvec(cameras[:, 3:]).as_matrix() @ T[:, :3]
    T[:, :3, 3] += cameras[:, :3]
    return State(T, state.focal * np.exp(log_focal), state.inverse_depth + points)


def test_errors_are_those_of_a_plain_reprojection():
    tracks, state, _ = small_problem()
    errors = squared_errors(tracks, state)
    for a in range(2):
        plain = np.square(reproject(tracks, state, a) - tracks.observed[a]).sum(axis=-1)
        np.testing.assert_allclose(errors[a], plain, rtol=1e-6)


def test_gradients_agree_with_finite_differences_of_the_robust_cost():
    tracks, state, scale = small_problem()
    equations = linearise(tracks, state, scale, 0.0, free_depth=False)
    with_points = linearise(tracks, state, scale, 0.0)

    def cost(cameras: np.ndarray, log_focal: float, points: np.ndarray) -> float:
        return robust_cost(tracks, squared_errors(tracks, moved_state(state, cameras, log_focal, points)), scale)

    step, none, still = 1e-5, np.zeros((3, 6)), np.zeros((2, 5))
    for frame in range(3):
        for axis in range(6):
            move = none.copy()
            move[frame, axis] = step
            slope = (cost(move, 0, still) - cost(-move, 0, still)) / (2 * step)
            assert 2 * equations.gradient[frame, axis] == pytest.approx(slope, rel=1e-3, abs=1e-3)
    slope = (cost(none, step, still) - cost(none, -step, still)) / (2 * step)
    assert 2 * equations.focal_gradient == pytest.approx(slope, rel=1e-3, abs=1e-3)
    for a in range(2):
        for p in range(5):
            move = still.copy()
            move[a, p] = step
            slope = (cost(none, 0, move) - cost(none, 0, -move)) / (2 * step)
            assert 2 * with_points.point_gradient[a, p] == pytest.approx(slope, rel=1e-3, abs=1e-3)


def test_eliminating_the_points_gives_the_step_of_the_full_dense_system():
    """Jacobian by finite differences of a plain reprojection, weights as stated, no Schur complement in blocks."""
    tracks, state, scale = small_problem()

    def residual(x: np.ndarray) -> np.ndarray:
        moved = moved_state(state, x[:18].reshape(3, 6), x[18], x[19:].reshape(2, 5))
        difference = np.stack([reproject(tracks, moved, a) for a in range(2)]) - tracks.observed
        return difference.reshape(-1)

    x0, step = np.zeros(29), 1e-6
    J = np.stack([(residual(x0 + step * e) - residual(x0 - step * e)) / (2 * step) for e in np.eye(29)], axis=1)
    e2 = squared_errors(tracks, state) / 0.7**2
    W = np.repeat((tracks.weight / (1 + e2 / 4) ** 2 / 0.7**2).reshape(-1), 2)
    keep = np.r_[6:29]  # the first camera is held
    H, g = (J.T * W) @ J, (J.T * W) @ residual(x0)
    H[keep, keep] += 1e-3  # the scale is free: make the system definite
    expected = np.zeros(29)
    expected[keep] = -np.linalg.solve(H[np.ix_(keep, keep)], g[keep])

    equations = linearise(tracks, state, scale, 0.0)
    dense = np.zeros((19, 19))
    for i in range(3):
        for d in range(min(equations.band.shape[1], 3 - i)):
            dense[6 * i : 6 * i + 6, 6 * (i + d) : 6 * (i + d) + 6] = equations.band[i, d]
            dense[6 * (i + d) : 6 * (i + d) + 6, 6 * i : 6 * i + 6] = equations.band[i, d].T
    dense[:18, 18] = dense[18, :18] = equations.focal_column.reshape(-1)
    dense[18, 18] = equations.focal_diagonal
    gradient = np.append(equations.gradient.reshape(-1), equations.focal_gradient)
    full = np.zeros((19, 19))  # the same complement, from the dense system
    full[:] = (J.T * W @ J)[:19, :19]
    points = (J.T * W @ J)[19:, 19:]
    coupling = (J.T * W @ J)[:19, 19:]
    full -= coupling @ np.linalg.inv(points) @ coupling.T
    np.testing.assert_allclose(dense, full, rtol=1e-3, atol=1e-3 * np.abs(full).max())
    np.testing.assert_allclose(
        gradient, g[:19] - coupling @ np.linalg.solve(points, g[19:]), rtol=1e-3, atol=1e-3 * np.abs(g).max()
    )
    cameras, focal = expected[:18].reshape(3, 6), expected[18]
    back = -np.linalg.solve(points, g[19:] + coupling.T @ expected[:19])
    np.testing.assert_allclose(point_step(equations, tracks, cameras, focal).reshape(-1), back, rtol=1e-2, atol=1e-4)


def test_the_adjoint_moves_a_small_motion_through_a_transform():
    T = np.tile(np.eye(4), (1, 1, 1))
    T[0, :3, :3] = Rotation.from_rotvec([0.3, -0.2, 0.5]).as_matrix()
    T[0, :3, 3] = [1.0, -2.0, 0.5]
    xi = 1e-6 * np.array([0.2, 0.1, -0.3, 0.4, -0.1, 0.2])

    def hat(x: np.ndarray) -> np.ndarray:
        M = np.zeros((4, 4))
        M[:3, :3] = np.array([[0, -x[5], x[4]], [x[5], 0, -x[3]], [-x[4], x[3], 0]])
        M[:3, 3] = x[:3]
        return M

    np.testing.assert_allclose(hat(adjoint(T)[0] @ xi), T[0] @ hat(xi) @ np.linalg.inv(T[0]), atol=1e-12)


def test_every_composed_offset_is_reached_by_a_direct_hop_from_one_reached_before():
    reached = {0}
    for offset in DIRECT + COMPOSED:
        assert abs(_last_hop(offset)) in DIRECT
        assert offset - _last_hop(offset) in reached
        assert _last_hop(-offset) == -_last_hop(offset)
        reached.add(offset)


def test_tracks_lie_where_the_geometry_puts_them(clip: SyntheticClip, exact: Tracks):
    T = invert(clip.T_world_camera.double().numpy())
    rho, inlier_weight = triangulate(exact, T, focal_of(clip), np.ones(len(clip), bool))
    index = np.floor(exact.pixel).astype(int)
    truth = np.stack([clip.clean_depth[i].numpy()[index[i, :, 1], index[i, :, 0]] for i in exact.anchor])
    assert np.median(np.abs(rho * truth - 1)) < 0.005
    assert np.median(inlier_weight / np.maximum(exact.weight.sum(axis=1), 1)) > 0.95
    assert relative_poses(T, exact).shape == (*exact.target.shape, 4, 4)


def test_exact_flow_gives_exact_cameras_and_focal_length_from_nothing(clip: SyntheticClip, exact: Tracks):
    estimate = estimate_cameras(exact, (90, 160))
    assert pose_errors(estimate.T_world_camera, clip.T_world_camera).ate_percent < 0.05
    assert estimate.focal_px == pytest.approx(focal_of(clip), rel=0.005)
    assert estimate.pose_known.all()
    depth = geometry.transform(geometry.invert(estimate.T_world_camera)[estimate.point_frame], estimate.points)[:, 2]
    assert float(depth.median()) == pytest.approx(1.0, rel=0.1)


def test_focal_length_is_in_pixels_of_the_image(clip: SyntheticClip, exact: Tracks):
    estimate = estimate_cameras(exact, (180, 320))
    assert estimate.focal_px == pytest.approx(2 * focal_of(clip), rel=0.005)


@pytest.mark.parametrize("factor", [0.75, 1.3])
def test_a_wrong_first_focal_length_is_put_right(clip: SyntheticClip, exact: Tracks, factor: float):
    T = clip.T_world_camera.double()
    estimate = refine_cameras(exact, (90, 160), T, factor * focal_of(clip))
    assert estimate.focal_px == pytest.approx(focal_of(clip), rel=0.01)
    assert pose_errors(estimate.T_world_camera, T).ate_percent < 0.1


def test_noise_is_averaged_away(clip: SyntheticClip):
    tracks = follow_grid(ExactFlow(clip, noise=0.2), len(clip), points=300)
    estimate = estimate_cameras(tracks, (90, 160))
    assert pose_errors(estimate.T_world_camera, clip.T_world_camera).ate_percent < 0.5
    assert estimate.focal_px == pytest.approx(focal_of(clip), rel=0.02)


@pytest.mark.parametrize("share", [0.3, 0.4])
def test_a_large_moving_part_is_rejected_without_being_told(clip: SyntheticClip, share: float):
    tracks = follow_grid(ExactFlow(clip, noise=0.1, outliers=share), len(clip), points=300)
    estimate = estimate_cameras(tracks, (90, 160))
    assert pose_errors(estimate.T_world_camera, clip.T_world_camera).ate_percent < 1.0
    assert estimate.focal_px == pytest.approx(focal_of(clip), rel=0.03)


def test_told_what_moves_even_most_of_the_image_may(clip: SyntheticClip):
    tracks = follow_grid(ExactFlow(clip, outliers=0.65), len(clip), points=400)
    staticness = torch.ones(len(clip), 90, 160)
    staticness[..., : int(0.65 * 160) + 1] = 0
    told = estimate_cameras(weigh(tracks, staticness), (90, 160))
    assert pose_errors(told.T_world_camera, clip.T_world_camera).ate_percent < 1.0


def test_missing_frames_are_found_and_the_world_is_kept(clip: SyntheticClip, exact: Tracks):
    T = clip.T_world_camera.double().clone()
    registered = torch.ones(len(clip), dtype=torch.bool)
    registered[[0, 7, 8, 9, 19]] = False
    given = T.clone()
    given[~registered] = torch.eye(4, dtype=torch.float64)
    estimate = refine_cameras(exact, (90, 160), given, focal_of(clip), registered)
    assert estimate.pose_known.all()
    torch.testing.assert_close(estimate.T_world_camera[:, :3, 3], T[:, :3, 3], atol=5e-3, rtol=0)


def test_a_known_focal_length_is_not_touched(exact: Tracks):
    estimate = estimate_cameras(exact, (90, 160), FocalKnowledge(known=150.0))
    assert estimate.focal_px == pytest.approx(150.0, abs=1e-9)
    assert estimate.focal_std == 0


def test_a_focal_length_that_ran_away_is_brought_back(clip: SyntheticClip, exact: Tracks):
    estimate = refine_cameras(exact, (90, 160), clip.T_world_camera.double(), 373408.0)
    assert 0 < estimate.focal_px < 160 / (2 * np.tan(np.radians(10))) + 1


def test_a_frame_that_is_off_is_not_shut_out_by_the_accuracy_of_the_others(clip: SyntheticClip, exact: Tracks):
    T = invert(clip.T_world_camera.double().numpy())
    rho, _ = triangulate(exact, T, focal_of(clip), np.ones(len(clip), bool))
    off = T.copy()
    off[9, :3] = Rotation.from_rotvec([0.02, 0.02, 0.0]).as_matrix() @ off[9, :3]
    held = np.arange(len(clip)) == 0
    prior = FocalPrior(focal_of(clip), 0.0, (1.0, 1e4))
    adjusted = adjust(exact, State(off, focal_of(clip), rho), prior, held)
    np.testing.assert_allclose(adjusted.state.T_camera_world[9, :3, :3], T[9, :3, :3], atol=1e-3)


def test_same_tracks_same_cameras(exact: Tracks):
    first, second = estimate_cameras(exact, (90, 160)), estimate_cameras(exact, (90, 160))
    assert torch.equal(first.T_world_camera, second.T_world_camera)
    assert first.focal_px == second.focal_px


def test_what_cannot_work_is_said(clip: SyntheticClip, exact: Tracks):
    with pytest.raises(ValueError, match="needs at least 2"):
        follow_grid(ExactFlow(clip), 1)
    with pytest.raises(ValueError, match="maps of staticness"):
        weigh(exact, torch.ones(3, 9, 16))
    with pytest.raises(ValueError, match="positive number of pixels"):
        estimate_cameras(exact, (90, 160), FocalKnowledge(known=-1.0))
    with pytest.raises(ValueError, match="do not fit 20 frames"):
        refine_cameras(exact, (90, 160), torch.eye(4).repeat(3, 1, 1), 100.0)
    still = follow_grid(lambda i, j: (np.zeros((90, 160, 2), np.float32), np.zeros((90, 160), np.float32)), 6)
    with pytest.raises(InitializationError, match="no pair of frames shows parallax"):
        estimate_cameras(still, (90, 160))


@pytest.mark.parametrize("camera", ["handheld", pytest.param("orbit", marks=pytest.mark.slow)])
def test_real_flow_of_a_clip_with_movers(camera):
    clip = make_clip(SyntheticConfig(num_frames=16, height=144, width=256, camera=camera, seed=1))
    images = [frame.numpy() for frame in clip.frames]
    dis, kept = DisFlow(), {}

    def one(i: int, j: int) -> np.ndarray:
        if (i, j) not in kept:
            kept[i, j] = dis(images[i], images[j])
        return kept[i, j]

    tracks = follow_grid(lambda i, j: (one(i, j), round_trip_error(one(i, j), one(j, i))), 16, lambda i: images[i])
    estimate = estimate_cameras(tracks, (144, 256))
    assert pose_errors(estimate.T_world_camera, clip.T_world_camera).ate_percent < 0.5
    assert estimate.focal_px == pytest.approx(focal_of(clip), rel=0.02)


def test_where_the_motion_does_not_tell_the_focal_length_little_of_what_it_says_is_kept():
    # Straight ahead, cameras with another focal length and steps that differ as much explain the same images.
    truth = make_clip(SyntheticConfig(num_frames=10, height=90, width=160, movers=0, camera="forward", seed=2))
    tracks = follow_grid(ExactFlow(truth), len(truth), points=300)
    prior, everywhere = focal_prior(tracks, (90, 160), FocalKnowledge()), np.ones(len(truth), bool)
    T = invert(truth.T_world_camera.double().numpy())
    T[:, 2, 3] *= 1.2
    focal = 1.2 * prior.focal
    drawn = Adjusted(State(T, focal, triangulate(tracks, T, focal, everywhere)[0]), np.ones(10), 0.2, 0.0)
    held = np.arange(10) == 0
    kept = with_usual_focal(tracks, tracks, drawn, prior, held)
    # 0.2 of the prior's 0.25: the motion has a share of 1 - 0.64 in what is known, so 1.2 becomes 1.2^0.36.
    assert kept.state.focal == pytest.approx(prior.focal * 1.2**0.36)
    assert kept.focal_std == 0.2
    T_world_camera = torch.from_numpy(invert(kept.state.T_camera_world))
    assert pose_errors(T_world_camera, truth.T_world_camera.double()).ate_percent < 0.5
    assert np.median(np.sqrt(squared_errors(tracks, kept.state)[tracks.weight > 0])) < 0.05


def test_a_focal_length_that_the_motion_does_not_tell_is_drawn_to_the_usual_one(monkeypatch):
    truth = make_clip(SyntheticConfig(num_frames=10, height=90, width=160, movers=0, camera="forward", seed=2))
    tracks = follow_grid(ExactFlow(truth), len(truth), points=300)
    asked = []

    def usual(tracks, believed, adjusted, prior, held):
        asked.append(adjusted.focal_std)
        return adjusted

    monkeypatch.setattr(estimate, "with_usual_focal", usual)
    T = truth.T_world_camera.double()
    refine_cameras(tracks, (90, 160), T, focal_of(truth))
    refine_cameras(tracks, (90, 160), T, focal_of(truth), focal=FocalKnowledge(focal_of(truth)))  # known: not touched
    assert len(asked) == 1
    assert asked[0] > 0.1
