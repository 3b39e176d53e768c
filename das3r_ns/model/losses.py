"""Photometric losses: per pixel first, then an average over the pixels that count.

Images are [h, w, 3] in 0..1; a weight is [h, w, 1], 1 where the scene is static. Two ways to weight live here.
`photometric_loss` is ours: errors are weighted, so a frame that is mostly masked weighs as much per static pixel as
any other. `published_loss` is DAS3R's: both images are multiplied by the weight, then everything is averaged; it is
kept for `das3r-paper` and rewards a weight of zero.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

SSIM_WINDOW = 11
SSIM_SIGMA = 1.5
SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2


def weighted_mean(per_pixel: Float[Tensor, "h w c"], weight: Float[Tensor, "h w 1"]) -> Float[Tensor, ""]:
    """Mean of `per_pixel` over the image, each pixel counted by its weight in [0, 1]. Weights of zero give 0."""
    total = weight.sum() * per_pixel.shape[-1]
    return (per_pixel * weight).sum() / total.clamp_min(1e-8)


@functools.lru_cache(maxsize=8)
def _window(channels: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """One-dimensional Gaussian, once per channel: kept because building it on every step would wait for the host."""
    offsets = torch.arange(SSIM_WINDOW, dtype=torch.float64) - SSIM_WINDOW // 2
    weights = torch.exp(-offsets.square() / (2 * SSIM_SIGMA**2))
    weights = (weights / weights.sum()).to(device=device, dtype=dtype)
    return weights.expand(channels, 1, SSIM_WINDOW).contiguous()


def ssim_map(a: Float[Tensor, "h w c"], b: Float[Tensor, "h w c"]) -> Float[Tensor, "h w c"]:
    """Structural similarity of two images around each pixel (Wang et al., TIP 2004).

    11x11 Gaussian window of standard deviation 1.5, zeros beyond the border, each channel by itself.
    """
    c = a.shape[-1]
    first, second = a.permute(2, 0, 1), b.permute(2, 0, 1)
    # The five moments go through the two separable filters together: one pass instead of five.
    moments = torch.cat((first, second, first * first, second * second, first * second))[None]
    window = _window(5 * c, a.device, a.dtype)
    pad = SSIM_WINDOW // 2
    moments = F.conv2d(moments, window[:, :, None, :], padding=(0, pad), groups=5 * c)
    moments = F.conv2d(moments, window[:, :, :, None], padding=(pad, 0), groups=5 * c)
    mean_a, mean_b, mean_aa, mean_bb, mean_ab = moments[0].chunk(5)
    variance_a, variance_b = mean_aa - mean_a.square(), mean_bb - mean_b.square()
    covariance = mean_ab - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + SSIM_C1) / (mean_a.square() + mean_b.square() + SSIM_C1)
    structure = (2 * covariance + SSIM_C2) / (variance_a + variance_b + SSIM_C2)
    return (luminance * structure).permute(1, 2, 0)


def photometric_loss(
    render: Float[Tensor, "h w 3"],
    image: Float[Tensor, "h w 3"],
    weight: Float[Tensor, "h w 1"],
    ssim_lambda: float,
) -> Float[Tensor, ""]:
    """(1 - lambda) L1 + lambda (1 - SSIM), averaged over what counts.

    Where a pixel does not count, the image is filled with the render before SSIM sees it: a window that straddles
    the edge of a moving object then compares its static part only. Blackening both instead would invent an edge that
    always agrees.
    """
    filled = torch.lerp(render, image, weight).detach()
    # The fill follows the render, but gives the gradient no way to change it.
    similarity = ssim_map(render, filled)
    per_pixel = (1 - ssim_lambda) * (render - image).abs() + ssim_lambda * (1 - similarity)
    return weighted_mean(per_pixel, weight)


def published_loss(
    render: Float[Tensor, "h w 3"],
    image: Float[Tensor, "h w 3"],
    static: Float[Tensor, "h w 1"],
    ssim_lambda: float,
) -> Float[Tensor, ""]:
    """Loss of the DAS3R paper: (1 - lambda) L1 + lambda (1 - SSIM) of both images times `static`, over all pixels."""
    a, b = render * static, image * static
    return (1 - ssim_lambda) * (a - b).abs().mean() + ssim_lambda * (1 - ssim_map(a, b).mean())


def psnr(
    render: Float[Tensor, "h w 3"], image: Float[Tensor, "h w 3"], weight: Float[Tensor, "h w 1"]
) -> Float[Tensor, ""]:
    """Static PSNR in dB: the mean squared error over the pixels that count, peak 1. Capped at 100 dB."""
    error = weighted_mean((render - image).square(), weight)
    return -10 * torch.log10(error.clamp_min(1e-10))


def published_psnr(
    render: Float[Tensor, "h w 3"], image: Float[Tensor, "h w 3"], static: Float[Tensor, "h w 1"]
) -> Float[Tensor, ""]:
    """PSNR in dB as the DAS3R paper computes it: both images times `static`, errors averaged over *all* pixels, one
    value per colour, mean of the three. Flatters by about 10 log10(1 / static share)."""
    error = ((render - image) * static).square().mean(dim=(0, 1))
    return (-10 * torch.log10(error.clamp_min(1e-10))).mean()
