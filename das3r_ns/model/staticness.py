"""Staticness: how much a training pixel counts, learned together with the scene.

In: `dynamic_prob` of the training frames at map resolution. Out: weights in (0, 1) at image resolution, 1 static.

Render and maps learn from one another with turned backs: the render from errors at pixels above `cut`, the maps from
errors held still. A pixel whose error stays above the average wants weight 0, one below wants weight 1, so left alone
the maps drift towards the easy pixels. A prior ties each map to where it started: with error e, mean error m and
prior strength lambda, a value settles where s (1 - s) (e - m) = lambda (s - s0). Small errors leave it at s0; a pixel
that is in doubt (s0 near 1/2) moves first, one that is surely static only under errors above about 2 lambda.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from das3r_ns.files.saved_config import SavedConfig

FLOOR = 1e-3
"""Staticness stays this far away from 0 and 1: beyond, a sigmoid has no gradient to come back on."""


@dataclass
class StaticnessConfig(SavedConfig):
    """How the weight of each training pixel starts and what holds it in place."""

    learn: Literal["frames", "clip", "off"] = "frames"
    """`frames`: one parameter a frame, moved only when its frame is seen. `clip`: one parameter for all frames, kept
    in (0, 1) by clamping after each step and shared with the Gaussian born at each pixel (the published tie). `off`:
    weights stay as predicted."""
    prior_weight: float = 3.0
    """Strength of the pull back to the predicted maps, in units of the photometric error. Only pixels in doubt move
    then. At a tenth of it, masks that are good already lose more than they gain: what is hard to render is taken for
    moving. 0 turns it off: the weights may then fall to zero everywhere."""
    dilate: float = 0.0
    """Grow the moving regions by this share of the maps' longer side before training. Masks are often too tight by a
    few pixels, and a rim of the moving object is enough for a ghost."""
    cut: float = 0.15
    """Pixels that are less static than this teach the render nothing, others as much as they are static. Without it a
    small weight would do harm: Adam follows the faintest gradient where there is no other, and paints a moving object
    that hides a place in nearly every frame. Higher takes ground away that the maps are not sure of."""
    caution: float = 0.0
    """Log-odds by which every pixel is taken to be moving rather than static before training. A static pixel that is
    left out is seen again in another frame; a moving one that is let in is a ghost."""


def initial_staticness(dynamic_prob: Float[Tensor, "n h w"], config: StaticnessConfig) -> Float[Tensor, "n h w"]:
    """Where the maps start and where the prior pulls them back to: 1 - dynamic_prob, grown and shifted as asked."""
    reach = round(config.dilate * max(dynamic_prob.shape[-2:]))
    if reach > 0:
        dynamic_prob = dilated(dynamic_prob, reach)
    static = (1 - dynamic_prob).clamp(FLOOR, 1 - FLOOR)
    if config.caution != 0.0:
        static = torch.sigmoid(torch.logit(static) - config.caution).clamp(FLOOR, 1 - FLOOR)
    return static


def dilated(maps: Float[Tensor, "n h w"], reach: int) -> Float[Tensor, "n h w"]:
    """Largest value within a square of `reach` pixels around each pixel."""
    size = 2 * reach + 1
    return F.max_pool2d(maps[:, None], size, stride=1, padding=reach)[:, 0]


def resized(static: Float[Tensor, "h w"], height: int, width: int) -> Float[Tensor, "H W 1"]:
    """A map at image size, differentiable."""
    values = static[None, None]
    if values.shape[-2:] != (height, width):
        shrinks = height < static.shape[0]
        values = F.interpolate(values, (height, width), mode="bilinear", align_corners=False, antialias=shrinks)
    return values[0, 0, ..., None]


def divergence(start: Float[Tensor, "h w"], now: Float[Tensor, "h w"]) -> Float[Tensor, ""]:
    """Cross entropy between where a map started and where it is, less that of the start; mean over its pixels."""
    now = now.clamp(FLOOR / 2, 1 - FLOOR / 2)
    return (start * (start / now).log() + (1 - start) * ((1 - start) / (1 - now)).log()).mean()


class StaticnessMaps(nn.Module):
    """Staticness of every training pixel, as a parameter.

    One `nn.Parameter` per frame for `learn="frames"`: only the frame of a step has a gradient, so the optimizer's cost
    does not grow with the clip. One for the whole clip for `learn="clip"`.
    """

    def __init__(self, dynamic_prob: Float[Tensor, "n h w"], config: StaticnessConfig) -> None:
        super().__init__()
        self.config = config
        self.num_frames, self.height, self.width = dynamic_prob.shape
        start = initial_staticness(dynamic_prob.float(), config)
        values = start if config.learn == "clip" else torch.logit(start)
        pieces = [values] if config.learn == "clip" else list(values)
        self.maps = nn.ParameterList([nn.Parameter(p.clone(), config.learn != "off") for p in pieces])
        self.register_buffer("start", start)
        self.start: Tensor

    def values(self, frame: int) -> Float[Tensor, "h w"]:
        """Staticness of one frame at map resolution, differentiable."""
        if self.config.learn == "clip":
            return self.maps[0][frame]
        return torch.sigmoid(self.maps[frame])

    def weight(self, frame: int, height: int, width: int) -> Float[Tensor, "H W 1"]:
        """Staticness of one frame at image size, differentiable."""
        return resized(self.values(frame), height, width)

    def counted(self, frame: int, height: int, width: int) -> Float[Tensor, "H W 1"]:
        """Weight with which each pixel of one frame teaches the render: staticness, or 0 below `cut`. No gradient."""
        with torch.no_grad():
            weight = self.weight(frame, height, width)
            return weight * (weight >= self.config.cut)

    def of_pixels(self, flat_index: Int[Tensor, "p"]) -> Float[Tensor, "p"]:
        """Staticness of single pixels, by their place in the flattened maps. Only for `learn="clip"`."""
        if self.config.learn != "clip":
            raise ValueError("single pixels can be read off one parameter for the whole clip only (learn='clip')")
        return self.maps[0].flatten()[flat_index]

    def prior(self, frame: int) -> Float[Tensor, ""]:
        """Cross entropy between where the map of `frame` started and where it is, mean over its pixels, at least 0."""
        return divergence(self.start[frame], self.values(frame))

    @torch.no_grad()
    def confine(self) -> None:
        """Put the values of `learn="clip"` back into (0, 1) after an optimizer step."""
        if self.config.learn == "clip":
            self.maps[0].clamp_(FLOOR, 1 - FLOOR)

    @torch.no_grad()
    def lower(self, frame: int, static: Float[Tensor, "h w"]) -> None:
        """Mark pixels as moving: the map of `frame`, and what the prior pulls it to, become at most `static`."""
        static = static.clamp(FLOOR, 1 - FLOOR)
        self.start[frame] = torch.minimum(self.start[frame], static)
        if self.config.learn == "clip":
            self.maps[0][frame] = torch.minimum(self.maps[0][frame], static)
        else:
            self.maps[frame].copy_(torch.minimum(self.maps[frame], torch.logit(static)))

    @torch.no_grad()
    def begin_anew(self, frame: int, where: Bool[Tensor, "h w"], static: Float[Tensor, "h w"]) -> None:
        """Put pixels of a frame, and what the prior pulls them to, back to a start: something else was said of them."""
        self.start[frame][where] = static[where]
        if self.config.learn == "clip":
            self.maps[0][frame][where] = static[where]
        else:
            self.maps[frame][where] = torch.logit(static[where])
