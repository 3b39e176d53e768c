"""What one training frame says about the render and about its own staticness: all loss terms that look at pixels.

Pure functions of tensors, so that a step can record them (`graphed`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from das3r_ns.model import losses
from das3r_ns.model.exposure import exposed, regularizer
from das3r_ns.model.hidden import distance_to_ground
from das3r_ns.model.shutter import blurred
from das3r_ns.model.staticness import StaticnessConfig, StaticnessMaps, divergence, resized


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
    exposure: Float[Tensor, ""]
    """Pull of the frame's exposure to no change."""
    hidden: Float[Tensor, ""]
    """Pull of what moving objects hide to the continuation of its surroundings."""


@dataclass(frozen=True)
class ExtraTerms:
    """How a frame was filmed (motion blur, then exposure) and its hidden ground, where the model has them."""

    shutter: bool = False
    """There is one; its share [], readout [2] and motion [h w 2] come first (`Shutter.of_frame`)."""
    exposure: bool = False
    """There is one; its values [7 3] and polynomial [H W 5] come next (`Exposure.of_frame`)."""
    hidden_weight: float = 0.0
    """Of the hidden ground; with 0 there is none. Continuation [1 3 s t] and where it counts [1 1 s t] come last
    (`HiddenGround.of_frame`)."""

    def __call__(
        self, render: Float[Tensor, "H W 3"], tensors: tuple[Tensor, ...]
    ) -> tuple[Float[Tensor, "H W 3"], Float[Tensor, ""], Float[Tensor, ""]]:
        """The render as its frame was filmed, and the terms of exposure and hidden ground.

        Args:
            tensors: in a row, because that is what can be recorded.
        """
        nothing = torch.zeros_like(render[0, 0, 0].detach())
        rgb, pull, hidden = render, nothing, nothing
        if self.shutter:
            rgb, tensors = blurred(rgb, *tensors[:3]), tensors[3:]
        if self.exposure:
            values, polynomial = tensors[:2]
            rgb, pull = exposed(rgb, values, polynomial), regularizer(values)
        if self.hidden_weight > 0:
            ground, covered = tensors[-2:]
            hidden = self.hidden_weight * distance_to_ground(rgb, ground, covered)
        return rgb, pull, hidden


def frame_terms(
    render: Float[Tensor, "H W 3"],
    image: Float[Tensor, "H W 3"],
    static: Float[Tensor, "h w"],
    start: Float[Tensor, "h w"],
    frame_weight: Float[Tensor, ""],
    *more: Tensor,
    ssim_lambda: float,
    config: StaticnessConfig,
    extras: ExtraTerms,
) -> FrameTerms:
    """All terms of one frame.

    Args:
        more: what `extras` look at.
        static: the frame's staticness map, in (0, 1).
        start: the map that the prior pulls back to.
        frame_weight: how much the frame counts.
    """
    rgb, exposure, hidden = extras(render, more)
    learned = resized(static, rgb.shape[0], rgb.shape[1])
    with torch.no_grad():
        weight = learned * (learned >= config.cut)
        psnr = losses.psnr(rgb, image, weight)
    photometric = losses.photometric_loss(rgb, image, weight, ssim_lambda) * frame_weight
    nothing = torch.zeros_like(photometric.detach())
    pull, prior = nothing, nothing
    if config.learn != "off":
        error = (rgb - image).detach().abs().mean(dim=-1, keepdim=True)
        pull = losses.weighted_mean(error, learned)
        if config.prior_weight > 0:
            prior = config.prior_weight * divergence(start, static)
    return FrameTerms(photometric, pull, prior, psnr, weight, exposure, hidden)


def published_terms(
    render: Float[Tensor, "H W 3"],
    image: Float[Tensor, "H W 3"],
    maps: StaticnessMaps,
    frame: int,
    frame_weight: Float[Tensor, ""],
    ssim_lambda: float,
    extras: ExtraTerms,
    more: tuple[Tensor, ...],
) -> FrameTerms:
    """Terms of the published loss, in which render and maps share one term.

    Args:
        more: what `extras` look at.
    """
    height, width = image.shape[:2]
    rgb, exposure, hidden = extras(render, more)
    photometric = losses.published_loss(rgb, image, maps.weight(frame, height, width), ssim_lambda) * frame_weight
    nothing = torch.zeros_like(photometric.detach())
    prior = maps.config.prior_weight * maps.prior(frame) if maps.config.prior_weight > 0 else nothing
    weight = maps.counted(frame, height, width)
    psnr = losses.psnr(rgb.detach(), image, weight)
    return FrameTerms(photometric, nothing, prior, psnr, weight, exposure, hidden)
