"""U2NetP (Qin et al., Pattern Recognition 2020) in torch, which takes four fifths of the time of OpenCV.

In: the ONNX file, whose weights are read and whose graph is not: the network is written down here, as the paper's
table gives it, at a fixed 16 inner and 64 outer channels. Out: a module whose map of salience is that of the file to
some 1e-5. Activations stay in `channels_last`, for which convolutions of few channels are several times as fast.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import torch
import torch.nn.functional as F
from jaxtyping import Float32
from torch import Tensor, nn

INNER, OUTER = 16, 64
"""Channels within and between the stages."""
ENCODERS = (7, 6, 5, 4)
"""Levels of the U-shaped stages, finest first; two without pooling follow."""


class _ConvReLU(nn.Module):
    def __init__(self, channels: int, out: int, dilation: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out, 3, padding=dilation, dilation=dilation)

    def forward(self, x: Float32[Tensor, "1 c h w"], beside: Tensor | None = None) -> Float32[Tensor, "1 d h w"]:
        """Of `x`, or of `x` and `beside` side by side. Joining images of many channels takes half as long as convolving
        them: those are convolved one by one."""
        conv, channels = self.conv, x.shape[1]
        if beside is None:
            return conv(x).relu_()
        if channels < OUTER:
            return conv(torch.cat((x, beside), dim=1)).relu_()
        found = F.conv2d(x, conv.weight[:, :channels], conv.bias, padding=conv.padding, dilation=conv.dilation)
        found += F.conv2d(beside, conv.weight[:, channels:], padding=conv.padding, dilation=conv.dilation)
        return found.relu_()


class _Stage(nn.Module):
    """Residual U-block: down by pooling, at the bottom once dilated, up again by interpolation, plus its own input."""

    def __init__(self, channels: int, levels: int) -> None:
        super().__init__()
        self.enter = _ConvReLU(channels, OUTER)
        dilations = [1] * (levels - 1) + [2]
        self.down = nn.ModuleList(
            [_ConvReLU(OUTER if k == 0 else INNER, INNER, dilation) for k, dilation in enumerate(dilations)]
        )
        self.up = nn.ModuleList([_ConvReLU(2 * INNER, OUTER if k == levels - 2 else INNER) for k in range(levels - 1)])

    def forward(self, x: Float32[Tensor, "1 c h w"], beside: Tensor | None = None) -> Float32[Tensor, "1 64 h w"]:
        entered = self.enter(x, beside)
        seen = [self.down[0](entered)]
        for k, step in enumerate(self.down[1:], 1):
            bottom = k == len(self.down) - 1
            seen.append(step(seen[-1] if bottom else _halved(seen[-1])))
        x = seen.pop()
        for step in self.up:
            left = seen.pop()
            x = step(_resized(x, left), left)
        return x.add_(entered)


class _DilatedStage(nn.Module):
    """The same for images too small to be halved: dilation takes the place of pooling."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.enter = _ConvReLU(channels, OUTER)
        self.down = nn.ModuleList([_ConvReLU(OUTER if d == 1 else INNER, INNER, d) for d in (1, 2, 4, 8)])
        self.up = nn.ModuleList([_ConvReLU(2 * INNER, OUTER if d == 1 else INNER, d) for d in (4, 2, 1)])

    def forward(self, x: Float32[Tensor, "1 c h w"], beside: Tensor | None = None) -> Float32[Tensor, "1 64 h w"]:
        entered = self.enter(x, beside)
        seen = [self.down[0](entered)]
        for step in self.down[1:]:
            seen.append(step(seen[-1]))
        x = seen.pop()
        for step in self.up:
            x = step(x, seen.pop())
        return x.add_(entered)


class U2NetP(nn.Module):
    """Salience of each pixel of a normalised image, 0 to 1."""

    def __init__(self) -> None:
        super().__init__()
        first = [_Stage(3 if k == 0 else OUTER, levels) for k, levels in enumerate(ENCODERS)]
        self.down = nn.ModuleList([*first, _DilatedStage(OUTER), _DilatedStage(OUTER)])
        last = [_Stage(2 * OUTER, levels) for levels in reversed(ENCODERS)]
        self.up = nn.ModuleList([_DilatedStage(2 * OUTER), *last])
        self.side = nn.ModuleList([nn.Conv2d(OUTER, 1, 3, padding=1) for _ in range(len(ENCODERS) + 2)])
        self.join = nn.Conv2d(len(self.side), 1, 1)

    def forward(self, image: Float32[Tensor, "1 3 h w"]) -> Float32[Tensor, "1 1 h w"]:
        seen: list[Tensor] = []
        x = image.contiguous(memory_format=torch.channels_last)
        for k, stage in enumerate(self.down):
            x = stage(x if k == 0 else _halved(x))
            seen.append(x)
        found = [seen.pop()]  # coarsest first
        for stage in self.up:
            left = seen.pop()
            found.append(stage(_resized(found[-1], left), left))
        maps = [side(x) for side, x in zip(self.side, reversed(found))]
        return self.join(torch.cat([_resized(x, maps[0]) for x in maps], dim=1)).sigmoid_()

    @classmethod
    def read(cls, file: Path) -> U2NetP:
        """The network with the weights of an ONNX file of it.

        Raises:
            ValueError: the file holds another network.
        """
        # OpenCV 5 fuses layers of a network and then gives no weights, unless its older engine is asked for.
        classic = {"engine": cv2.dnn.ENGINE_CLASSIC} if hasattr(cv2.dnn, "ENGINE_CLASSIC") else {}
        graph = cv2.dnn.readNetFromONNX(str(file), **classic)
        layers = [graph.getLayer(name) for name in graph.getLayerNames()]
        stored = [layer.blobs for layer in layers if layer.type == "Convolution"]  # in the order of their use
        network = cls()
        convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
        shapes = [tuple(module.weight.shape) for module in convolutions]
        if shapes != [blobs[0].shape for blobs in stored]:
            raise ValueError(f"{file} is not U2NetP: its {len(stored)} convolutions have other shapes than that has.")
        for module, (weight, bias) in zip(convolutions, stored):
            module.weight.data = torch.from_numpy(weight.copy())
            assert module.bias is not None
            module.bias.data = torch.from_numpy(bias.reshape(-1).copy())
        return network.requires_grad_(False).eval()


def _halved(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 2, ceil_mode=True)


def _resized(x: Tensor, like: Tensor) -> Tensor:
    size = like.shape[-2:]
    return x if x.shape[-2:] == size else F.interpolate(x, size=size, mode="bilinear", align_corners=False)
