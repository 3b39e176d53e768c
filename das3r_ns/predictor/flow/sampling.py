"""Values of an image looked up at any place, differentiably."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def cells(height: int, width: int, device: torch.device) -> Float[Tensor, "2 h w"]:
    """Column and row of every cell."""
    rows, columns = torch.meshgrid(
        torch.arange(height, device=device, dtype=torch.float32),
        torch.arange(width, device=device, dtype=torch.float32),
        indexing="ij",
    )
    return torch.stack((columns, rows))


def look_up(
    pyramid: list[Float[Tensor, "cells 1 _ _"]], flow: Float[Tensor, "b 2 h w"], radius: int
) -> Float[Tensor, "b _ h w"]:
    """Correlations in a window around the place where each cell goes, at every scale. Zero out of view.

    Args:
        flow: in cells.
    """
    b, _, h, w = flow.shape
    place = (cells(h, w, flow.device) + flow).permute(0, 2, 3, 1).reshape(b * h * w, 1, 1, 2)
    steps = torch.arange(-radius, radius + 1, device=flow.device, dtype=torch.float32)
    window = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), -1)  # rows columns (x y)
    found = []
    for level, correlations in enumerate(pyramid):
        # A cell of this scale has its centre at (i + 1/2) 2^level - 1/2 cells of the finest.
        at = (place + 0.5) / 2**level - 0.5 + window
        height, width = correlations.shape[-2:]
        values = F.grid_sample(correlations, normalised(at, height, width), align_corners=False)
        found.append(values.reshape(b, h, w, -1))
    return torch.cat(found, -1).permute(0, 3, 1, 2)


def warp(values: Float[Tensor, "b c h w"], flow: Float[Tensor, "b 2 h w"]) -> Float[Tensor, "b c h w"]:
    """Look up `values` where `flow` (in pixels of `values`) points; zero out of view."""
    h, w = flow.shape[-2:]
    at = (cells(h, w, flow.device) + flow).permute(0, 2, 3, 1)
    return F.grid_sample(values, normalised(at, h, w).to(values.dtype), align_corners=False)


def normalised(places: Float[Tensor, "*b 2"], height: int, width: int) -> Float[Tensor, "*b 2"]:
    """Places in pixels as `grid_sample` wants them. Plain numbers only: a copy from the CPU could not be recorded in a
    CUDA graph."""
    return torch.stack(((places[..., 0] + 0.5) * (2 / width) - 1, (places[..., 1] + 0.5) * (2 / height) - 1), -1)
