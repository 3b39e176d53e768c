"""Start points from the depth maps: dense, every surface once, within a budget, each remembering its pixel.

Many frames see the same surface. Frames are visited so that the first few already span the clip; each adds only the
cells (small squares of pixels) that no kept point of similar depth projects into, confident ones first. What was
kept is then thinned along a space-filling curve through each frame, so that every part of the scene keeps its share
and of neighbours the surest pixel stays.
"""

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped, UInt8
from torch import Tensor

from das3r_ns import geometry
from das3r_ns.scene import DYNAMIC_THRESHOLD, Scene

SIMILAR_DEPTH = 0.05
"""Relative difference up to which two depths count as one surface: the accuracy of predicted depth."""

CELLS_PER_FRAME = 30_000
"""Cells are as small as this allows, which keeps the whole under a few seconds for 150 frames."""

CELLS_TO_MEASURE = 1000
"""The same where only the amount of surface is asked for."""

READERS = 4
"""Threads that read images."""

CONFIDENT_SHARE = 0.7
"""Share of the pixels (the most confident ones) that may claim a surface first."""


@dataclass(frozen=True)
class StartPoints:
    """Points to start Gaussians from, world coordinates."""

    xyz: Float[Tensor, "p 3"]
    rgb: UInt8[Tensor, "p 3"]
    scale: Float[Tensor, "p"]
    """World size of one source pixel, times the square root of how many pixels the point stands for."""
    staticness: Float[Tensor, "p"]
    """1 - dynamic_prob of the source pixel."""
    pixel: Int[Tensor, "p 3"]
    """Number of the training frame, row and column of the source pixel in the maps; -1 where there is none."""


def training_seed_points(scene: Scene, images: list[Path], train: list[int], max_points: int | None) -> StartPoints:
    """Points from the depth maps of the training frames, or the scene's own points if no depth is known.

    Args:
        images: the image of each frame of the scene.
        train: numbers of the training frames in the scene.
        max_points: how many to make at most, of static pixels only, every surface once; None or 0 takes every pixel
            of the training frames whose depth is known, moving ones and repetitions too.
    Raises:
        ValueError: there is neither depth nor a point.
    """
    if not max_points:
        chosen, stride = _usable(scene, train, max_dynamic=1.0), 1.0
    else:
        distinct = _distinct(scene, train, _usable(scene, train, DYNAMIC_THRESHOLD))
        chosen, stride = _thinned(scene, train, distinct, max_points)
    frame, row, column = torch.nonzero(chosen, as_tuple=True)
    if len(frame) == 0:
        return _sparse_start(scene, max_points)
    source = torch.tensor(train)[frame]
    K, depth = scene.K_maps[source], scene.depth[source, row, column]
    x = (column + 0.5 - K[:, 0, 2]) / K[:, 0, 0] * depth
    y = (row + 0.5 - K[:, 1, 2]) / K[:, 1, 1] * depth
    return StartPoints(
        xyz=geometry.transform(scene.T_world_camera[source], torch.stack((x, y, depth), dim=-1)),
        rgb=_colours(scene, images, train, frame, row, column),
        scale=depth / K[:, 0, 0] * math.sqrt(stride),
        staticness=1 - scene.dynamic_prob[source, row, column],
        pixel=torch.stack((frame, row, column), dim=-1).int(),
    )


def _usable(scene: Scene, train: list[int], max_dynamic: float) -> Bool[Tensor, "n h w"]:
    return (scene.depth[train] > 0) & (scene.confidence[train] > 0) & (scene.dynamic_prob[train] <= max_dynamic)


def distinct_surface(scene: Scene, frames: list[int]) -> float:
    """How much static surface the frames show, each part counted once, in images: a camera that stands still shows at
    most 1. Coarse and quick."""
    distinct = _distinct(scene, frames, _usable(scene, frames, DYNAMIC_THRESHOLD), CELLS_TO_MEASURE)
    return float(distinct.sum()) / distinct[0].numel()


