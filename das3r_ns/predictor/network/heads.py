"""Dense prediction heads (DPT, Ranftl et al. 2021): tokens of four depths in, one map at image resolution out.

Half of a head's finest level reads the encoder's tokens only, so it is the same for every pair a frame takes part in:
`DptHead.frame_part` computes it once per frame, and `forward` takes it back. Module names are checkpoint keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

FEATURES = 256
"""Channels of the fusion path."""
LEVEL_WIDTHS = (96, 192, 384, 768)
"""Channels of the four levels, from the finest (1/4 of the image) to the coarsest (1/32)."""
POINT_FEATURES = 128
"""Channels of the point head's last layers."""
MASK_DROPOUT = 0.1


def upsample_twice(maps: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
    """Bilinear, with the corner pixels of both grids aligned (as the published heads were trained).

    In the type of `maps`: autocast would blow bfloat16 maps up to float32, four times the size and twice the width.
    The kernel weights and adds in float32 in any case.
    """
    with torch.autocast(maps.device.type, enabled=False):
        if torch.is_grad_enabled() and maps.requires_grad and maps.shape[1] > 1:
            return _UpsampleTwice.apply(maps)  # type: ignore[no-any-return]
        return F.interpolate(maps, scale_factor=2, mode="bilinear", align_corners=True)


class _UpsampleTwice(torch.autograd.Function):
    """`upsample_twice` whose gradient is two matrix products.

    PyTorch's own adds every element of the gradient to four places, one atomic addition each, in the type of the
    maps: slower than the convolutions around it, and another result each time.
    """

    @staticmethod
    def forward(ctx: Any, maps: Tensor) -> Tensor:
        ctx.size = maps.shape[-2:]
        return F.interpolate(maps, scale_factor=2, mode="bilinear", align_corners=True)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        rows, columns = (_transposed_interpolation(count, gradient) for count in ctx.size)
        channels_last = gradient.permute(0, 2, 3, 1)
        by_row = (rows @ channels_last.flatten(2)).unflatten(2, channels_last.shape[2:])  # b, h, 2 w, c
        summed = columns @ by_row.flatten(0, 1)
        return summed.unflatten(0, by_row.shape[:2]).permute(0, 3, 1, 2)


def _transposed_interpolation(count: int, like: Tensor) -> Float[Tensor, "n n2"]:
    """Weight of each of `count` pixels in a row of twice as many."""
    exact = torch.promote_types(like.dtype, torch.float32)
    pixels = torch.eye(count, device=like.device, dtype=exact)[None]
    return F.interpolate(pixels, scale_factor=2, mode="linear", align_corners=True)[0].to(like.dtype)


class ResidualConvUnit(nn.Module):
    """Two 3x3 convolutions with a ReLU before each, and a skip connection."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(FEATURES, FEATURES, 3, padding=1)
        self.conv2 = nn.Conv2d(FEATURES, FEATURES, 3, padding=1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x + self.conv2(F.relu_(self.conv1(F.relu(x))))


class FusionBlock(nn.Module):
    """Add one level to the path that comes from the coarser ones, refine, double the resolution.

    The coarsest block has no path to add to; its `resConfUnit1` exists in the checkpoints and is never used.
    """

    def __init__(self) -> None:
        super().__init__()
        self.out_conv = nn.Conv2d(FEATURES, FEATURES, 1)
        self.resConfUnit1 = ResidualConvUnit()
        self.resConfUnit2 = ResidualConvUnit()

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
        # The 1x1 convolution before the interpolation equals the published order (interpolation weights sum to 1,
        # so it passes the bias unchanged) at a quarter of the work.
        return upsample_twice(self.out_conv(self.resConfUnit2(x)))


class Scratch(nn.Module):
    """Projection of the four levels to the fusion width, and the four fusion blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.layer1_rn, self.layer2_rn, self.layer3_rn, self.layer4_rn = (
            nn.Conv2d(width, FEATURES, 3, padding=1, bias=False) for width in LEVEL_WIDTHS
        )
        # The checkpoints list these four tensors under a second name.
        self.layer_rn = nn.ModuleList([self.layer1_rn, self.layer2_rn, self.layer3_rn, self.layer4_rn])
        self.refinenet1, self.refinenet2, self.refinenet3, self.refinenet4 = (FusionBlock() for _ in range(4))


class Dpt(nn.Module):
    """The DPT of one head; `head` holds the layers after the fusion, which differ between points and masks."""

    def __init__(self, token_widths: Sequence[int], head: nn.Sequential) -> None:
        super().__init__()
        finest, fine, middle, coarse = LEVEL_WIDTHS
        self.scratch = Scratch()
        self.head = head
        self.act_postprocess = nn.ModuleList(
            [
                nn.Sequential(
                    nn.Conv2d(token_widths[0], finest, 1), nn.ConvTranspose2d(finest, finest, kernel_size=4, stride=4)
                ),
                nn.Sequential(
                    nn.Conv2d(token_widths[1], fine, 1), nn.ConvTranspose2d(fine, fine, kernel_size=2, stride=2)
                ),
                nn.Sequential(nn.Conv2d(token_widths[2], middle, 1)),
                nn.Sequential(nn.Conv2d(token_widths[3], coarse, 1), nn.Conv2d(coarse, coarse, 3, stride=2, padding=1)),
            ]
        )

    def frame_part(self, tokens: Float[Tensor, "b n c"], grid: tuple[int, int]) -> Float[Tensor, "b f h w"]:
        """What the finest level contributes: a function of the encoder's tokens alone."""
        level = self.scratch.layer1_rn(self.act_postprocess[0](_as_map(tokens, grid)))
        return self.scratch.refinenet1.resConfUnit1(level)

    def forward(
        self,
        tokens: Sequence[Float[Tensor, "b n _"]],
        grid: tuple[int, int],
        frame_part: Float[Tensor, "b f h w"] | None = None,
    ) -> Float[Tensor, "b k h_out w_out"]:
        s = self.scratch
        if frame_part is None:
            frame_part = self.frame_part(tokens[0], grid)
        second = s.layer2_rn(self.act_postprocess[1](_as_map(tokens[1], grid)))
        third = s.layer3_rn(self.act_postprocess[2](_as_map(tokens[2], grid)))
        fourth = s.layer4_rn(self.act_postprocess[3](_as_map(tokens[3], grid)))
        path = s.refinenet4(fourth)
        path = path[..., : third.shape[-2], : third.shape[-1]]  # odd grids: 13 token rows became 7, then 14
        path = s.refinenet3(path + s.refinenet3.resConfUnit1(third))
        path = s.refinenet2(path + s.refinenet2.resConfUnit1(second))
        return self.head(s.refinenet1(path + frame_part))


class Upsample(nn.Module):
    """`upsample_twice` as a layer."""

    def forward(self, maps: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
        return upsample_twice(maps)


class Float32Conv(nn.Conv2d):
    """A 1x1 convolution kept in float32 under autocast: its outputs are exponents, which amplify rounding."""

    def forward(self, maps: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"]:
        with torch.autocast(maps.device.type, enabled=False):
            return super().forward(maps.float())


class LogitConv(Float32Conv):
    """A 1x1 convolution to one logit: in float32, but read as they come while it learns from bfloat16 maps.

    The float32 copy of the maps would be the largest tensor of a training step, and kept for the backward pass. A
    logit, unlike an exponent, may be rounded to bfloat16 while training.
    """

    def forward(self, maps: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"]:
        if maps.dtype == torch.bfloat16 and torch.is_grad_enabled() and self.weight.requires_grad:
            with torch.autocast(maps.device.type, enabled=False):
                return _Logit.apply(maps, self.weight) + self.bias[:, None, None]  # type: ignore[index]
        return super().forward(maps)


class _Logit(torch.autograd.Function):
    """Product of bfloat16 maps with the weights of one output channel, in float32."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(maps, weight)
        channels_last = maps.permute(0, 2, 3, 1)
        return F.linear(channels_last, weight[:, :, 0, 0].to(maps.dtype)).permute(0, 3, 1, 2).float()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        maps, weight = ctx.saved_tensors
        by_pixel = gradient.to(maps.dtype).permute(0, 2, 3, 1)
        to_maps = (by_pixel * weight[0, :, 0, 0].to(maps.dtype)).permute(0, 3, 1, 2)
        # Row by row of the images, then summed in float32: one product over all pixels would run on few cores.
        by_row = by_pixel.flatten(0, 1).transpose(1, 2) @ maps.permute(0, 2, 3, 1).flatten(0, 1)
        return to_maps, by_row.float().sum(0)[:, :, None, None]


class DptHead(nn.Module):
    """One head over one decoder's tokens: raw outputs, before `points_and_confidence` and `dynamic_probability`."""

    def __init__(self, enc_width: int, dec_width: int, head: nn.Sequential) -> None:
        super().__init__()
        self.dpt = Dpt((enc_width, dec_width, dec_width, dec_width), head)

    def frame_part(self, tokens: Float[Tensor, "b n c"], grid: tuple[int, int]) -> Float[Tensor, "b f h w"]:
        """The part of the head that depends on one frame's encoder tokens only, to be kept across its pairs.

        Args:
            tokens: the encoder's output for these frames.
            grid: rows and columns of the patch grid.
        """
        return self.dpt.frame_part(tokens, grid)

    def forward(
        self,
        tokens: Sequence[Float[Tensor, "b n _"]],
        grid: tuple[int, int],
        frame_part: Float[Tensor, "b f h w"] | None = None,
    ) -> Float[Tensor, "b k h_out w_out"]:
        """Raw maps of the image's size.

        Args:
            tokens: four token sets, those of `PairwiseNetworkConfig.hooks`; the first is the encoder's output.
            grid: rows and columns of the patch grid.
            frame_part: the result of `frame_part` where it is already known.
        """
        return self.dpt(tokens, grid, frame_part)


def point_head(enc_width: int, dec_width: int) -> DptHead:
    """Head with four output channels: x, y, z and confidence, all raw."""
    last = nn.Sequential(
        nn.Conv2d(FEATURES, POINT_FEATURES, 3, padding=1),
        Upsample(),
        nn.Conv2d(POINT_FEATURES, POINT_FEATURES, 3, padding=1),
        nn.ReLU(inplace=True),
        Float32Conv(POINT_FEATURES, 4, 1),
    )
    return DptHead(enc_width, dec_width, last)


def mask_head(enc_width: int, dec_width: int) -> DptHead:
    """Head with one output channel: the logit of being dynamic. The upsampling comes after the last convolution."""
    last = nn.Sequential(
        nn.Conv2d(FEATURES, FEATURES, 3, padding=1, bias=False),
        nn.Identity(),
        nn.ReLU(inplace=True),
        nn.Dropout(MASK_DROPOUT),
        LogitConv(FEATURES, 1, 1),
        Upsample(),
    )
    return DptHead(enc_width, dec_width, last)


def _as_map(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    return tokens.transpose(1, 2).unflatten(2, grid)
