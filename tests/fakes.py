"""A predictor that costs nothing and whose answer is known by heart, and clips to give to it."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from das3r_ns import geometry
from das3r_ns.predictor.base import UserPriors
from das3r_ns.scene import PointCloud, Scene
from das3r_ns.video.clip import Clip

STEP = 0.1
"""The fake camera moves this far to the right from frame to frame."""
WALL = 2.0
"""Depth of the wall that it looks at."""


class FakePredictor:
    """Sees a wall at depth 2 from a camera that moves right by 0.1 a frame, focal length = width; the middle ninth of
    the image moves, at depth 1. Maps have half the size of the images. Counts its calls."""

    name = "fake"

    def __init__(self) -> None:
        self.calls = 0
        self.known: list[UserPriors] = []

    def __call__(self, clip: Clip, known: UserPriors = UserPriors()) -> Scene:  # noqa: B008  (frozen)
        self.calls += 1
        self.known.append(known)
        return wall_scene(len(clip), clip.size, clip.names, known)


def wall_scene(
    n: int, size: tuple[int, int], names: tuple[str, ...] | None = None, known: UserPriors | None = None
) -> Scene:
    """What `FakePredictor` says."""
    h, w = size[0] // 2, size[1] // 2
    T = torch.eye(4).repeat(n, 1, 1)
    T[:, 0, 3] = STEP * torch.arange(n)
    # Level: the world has z up and y forward, camera y down.
    level = torch.tensor([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
    T = level @ T
    K = geometry.intrinsics(float(size[1]), *size).repeat(n, 1, 1)
    depth = torch.full((n, h, w), WALL)
    dynamic = torch.zeros(n, h, w)
    rows, columns = slice(h // 3, 2 * h // 3), slice(w // 3, 2 * w // 3)
    depth[:, rows, columns] = 1.0
    dynamic[:, rows, columns] = 1.0
    if known is not None and known.T_world_camera is not None and known.K is not None:
        T, K = known.T_world_camera, known.K
    if known is not None and known.dynamic_mask is not None:
        dynamic = torch.nn.functional.interpolate(known.dynamic_mask[:, None], size=(h, w), mode="area")[:, 0]
    pose_known = torch.ones(n, dtype=torch.bool)
    pose_known[n // 2] = False
    corners = torch.tensor([[-1.0, WALL, -1.0], [1.0, WALL, 1.0]])
    return Scene(
        T_world_camera=T,
        K=K,
        image_size=size,
        depth=depth,
        confidence=torch.ones(n, h, w),
        dynamic_prob=dynamic,
        points=PointCloud(corners, torch.zeros(2, 3, dtype=torch.uint8), torch.ones(2), torch.zeros(2).int()),
        pose_known=pose_known,
        names=names or tuple(f"frame_{i + 1:05d}" for i in range(n)),
        fps=10.0,
    )


def texture(n: int, size: tuple[int, int]) -> np.ndarray:
    """n different images whose red says the column and whose green says the row."""
    height, width = size
    images = np.zeros((n, height, width, 3), np.uint8)
    images[..., 0] = np.arange(width)
    images[..., 1] = np.arange(height)[:, None]
    images[..., 2] = np.arange(n)[:, None, None]
    return images


def write_images(folder: Path, n: int = 6, size: tuple[int, int] = (48, 64)) -> Path:
    """A folder of `texture`, `00000.png` and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(texture(n, size)):
        Image.fromarray(image).save(folder / f"{i:05d}.png")
    return folder