def _distinct(
    scene: Scene, train: list[int], usable: Bool[Tensor, "n h w"], cells: int = CELLS_PER_FRAME
) -> Bool[Tensor, "n h w"]:
    """Usable pixels without those whose surface an earlier visited frame contributes already.

    Args:
        cells: at most so many a frame are told apart.
    """
    n, h, w = usable.shape
    cell = max(1, math.ceil(math.sqrt(h * w / cells)))
    rows, columns = math.ceil(h / cell), math.ceil(w / cell)
    size = (rows * cell, columns * cell)
    # The surest usable pixel of each cell stands for it; cells without one have confidence 0.
    confidence = _padded(torch.where(usable, scene.confidence[train], 0.0), size)
    confidence, at = torch.nn.functional.max_pool2d(confidence[:, None], cell, return_indices=True)
    confidence, at = confidence[:, 0], at[:, 0]
    depth = _padded(scene.depth[train], size).flatten(1).gather(1, at.flatten(1)).view_as(at)
    K = geometry.rescale_intrinsics(scene.K_maps[train], (cell, cell), (1, 1))
    u = (at % size[1] + 0.5) / cell
    v = (at // size[1] + 0.5) / cell
    x = (u - K[:, 0, 2, None, None]) / K[:, 0, 0, None, None] * depth
    y = (v - K[:, 1, 2, None, None]) / K[:, 1, 1, None, None] * depth
    T = scene.T_world_camera[train]
    world = geometry.transform(T[:, None, None], torch.stack((x, y, depth), dim=-1))
    T_camera_world = geometry.invert(T)

    sure = torch.quantile(_sample(confidence[confidence > 0]), 1 - CONFIDENT_SHARE) if usable.any() else 0.0
    kept = torch.zeros(n, rows, columns, dtype=torch.bool)
    points = torch.empty(0, 3)
    for confident in (True, False):
        for i in _spread_order(n):
            wanted = (confidence[i] >= sure) if confident else (confidence[i] > 0) & (confidence[i] < sure)
            new = wanted & ~_covered(points, T_camera_world[i], K[i], depth[i])
            kept[i] |= new
            points = torch.cat((points, world[i][new]))
    spread = kept.repeat_interleave(cell, dim=1).repeat_interleave(cell, dim=2)[:, :h, :w]
    return spread & usable


def _covered(
    points: Float[Tensor, "p 3"],
    T_camera_world: Float[Tensor, "4 4"],
    K: Float[Tensor, "3 3"],
    depth: Float[Tensor, "h w"],
) -> Bool[Tensor, "h w"]:
    """Cells of a frame in or beside which a point lies at about the cell's own depth."""
    h, w = depth.shape
    pixels, z = geometry.project(geometry.transform(T_camera_world, points), K)
    inside = (z > 0) & (pixels >= 0).all(dim=1) & (pixels[:, 0] < w) & (pixels[:, 1] < h)
    column, row = pixels[inside].long().unbind(dim=1)
    surface = depth[row, column]
    same = (z[inside] - surface).abs() < SIMILAR_DEPTH * surface
    covered = np.zeros((h, w), np.uint8)
    covered[row[same].numpy(), column[same].numpy()] = 1
    # One cell more on each side: points of a camera further away land in every second cell of a near one.
    return torch.from_numpy(cv2.dilate(covered, np.ones((3, 3), np.uint8)) > 0)


def _thinned(
    scene: Scene, train: list[int], chosen: Bool[Tensor, "n h w"], budget: int
) -> tuple[Bool[Tensor, "n h w"], float]:
    """At most `budget` of the chosen pixels, and how many pixels each then stands for."""
    frame, row, column = torch.nonzero(chosen, as_tuple=True)
    count = len(frame)
    if count <= budget:
        return chosen, 1.0
    along_curve = torch.argsort((frame << 40) | (_spread_bits(row) << 1) | _spread_bits(column))
    group = torch.arange(count) * budget // count  # runs of neighbours, lengths as equal as can be
    confidence = scene.confidence[train][frame, row, column][along_curve]
    best = torch.zeros(budget).scatter_reduce_(0, group, confidence, "amax", include_self=False)
    positions = torch.where(confidence == best[group], torch.arange(count), count)
    first = torch.full((budget,), count).scatter_reduce_(0, group, positions, "amin")
    at = along_curve[first]
    thinned = torch.zeros_like(chosen)
    thinned[frame[at], row[at], column[at]] = True
    return thinned, count / budget


def _spread_bits(value: Int[Tensor, "p"]) -> Int[Tensor, "p"]:
    """Bits of numbers below 2^16 with a zero between each two (Morton order interleaves two such numbers)."""
    value = (value | (value << 8)) & 0x00FF00FF
    value = (value | (value << 4)) & 0x0F0F0F0F
    value = (value | (value << 2)) & 0x33333333
    return (value | (value << 1)) & 0x55555555


def _spread_order(n: int) -> list[int]:
    """Numbers below n so that every beginning of the list spans them all: the middle, then the middles of the halves,
    and so on. The ends of a clip, where depth has views on one side only, come late."""
    order, intervals = [], [(0, n)]
    for start, end in intervals:
        middle = (start + end) // 2
        if start < end:
            order.append(middle)
            intervals += [(start, middle), (middle + 1, end)]
    return order


def _padded(maps: Shaped[Tensor, "n h w"], size: tuple[int, int]) -> Shaped[Tensor, "n H W"]:
    return torch.nn.functional.pad(maps, (0, size[1] - maps.shape[2], 0, size[0] - maps.shape[1]))


def _sample(values: Float[Tensor, "p"], most: int = 1_000_000) -> Float[Tensor, "q"]:
    return values[:: max(1, math.ceil(len(values) / most))]  # torch.quantile takes 16 million at most


def _colours(
    scene: Scene,
    images: list[Path],
    train: list[int],
    frame: Int[Tensor, "p"],
    row: Int[Tensor, "p"],
    column: Int[Tensor, "p"],
) -> UInt8[Tensor, "p 3"]:
    """Colour of each source pixel, from images reduced to the size of the maps. `frame` ascends."""
    h, w = scene.map_size
    rgb = np.empty((len(frame), 3), np.uint8)
    ends = torch.searchsorted(frame, torch.arange(len(train) + 1)).tolist()

    def take(i: int) -> None:
        of_frame, path = slice(ends[i], ends[i + 1]), str(images[train[i]])
        if of_frame.start == of_frame.stop:
            return
        image = cv2.imread(path, cv2.IMREAD_COLOR)
        if image is None:
            raise ValueError(f"{path} is missing or not an image. Restore it, or predict the scene again.")
        small = cv2.resize(image, (w, h), interpolation=cv2.INTER_AREA)
        rgb[of_frame] = small[row[of_frame].numpy(), column[of_frame].numpy()][:, ::-1]

    with ThreadPoolExecutor(READERS) as pool:  # a large image takes 30 ms to decode, outside of Python
        list(pool.map(take, range(len(train))))
    return torch.from_numpy(rgb)


def _sparse_start(scene: Scene, max_points: int | None) -> StartPoints:
    points = scene.points
    if len(points) == 0:
        raise ValueError("the scene has neither depth nor points to start from: predict it again.")
    every = math.ceil(len(points) / max_points) if max_points else 1
    xyz = points.xyz[::every]
    # No pixel to take the size from: as if the scene's typical depth had been seen by its typical camera.
    centre = scene.T_world_camera[:, :3, 3].mean(dim=0)
    scale = (xyz - centre).norm(dim=1) / scene.K_maps[:, 0, 0].mean()
    return StartPoints(
        xyz=xyz,
        rgb=points.rgb[::every],
        scale=scale,
        staticness=points.staticness[::every],
        pixel=torch.full((len(xyz), 3), -1, dtype=torch.int32),
    )
