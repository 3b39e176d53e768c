"""Frames to network input and network maps back to frames: resizing, cropping, and the bookkeeping that undoes them.

The long side becomes 512 pixels, both sides are cropped around the middle to multiples of 16, and squares to 4:3:
the shapes the network was trained at. `Framing` remembers what was done, so cameras and maps return to the clip.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from das3r_ns import geometry
from das3r_ns.predictor.network.settings import LONG_SIDE

PATCH = 16


@dataclass(frozen=True)
class Framing:
    """How images became network input. All sizes are (height, width)."""

    image_size: tuple[int, int]
    """Of the images."""
    resized: tuple[int, int]
    """After resizing, before the crop."""
    offset: tuple[int, int]
    """Rows and columns cut off at the top and at the left."""
    size: tuple[int, int]
    """Of the network's input."""

    def K_to_network(self, K: Float[Tensor, "*n 3 3"]) -> Float[Tensor, "*n 3 3"]:
        """Intrinsics in pixels of the images to pixels of the network's input."""
        K = geometry.rescale_intrinsics(K, self.image_size, self.resized)
        K[..., 0, 2] -= self.offset[1]
        K[..., 1, 2] -= self.offset[0]
        return K

    def K_to_image(self, K: Float[Tensor, "*n 3 3"]) -> Float[Tensor, "*n 3 3"]:
        """The inverse of `K_to_network`."""
        K = K.clone()
        K[..., 0, 2] += self.offset[1]
        K[..., 1, 2] += self.offset[0]
        return geometry.rescale_intrinsics(K, self.resized, self.image_size)

    def pad(self, maps: Float[Tensor, "n h w"], replicate: bool = False) -> Float[Tensor, "n h2 w2"]:
        """Maps of the network's input, extended to the whole resized image.

        Args:
            replicate: repeat the border where the network saw nothing; otherwise 0 (unknown) stands there.
        """
        (top, left), (height, width) = self.offset, self.size
        edges = (left, self.resized[1] - left - width, top, self.resized[0] - top - height)
        if replicate:
            return F.pad(maps[:, None], edges, mode="replicate")[:, 0]
        return F.pad(maps, edges)

    def crop_maps(self, maps: Float[Tensor, "n h2 w2"]) -> Float[Tensor, "n h w"]:
        """The inverse of `pad`."""
        (top, left), (height, width) = self.offset, self.size
        return maps[:, top : top + height, left : left + width]

    def crop(self, maps: Float[Tensor, "n H W"]) -> Float[Tensor, "n h w"]:
        """Maps of the images' size, resized (by area) and cropped to the network's input."""
        (top, left), (height, width) = self.offset, self.size
        maps = F.interpolate(maps[:, None], size=self.resized, mode="area")[:, 0]
        return maps[:, top : top + height, left : left + width]


def framing(image_size: tuple[int, int], long_side: int = LONG_SIDE) -> Framing:
    """Resized size and crop for images of `image_size`.

    Raises:
        ValueError: the image is so elongated that its short side has no room for one patch.
    """
    height, width = image_size
    # Multiplied first, divided second: the other way round some sizes land on the wrong side of .5.
    h, w = (round(side * long_side / max(image_size)) for side in image_size)
    half_h, half_w = (PATCH // 2 * (2 * (side // 2) // PATCH) for side in (h, w))
    if height == width:
        half_h = 3 * half_w // 4 // (PATCH // 2) * (PATCH // 2)
    if half_h == 0 or half_w == 0:
        raise ValueError(
            f"images of {width}x{height} become {w}x{h} for the network, which needs at least {PATCH} pixels a side. "
            "Crop the video to a less elongated shape."
        )
    return Framing(image_size, (h, w), (h // 2 - half_h, w // 2 - half_w), (2 * half_h, 2 * half_w))


def preprocess_frames(
    frames: UInt8[Tensor, "n H W 3"], long_side: int = LONG_SIDE
) -> tuple[Float[Tensor, "n 3 h w"], Framing]:
    """Network input in [-1, 1] and how it was framed. Lanczos where the image shrinks, bicubic otherwise."""
    height, width = int(frames.shape[1]), int(frames.shape[2])
    framed = framing((height, width), long_side)
    (top, left), (h, w) = framed.offset, framed.size
    kernel = Image.Resampling.LANCZOS if max(height, width) > long_side else Image.Resampling.BICUBIC

    def prepare(frame: np.ndarray) -> np.ndarray:
        image = Image.fromarray(frame).resize((framed.resized[1], framed.resized[0]), kernel)
        return np.asarray(image)[top : top + h, left : left + w]

    with ThreadPoolExecutor(8) as pool:  # Pillow releases the interpreter while it resizes
        small = torch.from_numpy(np.stack(list(pool.map(prepare, frames.cpu().numpy()))))
    return small.permute(0, 3, 1, 2).float() / 127.5 - 1, framed
