"""Motion blur and rolling shutter: the camera goes on moving while a frame is taken, and a sharp scene must not take
that for texture.

A pixel is the mean of what the camera sees while the shutter is open, and rows are read out one after the other. Over
so short a time a point of the image moves along a straight line (Seiskari et al., Gaussian Splatting on the Move,
2024, make the same approximation), so both are done in the image: each pixel averages the sharp render along the
line that static points follow there. How far that is in one frame interval follows from the cameras and the depth;
which share of the interval the shutter was open, and which share the sensor takes to be read, is learned, once for a
clip. The Gaussians themselves stay sharp: viewer, exports and renders from cameras of one's own show them without blur.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from torch import Tensor, nn

SAMPLES = 9
"""Moments within the exposure. Odd: the middle one is the camera's own."""
START = 0.5
"""Share of the interval that the shutter is first taken to be open, that of a film camera."""
GAMMA_TOE = 0.055
"""Of sRGB's curve, whose exponent is rounded to 2 here: black still has a gradient."""
LONGEST_SIDE_PX = 108
"""Pixels on the longer side of the fields of motion: they are smooth but for edges of depth."""


class Shutter(nn.Module):
    """When each pixel is taken, and how the static scene moves through each training frame."""

    def __init__(self, depth: Float[Tensor, "n h w"]) -> None:
        """
        Args:
            depth: z-depth of the training frames, 0 where unknown.
        """
        super().__init__()
        self.open = nn.Parameter(torch.tensor(START))
        self.readout = nn.Parameter(torch.zeros(2))
        nearness = torch.stack([_nearness(d) for d in depth])
        self.register_buffer("nearness", nearness, persistent=False)  # comes with the data
        self.register_buffer("motion", torch.zeros(*nearness.shape, 2), persistent=False)
        self.nearness: Tensor
        self.motion: Tensor

    @torch.no_grad()
    def set_cameras(self, cameras: Cameras) -> None:
        """Work out the motion through the training frames.

        Args:
            cameras: with `metadata["camera_motion"]` [n 6] (see `geometry.camera_motion`).
        """
        assert cameras.metadata is not None
        K = cameras.get_intrinsics_matrices()
        sizes = torch.cat((cameras.height, cameras.width), dim=-1).tolist()
        moved = [
            motion_field(near, k, (height, width), twist)
            for near, k, (height, width), twist in zip(
                self.nearness, K.to(self.nearness), sizes, cameras.metadata["camera_motion"].to(self.nearness)
            )
        ]
        self.motion.copy_(torch.stack(moved))

    def of_frame(self, frame: int) -> tuple[Float[Tensor, ""], Float[Tensor, "2"], Float[Tensor, "h w 2"]]:
        """What `blurred` wants for a training frame."""
        return self.open, self.readout, self.motion[frame]

    @torch.no_grad()
    def blur(
        self,
        render: Float[Tensor, "H W 3"],
        depth: Float[Tensor, "H W 1"],
        K: Float[Tensor, "3 3"],
        motion: Float[Tensor, "6"],
    ) -> Float[Tensor, "H W 3"]:
        """The sharp render of any camera as this shutter would have filmed it.

        Args:
            depth: rendered z-depth.
            K: pixels of the render.
            motion: of that camera in a frame interval.
        """
        field = motion_field(_nearness(depth[..., 0]), K, (render.shape[0], render.shape[1]), motion)
        return blurred(render, self.open, self.readout, field)


def _nearness(depth: Float[Tensor, "h w"]) -> Float[Tensor, "s t"]:
    """Inverse depth on a grid, `LONGEST_SIDE_PX` at most; the frame's median where no depth is known, else 0."""
    known = depth > 0
    inverse = torch.where(known, 1 / depth.clamp_min(1e-6), 0.0)
    usual = inverse[known].median() if known.any() else inverse.new_zeros(())
    filled = torch.where(known, inverse, usual)
    factor = min(1.0, LONGEST_SIDE_PX / max(depth.shape))
    size = [max(1, round(side * factor)) for side in depth.shape]
    return F.interpolate(filled[None, None], size, mode="area")[0, 0]


