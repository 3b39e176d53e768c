"""Metrics of one rendered frame, under names that say what they average over."""

from __future__ import annotations

import torch
from jaxtyping import Float
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from das3r_ns.model import losses


def metrics(
    render: Float[Tensor, "h w 3"], image: Float[Tensor, "h w 3"], static: Float[Tensor, "h w 1"], has_mask: bool
) -> dict[str, float]:
    """PSNR and SSIM of a frame.

    Args:
        static: 1 where the frame is static by its (predicted or given) mask.
        has_mask: whether there was a mask; without one the paper's measure means nothing and is left out.

    Returns:
        `psnr` over all pixels, moving ones included; `static_psnr` and `static_ssim` over static pixels (over all,
        should none be static); `paper_psnr` by the published protocol.
    """
    everywhere = torch.ones_like(static)
    counted = torch.where(static.sum() > 0, static, everywhere)
    values = {
        "psnr": float(losses.psnr(render, image, everywhere)),
        "ssim": float(losses.ssim_map(render, image).mean()),
        "static_psnr": float(losses.psnr(render, image, counted)),
        "static_ssim": float(
            losses.weighted_mean(losses.ssim_map(render, image * counted + render * (1 - counted)), counted)
        ),
    }
    if has_mask:
        values["paper_psnr"] = float(losses.published_psnr(render, image, static))
    return values


class PerceptualMetric:
    """LPIPS (Zhang et al., CVPR 2018) over static pixels, where its weights can be had.

    They are fetched at the first use. When that fails the metric is left out, after one warning.
    """

    def __init__(self) -> None:
        self._metric: torch.nn.Module | None = None
        self._given_up = False

    def __call__(
        self, render: Float[Tensor, "h w 3"], image: Float[Tensor, "h w 3"], static: Float[Tensor, "h w 1"]
    ) -> float | None:
        """Distance of render and image, the moving pixels of both blackened; None without weights."""
        if self._metric is None and not self._given_up:
            self._load(render.device)
        if self._metric is None:
            return None
        a, b = ((x * static).clamp(0, 1).permute(2, 0, 1)[None] for x in (render, image))
        return float(self._metric(a, b))

    def _load(self, device: torch.device) -> None:
        try:
            from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

            self._metric = LearnedPerceptualImagePatchSimilarity(normalize=True).to(device)
        except Exception as error:  # no network, a proxy's error page, a full disk: whatever it is, go on without
            self._given_up = True
            CONSOLE.log(f"[yellow]LPIPS is left out: its weights cannot be had ({type(error).__name__}: {error})")
