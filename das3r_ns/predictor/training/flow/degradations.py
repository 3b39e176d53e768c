"""What cameras and codecs do to images: motion blur, soft focus, exposure, colour, vignetting, noise, compression."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from das3r_ns.predictor.flow.sampling import cells, normalised
from das3r_ns.predictor.training.flow.draws import Number
from das3r_ns.predictor.training.flow.motion import smooth_field

BLUR_PX, BLUR_TAPS = 18.0, 9
"""Longest trail of motion blur, and at how many places it is looked up."""
SPOT_PX = 11
"""Side of the kernels of soft focus."""
MAX_SHADING, SHADING_CELLS = 0.5, 10
"""Moving objects are up to about this much brighter or darker in one image than in the other (log), in patches of a
tenth of the image."""
BLOCK = 8
"""Side of the blocks that compression works on."""
LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
"""Steps of the coefficients of a block at quality 50, in grey levels (ITU-T T.81, table K.1)."""


def degrade(
    images: tuple[Float[Tensor, "b 3 h w"], Float[Tensor, "b 3 h w"]],
    trails: Sequence[Float[Tensor, "b 2 h w"]],
    moving: tuple[Float[Tensor, "b h w"], Float[Tensor, "b h w"]],
    generator: torch.Generator,
) -> tuple[Float[Tensor, "b 3 h w"], Float[Tensor, "b 3 h w"]]:
    """Both images as a camera might have recorded them; each pair with other settings, some with none.

    Args:
        trails: how far what each pixel of an image shows goes between the images, pixels.
        moving: 1 where it moves on its own, else 0.
    """
    first, second = (image.clamp(0, 1) for image in images)
    batch, _, height, width = first.shape

    def uniform(low: Number = 0, high: Number = 1, *more: int) -> Tensor:
        return low + (high - low) * torch.rand(batch, *more, generator=generator, device=first.device)

    # What turns and bends shows other folds, lights and sides in the second image.
    strength = MAX_SHADING * (uniform() ** 2)[:, None, None, None]
    shaded = []
    for image, where in zip((first, second), moving, strict=True):
        shade = smooth_field((batch, 1), (height, width), generator, SHADING_CELLS)
        shaded.append(image * torch.exp(strength * shade * where[:, None]))
    # Both images are blurred along the motion of what they show: the shutter is open for the same share of a frame.
    shutter = uniform(0, 0.6) * (uniform() < 0.4)
    first, second = (
        blur_along(image.clamp(0, 1), trail * shutter[:, None, None, None])
        for image, trail in zip(shaded, trails, strict=True)
    )
    kernels = _spots(uniform(0.3, 1.4) * (uniform() < 0.4))
    first, second = _filter(first, kernels), _filter(second, kernels)

    # Exposure: mostly the same in both images, sometimes quite another, as after a cloud or into a lamp.
    strength = torch.where(uniform() < 0.2, 0.35, 0.06)[:, None, None, None]
    for_both = [1 + 0.5 * (uniform(-1, 1, 1, 1, 1)), 0.08 * uniform(-1, 1, 3, 1, 1)]
    exposed = []
    for image in (first, second):
        gain = torch.exp(strength * uniform(-1, 1, 1, 1, 1)) * (1 + 0.3 * strength * uniform(-1, 1, 3, 1, 1))
        gamma = for_both[0] * torch.exp(0.5 * strength * uniform(-1, 1, 1, 1, 1))
        exposed.append((image.clamp_min(1e-3) ** gamma.clamp(0.4, 1.8) * gain + for_both[1]).clamp(0, 1))
    first, second = exposed

    noise = torch.exp(uniform(math.log(0.002), math.log(0.05), 1, 1, 1)) * (uniform(0, 1, 1, 1, 1) < 0.6)
    grain = uniform(0, 1, 1, 1, 1)  # of light: stronger where it is bright
    noisy = []
    for image in (first, second):
        white = torch.randn(image.shape, generator=generator, device=image.device)
        noisy.append((image + noise * (1 - grain + grain * image.sqrt()) * white).clamp(0, 1))
    step = torch.exp(uniform(math.log(0.15), math.log(1.6))) * (uniform() < 0.5)
    return compress(noisy[0], step), compress(noisy[1], step)


def blur_along(images: Float[Tensor, "b 3 h w"], trail: Float[Tensor, "b 2 h w"]) -> Float[Tensor, "b 3 h w"]:
    """Mean of each pixel over its trail (pixels), half of it to either side, up to `BLUR_PX` long."""
    height, width = images.shape[2:]
    trail = trail * (BLUR_PX / trail.norm(dim=1, keepdim=True).clamp_min(BLUR_PX))
    at = cells(height, width, images.device)
    total = torch.zeros_like(images)
    for tap in range(BLUR_TAPS):
        place = (at + (tap / (BLUR_TAPS - 1) - 0.5) * trail).permute(0, 2, 3, 1)
        total = total + F.grid_sample(
            images, normalised(place, height, width), padding_mode="border", align_corners=False
        )
    return total / BLUR_TAPS


def _spots(sigma: Float[Tensor, "b"]) -> Float[Tensor, "b k k"]:
    """Gaussians (pixels), as of an image that is out of focus."""
    line = torch.arange(SPOT_PX, device=sigma.device) - SPOT_PX // 2
    distance = line[:, None] ** 2 + line[None] ** 2
    kernel = torch.exp(-distance / (2 * sigma.clamp_min(0.25)[:, None, None] ** 2))
    return kernel / kernel.sum((1, 2), keepdim=True)


def _filter(images: Float[Tensor, "b 3 h w"], kernels: Float[Tensor, "b k k"]) -> Float[Tensor, "b 3 h w"]:
    b, c, h, w = images.shape
    padded = F.pad(images, (SPOT_PX // 2,) * 4, mode="reflect").view(1, b * c, h + SPOT_PX - 1, w + SPOT_PX - 1)
    weights = kernels.repeat_interleave(c, 0)[:, None]
    return F.conv2d(padded, weights, groups=b * c).view(b, c, h, w)


@functools.cache
def _luminance(device: torch.device) -> Float[Tensor, "8 8"]:
    # Made once: a copy from the CPU cannot be recorded in a CUDA graph.
    return torch.tensor(LUMINANCE, dtype=torch.float32, device=device)


def compress(images: Float[Tensor, "b 3 h w"], step: Float[Tensor, "b"]) -> Float[Tensor, "b 3 h w"]:
    """The blocks, ringing and loss of detail of compression by blocks of cosines.

    Args:
        step: of the coefficients, in those of `LUMINANCE`; 0 leaves an image as it is.
    """
    h, w = images.shape[-2:]
    device = images.device
    k = torch.arange(BLOCK, device=device, dtype=torch.float32)
    cosines = torch.cos((k[None] + 0.5) * k[:, None] * math.pi / BLOCK) * math.sqrt(2 / BLOCK)
    cosines[0] /= math.sqrt(2)
    pad = (0, -w % BLOCK, 0, -h % BLOCK)
    blocks = F.pad(images, pad, mode="replicate")
    blocks = blocks.unflatten(3, (-1, BLOCK)).unflatten(2, (-1, BLOCK)).transpose(3, 4)  # b c rows columns 8 8
    steps = _luminance(device) / 255 * step.clamp_min(1e-6).view(-1, 1, 1, 1, 1, 1)
    rounded = (cosines @ blocks @ cosines.T / steps).round() * steps
    back = (cosines.T @ rounded @ cosines).transpose(3, 4).flatten(4, 5).flatten(2, 3)[..., :h, :w]
    return torch.where((step > 0)[:, None, None, None], back.clamp(0, 1), images)
