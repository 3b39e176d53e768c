"""Seed points: evenly through the confidence of the whole clip, worked frame by frame."""

import torch

from das3r_ns import geometry
from das3r_ns.predictor.seed_points import CONFIDENCE_CAP, MAX_DYNAMIC_PROB, no_points, seed_points
from das3r_ns.scene import Scene

N, H, W = 4, 6, 9


def scene_of(confidence, depth, dynamic_prob):
    return Scene(
        T_world_camera=torch.eye(4).repeat(N, 1, 1),
        K=geometry.intrinsics(10.0, H, W).expand(N, 3, 3).clone(),
        image_size=(H, W),
        depth=depth,
        confidence=confidence,
        dynamic_prob=dynamic_prob,
        points=no_points(),
        pose_known=torch.ones(N, dtype=torch.bool),
        names=tuple(f"{i}" for i in range(N)),
    )


def test_points_are_those_of_one_cumulative_sum_over_the_whole_clip():
    g = torch.Generator().manual_seed(0)
    confidence = 40 * torch.rand(N, H, W, generator=g) ** 2
    confidence[1] = 0  # a frame without anything
    depth = 1 + torch.rand(N, H, W, generator=g)
    depth[2, :3] = 0
    dynamic_prob = torch.rand(N, H, W, generator=g) * 0.5
    frames = torch.randint(0, 255, (N, H, W, 3), generator=g, dtype=torch.uint8)
    weight = confidence.clamp(max=CONFIDENCE_CAP) * (dynamic_prob < MAX_DYNAMIC_PROB) * (depth > 0)
    total = weight.double().flatten().cumsum(0)
    steps = (torch.arange(40, dtype=torch.float64) + 0.5) * (total[-1] / 40)
    expected = torch.searchsorted(total, steps).unique()
    points = seed_points(scene_of(confidence, depth, dynamic_prob), frames, 40)
    assert torch.equal(points.frame, expected // (H * W))
    assert torch.equal(points.rgb, frames.reshape(-1, 3)[expected])
    torch.testing.assert_close(points.xyz[:, 2], depth.flatten()[expected])
    assert 1 not in points.frame


def test_the_last_point_lies_where_the_last_weight_is():
    confidence = torch.zeros(N, H, W)
    confidence[2, 1, 3] = 0.3
    frames = torch.zeros(N, H, W, 3, dtype=torch.uint8)
    scene = scene_of(confidence, torch.ones(N, H, W), torch.zeros(N, H, W))
    points = seed_points(scene, frames, 5)
    assert points.frame.tolist() == [2]
    torch.testing.assert_close(points.xyz, torch.tensor([[(3.5 - W / 2) / 10, (1.5 - H / 2) / 10, 1.0]]))
    assert len(seed_points(scene_of(confidence * 0, scene.depth, scene.dynamic_prob), frames, 5)) == 0
