"""The optical-flow network: all-pairs matching at an eighth of the image, refined at a quarter, upsampled by weights.

In: two RGB images; out: for every pixel of the first where it went in the second, in pixels. Three stages:

1. Both images are encoded once. A softmax over the correlations of each cell with all cells of the other image gives a
   first flow (global matching), with one more outcome "no match", which stands for no motion.
2. A gated recurrent unit looks up the correlations around where the flow points, at four scales, and updates the flow
   (RAFT, Teed and Deng, ECCV 2020, sections 3.2 and 3.3).
3. At a quarter of the image the second image's features are warped by the flow and compared with the first's; residual
   updates sharpen outlines and small motion. Each pixel then takes a learned convex combination of the flow around it.

Images are standardised one by one, so a change of exposure between them leaves little behind.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from das3r_ns.predictor.flow.network_config import CELL, LEVELS, FlowNetworkConfig, FlowPredictions, ImageFeatures
from das3r_ns.predictor.flow.network_parts import Encoder, Refinement, Update, Upsampling
from das3r_ns.predictor.flow.sampling import cells, look_up


class FlowNetwork(nn.Module):
    """See the module."""

    def __init__(self, config: FlowNetworkConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or FlowNetworkConfig()
        self.encoder = Encoder(config)
        self.look_up = look_up  # by name, so that training can compile it
        # Before anything is learned, "no match" has to outweigh some thousand cells.
        self.no_match = nn.Parameter(torch.full((1,), 9.0))
        self.update = Update(config)
        self.upsample_coarse = Upsampling(config.hidden, 2)
        self.refine = Refinement(config)
        for last in (self.update.head[-1], self.refine.head):
            nn.init.zeros_(last.weight)  # type: ignore[arg-type]  # the flow starts as it was found by matching
            nn.init.zeros_(last.bias)  # type: ignore[arg-type]

    def encode(self, images: Float[Tensor, "b 3 h w"]) -> ImageFeatures:
        """Features of RGB images with values from 0 to 1; sides are multiples of 8."""
        std, mean = torch.std_mean(images, dim=(1, 2, 3), keepdim=True)
        return self.encoder((images - mean) / (std + 0.02))

    def forward(
        self,
        first: Float[Tensor, "b 3 h w"],
        second: Float[Tensor, "b 3 h w"],
        updates: int = 6,
        refinements: int = 2,
        from_matching: Bool[Tensor, "b"] | None = None,
    ) -> FlowPredictions:
        """Flow from `first` to `second` after every stage (training).

        Args:
            from_matching: pairs whose updates start with what the matching finds, the others with no motion; None: all.
        """
        both = self.encode(torch.cat((first, second)))
        half = len(first)
        return self.match(
            ImageFeatures(*(values[:half] for values in both)),
            ImageFeatures(*(values[half:] for values in both)),
            updates,
            refinements,
            every=True,
            from_matching=from_matching,
        )

    def match(
        self,
        first: ImageFeatures,
        second: ImageFeatures,
        updates: int,
        refinements: int,
        every: bool = False,
        start: Float[Tensor, "b 2 h8 w8"] | None = None,
        from_matching: Bool[Tensor, "b"] | None = None,
    ) -> FlowPredictions:
        """Flow between images that were encoded before.

        Args:
            updates: of the recurrent unit.
            refinements: at a quarter of the image.
            every: keep the flow after every update and refinement instead of the last alone.
            start: flow (pixels of the image) to begin with instead of what the matching finds.
            from_matching: as of `forward`, where `start` is left out.
        """
        config = self.config
        pyramid, shares, matched = self.correlate(first.coarse, second.coarse)
        # Coordinates stay in float32: bfloat16 has steps of half a pixel beyond 64.
        flow = (matched if start is None else start) / CELL
        if start is None and from_matching is not None:
            flow = flow * from_matching.view(-1, 1, 1, 1)
        hidden, context = torch.tanh(first.context[:, : config.hidden]), torch.relu(first.context[:, config.hidden :])
        upsampled: list[Tensor] = []
        for step in range(updates):
            flow = flow.detach()
            found = self.look_up(pyramid, flow, config.radius)
            hidden, change = self.update(hidden, context, found, flow)
            flow = flow + change.float()
            if every or step == updates - 1:
                upsampled.append(self.upsample_coarse(hidden, flow) * (CELL / 2))
        final: list[Tensor] = []
        fine = upsampled[-1] / 4
        state = self.refine.begin(hidden)
        for step in range(refinements):
            change, trunk = self.refine(first.fine, second.fine, fine.detach(), state)
            fine = fine + change.float()
            if every or step == refinements - 1:
                final.append(self.refine.upsample(trunk, fine) * 4)
        return FlowPredictions(shares, matched, upsampled, final)

    def correlate(
        self, first: Float[Tensor, "b c h w"], second: Float[Tensor, "b c h w"]
    ) -> tuple[list[Float[Tensor, "cells 1 _ _"]], Float[Tensor, "b n h w"], Float[Tensor, "b 2 h w"]]:
        """Correlations of all cells of `first` with all of `second` at each scale, how likely each match is, and the
        flow that they give."""
        b, c, h, w = first.shape
        correlations = torch.einsum("bcn,bcm->bnm", first.flatten(2), second.flatten(2)).float() / c**0.5
        logits = torch.cat((correlations, self.no_match.expand(b, h * w, 1)), -1)
        shares = logits.softmax(-1)[..., :-1]
        places = cells(h, w, first.device).flatten(1).T
        with torch.autocast(first.device.type, enabled=False):  # bfloat16 would round places to half a cell
            expected = shares @ places  # b n 2
        here = places * shares.sum(-1, keepdim=True)
        matched = (expected - here).transpose(1, 2).reshape(b, 2, h, w) * CELL
        pyramid = [correlations.reshape(b * h * w, 1, h, w)]
        for _ in range(LEVELS - 1):
            pyramid.append(F.avg_pool2d(pyramid[-1], 2))
        return pyramid, shares.reshape(b, h * w, h, w), matched


def load_flow_network(path: Path) -> FlowNetwork:
    """The network with the weights of a file of `das3r train-flow`, in float32, ready to estimate flow.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged or holds something else.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise FileNotFoundError(f"no flow weights at {path}. `das3r train-flow` writes them (flow.safetensors).")
    network = FlowNetwork()
    try:
        # `num_batches_tracked` of the norms is not kept: only training counts them.
        missing, unexpected = network.load_state_dict(load_file(str(path)), strict=False)
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(f"{path} does not hold weights of the flow network: {error}") from error
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise ValueError(f"{path} does not hold weights of the flow network: {[*missing, *unexpected][:3]} differ")
    return network.eval().requires_grad_(False)
