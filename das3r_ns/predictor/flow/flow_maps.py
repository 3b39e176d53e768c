"""Flow at another resolution, images looked up along it, and its error there and back."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float32


def resize_flow(flow: Float32[np.ndarray, "h w 2"], size: tuple[int, int]) -> Float32[np.ndarray, "_ _ 2"]:
    """Flow at another resolution (height, width), its values in the new pixels."""
    if flow.shape[:2] == size:
        return flow
    scale = np.array([size[1] / flow.shape[1], size[0] / flow.shape[0]], np.float32)
    shrinks = size[0] < flow.shape[0]
    return cv2.resize(flow, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR) * scale


def sample(values: Float32[np.ndarray, "h w *c"], flow: Float32[np.ndarray, "h w 2"]) -> Float32[np.ndarray, "h w *c"]:
    """Look up `values` of the second image at the place where each pixel of the first went; 0 out of view."""
    u, v = _targets(flow)
    return cv2.remap(values, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)


def round_trip_error(
    forward: Float32[np.ndarray, "h w 2"], backward: Float32[np.ndarray, "h w 2"]
) -> Float32[np.ndarray, "h w"]:
    """Distance in pixels between a pixel and where forward then backward flow bring it; infinite out of view.

    Large where a pixel is hidden in the second image or the flow is wrong.
    """
    height, width = forward.shape[:2]
    u, v = _targets(forward)
    back = cv2.remap(backward, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    back += forward
    error = np.sqrt(back[..., 0] ** 2 + back[..., 1] ** 2)  # np.linalg.norm takes four times as long
    error[(u < 0) | (v < 0) | (u > width - 1) | (v > height - 1)] = np.inf
    return error


def _targets(flow: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each pixel went, as `cv2.remap` wants it."""
    height, width = flow.shape[:2]
    u, v = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return u + flow[..., 0], v + flow[..., 1]
