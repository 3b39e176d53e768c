"""Parts of the flow network: encoder, update, upsampling and refinement."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from das3r_ns.predictor.flow.network_config import LEVELS, FlowNetworkConfig, ImageFeatures
from das3r_ns.predictor.flow.sampling import warp


def convolution(inputs: int, outputs: int, size: int = 3, stride: int = 1) -> nn.Sequential:
    """A convolution, normalised and rectified."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


class Residual(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(convolution(inputs, outputs, 3, stride), convolution(outputs, outputs))
        self.skip = nn.Identity() if stride == 1 and inputs == outputs else nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, x: Float[Tensor, "b _ _ _"]) -> Float[Tensor, "b _ _ _"]:
        return torch.relu(self.skip(x) + self.body(x))


class Encoder(nn.Module):
    """Features of an image at an eighth of its resolution, and coarser ones of its surroundings."""

    def __init__(self, config: FlowNetworkConfig) -> None:
        super().__init__()
        fine, coarse = config.fine, config.coarse
        self.to_fine = nn.Sequential(
            convolution(3, fine // 2, 7, 2),
            convolution(fine // 2, fine, 3, 2),
            Residual(fine, fine),
            Residual(fine, fine),
        )
        self.to_coarse = nn.Sequential(Residual(fine, coarse, 2), Residual(coarse, coarse))
        self.matching = nn.Conv2d(coarse, coarse, 1)
        self.context = nn.Conv2d(coarse, config.hidden + config.context, 1)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> ImageFeatures:
        fine = self.to_fine(images)
        coarse = self.to_coarse(fine)
        return ImageFeatures(fine, self.matching(coarse), self.context(coarse))


class Update(nn.Module):
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


class Upsampling(nn.Module):
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


class Refinement(nn.Module):
    """Updates of the flow at a finer resolution than that of the matching."""

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
        self.upsample = Upsampling(hidden, 4)

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
