"""Sizes of the flow network, and what its parts hand on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

CELL = 8
"""Pixels on the side of a cell of the coarse stage."""
LEVELS = 4
"""Scales of the correlations, each half the one before."""
MIN_SIDE = CELL << LEVELS
"""Pixels: smaller images have no cell at the coarsest scale."""


@dataclass(frozen=True)
class FlowNetworkConfig:
    """Sizes of the network. The defaults have 2.2 million weights."""

    fine: int = 64
    """Channels at a quarter of the image."""
    coarse: int = 128
    """Channels at an eighth."""
    hidden: int = 96
    """State of the recurrent unit, and channels of the refinement."""
    context: int = 64
    """What the recurrent unit sees of the first image in every update."""
    radius: int = 3
    """Correlations are looked up this many cells around where the flow points, at each scale."""
    fine_radius: int = 2
    """The same at a quarter of the image, in quarter-image pixels."""


class ImageFeatures(NamedTuple):
    """What the network keeps of a batch of images."""

    fine: Float[Tensor, "b fine h4 w4"]
    """For the refinement, at a quarter of the image."""
    coarse: Float[Tensor, "b coarse h8 w8"]
    """For matching, at an eighth."""
    context: Float[Tensor, "b hidden+context h8 w8"]
    """For the recurrent unit, at an eighth."""


class FlowPredictions(NamedTuple):
    """Flow after every stage, for the loss; all in pixels of the image."""

    shares: Float[Tensor, "b n h8 w8"]
    """How likely each cell of the first image (n of them) is found in each cell of the second."""
    matched: Float[Tensor, "b 2 h8 w8"]
    """By global matching, at an eighth of the image."""
    coarse: list[Float[Tensor, "b 2 h4 w4"]]
    """After each update of the recurrent unit, at a quarter."""
    final: list[Float[Tensor, "b 2 h w"]]
    """After each refinement."""
