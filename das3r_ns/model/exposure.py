"""Exposure: phones change brightness and white balance within a clip; the scene should not take that for texture.

Each training frame gets a gain (in stops) and an offset per colour, applied to the render before it is compared with
the picture. The mean over the frames is held at no change, so the model keeps the clip's own look.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from das3r_ns.model.poses import between_frames


class Exposure(nn.Module):
    """Gain and offset of every training frame, one parameter a frame."""

    def __init__(self, num_frames: int) -> None:
        super().__init__()
        self.frames = nn.ParameterList([nn.Parameter(torch.zeros(2, 3)) for _ in range(num_frames)])
        self.register_buffer("frame_index", torch.arange(num_frames))
        self.frame_index: Tensor

    def expose(self, render: Float[Tensor, "h w 3"], frame: int) -> Float[Tensor, "h w 3"]:
        """The render as training frame number `frame` would have been exposed, differentiable."""
        return _apply(render, self.frames[frame])

    @torch.no_grad()
    def expose_at(self, render: Float[Tensor, "h w 3"], place: Int[Tensor, "1"]) -> Float[Tensor, "h w 3"]:
        """The render as the frame at `place` in the clip was exposed, between the trained frames if it is not one."""
        values = between_frames(list(self.frames), self.frame_index, place.to(self.frame_index))
        return _apply(render, values[0].to(render))

    def regularizer(self, frame: int) -> Float[Tensor, ""]:
        """Pull of one frame to no change: over all frames it keeps their mean there."""
        return self.frames[frame].square().mean()


def _apply(render: Tensor, gain_and_offset: Tensor) -> Tensor:
    return render * torch.exp2(gain_and_offset[0]) + gain_and_offset[1]
