"""A test camera is moved to where the render fits: a painted wall, whose image from any camera is known exactly."""

import math

import pytest
import torch
from nerfstudio.cameras.cameras import Cameras, CameraType

from das3r_ns import geometry
from das3r_ns.evaluation.pose_refinement import PoseRefinementConfig, moved, refine_pose

H, W, FOCAL = 60, 80, 70.0


def _camera(T_world_camera: torch.Tensor) -> Cameras:
    return Cameras(
        camera_to_worlds=geometry.to_opengl(T_world_camera)[None, :3].float(),
        fx=FOCAL, fy=FOCAL, cx=W / 2, cy=H / 2, width=W, height=H, camera_type=CameraType.PERSPECTIVE, metadata={},
    )  # fmt: skip


def _paint(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    waves = ((3.1, 1.7, 0.3), (-1.3, 4.3, 1.1), (5.2, -2.4, 2.0))
    return torch.stack(
        [0.5 + 0.25 * torch.sin(a * x + b * y + c) + 0.2 * torch.sin(b * x - y) for a, b, c in waves], -1
    )


def _render(camera: Cameras) -> dict[str, torch.Tensor]:
    """A painted wall that stands askew, z = 2 + x: so that turning and stepping aside differ."""
    pose = torch.eye(4)
    pose[:3] = camera.camera_to_worlds[0]
    pose = geometry.to_opengl(pose)
    rays = (geometry.unproject(torch.ones(H, W), geometry.intrinsics(FOCAL, H, W))) @ pose[:3, :3].T
    origin = pose[:3, 3]
    distance = (2 + origin[0] - origin[2]) / (rays[..., 2] - rays[..., 0])
    points = origin + distance[..., None] * rays
    return {"rgb": _paint(points[..., 0], points[..., 1]), "depth": distance[..., None]}


def _centre_and_turn(a: Cameras, b: Cameras) -> tuple[float, float]:
    A, B = a.camera_to_worlds[0].double(), b.camera_to_worlds[0].double()
    cosine = ((A[:, :3].T @ B[:, :3]).trace() - 1) / 2
    return float((A[:, 3] - B[:, 3]).norm()), math.degrees(math.acos(min(1.0, float(cosine))))


@pytest.mark.parametrize("tangent", [[0.03, -0.02, 0.02, 0.01, -0.02, 0.015], [0.0, 0.05, 0.0, 0.0, 0.0, -0.03]])
def test_a_camera_off_by_some_pixels_finds_its_place(tangent):
    truth = _camera(torch.eye(4))
    image = _render(truth)["rgb"]
    start = moved(truth, torch.tensor(tangent))
    found = refine_pose(start, _render, image, torch.ones(H, W), PoseRefinementConfig())
    off, turned = _centre_and_turn(found, truth)
    assert off < 0.02 * _centre_and_turn(start, truth)[0] + 1e-4
    assert turned < 0.05  # degrees; float32 resolves no better


def test_pixels_without_weight_do_not_pull():
    truth = _camera(torch.eye(4))
    image = _render(truth)["rgb"]
    weight = torch.ones(H, W)
    weight[20:45, 30:60] = 0
    image[20:45, 30:60] = torch.tensor([1.0, 0.0, 1.0])  # something in front of the wall
    start = moved(truth, torch.tensor([0.03, -0.02, 0.0, 0.0, -0.01, 0.0]))
    found = refine_pose(start, _render, image, weight, PoseRefinementConfig())
    off, _ = _centre_and_turn(found, truth)
    assert off < 1e-3


def test_the_fit_never_gets_worse_and_a_blank_scene_leaves_the_camera_alone():
    start = _camera(torch.eye(4))
    noise = torch.rand(H, W, 3)

    def cost(camera: Cameras) -> float:
        return float(torch.nn.functional.huber_loss(_render(camera)["rgb"], noise, delta=0.1))

    found = refine_pose(start, _render, noise, torch.ones(H, W), PoseRefinementConfig(blur_px=(0.0,)))
    assert cost(found) <= cost(start)

    def grey(camera: Cameras) -> dict[str, torch.Tensor]:
        return {"rgb": torch.full((H, W, 3), 0.5)}

    blank = refine_pose(start, grey, noise, torch.ones(H, W), PoseRefinementConfig())
    assert torch.equal(blank.camera_to_worlds, start.camera_to_worlds)
