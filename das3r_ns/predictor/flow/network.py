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

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

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


class FlowNetwork(nn.Module):
    """See the module."""

    def __init__(self, config: FlowNetworkConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or FlowNetworkConfig()
        self.encoder = _Encoder(config)
        self.look_up = look_up  # by name, so that training can compile it
        # Before anything is learned, "no match" has to outweigh some thousand cells.
        self.no_match = nn.Parameter(torch.full((1,), 9.0))
        self.update = _Update(config)
        self.upsample_coarse = _Upsampling(config.hidden, 2)
        self.refine = _Refinement(config)
        for last in (self.update.head[-1], self.refine.head):
            nn.init.zeros_(last.weight)  # type: ignore[arg-type]  # the flow starts as it was found by matching
            nn.init.zeros_(last.bias)  # type: ignore[arg-type]

    def encode(self, images: Float[Tensor, "b 3 h w"]) -> ImageFeatures:
        """Features of RGB images with values from 0 to 1; sides are multiples of 8."""
        std, mean = torch.std_mean(images, dim=(1, 2, 3), keepdim=True)
        return self.encoder((images - mean) / (std + 0.02))

    def forward(
        self, first: Float[Tensor, "b 3 h w"], second: Float[Tensor, "b 3 h w"], updates: int = 6, refinements: int = 2
    ) -> FlowPredictions:
        """Flow from `first` to `second` after every stage (training)."""
        both = self.encode(torch.cat((first, second)))
        half = len(first)
        return self.match(
            ImageFeatures(*(values[:half] for values in both)),
            ImageFeatures(*(values[half:] for values in both)),
            updates,
            refinements,
            every=True,
        )

    def match(
        self,
        first: ImageFeatures,
        second: ImageFeatures,
        updates: int,
        refinements: int,
        every: bool = False,
        start: Float[Tensor, "b 2 h8 w8"] | None = None,
    ) -> FlowPredictions:
        """Flow between images that were encoded before.

        Args:
            updates: of the recurrent unit.
            refinements: at a quarter of the image.
            every: keep the flow after every update and refinement instead of the last alone.
            start: flow (pixels of the image) to begin with instead of what the matching finds.
        """
        config = self.config
        pyramid, shares, matched = self.correlate(first.coarse, second.coarse)
        # Coordinates stay in float32: bfloat16 has steps of half a pixel beyond 64.
        flow = (matched if start is None else start) / CELL
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
        values = F.grid_sample(correlations, _normalised(at, height, width), align_corners=False)
        found.append(values.reshape(b, h, w, -1))
    return torch.cat(found, -1).permute(0, 3, 1, 2)


def warp(values: Float[Tensor, "b c h w"], flow: Float[Tensor, "b 2 h w"]) -> Float[Tensor, "b c h w"]:
    """Look up `values` where `flow` (in pixels of `values`) points; zero out of view."""
    h, w = flow.shape[-2:]
    at = (cells(h, w, flow.device) + flow).permute(0, 2, 3, 1)
    return F.grid_sample(values, _normalised(at, h, w).to(values.dtype), align_corners=False)


def _normalised(places: Float[Tensor, "*b 2"], height: int, width: int) -> Float[Tensor, "*b 2"]:
    """Places in pixels as `grid_sample` wants them. Plain numbers only: a copy from the CPU could not be recorded in a
    CUDA graph."""
    return torch.stack(((places[..., 0] + 0.5) * (2 / width) - 1, (places[..., 1] + 0.5) * (2 / height) - 1), -1)


def _convolution(inputs: int, outputs: int, size: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


class _Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(_convolution(inputs, outputs, 3, stride), _convolution(outputs, outputs))
        self.skip = nn.Identity() if stride == 1 and inputs == outputs else nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, x: Float[Tensor, "b _ _ _"]) -> Float[Tensor, "b _ _ _"]:
        return torch.relu(self.skip(x) + self.body(x))


class _Encoder(nn.Module):
    def __init__(self, config: FlowNetworkConfig) -> None:
        super().__init__()
        fine, coarse = config.fine, config.coarse
        self.to_fine = nn.Sequential(
            _convolution(3, fine // 2, 7, 2),
            _convolution(fine // 2, fine, 3, 2),
            _Residual(fine, fine),
            _Residual(fine, fine),
        )
        self.to_coarse = nn.Sequential(_Residual(fine, coarse, 2), _Residual(coarse, coarse))
        self.matching = nn.Conv2d(coarse, coarse, 1)
        self.context = nn.Conv2d(coarse, config.hidden + config.context, 1)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> ImageFeatures:
        fine = self.to_fine(images)
        coarse = self.to_coarse(fine)
        return ImageFeatures(fine, self.matching(coarse), self.context(coarse))


class _Update(nn.Module):
    """One update of the flow: motion features, a convolutional gated recurrent unit, and the change of the flow."""

    def __init__(self, config: FlowNetworkConfig) -> None:
        super().__init__()
        hidden = config.hidden
        self.of_correlation = nn.Conv2d(LEVELS * (2 * config.radius + 1) ** 2, 128, 1)
        self.of_flow = nn.Sequential(
            nn.Conv2d(2, 32, 7, padding=3), nn.ReLU(inplace=True), nn.Conv2d(32, 32, 3, padding=1)
        )
        self.motion = nn.Conv2d(128 + 32, hidden - 2, 3, padding=1)
        inputs = hidden + config.context + hidden
        self.gates = nn.Conv2d(inputs, 2 * hidden, 3, padding=1)
        self.candidate = nn.Conv2d(inputs, hidden, 3, padding=1)
        self.head = nn.Sequential(
            nn.Conv2d(hidden, 128, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(128, 2, 3, padding=1)
        )

    def forward(
        self,
        hidden: Float[Tensor, "b hidden h w"],
        context: Float[Tensor, "b context h w"],
        correlations: Float[Tensor, "b _ h w"],
        flow: Float[Tensor, "b 2 h w"],
    ) -> tuple[Float[Tensor, "b hidden h w"], Float[Tensor, "b 2 h w"]]:
        seen = torch.cat((torch.relu(self.of_correlation(correlations)), torch.relu(self.of_flow(flow))), 1)
        motion = torch.relu(self.motion(seen))
        inputs = torch.cat((context, motion, flow.to(motion.dtype)), 1)
        forget, reset = torch.sigmoid(self.gates(torch.cat((hidden, inputs), 1))).chunk(2, 1)
        candidate = torch.tanh(self.candidate(torch.cat((reset * hidden, inputs), 1)))
        hidden = (1 - forget) * hidden + forget * candidate
        return hidden, self.head(hidden)


class _Upsampling(nn.Module):
    """Flow at `factor` times the resolution: every pixel is a convex combination of the 3x3 cells around its own."""

    def __init__(self, channels: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.weights = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(channels, 9 * factor**2, 1)
        )

    def forward(self, features: Float[Tensor, "b c h w"], flow: Float[Tensor, "b 2 h w"]) -> Float[Tensor, "b 2 _ _"]:
        """Values of the flow stay as they are: they are in units of the caller's."""
        b, _, h, w = flow.shape
        weights = self.weights(features).float().reshape(b, 1, 9, self.factor, self.factor, h, w).softmax(2)
        # Beyond the border there is no flow to average with; the nearest cell stands in for it.
        around = F.unfold(F.pad(flow, (1, 1, 1, 1), mode="replicate"), 3).reshape(b, 2, 9, 1, 1, h, w)
        fine = (weights * around).sum(2)  # b 2 rows columns h w
        return fine.permute(0, 1, 4, 2, 5, 3).reshape(b, 2, h * self.factor, w * self.factor)


class _Refinement(nn.Module):
    def __init__(self, config: FlowNetworkConfig) -> None:
        super().__init__()
        self.radius, hidden, state = config.fine_radius, config.hidden, 32
        self.state = nn.Conv2d(hidden, state, 1)
        inputs = 2 * config.fine + (2 * self.radius + 1) ** 2 + 2 + state
        self.trunk = nn.Sequential(
            nn.Conv2d(inputs, hidden, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, hidden, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, hidden, 3, padding=1),
            nn.ReLU(inplace=True),
        )
        self.head = nn.Conv2d(hidden, 2, 3, padding=1)
        self.upsample = _Upsampling(hidden, 4)

    def begin(self, hidden: Float[Tensor, "b hidden h w"]) -> Float[Tensor, "b 32 _ _"]:
        """What the recurrent unit knows, at twice its resolution."""
        state = torch.relu(self.state(hidden))
        return F.interpolate(state, scale_factor=2, mode="bilinear", align_corners=False)

    def forward(
        self,
        first: Float[Tensor, "b c h w"],
        second: Float[Tensor, "b c h w"],
        flow: Float[Tensor, "b 2 h w"],
        state: Float[Tensor, "b 32 h w"],
    ) -> tuple[Float[Tensor, "b 2 h w"], Float[Tensor, "b hidden h w"]]:
        """Change of the flow (pixels of this resolution), and features for `upsample`."""
        h, w = flow.shape[-2:]
        # grid_sample in float32 where autocast would choose so; features of a quarter image are small enough.
        warped = warp(second.float(), flow).to(first.dtype)
        around = F.pad(warped, (self.radius,) * 4)
        correlations = [
            (first * around[..., row : row + h, column : column + w]).mean(1)
            for row in range(2 * self.radius + 1)
            for column in range(2 * self.radius + 1)
        ]
        inputs = torch.cat((first, warped, torch.stack(correlations, 1), flow.to(first.dtype), state), 1)
        trunk = self.trunk(inputs)
        return self.head(trunk), trunk


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
