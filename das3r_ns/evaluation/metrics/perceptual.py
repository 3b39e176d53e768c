"""LPIPS over the static pixels, when its weights can be had.

torchvision's AlexNet is fetched the moment the metric is built, which without a network is an error and, in a
benchmark of hours, a bad moment for one. So it is built at first use, and where that fails it says so once and
every value is None.
"""

import warnings
from functools import lru_cache
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor


def static_lpips(
    render: Float[Tensor, "h w 3"], truth: Float[Tensor, "h w 3"], dynamic: Bool[Tensor, "h w"]
) -> float | None:
    """LPIPS (AlexNet) of the two images, blackened where the ground truth moves; None without weights."""
    metric = _network()
    if metric is None:
        return None
    import torch

    keep = ~dynamic[..., None]
    images = [(p.float().clamp(0, 1) * keep).permute(2, 0, 1)[None].to(metric.device) for p in (render, truth)]
    with torch.no_grad():
        return float(metric(*images))


@lru_cache(maxsize=1)
def _network() -> Any | None:
    try:
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

        return LearnedPerceptualImagePatchSimilarity(net_type="alex", normalize=True).eval()
    except (OSError, RuntimeError, ImportError, ValueError) as error:  # URLError is an OSError
        warnings.warn(
            f"LPIPS is left out: its AlexNet weights cannot be had ({error}). Put alexnet-owt-7be5be79.pth into "
            "torch's hub folder (~/.cache/torch/hub/checkpoints) to get it.",
            stacklevel=3,
        )
        return None
