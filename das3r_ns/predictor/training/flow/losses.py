"""The loss of the flow network: distance of every stage's flow from the ground truth, the last stages counting most."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from das3r_ns.predictor.flow.network import FlowNetwork
from das3r_ns.predictor.flow.network_config import CELL
from das3r_ns.predictor.flow.sampling import look_up

MATCHING_WEIGHT, MATCHED_WEIGHT, COARSE_WEIGHT = 0.2, 0.1, 0.5
"""Weights of the likelihood of the true matches, of the flow that the matches give, and of the last coarse update; that
of the last refinement is 1."""
DECAY = 0.85
"""Each earlier update counts this much less than the one after it."""
POWER, SOFTENING_PX = 0.7, 0.1
"""A pixel's loss is (error + softening) to this power: below 1, so that a few pixels that are far off do not drown the
sub-pixel accuracy of all others."""
HIDDEN_WEIGHT = 0.3
"""Pixels that the second image does not show count this much: their flow is a guess from what is around them."""
MOVING_WEIGHT = 2.5
"""Pixels that move on their own count this much: they are few, and where a network is in doubt it should not take them
for what is behind them."""
MAX_SHARE = 0.8
"""Larger displacements (in widths of the image) do not count: nearly always the pixel has left the image."""


class FlowTrainingStep(nn.Module):
    """The network with its loss, in one module, so that the engine can spread it over GPUs."""

    def __init__(self, network: FlowNetwork, updates: int, refinements: int) -> None:
        super().__init__()
        self.network, self.updates, self.refinements = network, updates, refinements
        self.robust = robust  # by name, so that training can compile it

    def forward(
        self,
        first: Float[Tensor, "b 3 h w"],
        second: Float[Tensor, "b 3 h w"],
        flow: Float[Tensor, "b 2 h w"],
        visible: Bool[Tensor, "b h w"],
        moving: Bool[Tensor, "b h w"],
        from_matching: Bool[Tensor, "b"],
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """The loss, and the mean end-point error of the final flow over visible pixels.

        Args:
            moving: pixels that move on their own.
            from_matching: pairs whose updates start with what the matching finds; the others start with no motion.
        """
        predictions = self.network(first, second, self.updates, self.refinements, from_matching)
        counts = (flow.norm(dim=1) < MAX_SHARE * flow.shape[-1]).float()
        seen = visible.float() * counts
        weight = (seen + HIDDEN_WEIGHT * (counts - seen)) * (1 + (MOVING_WEIGHT - 1) * moving.float())
        quarter, quarter_weight = F.avg_pool2d(flow, 4), F.avg_pool2d(weight[:, None], 4)[:, 0]
        eighth, eighth_seen = F.avg_pool2d(flow, CELL), F.avg_pool2d(seen[:, None], CELL)[:, 0]
        loss = MATCHING_WEIGHT * unlikelihood(predictions.shares, eighth / CELL, eighth_seen)
        loss = loss + MATCHED_WEIGHT * self.robust(predictions.matched, eighth, eighth_seen)
        for age, coarse in enumerate(reversed(predictions.coarse)):
            loss = loss + COARSE_WEIGHT * DECAY**age * self.robust(coarse, quarter, quarter_weight)
        for age, final in enumerate(reversed(predictions.final)):
            loss = loss + DECAY**age * self.robust(final, flow, weight)
        error = (predictions.final[-1].detach() - flow).norm(dim=1)
        return loss, (error * seen).sum() / seen.sum().clamp_min(1)


def robust(
    flow: Float[Tensor, "b 2 h w"], truth: Float[Tensor, "b 2 h w"], weight: Float[Tensor, "b h w"]
) -> Float[Tensor, ""]:
    """Weighted mean of a power of the end-point error."""
    error = torch.sqrt(((flow - truth) ** 2).sum(1) + 1e-6)
    return (((error + SOFTENING_PX) ** POWER) * weight).sum() / weight.sum().clamp_min(1)


def unlikelihood(
    shares: Float[Tensor, "b n h w"], flow: Float[Tensor, "b 2 h w"], weight: Float[Tensor, "b h w"]
) -> Float[Tensor, ""]:
    """Weighted mean of -log of how likely the matching holds the true place, between cells by interpolation.

    Without it, features learn to be told apart through the recurrent unit alone, which takes thousands of steps.

    Args:
        flow: true, in cells.
    """
    b, n, h, w = shares.shape
    likely = look_up([shares.reshape(b * n, 1, h, w)], flow, 0)[:, 0]
    return -(torch.log(likely + 1e-4) * weight).sum() / weight.sum().clamp_min(1)
