"""Depth supervision: early on, Gaussians are told where the predictor saw surfaces.

Compared as inverse depth, whose error is about even over the image; weighted by how sure the predictor is.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from das3r_ns.model.losses import weighted_mean


class DepthSupervision(nn.Module):
    """The predictor's depth of every training frame, on the device once. Not part of the checkpoint."""

    def __init__(self, depth: Float[Tensor, "n h w"], confidence: Float[Tensor, "n h w"]) -> None:
        super().__init__()
        known = depth > 0
        inverse = torch.where(known, 1 / depth.clamp_min(1e-6), 0.0)
        usual = confidence[known].median() if known.any() else confidence.new_tensor(1.0)
        # Half weight at the usual confidence, full weight far above it.
        sure = torch.where(known, confidence / (confidence + usual).clamp_min(1e-9), 0.0)
        self.register_buffer("inverse", inverse.float(), persistent=False)
        self.register_buffer("sure", sure.float(), persistent=False)
        self.inverse: Tensor
        self.sure: Tensor

    def loss(
        self,
        depth: Float[Tensor, "H W 1"],
        accumulation: Float[Tensor, "H W 1"],
        static: Float[Tensor, "H W 1"],
        frame: int,
    ) -> Float[Tensor, ""]:
        """Mean difference of inverse depth over pixels that are static, opaque and surely predicted.

        Args:
            depth: rendered expected z-depth of training frame number `frame`.
        """
        size = self.inverse.shape[1:]
        rendered = 1 / depth.clamp_min(1e-2)
        counts = (static * accumulation).detach()
        maps = F.interpolate(torch.cat((rendered, counts), dim=-1).permute(2, 0, 1)[None], size, mode="area")[0]
        error = (maps[0] - self.inverse[frame]).abs()
        return weighted_mean(error[..., None], (maps[1] * self.sure[frame])[..., None])
