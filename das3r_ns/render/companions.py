"""What is shown of a frame beside its static render: how far it is, and what was taken out of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from das3r_ns.scene.types import DYNAMIC_THRESHOLD

RANGE_QUANTILES = (0.02, 0.98)
"""Of the depths of the clip: a few pixels at the horizon should not take all colours."""
MAX_SAMPLES = 100_000
"""Depths of one frame that are looked at for the range."""


@dataclass(frozen=True)
class DepthRange:
    """Depths between which the colours run, the same for all frames of a video: no flicker."""

    near: float
    far: float

    @classmethod
    def of(cls, outputs: Iterable[dict[str, Tensor]]) -> DepthRange:
        """Range of the depths that some frames show; 0 to 1 where none shows any."""
        seen = []
        for frame in outputs:  # one at a time: the outputs of a large frame take hundreds of MB
            depth = frame["depth"][frame["accumulation"] > 0.5]
            seen.append(depth[:: max(1, len(depth) // MAX_SAMPLES)].float().cpu())
        depths = torch.cat(seen).numpy()
        if depths.size == 0:
            return cls(0.0, 1.0)
        near, far = np.quantile(depths, RANGE_QUANTILES)
        return cls(float(near), float(far))

    def colours(self, outputs: dict[str, Tensor]) -> UInt8[np.ndarray, "h w 3"]:
        """Depth of a render in nerfstudio's colours; white where nothing is."""
        from nerfstudio.utils.colormaps import apply_depth_colormap

        image = apply_depth_colormap(outputs["depth"], outputs["accumulation"], self.near, self.far)
        return to_8_bit(image)


def mask_image(dynamic_prob: Float[Tensor, "m n"], size: tuple[int, int]) -> UInt8[np.ndarray, "h w 3"]:
    """What was taken out of a frame, white on black, as `--masks` reads it again.

    Args:
        size: height and width of the image.
    """
    prob = cv2.resize(dynamic_prob.float().cpu().numpy(), size[::-1], interpolation=cv2.INTER_LINEAR)
    return np.repeat(((prob > DYNAMIC_THRESHOLD) * np.uint8(255))[..., None], 3, axis=2)


def resized(image: UInt8[np.ndarray, "h w 3"], size: tuple[int, int]) -> UInt8[np.ndarray, "h2 w2 3"]:
    """An image of the input, as large as the render beside it."""
    if image.shape[:2] == size:
        return image
    smaller = size[0] < image.shape[0]
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC)


def to_8_bit(image: Float[Tensor, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """Colours in 0..1 as bytes."""
    return (image * 255).round().byte().cpu().numpy()
