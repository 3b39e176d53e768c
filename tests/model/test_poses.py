"""Camera refinement: which cameras move, by how much, and which are left alone."""

import math
from types import SimpleNamespace

import pytest
import torch
from nerfstudio.cameras.cameras import Cameras, CameraType

from das3r_ns.model.das3r import Das3rModel
from das3r_ns.model.poses import PoseRefinement, PoseRefinementConfig, between_frames, compose, rigid_motion


def cameras_along_x(count: int, frame_index: list[int] | None = None) -> Cameras:
    """Cameras that look along -z of the world (OpenGL axes), one unit apart."""
    poses = torch.eye(4)[:3].repeat(count, 1, 1)
    poses[:, 0, 3] = torch.arange(count).float()
    return Cameras(
        camera_to_worlds=poses,
        fx=torch.full((count, 1), 50.0),
        fy=torch.full((count, 1), 50.0),
        cx=torch.full((count, 1), 32.0),
        cy=torch.full((count, 1), 24.0),
        width=torch.full((count, 1), 64),
        height=torch.full((count, 1), 48),
        camera_type=CameraType.PERSPECTIVE,
        metadata={"frame_index": torch.tensor(frame_index or list(range(count)))[:, None]},
    )


def refinement(count: int = 4, frame_index: list[int] | None = None, **options) -> PoseRefinement:
    poses = PoseRefinement(PoseRefinementConfig(**options), num_cameras=count)
    cameras = cameras_along_x(count, frame_index)
    poses.set_cameras(cameras, cameras.metadata["frame_index"][:, 0])
    return poses


def test_a_correction_moves_the_camera_along_its_own_axes():
    poses = refinement()
    turned = torch.tensor([[0.0, -1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]])
    poses.camera_to_worlds[2] = turned  # its x axis is the world's y
    with torch.no_grad():
        poses.corrections[2][0] = 0.1
    torch.testing.assert_close(poses.refined(2)[0, :, 3], torch.tensor([0.0, 0.1, 0.0]), atol=1e-6, rtol=0)


def test_a_correction_turns_the_camera_by_twice_the_arc_tangent_of_its_vector_part():
    motion = rigid_motion(torch.tensor([[0.1, 0.2, 0.3, 0.0, 0.0, 0.1]]))[0]
    assert math.atan2(float(motion[1, 0]), float(motion[0, 0])) == pytest.approx(2 * math.atan(0.1), abs=1e-6)
    torch.testing.assert_close(motion[:, :3] @ motion[:, :3].T, torch.eye(3), atol=1e-6, rtol=0)
    torch.testing.assert_close(motion[:, 3], torch.tensor([0.1, 0.2, 0.3]))
    still = torch.zeros(1, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(rigid_motion, (still,))


def test_given_cameras_are_refined_once_and_moved_ones_never():
    poses, cameras = refinement(), cameras_along_x(4)
    with torch.no_grad():
        for correction in poses.corrections:
            correction += 0.05
    once, factors = poses.refine(cameras, cameras.metadata["frame_index"])
    torch.testing.assert_close(once, torch.cat([poses.refined(i) for i in range(4)]).detach())
    cameras.camera_to_worlds = once
    twice, _ = poses.refine(cameras, cameras.metadata["frame_index"])
    torch.testing.assert_close(twice, once)
    aside = cameras_along_x(4)
    aside.camera_to_worlds[:, 1, 3] += 0.3
    untouched, _ = poses.refine(aside, aside.metadata["frame_index"])
    torch.testing.assert_close(untouched, aside.camera_to_worlds)
    assert factors.tolist() == [1.0] * 4


def test_a_refined_focal_length_is_not_applied_twice():
    poses, cameras = refinement(refine_focal=True), cameras_along_x(4)
    with torch.no_grad():
        poses.log_focal.fill_(math.log(1.1))
    _, factors = poses.refine(cameras, cameras.metadata["frame_index"])
    torch.testing.assert_close(factors, torch.full((4,), 1.1))
    cameras.fx = cameras.fx * factors[:, None]
    _, again = poses.refine(cameras, cameras.metadata["frame_index"])
    assert again.tolist() == [1.0] * 4


def test_held_out_frames_get_the_correction_between_their_neighbours_if_asked():
    held_out = cameras_along_x(5)[2:3]
    for interpolate, shift in ((True, 0.2), (False, 0.0)):
        poses = refinement(4, frame_index=[0, 1, 3, 4], interpolate=interpolate)
        with torch.no_grad():
            poses.corrections[1][1] = 0.1
            poses.corrections[2][1] = 0.3
        moved, _ = poses.refine(held_out, held_out.metadata["frame_index"])
        assert float(moved[0, 1, 3]) == pytest.approx(shift, abs=1e-6)


def test_values_between_frames_are_straight_lines_constant_beyond_the_ends():
    values = [torch.tensor([0.0]), torch.tensor([1.0]), torch.tensor([3.0])]
    at = torch.tensor([0, 1, 2, 3, 4, 9])
    between = between_frames(values, torch.tensor([1, 2, 4]), at)
    assert between[:, 0].tolist() == [0.0, 0.0, 1.0, 2.0, 3.0, 3.0]


def test_only_the_frame_of_a_step_has_a_gradient():
    poses = refinement()
    (poses.refined(1).sum() + poses.regularizer(1)).backward()
    assert poses.corrections[1].grad is not None
    assert all(poses.corrections[i].grad is None for i in (0, 2, 3))


def test_cameras_that_are_switched_off_stay_and_need_no_optimizer():
    poses, cameras = refinement(mode="off"), cameras_along_x(4)
    groups: dict = {}
    poses.get_param_groups(groups)
    assert groups == {}
    with torch.no_grad():
        poses.corrections[0] += 1.0
    torch.testing.assert_close(poses.refine(cameras, cameras.metadata["frame_index"])[0], cameras.camera_to_worlds)


def test_compose_is_the_product_of_motions():
    a, b = torch.eye(4)[None, :3].clone(), torch.eye(4)[None, :3].clone()
    a[0, :, 3] = torch.tensor([1.0, 2.0, 3.0])
    b[0, :2, :2] = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    torch.testing.assert_close(compose(a, b)[0, :, 3], torch.tensor([1.0, 2.0, 3.0]))
    torch.testing.assert_close(compose(b, a)[0, :, 3], torch.tensor([-2.0, 1.0, 3.0]))


def test_the_view_of_a_camera_that_stays_is_computed_once_a_device():
    poses = refinement(2, mode="off")
    assert not poses.learns
    K = torch.tensor([[50.0, 0, 32], [0, 50, 24], [0, 0, 1]]).expand(2, 3, 3)
    state = SimpleNamespace(camera_optimizer=poses, image_sizes=[(48, 64)] * 2, intrinsics=K, _views={})
    view = Das3rModel.training_view(state, 1)
    # The camera stands at x = 1 and looks along -z of the world, with y up.
    expected = torch.tensor([[1.0, 0, 0, -1], [0, -1, 0, 0], [0, 0, -1, 0], [0, 0, 0, 1]])
    torch.testing.assert_close(view.T_camera_world, expected[None])
    torch.testing.assert_close(view.K, K[:1])
    assert (view.height, view.width) == (48, 64)
    assert Das3rModel.training_view(state, 1) is view
    assert Das3rModel.training_view(state, 0) is not view
    state.intrinsics = K.to("meta")
    assert Das3rModel.training_view(state, 1).K.device.type == "meta"
