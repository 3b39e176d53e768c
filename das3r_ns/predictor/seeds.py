"""Seed points of a scene: a moderate number of static pixels, lifted to the world."""

from __future__ import annotations

import torch
from jaxtyping import UInt8
from torch import Tensor

from das3r_ns import geometry
from das3r_ns.scene import PointCloud, Scene

MAX_DYNAMIC_PROB = 0.25
CONFIDENCE_CAP = 20.0
"""Confidence above this draws no more points: otherwise a few pixels would get them all."""


def seed_points(scene: Scene, frames: UInt8[Tensor, "n H W 3"], budget: int) -> PointCloud:
    """At most `budget` points from pixels that have depth, confidence and do not move.

    Drawn evenly through the cumulative confidence in picture order: surer places get more points, and the same scene
    always gets the same ones.

    Args:
        frames: the pictures, which may be larger than the maps.
    """
    weight = scene.confidence.clamp(max=CONFIDENCE_CAP) * (scene.dynamic_prob < MAX_DYNAMIC_PROB) * (scene.depth > 0)
    height, width = scene.map_size
    budget = min(budget, int((weight > 0).sum()))
    if budget <= 0:
        return no_points()
    cumulative = weight.flatten().cumsum(0, dtype=torch.float64)
    steps = (torch.arange(budget, dtype=torch.float64) + 0.5) * (cumulative[-1] / budget)
    chosen = torch.searchsorted(cumulative, steps).clamp(max=cumulative.numel() - 1).unique()
    frame, row, column = chosen // (height * width), chosen % (height * width) // width, chosen % width
    K, depth = scene.K_maps[frame], scene.depth[frame, row, column]
    x = (column + 0.5 - K[:, 0, 2]) / K[:, 0, 0] * depth
    y = (row + 0.5 - K[:, 1, 2]) / K[:, 1, 1] * depth
    colour_row = ((row + 0.5) * frames.shape[1] / height).long()
    colour_column = ((column + 0.5) * frames.shape[2] / width).long()
    return PointCloud(
        xyz=geometry.transform(scene.T_world_camera[frame], torch.stack((x, y, depth), dim=-1)),
        rgb=frames[frame, colour_row, colour_column],
        staticness=1 - scene.dynamic_prob[frame, row, column],
        frame=frame,
    )


def no_points() -> PointCloud:
    """An empty cloud."""
    return PointCloud(
        xyz=torch.zeros(0, 3),
        rgb=torch.zeros(0, 3, dtype=torch.uint8),
        staticness=torch.zeros(0),
        frame=torch.zeros(0, dtype=torch.long),
    )
