"""What cameras and codecs do to images: motion blur, soft focus, exposure, colour, vignetting, noise, compression."""

from __future__ import annotations

import functools
import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from das3r_ns.predictor.training.flow.draws import Number

BLUR_PX = 15
"""Side of the largest kernel of motion blur."""
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
    first: Float[Tensor, "b 3 h w"],
    second: Float[Tensor, "b 3 h w"],
    flow: Float[Tensor, "b 2 h w"],
    generator: torch.Generator,
) -> tuple[Float[Tensor, "b 3 h w"], Float[Tensor, "b 3 h w"]]:
    """Both images as a camera might have recorded them; each pair with other settings, some with none."""
    batch = len(first)
    first, second = first.clamp(0, 1), second.clamp(0, 1)

    def uniform(low: Number = 0, high: Number = 1, *more: int) -> Tensor:
        return low + (high - low) * torch.rand(batch, *more, generator=generator, device=first.device)

    # Both images of a pair are blurred along the mean motion: the shutter is open for the same share of a frame.
    shutter = uniform(0, 0.6) * (uniform() < 0.35)
    trail = flow.flatten(2).mean(-1) * shutter[:, None]
    focus = uniform(0.3, 1.4) * (uniform() < 0.4)
    kernels = _kernels(trail, focus)
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


def _kernels(trail: Float[Tensor, "b 2"], focus: Float[Tensor, "b"]) -> Float[Tensor, "b k k"]:
    """A line along `trail` (pixels) that is as wide as the spot of focus."""
    longest = BLUR_PX - 5.0
    length = trail.norm(dim=-1, keepdim=True)
    trail = trail * (longest / length.clamp_min(longest))
    length = trail.norm(dim=-1)[:, None, None]
    line = torch.arange(BLUR_PX, device=trail.device) - BLUR_PX // 2
    y, x = line[:, None].float(), line[None].float()
    direction = (trail / trail.norm(dim=-1, keepdim=True).clamp_min(1e-6))[..., None, None]
    along = x * direction[:, 0] + y * direction[:, 1]
    across = torch.where(length > 0, -x * direction[:, 1] + y * direction[:, 0], (x**2 + y**2).sqrt())
    beyond = (along.abs() - length / 2).clamp_min(0)
    spot = focus[:, None, None].clamp_min(0.25)
    distance = torch.where(length > 0, beyond**2 + across**2, x**2 + y**2)
    kernel = torch.exp(-distance / (2 * spot**2))
    return kernel / kernel.sum((1, 2), keepdim=True)


def _filter(images: Float[Tensor, "b 3 h w"], kernels: Float[Tensor, "b k k"]) -> Float[Tensor, "b 3 h w"]:
    b, c, h, w = images.shape
    padded = F.pad(images, (BLUR_PX // 2,) * 4, mode="reflect").view(1, b * c, h + BLUR_PX - 1, w + BLUR_PX - 1)
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
