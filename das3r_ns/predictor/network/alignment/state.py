"""What the global alignment solves for, and how the raw numbers decode to cameras, depth and edge similarities.

Raw numbers are chosen so that one learning rate suits all: logarithms for depth, focal length and scale, signed
logarithms for translations. The gauge freedom of scale is taken out by holding the geometric mean of the edges' scales
at a base value: without that, a smaller world would always fit better.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Float
from torch import Tensor

BASE_SCALE = 0.5
"""Geometric mean of the edge scales where no known cameras set the unit of the world."""
UNIT = "log_base_scale"
"""Name of the one raw parameter that is free only when known cameras give the world a unit."""
FOCAL_GAIN = 20.0
"""focal_code = FOCAL_GAIN * log(focal in pixels): slows the focal length down relative to the rest."""


@dataclass(frozen=True)
class AlignmentState:
    """Raw parameters for n frames, e edges and p pixels a frame. Quaternions are xyzw (roma's order), of any length."""

    edge_quat_xyzw: Float[Tensor, "e 4"]
    edge_translation_code: Float[Tensor, "e 3"]
    edge_log_scale: Float[Tensor, "e"]
    camera_quat_xyzw: Float[Tensor, "n 4"]
    camera_translation_code: Float[Tensor, "n 3"]
    focal_code: Float[Tensor, "f"]
    """One value for the clip, or one per frame."""
    log_depth: Float[Tensor, "n p"]
    log_base_scale: Float[Tensor, ""]
    """Logarithm of the geometric mean of the edge scales: the unit of the world."""

    def tensors(self) -> dict[str, Tensor]:
        """The raw parameters by name."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def with_tensors(self, **changes: Tensor) -> AlignmentState:
        """The same state with some raw parameters replaced."""
        return replace(self, **changes)  # type: ignore[arg-type]

    def focal(self) -> Float[Tensor, "n"]:
        """Focal length of each frame in pixels."""
        return (self.focal_code / FOCAL_GAIN).exp().expand(self.log_depth.shape[0])

    def cameras(self) -> tuple[Float[Tensor, "n 3 3"], Float[Tensor, "n 3"]]:
        """Rotation and position of each camera in the world (camera-to-world)."""
        return quat_to_matrix(self.camera_quat_xyzw), decode_translation(self.camera_translation_code)

    def edge_scale(self) -> Float[Tensor, "e"]:
        """Effective scale of each edge."""
        return (self.log_base_scale + self.edge_log_scale - self.edge_log_scale.mean()).exp()

    def edge_similarities(self) -> tuple[Float[Tensor, "e 3 3"], Float[Tensor, "e 3"]]:
        """Linear part (s R) and offset (s t) that take an edge's pointmaps to the world; the scale acts on both."""
        scale = self.edge_scale()
        linear = scale[:, None, None] * quat_to_matrix(self.edge_quat_xyzw)
        return linear, scale[:, None] * decode_translation(self.edge_translation_code)

    def T_world_camera(self) -> Float[Tensor, "n 4 4"]:
        """Camera-to-world matrices."""
        rotation, position = self.cameras()
        T = torch.zeros(len(rotation), 4, 4, dtype=rotation.dtype, device=rotation.device)
        T[:, :3, :3], T[:, :3, 3], T[:, 3, 3] = rotation, position, 1
        return T

    def world_points(self, offsets: Float[Tensor, "2 p"]) -> Float[Tensor, "n 3 p"]:
        """Points of all frames in the world.

        Args:
            offsets: pixel centre minus principal point, in pixels, of the p pixels.
        """
        rotation, position = self.cameras()
        depth = self.log_depth.exp()
        sideways = offsets * (depth / self.focal()[:, None])[:, None]
        return torch.baddbmm(position[:, :, None], rotation, torch.cat([sideways, depth[:, None]], dim=1))


def quat_to_matrix(quat_xyzw: Float[Tensor, "b 4"]) -> Float[Tensor, "b 3 3"]:
    """Rotation of a quaternion of any length but zero.

    Every entry is a sum of products of two components, so the matrix is one product with a table of signs: a tenth of
    the kernels of the formulas written out, forward and backward.
    """
    unit = torch.nn.functional.normalize(quat_xyzw, dim=-1)
    products = (unit[:, :, None] * unit[:, None]).flatten(1)
    return (products @ _signs(unit.device, unit.dtype)).unflatten(1, (3, 3))


@functools.cache
def _signs(device: torch.device, dtype: torch.dtype) -> Float[Tensor, "16 9"]:
    """What each product of two components (row by row of their outer product) counts for in each entry."""
    x, y, z, w = torch.eye(4, dtype=dtype)

    def both(a: Tensor, b: Tensor) -> Tensor:
        return torch.outer(a, b) + torch.outer(b, a)

    xx, yy, zz, ww = (torch.outer(a, a) for a in (x, y, z, w))
    entries = (
        *(ww + xx - yy - zz, both(x, y) - both(z, w), both(x, z) + both(y, w)),
        *(both(x, y) + both(z, w), ww - xx + yy - zz, both(y, z) - both(x, w)),
        *(both(x, z) - both(y, w), both(y, z) + both(x, w), ww - xx - yy + zz),
    )
    return torch.stack([entry.flatten() for entry in entries], dim=1).to(device)


def encode_translation(translation: Float[Tensor, "b 3"]) -> Float[Tensor, "b 3"]:
    """sign(t) log1p(|t|), component by component."""
    return translation.sign() * translation.abs().log1p()


def decode_translation(code: Float[Tensor, "b 3"]) -> Float[Tensor, "b 3"]:
    """The inverse of `encode_translation`."""
    return code.sign() * code.abs().expm1()
