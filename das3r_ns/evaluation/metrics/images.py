"""How like the ground truth a rendered image is, where the ground truth is static.

Two kinds of PSNR, always named. *Paper PSNR* is the published protocol: both images are blackened where the truth
moves and the error is averaged over all pixels, so moving pixels count as perfect and the number grows with their
share by 10 log10(1 / static share). *Static PSNR* averages over the static pixels only. *Clean PSNR* is the opposite
part: the pixels behind the moving object, against an image taken without it.

Images are RGB in [0, 1]; values outside are clamped, as they would be on a screen. Masks are True where the truth
moves. A number that no pixel speaks for is NaN, and the caller leaves it out of means.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

SSIM_WINDOW = 11
SSIM_SIGMA = 1.5


def psnr(render: Float[Tensor, "h w 3"], truth: Float[Tensor, "h w 3"]) -> float:
    """Peak signal-to-noise ratio in decibels over all pixels and channels together, peak value 1."""
    return _decibels(_squared_error(render, truth).mean())


def paper_psnr(render: Float[Tensor, "h w 3"], truth: Float[Tensor, "h w 3"], dynamic: Bool[Tensor, "h w"]) -> float:
    """PSNR by the published protocol: moving pixels blackened in both images, the mean over all pixels taken
    channel by channel, the three decibel values averaged."""
    per_channel = (_squared_error(render, truth) * ~dynamic[..., None]).mean(dim=(0, 1))
    return sum(_decibels(value) for value in per_channel) / 3


def static_psnr(render: Float[Tensor, "h w 3"], truth: Float[Tensor, "h w 3"], dynamic: Bool[Tensor, "h w"]) -> float:
    """PSNR over the static pixels alone; NaN where everything moves."""
    return _decibels(_squared_error(render, truth)[~dynamic].mean())


def clean_psnr(render: Float[Tensor, "h w 3"], clean: Float[Tensor, "h w 3"], dynamic: Bool[Tensor, "h w"]) -> float:
    """PSNR over the pixels behind the moving object, against the clean background; NaN where nothing moves."""
    return _decibels(_squared_error(render, clean)[dynamic].mean())


def static_ssim(render: Float[Tensor, "h w 3"], truth: Float[Tensor, "h w 3"], dynamic: Bool[Tensor, "h w"]) -> float:
    """SSIM averaged over the static pixels whose whole window is static: the windows of the others see the moving
    object, which the render is right to lack. NaN where no window is."""
    grown = F.max_pool2d(dynamic[None, None].double(), SSIM_WINDOW, stride=1, padding=SSIM_WINDOW // 2)[0, 0]
    return float(ssim_map(render.double().clamp(0, 1), truth.double().clamp(0, 1))[grown == 0].mean())


def ssim_map(a: Float[Tensor, "h w 3"], b: Float[Tensor, "h w 3"]) -> Float[Tensor, "h w 3"]:
    """Structural similarity per pixel and channel (Wang et al. 2004): Gaussian window of 11 pixels, sigma 1.5, zeros
    beyond the edge, constants 0.01^2 and 0.03^2 for a peak of 1."""
    x, y = a.permute(2, 0, 1)[:, None], b.permute(2, 0, 1)[:, None]
    mean_x, mean_y = _blur(x), _blur(y)
    variance_x = _blur(x * x) - mean_x.square()
    variance_y = _blur(y * y) - mean_y.square()
    covariance = _blur(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x.square() + mean_y.square() + c1)
    structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    return (luminance * structure)[:, 0].permute(1, 2, 0)


def _blur(x: Tensor) -> Tensor:
    offsets = torch.arange(SSIM_WINDOW, dtype=x.dtype, device=x.device) - SSIM_WINDOW // 2
    weights = torch.exp(-offsets.square() / (2 * SSIM_SIGMA**2))
    weights = weights / weights.sum()
    rows = F.conv2d(x, weights.view(1, 1, 1, -1), padding=(0, SSIM_WINDOW // 2))
    return F.conv2d(rows, weights.view(1, 1, -1, 1), padding=(SSIM_WINDOW // 2, 0))


def _squared_error(render: Tensor, truth: Tensor) -> Tensor:
    return (render.double().clamp(0, 1) - truth.double().clamp(0, 1)).square()


def _decibels(mean_squared_error: Tensor) -> float:
    """NaN stays NaN (a mean over no pixels); two equal images give infinity."""
    return float(-10 * torch.log10(mean_squared_error))
