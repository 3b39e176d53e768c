"""What a predictor says about a clip."""

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Float64, Int, UInt8
from torch import Tensor

from das3r_ns import geometry
from das3r_ns.scene.lens import RadialLens

FORMAT_VERSION = 1
"""Raised whenever a reader of the old layout would misread the new one; part of every cache key."""

DYNAMIC_THRESHOLD = 0.5
"""dynamic_prob above this is black in the nerfstudio mask."""


class SceneFolderError(ValueError):
    """A scene folder that is damaged or inconsistent. The message names the file and what to do."""


@dataclass(frozen=True)
class PointCloud:
    """Coloured points of the static scene, each remembering the frame it was seen in."""

    xyz: Float[Tensor, "p 3"]
    """World coordinates."""
    rgb: UInt8[Tensor, "p 3"]
    staticness: Float[Tensor, "p"]
    """1 - dynamic_prob of the source pixel."""
    frame: Int[Tensor, "p"]
    """Index of the frame the point comes from; -1 when it comes from many (triangulated features)."""

    def __len__(self) -> int:
        return self.xyz.shape[0]


@dataclass(frozen=True)
class Scene:
    """Cameras, depth and dynamic maps of a clip of n frames.

    Images may be larger than the maps: training runs at the video's own resolution while prediction runs smaller.
    """

    T_world_camera: Float[Tensor, "n 4 4"]
    """Camera-to-world, OpenCV axes."""
    K: Float[Tensor, "n 3 3"]
    """Intrinsics in pixels of the images; first pixel's centre at (0.5, 0.5)."""
    image_size: tuple[int, int]
    """Height and width of the images."""
    depth: Float[Tensor, "n h w"]
    """z-depth in world units; 0 means unknown."""
    confidence: Float[Tensor, "n h w"]
    """How sure the depth is: 0 not at all, higher is surer."""
    dynamic_prob: Float[Tensor, "n h w"]
    """0 static .. 1 moving."""
    points: PointCloud
    """Seed points, a moderate number (the maps allow a dense start)."""
    pose_known: Bool[Tensor, "n"]
    """False where the pose was interpolated from its neighbours."""
    names: tuple[str, ...]
    """One name a frame, as in the clip."""
    fps: float = 30.0
    times_s: tuple[float, ...] | None = None
    """When each frame is shown, seconds from the first frame of the video; None where only `fps` is known."""
    applied_transform: Float64[Tensor, "4 4"] = field(default_factory=lambda: torch.eye(4, dtype=torch.float64))
    """From the world of the user's own camera files to this one, in double precision; where the cameras were found here
    the identity."""
    lens: RadialLens | None = None
    """What bent the images as they were filmed, in their pixels: everything here is of the images without it
    (`RadialLens.undistort_frames`). None: they are as they were filmed."""
    provenance: dict[str, Any] = field(default_factory=dict)
    """Written to `predictor.json`: which predictor, which settings, digest of the input."""

    def __len__(self) -> int:
        return self.T_world_camera.shape[0]

    @property
    def map_size(self) -> tuple[int, int]:
        """Height and width of depth, confidence and dynamic_prob."""
        return self.depth.shape[1], self.depth.shape[2]

    @property
    def K_maps(self) -> Float[Tensor, "n 3 3"]:
        """Intrinsics in pixels of the maps."""
        return geometry.rescale_intrinsics(self.K, self.image_size, self.map_size)


def frame_name(index: int) -> str:
    """Name of a frame's files in a scene folder: 1-based, as nerfstudio's own tools write them."""
    return f"frame_{index + 1:05d}"
