"""How like two images are by their colours, and how sharp one is, in small copies: what tells a cut from motion."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import UInt8

SMALL_SIDE_PX = 160
"""Longer side of the images that flow is looked at in."""
COLOUR_BINS = 6
"""Of each channel of the colour histogram."""
OTHER_COLOURS = 0.35
"""Bhattacharyya distance of two frames' colours, 0 alike .. 1 nothing in common, above which they look different.
Unrelated clips of DAVIS have 0.33 and more."""
OTHER_COLOURS_AT_REST = 0.2
"""The same where the camera is slow before and after: then it was not motion that changed the view."""


def sharpness(image: UInt8[np.ndarray, "h w 3"]) -> float:
    """Mean strength of the finest detail over that of the image's contrast: falls with blur, not with light."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    return float(np.abs(cv2.Laplacian(grey, cv2.CV_32F)).mean() / max(float(grey.std()), 1.0))


def colours_differ(colours: list[np.ndarray], i: int, j: int, at_rest: bool = False) -> bool:
    return colour_distance(colours[i], colours[j]) > (OTHER_COLOURS_AT_REST if at_rest else OTHER_COLOURS)


def colour_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Bhattacharyya distance of two colour histograms: 0 alike, 1 nothing in common."""
    return float(np.sqrt(max(1 - np.sqrt(a * b).sum(), 0)))


def colour_histogram(image: UInt8[np.ndarray, "h w 3"]) -> np.ndarray:
    bins = [COLOUR_BINS] * 3
    counted = cv2.calcHist([image], [0, 1, 2], None, bins, [0, 256] * 3)
    smooth = counted + 1e-3 * image.shape[0] * image.shape[1] / COLOUR_BINS**3
    return (smooth / smooth.sum()).ravel()


def small_copy(image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "_ _ 3"]:
    factor = SMALL_SIDE_PX / max(image.shape[:2])
    size = max(round(image.shape[1] * factor), 16), max(round(image.shape[0] * factor), 16)
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)
