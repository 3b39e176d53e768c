"""Seed points of a scene: a moderate number of static pixels, lifted to the world."""

from __future__ import annotations

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from das3r_ns import geometry
from das3r_ns.scene import PointCloud, Scene

MAX_DYNAMIC_PROB = 0.25
CONFIDENCE_CAP = 20.0
"""Confidence above this draws no more points: otherwise a few pixels would get them all."""


def seed_points(scene: Scene, frames: UInt8[Tensor, "n H W 3"], budget: int) -> PointCloud:
    """At most `budget` points from pixels that have depth, confidence and do not move.

    Drawn evenly through the cumulative confidence in image order: surer places get more points, and the same scene
    always gets the same ones.

    Args:
        frames: the images, which may be larger than the maps.
    """
    ends = torch.zeros(len(scene) + 1, dtype=torch.float64)
    usable = 0
    for i in range(len(scene)):  # frame by frame: the maps of a long clip fill the memory once already
        weight = _weight(scene, i)
        ends[i + 1] = ends[i] + weight.flatten().cumsum(0, dtype=torch.float64)[-1]
        usable += int((weight > 0).sum())
    budget = min(budget, usable)
    if budget <= 0:
        return no_points()
    height, width = scene.map_size
    steps = (torch.arange(budget, dtype=torch.float64) + 0.5) * (ends[-1] / budget)
    frames_of_steps = torch.searchsorted(ends[1:], steps, right=True).clamp(max=len(scene) - 1)
    chosen = []
    for i in frames_of_steps.unique().tolist():
        cumulative = ends[i] + _weight(scene, i).flatten().cumsum(0, dtype=torch.float64)
        pixel = torch.searchsorted(cumulative, steps[frames_of_steps == i]).clamp(max=cumulative.numel() - 1)
        chosen.append(i * height * width + pixel.unique())
    chosen = torch.cat(chosen)
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


def _weight(scene: Scene, index: int) -> Float[Tensor, "h w"]:
    """How strongly each pixel of a frame draws points."""
    static = (scene.dynamic_prob[index] < MAX_DYNAMIC_PROB) & (scene.depth[index] > 0)
    return scene.confidence[index].clamp(max=CONFIDENCE_CAP) * static


def no_points() -> PointCloud:
    """An empty cloud."""
    return PointCloud(
        xyz=torch.zeros(0, 3),
        rgb=torch.zeros(0, 3, dtype=torch.uint8),
        staticness=torch.zeros(0),
        frame=torch.zeros(0, dtype=torch.long),
    )