def motion_field(
    nearness: Float[Tensor, "h w"], K: Float[Tensor, "3 3"], size: tuple[int, int], motion: Float[Tensor, "6"]
) -> Float[Tensor, "h w 2"]:
    """How static points move through the image in a frame interval, in halves of its width and height.

    The motion field of a rigid scene (Longuet-Higgins and Prazdny, 1980), with the scene's motion in camera axes.

    Args:
        nearness: inverse z-depth, on a grid of any size over the image.
        K: pixels of the image.
        size: height and width of the image.
        motion: rotation vector and translation of the scene in camera axes.
    """
    height, width = size
    rows, columns = nearness.shape
    v = (torch.arange(rows, device=nearness.device, dtype=nearness.dtype) + 0.5) * (height / rows)
    u = (torch.arange(columns, device=nearness.device, dtype=nearness.dtype) + 0.5) * (width / columns)
    y, x = torch.meshgrid((v - K[1, 2]) / K[1, 1], (u - K[0, 2]) / K[0, 0], indexing="ij")
    ray = torch.stack((x, y, torch.ones_like(x)), dim=-1)
    speed = torch.linalg.cross(motion[:3].expand_as(ray), ray) + motion[3:] * nearness[..., None]
    across = K[0, 0] * (speed[..., 0] - x * speed[..., 2]) * (2 / width)
    down = K[1, 1] * (speed[..., 1] - y * speed[..., 2]) * (2 / height)
    return torch.stack((across, down), dim=-1)


@functools.lru_cache(maxsize=8)
def _places(height: int, width: int, device: torch.device, dtype: torch.dtype) -> Float[Tensor, "1 h w 2"]:
    """Pixel centres as `grid_sample` wants them. Kept, because making them on every step would wait for the host."""
    with torch.inference_mode(False):  # an image shown first must not spoil it for training
        y = (torch.arange(height, dtype=torch.float64) + 0.5) * 2 / height - 1
        x = (torch.arange(width, dtype=torch.float64) + 0.5) * 2 / width - 1
        v, u = torch.meshgrid(y, x, indexing="ij")
        return torch.stack((u, v), dim=-1)[None].to(device=device, dtype=dtype)


@functools.lru_cache(maxsize=8)
def _moments(device: torch.device, dtype: torch.dtype) -> Float[Tensor, "k 1 1"]:
    """Middles of equal parts of the exposure, from -1/2 to 1/2."""
    with torch.inference_mode(False):
        moments = (torch.arange(SAMPLES, dtype=torch.float64) + 0.5) / SAMPLES - 0.5
        return moments.view(-1, 1, 1).to(device=device, dtype=dtype)


def blurred(
    render: Float[Tensor, "H W 3"],
    share: Float[Tensor, ""],
    readout: Float[Tensor, "2"],
    motion: Float[Tensor, "h w 2"],
) -> Float[Tensor, "H W 3"]:
    """The mean of a sharp render along the motion through each pixel, differentiable in render, share and readout.

    Light adds up, not the numbers that stand for it: the mean is one of colours without their gamma.

    Args:
        render: sRGB colours, 0..1.
        share: of the frame interval in which the shutter is open; its sign means nothing.
        readout: shares of the frame interval that pass between the left and the right edge of the image being taken,
            and between the top and the bottom; the camera is where it is when the middle is taken.
        motion: see `motion_field`; brought to the render's size.
    """
    height, width = render.shape[:2]
    resized = F.interpolate(motion.permute(2, 0, 1)[None], (height, width), mode="bilinear", align_corners=False)
    places = _places(height, width, render.device, render.dtype)
    when = _moments(render.device, render.dtype) * share.clamp(-1, 1) + (places * readout.clamp(-1, 1)).sum(-1) / 2
    places = places - when[..., None] * resized.permute(0, 2, 3, 1)  # where what is here then is in the sharp image
    light = (render + GAMMA_TOE).square().permute(2, 0, 1)[None]
    seen = F.grid_sample(
        light, places.reshape(1, SAMPLES * height, width, 2), padding_mode="border", align_corners=False
    )
    return seen.view(3, SAMPLES, height, width).mean(dim=1).sqrt().permute(1, 2, 0) - GAMMA_TOE
