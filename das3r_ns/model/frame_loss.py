"""What one training frame says about the render and about its own staticness: all loss terms that look at pixels.

Pure functions of tensors, so that a step can record them (`graphed`).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from das3r_ns.model import losses
from das3r_ns.model.staticness import StaticnessConfig, divergence, resized


class FrameTerms(NamedTuple):
    """Terms of the loss of one frame, weighted."""

    photometric: Float[Tensor, ""]
    staticness: Float[Tensor, ""]
    """Pull of the errors on the staticness map."""
    prior: Float[Tensor, ""]
    """Pull of the staticness map to where it started."""
    psnr: Float[Tensor, ""]
    """Static PSNR in dB, without a gradient."""
    weight: Float[Tensor, "H W 1"]
    """What each pixel counted in the photometric term, without a gradient."""


def frame_terms(
    rgb: Float[Tensor, "H W 3"],
    picture: Float[Tensor, "H W 3"],
    static: Float[Tensor, "h w"],
    start: Float[Tensor, "h w"],
    frame_weight: Float[Tensor, ""],
    ssim_lambda: float,
    config: StaticnessConfig,
) -> FrameTerms:
    """All terms of one frame.

    Args:
        static: the frame's staticness map, in (0, 1).
        start: the map that the prior pulls back to.
        frame_weight: how much the frame counts.
    """
    learned = resized(static, rgb.shape[0], rgb.shape[1])
    with torch.no_grad():
        weight = learned * (learned >= config.cut)
        psnr = losses.psnr(rgb, picture, weight)
    photometric = losses.photometric_loss(rgb, picture, weight, ssim_lambda) * frame_weight
    nothing = torch.zeros_like(photometric.detach())
    pull, prior = nothing, nothing
    if config.learn != "off":
        error = (rgb - picture).detach().abs().mean(dim=-1, keepdim=True)
        pull = losses.weighted_mean(error, learned)
        if config.prior_weight > 0:
            prior = config.prior_weight * divergence(start, static)
    return FrameTerms(photometric, pull, prior, psnr, weight)
