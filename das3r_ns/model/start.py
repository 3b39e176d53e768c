"""The first Gaussians: one for each seed point, shaped by what the predictor knows about it.

In: the metadata of the dataparser (see the keys below) or plain seed points. Out: the tensors of `gauss_params`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int, UInt8
from nerfstudio.models.splatfacto import RGB2SH, num_sh_bases
from torch import Tensor

from das3r_ns.files.saved_config import SavedConfig
from das3r_ns.model.neighbours import rms_neighbour_distance
from das3r_ns.model.staticness import FLOOR


@dataclass
class StartConfig(SavedConfig):
    """How seed points become Gaussians."""

    opacity: float | None = None
    """Opacity of every Gaussian before training. None: one over the number of training frames, as published, which
    fits a start that sees every surface once a frame."""
    scale: Literal["neighbours", "pixel"] = "neighbours"
    """Size of a Gaussian: its distance to its neighbours, or the size of the pixel it was born from where the predictor
    says it. The whole clip's points overlap, so neighbours are nearer than pixels are large."""
    min_staticness: float = 0.5
    """Points that are less static than this are left out: nothing supervises a Gaussian born on a moving object. 0
    keeps all, as published."""
    max_points: int | None = None
    """Keep at most this many points, chosen evenly at random. None keeps all."""


@dataclass(frozen=True)
class Seeds:
    """Points to start from. World axes and units are the dataparser's."""

    xyz: Float[Tensor, "p 3"]
    rgb: UInt8[Tensor, "p 3"]
    staticness: Float[Tensor, "p"]
    pixel_size: Float[Tensor, "p"] | None
    """World size of the source pixel; None where the seeds are plain points."""
    pixel: Int[Tensor, "p 3"] | None
    """Training frame number, row and column of the source pixel in the maps."""

    def __len__(self) -> int:
        return self.xyz.shape[0]

    def __getitem__(self, which: Bool[Tensor, "p"] | Int[Tensor, "q"]) -> Seeds:
        """The chosen points."""
        size, pixel = self.pixel_size, self.pixel
        return Seeds(
            self.xyz[which],
            self.rgb[which],
            self.staticness[which],
            None if size is None else size[which],
            None if pixel is None else pixel[which],
        )


def read_seeds(
    metadata: Mapping[str, Any], seed_points: tuple[Tensor, Tensor] | None, config: StartConfig
) -> Seeds | None:
    """Seed points from the dataparser's metadata (`points3D_*`), or from nerfstudio's plain ones; None without any."""
    if "points3D_xyz" in metadata:
        xyz, rgb = metadata["points3D_xyz"], metadata["points3D_rgb"]
    elif seed_points is not None:
        xyz, rgb = seed_points
    else:
        return None
    staticness = metadata.get("points3D_staticness")
    seeds = Seeds(
        xyz=xyz.float().cpu(),
        rgb=rgb.to(torch.uint8).cpu(),
        staticness=torch.ones(len(xyz)) if staticness is None else staticness.float().cpu(),
        pixel_size=_optional(metadata, "points3D_scale"),
        pixel=_optional(metadata, "points3D_pixel"),
    )
    seeds = seeds[torch.isfinite(seeds.xyz).all(dim=-1)]
    if config.min_staticness > 0:
        static = seeds.staticness >= config.min_staticness
        if int(static.sum()) >= 4:  # a clip that is nothing but motion still has to start somewhere
            seeds = seeds[static]
    if config.max_points is not None and len(seeds) > config.max_points:
        chosen = torch.randperm(len(seeds), generator=torch.Generator().manual_seed(0))[: config.max_points]
        seeds = seeds[chosen.sort().values]
    return seeds


def _optional(metadata: Mapping[str, Any], key: str) -> Tensor | None:
    value = metadata.get(key)
    return None if value is None else value.cpu()


def initialize_gaussians(
    seeds: Seeds, config: StartConfig, num_frames: int, sh_degree: int, device: torch.device | str = "cpu"
) -> dict[str, Tensor]:
    """Values of `gauss_params` for the seeds, in nerfstudio's form: logarithms of scales, logits of opacities.

    Args:
        device: where neighbours are looked for; the result is there too.
    """
    xyz = seeds.xyz.to(device)
    size = None if seeds.pixel_size is None else seeds.pixel_size.to(device).float()
    if config.scale == "neighbours" or size is None:
        spacing = rms_neighbour_distance(xyz)
        # A point far off on its own must not become a balloon; doubled points must not become nothing.
        typical = spacing.median()
        size = spacing.maximum(1e-2 * typical).minimum(10 * typical if size is None else size)
    size = size.clamp_min(1e-7)
    opacity = 1.0 / max(num_frames, 2) if config.opacity is None else config.opacity
    count = len(seeds)
    features = torch.zeros(count, num_sh_bases(sh_degree), 3, device=device)
    colour = seeds.rgb.to(device).float() / 255
    # Without view dependence splatfacto stores colours as logits.
    features[:, 0] = RGB2SH(colour) if sh_degree > 0 else torch.logit(colour, eps=1e-3)
    static = seeds.staticness.to(device).clamp(FLOOR, 1 - FLOOR)
    return {
        "means": xyz,
        "scales": size.log()[:, None].repeat(1, 3),
        "quats": torch.tensor([1.0, 0.0, 0.0, 0.0], device=device).repeat(count, 1),
        "features_dc": features[:, 0].contiguous(),
        "features_rest": features[:, 1:].contiguous(),
        "opacities": torch.full((count, 1), opacity, device=device).logit(),
        "staticness": torch.logit(static)[:, None],
    }


def random_seeds(count: int, side: float) -> Seeds:
    """Points spread over a cube around the origin, for datasets without any."""
    return Seeds(
        xyz=(torch.rand(count, 3) - 0.5) * side,
        rgb=torch.randint(0, 256, (count, 3), dtype=torch.uint8),
        staticness=torch.ones(count),
        pixel_size=None,
        pixel=None,
    )
