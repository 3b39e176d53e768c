"""What one training frame says about the render and about its own staticness: all loss terms that look at pixels.

Pure functions of tensors, so that a step can record them (`graphed`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
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
    """Terms of the loss of one frame, each pixel by its weight, and two values for the log."""

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


class ExtraTensors(NamedTuple):
    """What `ExtraTerms` look at in one frame; empty where the model lacks it."""

    shutter: tuple[Tensor, ...] = ()
    """Share [], readout [2] and motion [h w 2] (`Shutter.of_frame`)."""
    exposure: tuple[Tensor, ...] = ()
    """Values [7 3] and polynomial [H W 5] (`Exposure.of_frame`)."""
    ground: tuple[Tensor, ...] = ()
    """Continuation [1 3 s t] and where it counts [1 1 s t] (`HiddenGround.of_frame`)."""

    def in_a_row(self) -> tuple[Tensor, ...]:
        """As a CUDA graph takes them."""
        return (*self.shutter, *self.exposure, *self.ground)


@dataclass(frozen=True)
class ExtraTerms:
    """How a frame was filmed (motion blur, then exposure) and its hidden ground, where the model has them."""

    shutter: bool = False
    """There is one."""
    exposure: bool = False
    """There is one."""
    hidden_weight: float = 0.0
    """Of the hidden ground; with 0 there is none."""

    def named(self, row: Sequence[Tensor]) -> ExtraTensors:
        """What `ExtraTensors.in_a_row` put in a row."""
        rest = iter(row)

        def take(count: int, there: bool) -> tuple[Tensor, ...]:
            return tuple(islice(rest, count if there else 0))

        return ExtraTensors(
            shutter=take(3, self.shutter), exposure=take(2, self.exposure), ground=take(2, self.hidden_weight > 0)
        )

    def __call__(
        self, render: Float[Tensor, "H W 3"], row: Sequence[Tensor]
    ) -> tuple[Float[Tensor, "H W 3"], Float[Tensor, ""], Float[Tensor, ""]]:
        """The render as its frame was filmed, and the terms of exposure and hidden ground.

        Args:
            row: `ExtraTensors` in a row, because that is what can be recorded.
        """
        tensors = self.named(row)
        nothing = torch.zeros_like(render[0, 0, 0].detach())
        rgb, pull, hidden = render, nothing, nothing
        if self.shutter:
            rgb = blurred(rgb, *tensors.shutter)
        if self.exposure:
            values, polynomial = tensors.exposure
            rgb, pull = exposed(rgb, values, polynomial), regularizer(values)
        if self.hidden_weight > 0:
            hidden = self.hidden_weight * distance_to_ground(rgb, *tensors.ground)
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
        more: `ExtraTensors` in a row.
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
    return FrameTerms(
        photometric=photometric,
        staticness=pull,
        prior=prior,
        psnr=psnr,
        weight=weight,
        exposure=exposure,
        hidden=hidden,
    )


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
        more: `ExtraTensors` in a row.
    """
    height, width = image.shape[:2]
    rgb, exposure, hidden = extras(render, more)
    photometric = losses.published_loss(rgb, image, maps.weight(frame, height, width), ssim_lambda) * frame_weight
    nothing = torch.zeros_like(photometric.detach())
    prior = maps.config.prior_weight * maps.prior(frame) if maps.config.prior_weight > 0 else nothing
    weight = maps.counted(frame, height, width)
    psnr = losses.psnr(rgb.detach(), image, weight)
    return FrameTerms(
        photometric=photometric,
        staticness=nothing,
        prior=prior,
        psnr=psnr,
        weight=weight,
        exposure=exposure,
        hidden=hidden,
    )


def masked_terms(
    rgb: Float[Tensor, "H W 3"],
    image: Float[Tensor, "H W 3"],
    weight: Float[Tensor, "H W 1"],
    ssim_lambda: float,
    frame_weight: Float[Tensor, ""] | None = None,
    exposure: Float[Tensor, ""] | None = None,
) -> FrameTerms:
    """Terms where there are no maps, in evaluation and for data without a predictor.

    Args:
        rgb: the render as its frame was filmed.
        weight: what each pixel counts.
        frame_weight: how much the frame counts; None in evaluation.
        exposure: pull of the frame's exposure to no change, if the model has exposures.
    """
    photometric = losses.photometric_loss(rgb, image, weight, ssim_lambda)
    if frame_weight is not None:
        photometric = photometric * frame_weight
    nothing = rgb.new_zeros(())
    return FrameTerms(
        photometric=photometric,
        staticness=nothing,
        prior=nothing,
        psnr=losses.psnr(rgb.detach(), image, weight),
        weight=weight,
        exposure=nothing if exposure is None else exposure,
        hidden=nothing,
    )
