"""Exposure: phones change brightness and white balance within a clip; the scene should not take that for texture.

Each training frame gets a gain (in stops) and an offset per colour, applied to the render before it is compared with
the image. The gain may vary smoothly over the image, as a polynomial of second degree: vignetting, glare, the
uneven brightening of a phone that favours a region. The mean over the frames is held at no change, so the model keeps
the clip's own look.
"""

from __future__ import annotations

import functools

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from das3r_ns.model.poses import between_frames

TERMS = 5
"""Of the polynomial over the image, its constant left out: x, y, x^2, xy, y^2."""
UNEVENNESS = 2.5
"""Pull of the polynomial to nothing, against 1 for gain and offset, both as means of squares."""


class Exposure(nn.Module):
    """Gain, offset and unevenness of every training frame: one parameter [7, 3] a frame, in this order."""

    def __init__(self, num_frames: int) -> None:
        super().__init__()
        self.frames = nn.ParameterList([nn.Parameter(torch.zeros(2 + TERMS, 3)) for _ in range(num_frames)])
        self.register_buffer("frame_index", torch.arange(num_frames))
        self.frame_index: Tensor

    def expose(self, render: Float[Tensor, "h w 3"], frame: int) -> Float[Tensor, "h w 3"]:
        """The render as training frame number `frame` would have been exposed, differentiable."""
        return exposed(render, *self.of_frame(render, frame))

    def of_frame(
        self, image: Float[Tensor, "h w 3"], frame: int
    ) -> tuple[Float[Tensor, "7 3"], Float[Tensor, "h w 5"]]:
        """What `exposed` wants for an image of that size of a training frame."""
        return self.frames[frame], polynomial(*image.shape[:2], image.device, image.dtype)

    @torch.no_grad()
    def expose_at(self, render: Float[Tensor, "h w 3"], place: Int[Tensor, "1"]) -> Float[Tensor, "h w 3"]:
        """The render as the frame at `place` in the clip was exposed, between the trained frames if it is not one."""
        values = between_frames(list(self.frames), self.frame_index, place.to(self.frame_index))
        return exposed(render, values[0].to(render), polynomial(*render.shape[:2], render.device, render.dtype))

    def regularizer(self, frame: int) -> Float[Tensor, ""]:
        """Pull of one frame to no change: over all frames it keeps their mean there."""
        return regularizer(self.frames[frame])


@functools.lru_cache(maxsize=8)
def polynomial(height: int, width: int, device: torch.device, dtype: torch.dtype) -> Float[Tensor, "h w 5"]:
    """Terms x, y, x^2, xy, y^2 at the pixel centres; 0 in the middle of the image, x from -1 to 1 across it, y in the
    same unit. Kept, because making it on every step would wait for the host."""
    with torch.inference_mode(False):  # an image shown first must not spoil it for training
        x = (torch.arange(width, dtype=torch.float64) + 0.5) * 2 / width - 1
        y = ((torch.arange(height, dtype=torch.float64) + 0.5) * 2 / height - 1) * height / width
        v, u = torch.meshgrid(y, x, indexing="ij")
        return torch.stack((u, v, u * u, u * v, v * v), dim=-1).to(device=device, dtype=dtype)


def exposed(
    render: Float[Tensor, "h w 3"], values: Float[Tensor, "7 3"], terms: Float[Tensor, "h w 5"]
) -> Float[Tensor, "h w 3"]:
    """The render with the exposure `values` of a frame; `terms` are those of `polynomial`."""
    return render * torch.exp2(values[0] + terms @ values[2:]) + values[1]


def regularizer(values: Float[Tensor, "7 3"]) -> Float[Tensor, ""]:
    """See `Exposure.regularizer`."""
    return values[:2].square().mean() + UNEVENNESS * values[2:].square().mean()
