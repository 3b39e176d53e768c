"""How good flow is: end-point errors by displacement and near outlines, and what they look like."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from das3r_ns.predictor.training.flow.worlds import FlowPairs, draw_pairs

BINS_PX = (0.0, 10.0, 40.0, 120.0, float("inf"))
"""Limits of the displacements that are told apart."""
GROUPS = (
    "all",
    *(f"{a:.0f}-{b:.0f} px" for a, b in pairwise(BINS_PX[:-1])),
    f"{BINS_PX[-2]:.0f}+ px",
    "outlines",
    "hidden",
)
"""Visible pixels: all, by displacement, within `OUTLINE_PX` of an outline; and those the second image does not show."""
OUTLINE_PX = 5
BAD_PX = 3.0
"""A pixel that is further off than this counts as lost."""


class FlowScores:
    """Adds up end-point errors and the share of lost pixels by group."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.sums = torch.zeros(3, len(GROUPS), dtype=torch.float64, device=device)
        """Pixels, their errors, and how many are lost, by group."""

    def add(
        self,
        flow: Float[Tensor, "b 2 h w"],
        truth: Float[Tensor, "b 2 h w"],
        visible: Bool[Tensor, "b h w"],
        outlines: Bool[Tensor, "b h w"],
        known: Bool[Tensor, "b h w"] | None = None,
    ) -> None:
        """Count a batch.

        Args:
            outlines: pixels near an outline.
            known: pixels whose truth is known; None: all.
        """
        error, length = (flow - truth).norm(dim=1), truth.norm(dim=1)
        known = torch.ones_like(visible) if known is None else known
        seen = visible & known
        groups = [seen, *(seen & (length >= a) & (length < b) for a, b in pairwise(BINS_PX))]
        groups += [seen & outlines, known & ~visible]
        for i, group in enumerate(groups):
            counted = error[group].double()
            self.sums[:, i] += torch.stack((group.sum(), counted.sum(), (counted > BAD_PX).sum())).to(self.sums)

    def table(self) -> dict[str, tuple[float, float]]:
        """Mean end-point error (px) and share of lost pixels (%) of every group that has pixels."""
        pixels, errors, lost = self.sums.cpu().tolist()
        return {
            name: (errors[i] / pixels[i], 100 * lost[i] / pixels[i]) for i, name in enumerate(GROUPS) if pixels[i] > 0
        }


def near_outlines(layer: UInt8[Tensor, "b h w"]) -> Bool[Tensor, "b h w"]:
    """Pixels within `OUTLINE_PX` of one of another layer."""
    values = layer.float()[:, None]
    side = 2 * OUTLINE_PX + 1
    largest = F.max_pool2d(values, side, 1, OUTLINE_PX)
    smallest = -F.max_pool2d(-values, side, 1, OUTLINE_PX)
    return (largest != smallest)[:, 0]


def held_out_pairs(
    count: int, size: tuple[int, int], textures: UInt8[Tensor, "n 4 t t"], batch: int = 8, seed: int = 7
) -> Iterator[FlowPairs]:
    """The same pairs in every call on a device, from textures that training does not use."""
    generator = torch.Generator(textures.device).manual_seed(seed)
    for start in range(0, count, batch):
        yield draw_pairs(min(batch, count - start), size, textures, generator)


@torch.no_grad()
def validate(
    estimate: Callable[[Tensor, Tensor], Float[Tensor, "b 2 h w"]], pairs: Iterator[FlowPairs], mosaic_rows: int = 0
) -> tuple[FlowScores, UInt8[np.ndarray, "h w 3"] | None]:
    """Score an estimator of flow.

    Args:
        mosaic_rows: pairs to show.

    Returns:
        The scores, and rows of: first image, second, true flow, estimated flow, error (white: 5 px and more).
    """
    from torchvision.utils import flow_to_image  # torchvision is slow to import

    scores, rows = None, []
    for batch in pairs:
        flow = estimate(batch.first, batch.second).float()
        scores = scores or FlowScores(flow.device)
        scores.add(flow, batch.flow, batch.visible, near_outlines(batch.layer))
        for i in range(min(len(flow), mosaic_rows - len(rows))):
            # One normalisation for both, or their colours could not be compared.
            colours = flow_to_image(torch.cat((batch.flow[i], flow[i]), 2)).float() / 255
            error = ((flow[i] - batch.flow[i]).norm(dim=0) / 5).clamp(0, 1).expand(3, -1, -1)
            rows.append(torch.cat((batch.first[i], batch.second[i], colours, error), 2))
    if scores is None:
        raise ValueError("there are no pairs to validate on")
    image = (torch.cat(rows, 1) * 255).byte().permute(1, 2, 0).cpu().numpy() if rows else None
    return scores, image
