"""Moving pixels that the predictor missed, found by what the render of the static scene fails to explain.

Masks miss a leg for a few frames, and that leg stays in the scene as a faint ghost, which hardly any pixel of the
training frames complains about. Two pieces of evidence bring it out, a few times during training:

1. `ErrorMemory`, `missed_motion`: pixels near motion evidence, in place or time, whose error stands out are marked
   as moving. Far from any evidence an error is taken for texture still to be learned.
2. `support`: how much each Gaussian contributes to static pixels and to all pixels. One that paints moving pixels
   alone is a ghost that nothing supervises, and goes. A small share of static pixels is enough to stay: scenery
   behind a moving object is painted in every frame and seen in few.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from das3r_ns.files.saved_config import SavedConfig
from das3r_ns.model.staticness import dilated


@dataclass
class RemarkingConfig(SavedConfig):
    """When and how moving pixels are looked for during training."""

    at_steps: tuple[int, ...] = ()
    """Steps after which it is done, such as 1000 2000 3000. Empty turns it off: with good masks it takes more static
    pixels away than it finds moving ones. For clips whose masks miss parts of what moves."""
    evidence: float = 0.2
    """dynamic_prob from which a pixel counts as evidence of motion."""
    reach: float = 0.03
    """How far from evidence a missed pixel may lie, as a share of the maps' longer side."""
    frames: int = 2
    """Evidence reaches this many training frames back and forth in time."""
    error_ratio: float = 3.0
    """An error stands out when it exceeds the frame's median error over static pixels by this factor."""
    min_error: float = 0.03
    """Errors below this (mean absolute difference of colours in 0..1) never stand out."""
    grow: float = 0.006
    """Newly marked regions are grown by this share of the maps' longer side."""
    staticness: float = 0.02
    """Staticness given to a pixel that is marked."""
    min_share: float = 0.02
    """A Gaussian is removed when a smaller share than this of what it paints lies on static pixels."""
    min_support: float = 0.5
    """A Gaussian is removed when it paints less than this many static pixels, summed over all training frames."""


class ErrorMemory:
    """The latest error of every training pixel, at map resolution. Filled as training goes, without waits."""

    def __init__(self, shape: Sequence[int], device: torch.device) -> None:
        self.errors: Float[Tensor, "n h w"] = torch.zeros(*shape, device=device)

    @torch.no_grad()
    def remember(self, frame: int, error: Float[Tensor, "H W 1"]) -> None:
        """Store the error of a frame that was just rendered, shrunk or enlarged to the maps."""
        self.errors[frame] = F.interpolate(error.permute(2, 0, 1)[None], self.errors.shape[1:], mode="area")[0, 0]


def missed_motion(
    errors: Float[Tensor, "n h w"],
    dynamic_prob: Float[Tensor, "n h w"],
    static: Float[Tensor, "n h w"],
    config: RemarkingConfig,
) -> Bool[Tensor, "n h w"]:
    """Pixels that are to be marked as moving.

    Args:
        errors: latest error of each pixel; 0 where the frame was not seen yet, which marks nothing.
        dynamic_prob: the predictor's evidence.
        static: current staticness, which says over which pixels the usual error is measured.
    """
    side = max(errors.shape[-2:])
    near = dilated((dynamic_prob > config.evidence).float(), max(1, round(config.reach * side)))
    window = 2 * config.frames + 1
    near = F.max_pool3d(near[None, None], (window, 1, 1), stride=1, padding=(config.frames, 0, 0))[0, 0] > 0
    smooth = F.avg_pool2d(errors[:, None], 5, stride=1, padding=2, count_include_pad=False)[:, 0]
    usual = torch.where(static > 0.5, smooth, torch.nan).flatten(1).nanmedian(dim=1).values.nan_to_num(0.0)
    threshold = (config.error_ratio * usual).clamp_min(config.min_error)
    stands_out = (smooth > threshold[:, None, None]) & near
    return dilated(stands_out.float(), max(1, round(config.grow * side))) > 0


def support(
    render: Callable[[int, Float[Tensor, "n 2"]], Float[Tensor, "h w 2"]],
    weight: Callable[[int], Float[Tensor, "h w 1"]],
    num_frames: int,
    values: Float[Tensor, "n 2"],
) -> Float[Tensor, "n 2"]:
    """Contribution of each Gaussian to static pixels, and to all pixels, summed over the training frames.

    The contribution of a Gaussian to a pixel is its blending weight T alpha, which is the derivative of a blended
    channel with respect to the Gaussian's value in it: one backward pass a frame gives it for all.

    Args:
        render: blends two channels of values into a training frame, differentiably in the values.
        weight: staticness of a training frame.
        values: anything of the right shape and device.
    """
    total = torch.zeros_like(values)
    for frame in range(num_frames):
        with torch.enable_grad():
            leaf = torch.zeros_like(values).requires_grad_()
            image = render(frame, leaf)
            static = weight(frame).detach()
            counted = (image * torch.cat((static, torch.ones_like(static)), dim=-1)).sum()
            total += torch.autograd.grad(counted, leaf)[0]
    return total
