"""Images of the report, as data URIs: frames, what moves in them, depth."""

from __future__ import annotations

import base64

import cv2
import numpy as np
from jaxtyping import Float, UInt8

MASK_RGB = (235, 60, 50)
MASK_OPACITY = 0.55
JPEG_QUALITY = 82
NEAR_QUANTILE, FAR_QUANTILE = 0.02, 0.98
"""Of the inverse depths of a clip, for the colours at either end."""
SAMPLED_DEPTHS = 500_000
"""Of a clip, to find them."""


def data_uri(kind: str, content: bytes) -> str:
    """Content inside the page.

    Args:
        kind: MIME type.
    """
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def jpeg_uri(image: UInt8[np.ndarray, "h w 3"]) -> str:
    """An RGB image as a JPEG inside the page.

    Raises:
        ValueError: it cannot be encoded.
    """
    encoded, buffer = cv2.imencode(
        ".jpg", np.ascontiguousarray(image[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    )
    if not encoded:
        raise ValueError(f"an image of {image.shape[1]}x{image.shape[0]} pixels cannot be encoded as JPEG")
    return data_uri("image/jpeg", buffer.tobytes())


def fitted(image: UInt8[np.ndarray, "h w 3"], longest_side: int) -> UInt8[np.ndarray, "h2 w2 3"]:
    """An image whose longer side is at most `longest_side` pixels, both sides even, as video wants them."""
    factor = min(1.0, longest_side / max(image.shape[:2]))
    width, height = (max(2, round(side * factor / 2) * 2) for side in image.shape[1::-1])
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def with_mask(image: UInt8[np.ndarray, "h w 3"], dynamic_prob: Float[np.ndarray, "m n"]) -> UInt8[np.ndarray, "h w 3"]:
    """An image with what moves laid over it in red."""
    moving = cv2.resize(dynamic_prob.astype(np.float32), image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    laid_over, shown = moving > 0, image.copy()
    under = image[laid_over].astype(np.float32)
    over = under + MASK_OPACITY * moving[laid_over][:, None] * (np.array(MASK_RGB, np.float32) - under)
    shown[laid_over] = over.round().clip(0, 255).astype(np.uint8)
    return shown


def inverse_depth_range(depth: Float[np.ndarray, "n m k"]) -> tuple[float, float]:
    """Inverse depths at the two ends of the colours, from a clip's depth maps; 0 is unknown."""
    depths = depth.reshape(-1)
    known = depths[:: max(1, depths.size // SAMPLED_DEPTHS)]
    known = known[known > 0]
    if len(known) == 0:  # of those: a clip of very few
        known = depths[depths > 0]
    if len(known) == 0:
        return 0.0, 1.0
    low, high = np.quantile(1 / known, (NEAR_QUANTILE, FAR_QUANTILE))
    return float(low), float(max(high, low + 1e-9))


def coloured_depth(
    depth: Float[np.ndarray, "m n"], ends: tuple[float, float], size: tuple[int, int]
) -> UInt8[np.ndarray, "h w 3"]:
    """A depth map in colours, near ones warm, unknown ones black.

    Args:
        ends: see `inverse_depth_range`.
        size: height and width of the image.
    """
    known = depth > 0
    near = np.zeros_like(depth)
    near[known] = (1 / depth[known] - ends[0]) / (ends[1] - ends[0])
    colours = cv2.applyColorMap((near.clip(0, 1) * 255).astype(np.uint8), cv2.COLORMAP_TURBO)[..., ::-1]
    return cv2.resize(np.ascontiguousarray(colours * known[..., None]), size[::-1], interpolation=cv2.INTER_NEAREST)
