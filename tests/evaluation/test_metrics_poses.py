"""ATE, RPE and focal error against evo's own recorded answer and paths that can be worked by hand."""

import math

import numpy as np
import pytest
import roma
import torch

from das3r_ns import geometry
from das3r_ns.evaluation.metrics import focal_error_percent, pose_errors
from das3r_ns.evaluation.metrics.poses import align_paths


def _path(centres: list[list[float]]) -> torch.Tensor:
    T = torch.eye(4, dtype=torch.float64).repeat(len(centres), 1, 1)
    T[:, :3, 3] = torch.tensor(centres, dtype=torch.float64)
    return T


def _turned(T: torch.Tensor, axis_angle: list[float], scale: float, shift: list[float]) -> torch.Tensor:
    similarity = torch.eye(4, dtype=torch.float64)
    similarity[:3, :3] = scale * roma.rotvec_to_rotmat(torch.tensor(axis_angle, dtype=torch.float64))
    similarity[:3, 3] = torch.tensor(shift, dtype=torch.float64)
    return geometry.apply_similarity(similarity, T)[0]


CORNERS = [[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1]]


def test_the_recorded_trajectory_has_the_recorded_errors(data):
    z = np.load(data / "alignment.npz")
    errors = pose_errors(torch.from_numpy(z["final/cam2world"]), torch.from_numpy(z["gt_cam2world"]))
    found = (errors.ate, errors.rpe_translation, errors.rpe_rotation_deg)
    np.testing.assert_allclose(found, z["final/ate_rpet_rper"], rtol=2e-4)


def test_alignment_is_evo_s_own(data):
    from evo.core.trajectory import PosePath3D

    z = np.load(data / "alignment.npz")
    predicted, truth = z["final/cam2world"].astype(np.float64), z["gt_cam2world"]
    path = PosePath3D(poses_se3=list(predicted))
    R, t, s = path.align(PosePath3D(poses_se3=list(truth)), correct_scale=True)
    T = align_paths(torch.from_numpy(predicted), torch.from_numpy(truth)).numpy()
    np.testing.assert_allclose(T[:3, :3], s * R, atol=1e-9)
    np.testing.assert_allclose(T[:3, 3], t, atol=1e-9)


def test_a_path_in_another_world_and_unit_has_no_error():
    truth = _path(CORNERS)
    errors = pose_errors(_turned(truth, [0.3, -0.5, 1.1], 7.0, [4, 5, 6]), truth)
    assert errors.ate == pytest.approx(0, abs=1e-9)
    assert errors.rpe_translation == pytest.approx(0, abs=1e-9)
    assert errors.rpe_rotation_deg == pytest.approx(0, abs=1e-5)
    assert errors.path_length == pytest.approx(3 + math.sqrt(2))


def test_one_camera_that_turns_by_six_degrees_costs_its_two_neighbouring_steps():
    truth = _path(CORNERS)
    predicted = truth.clone()
    predicted[2, :3, :3] = roma.rotvec_to_rotmat(torch.tensor([0, 0, math.radians(6)], dtype=torch.float64))
    errors = pose_errors(predicted, truth)
    assert errors.ate == pytest.approx(0, abs=1e-9)
    assert errors.rpe_rotation_deg == pytest.approx(6 * math.sqrt(2 / 4))  # two of four steps


def test_ate_of_a_square_whose_corners_go_in_and_out_by_turns():
    # Centres at +-1 along the axes; two opposite ones moved out by 0.1 and two in by 0.1: no similarity helps.
    truth = _path([[1.0, 0, 0], [0, 1, 0], [-1, 0, 0], [0, -1, 0]])
    predicted = _path([[1.1, 0, 0], [0, 0.9, 0], [-1.1, 0, 0], [0, -0.9, 0]])
    best_scale = (2 * 1.1 + 2 * 0.9) / (2 * 1.1**2 + 2 * 0.9**2)
    expected = math.sqrt(((1.1 * best_scale - 1) ** 2 + (0.9 * best_scale - 1) ** 2) / 2)
    assert pose_errors(predicted, truth).ate == pytest.approx(expected)


def test_a_straight_line_is_aligned_and_its_cameras_look_the_right_way():
    truth = _path([[0.0, 0, 0], [0, 0, 1], [0, 0, 2], [0, 0, 4]])  # straight ahead: evo refuses this
    errors = pose_errors(_turned(truth, [0.2, 0.1, 2.0], 3.0, [1, 0, 0]), truth)
    assert errors.ate == pytest.approx(0, abs=1e-7)
    back, _ = geometry.apply_similarity(errors.T_truth_predicted, _turned(truth, [0.2, 0.1, 2.0], 3.0, [1, 0, 0]))
    torch.testing.assert_close(back, truth, atol=1e-6, rtol=0)


def test_rotations_rounded_as_text_rounds_them_are_taken_for_what_they_mean():
    exact = _turned(_path(CORNERS), [0.3, -0.5, 1.1], 1.0, [0, 0, 0])
    rounded = (exact * 1e3).round() / 1e3  # off by up to 5e-4, where evo refuses 1e-6
    errors = pose_errors(rounded, exact)
    assert errors.ate < 1e-3
    assert errors.rpe_rotation_deg < 0.1
    assert pose_errors(exact, rounded).ate < 1e-3


def test_a_predicted_camera_that_stands_still_gets_the_spread_of_the_true_path():
    truth = _path([[-1.0, 0, 0], [1, 0, 0], [-1, 0, 0], [1, 0, 0]])
    errors = pose_errors(_path([[5.0, 5, 5]] * 4), truth)
    assert errors.ate == pytest.approx(1.0)
    assert errors.rpe_translation == pytest.approx(2.0)


def test_a_true_camera_that_stands_still_is_refused():
    with pytest.raises(ValueError, match="true camera stands still"):
        pose_errors(_path(CORNERS), _path([[1.0, 2, 3]] * 5))


def test_bad_paths_are_refused_with_the_frames_that_are_bad():
    truth, predicted = _path(CORNERS), _path(CORNERS)
    with pytest.raises(ValueError, match="4 predicted poses cannot be compared with 5"):
        pose_errors(predicted[:4], truth)
    predicted[3, 0, 0] = math.nan
    with pytest.raises(ValueError, match="predicted poses of frames 3 are not finite"):
        pose_errors(predicted, truth)
    scaled = truth.clone()
    scaled[1, :3, :3] *= 0.5
    with pytest.raises(ValueError, match="true poses of frames 1 are not rigid motions"):
        pose_errors(_path(CORNERS), scaled)
    with pytest.raises(ValueError, match="too few"):
        pose_errors(truth[:2], truth[:2])


def test_focal_error_compares_shares_of_the_width():
    predicted = torch.tensor([110.0, 90.0])  # pixels of an image half as wide
    truth = torch.tensor([200.0, 200.0])
    assert focal_error_percent(predicted, truth, width=320, truth_width=640) == pytest.approx(10.0)
