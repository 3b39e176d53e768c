"""Geometry against truths worked out by hand, and laws that always hold."""

import math

import pytest
import roma
import torch

from das3r_ns import geometry


def random_pose(seed: int, n: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    T = torch.eye(4, dtype=torch.float64).repeat(n, 1, 1)
    T[:, :3, :3] = roma.rotvec_to_rotmat(torch.randn(n, 3, generator=generator, dtype=torch.float64))
    T[:, :3, 3] = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    return T


def test_a_sideways_step_gives_flow_of_minus_focal_times_step_over_depth():
    K = geometry.intrinsics(100.0, 48, 64)
    T = torch.eye(4)
    T[0, 3] = -0.2  # the camera moves right, so points move left
    flow, valid = geometry.rigid_flow(torch.full((48, 64), 4.0), K, K, T)
    assert valid.all()
    torch.testing.assert_close(flow[..., 0], torch.full((48, 64), -5.0), atol=1e-4, rtol=0)
    torch.testing.assert_close(flow[..., 1], torch.zeros(48, 64), atol=1e-4, rtol=0)


def test_flow_is_undefined_where_depth_is_unknown_or_the_point_falls_behind():
    K = geometry.intrinsics(100.0, 4, 4)
    depth = torch.full((4, 4), 1.0)
    depth[0, 0] = 0
    T = torch.eye(4)
    assert geometry.rigid_flow(depth, K, K, T)[1].sum() == 15
    T[2, 3] = -2.0
    assert not geometry.rigid_flow(depth, K, K, T)[1].any()


def test_the_middle_of_the_image_unprojects_onto_the_axis():
    points = geometry.unproject(torch.full((3, 5), 2.0), geometry.intrinsics(10.0, 3, 5))
    torch.testing.assert_close(points[1, 2], torch.tensor([0.0, 0.0, 2.0]))
    torch.testing.assert_close(points[1, 4], torch.tensor([0.4, 0.0, 2.0]))  # two pixels right: 2 / 10 * 2


def test_project_undoes_unproject():
    depth = torch.rand(6, 7, dtype=torch.float64) + 1
    K = geometry.intrinsics(9.0, 6, 7, torch.float64)
    pixels, z = geometry.project(geometry.unproject(depth, K), K)
    torch.testing.assert_close(pixels, geometry.pixel_grid(6, 7, dtype=torch.float64))
    torch.testing.assert_close(z, depth)


def test_invert_holds_for_rigid_and_similarity_transforms():
    T = random_pose(1, 3)
    T[1, :3, :3] *= 2.5
    torch.testing.assert_close(T @ geometry.invert(T), torch.eye(4, dtype=torch.float64).expand(3, 4, 4))


def test_camera_motion_is_the_scenes_step_in_camera_axes():
    T = torch.eye(4, dtype=torch.float64).repeat(7, 1, 1)
    t = torch.arange(7.0, dtype=torch.float64) - 3
    T[:, 0, 3] = 0.1 * t**3 + t  # the camera moves right, so the scene moves left: -(0.3 t^2 + 1)
    turned = roma.rotvec_to_rotmat(torch.tensor([0.0, 0.0, math.pi / 2], dtype=torch.float64))
    for rotation, axis, sign in ((torch.eye(3, dtype=torch.float64), 3, -1), (turned, 4, 1)):
        T[:, :3, :3] = rotation
        motion = geometry.camera_motion(T)
        torch.testing.assert_close(motion[2:-2, axis], sign * (0.3 * t[2:-2] ** 2 + 1))
        torch.testing.assert_close(motion[1, axis], sign * (T[2, 0, 3] - T[0, 0, 3]) / 2)
        torch.testing.assert_close(motion[-1, axis], sign * (T[6, 0, 3] - T[5, 0, 3]))
        assert motion.abs().sum() == pytest.approx(float(motion[:, axis].abs().sum()))


def test_a_camera_that_turns_leaves_a_rotation_the_other_way():
    angle = 0.1 * torch.arange(6.0, dtype=torch.float64)
    T = torch.eye(4, dtype=torch.float64).repeat(6, 1, 1)
    T[:, :3, :3] = roma.rotvec_to_rotmat(torch.stack((torch.zeros(6), angle, torch.zeros(6)), dim=-1))
    torch.testing.assert_close(geometry.camera_motion(T)[:, 1], torch.full((6,), -0.1, dtype=torch.float64))


def test_a_image_that_is_shown_twice_does_not_halve_the_motion():
    T = torch.eye(4).repeat(8, 1, 1)
    T[:, 2, 3] = torch.tensor([0.0, 1, 1, 2, 3, 4, 4, 5])
    torch.testing.assert_close(geometry.camera_motion(T)[:, 5], torch.full((8,), -1.0))
    assert not geometry.camera_motion(T[1:3]).any()


def test_similarity_recovers_scale_rotation_and_translation_and_ignores_weightless_outliers():
    points = torch.randn(20, 3, dtype=torch.float64)
    T = random_pose(2)[0]
    T[:3, :3] *= 0.3
    moved = geometry.transform(T, points)
    moved[0] += 100
    weights = torch.ones(20, dtype=torch.float64)
    weights[0] = 0
    torch.testing.assert_close(geometry.similarity(points, moved, weights), T)
    with pytest.raises(ValueError, match="at least 3"):
        geometry.similarity(points[:2], moved[:2])


def test_a_similarity_leaves_what_cameras_see_unchanged():
    T_world_camera = random_pose(3, 4)
    S = random_pose(4)[0]
    S[:3, :3] *= 2.0
    point = torch.randn(3, dtype=torch.float64)
    moved_cameras, scale = geometry.apply_similarity(S, T_world_camera)
    assert scale == pytest.approx(2.0)
    before = geometry.transform(geometry.invert(T_world_camera), point)
    after = geometry.transform(geometry.invert(moved_cameras), geometry.transform(S, point))
    torch.testing.assert_close(after, before * 2.0)


def test_interpolated_poses_lie_between_their_neighbours():
    T = torch.eye(4).repeat(4, 1, 1)
    T[3, :3, :3] = roma.rotvec_to_rotmat(torch.tensor([0.0, 0.0, 0.9]))
    T[3, :3, 3] = torch.tensor([3.0, 0.0, 0.0])
    filled = geometry.interpolate_poses(T, torch.tensor([True, False, False, True]))
    torch.testing.assert_close(filled[:, 0, 3], torch.tensor([0.0, 1.0, 2.0, 3.0]))
    torch.testing.assert_close(
        roma.rotmat_to_rotvec(filled[:, :3, :3])[:, 2], torch.tensor([0.0, 0.3, 0.6, 0.9]), atol=1e-5, rtol=0
    )
    ends = geometry.interpolate_poses(T, torch.tensor([False, False, False, True]))
    torch.testing.assert_close(ends, T[3].expand(4, 4, 4))
    with pytest.raises(ValueError, match="no frame has a pose"):
        geometry.interpolate_poses(T, torch.zeros(4, dtype=torch.bool))


def test_level_world_puts_up_along_z_and_the_cameras_around_the_origin():
    T_world_camera = random_pose(5, 1).repeat(3, 1, 1)
    T_world_camera[:, :3, 3] += torch.randn(3, 3, dtype=torch.float64)
    S = geometry.level_world(T_world_camera, typical_depth=4.0)
    level, scale = geometry.apply_similarity(S, T_world_camera)
    assert scale == pytest.approx(0.25)
    torch.testing.assert_close(level[0, :3, 1], torch.tensor([0.0, 0.0, -1.0], dtype=torch.float64))  # y is down
    torch.testing.assert_close(level[0, :3, 0], torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64))
    torch.testing.assert_close(level[:, :3, 3].mean(0), torch.zeros(3, dtype=torch.float64))
    with pytest.raises(ValueError, match="positive"):
        geometry.level_world(T_world_camera, 0.0)


def test_opengl_axes_flip_y_and_z_and_back():
    T = random_pose(6)
    gl = geometry.to_opengl(T)
    torch.testing.assert_close(gl[0, :3, 1], -T[0, :3, 1])
    torch.testing.assert_close(gl[0, :3, 3], T[0, :3, 3])
    torch.testing.assert_close(geometry.to_opengl(gl), T)


def test_field_of_view_of_a_focal_as_long_as_half_the_side_is_ninety_degrees():
    assert geometry.field_of_view(50.0, 100.0) == pytest.approx(90.0)


def test_rescaled_intrinsics_project_to_rescaled_pixels():
    K = geometry.intrinsics(50.0, 40, 60)
    point = torch.tensor([[0.3, -0.2, 2.0]])
    small = geometry.rescale_intrinsics(K, (40, 60), (20, 30))
    torch.testing.assert_close(geometry.project(point, small)[0], geometry.project(point, K)[0] / 2)
    assert math.isclose(float(small[0, 2]), 15.0)
