"""Positions accurate to a few hundredths of a pixel: corners, matched directly between two images.

Dense flow is smooth, which pulls it towards the flow around it; the error is small but has a direction, and makes
focal lengths some per cent too long. A patch around a corner, aligned with the anchor's own image (Lucas-Kanade,
started where the flow ends), has no such bias and does not drift however far the frames are apart.

Positions are in pixels of the flow, first pixel's centre at (0.5, 0.5); images may be larger.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import cv2
import numpy as np
from jaxtyping import Bool, Float32, UInt8

WINDOW = 15
"""Side of the patches, pixels of the image."""
MARGIN = 9
"""Pixels at the image's border that hold no corner: half a window and what the gradients need."""
ROUND_TRIP = 0.1
"""There and back again must meet within this many pixels of the image."""
MAX_CORRECTION_PX = 3.0
"""A patch that moves further from where the flow put it, in pixels of the flow, has found something else."""

EQUALLY_EXPOSED = 0.05
"""Relative difference in brightness that aligning patches does not mind; making up for less costs more by rounding."""
FEW_GREYS = 30
"""Fewer points do not tell how much brighter an image is."""


class SubpixelMatcher:
    """Corners of frames and their positions in other frames.

    Args:
        image: frame i, RGB, of any resolution.
        flow_size: height and width of the flow that positions are measured in.
        keep: grey images held in memory.
    """

    def __init__(
        self, image: Callable[[int], UInt8[np.ndarray, "h w 3"]], flow_size: tuple[int, int], keep: int
    ) -> None:
        self._grey = lru_cache(maxsize=keep)(lambda i: cv2.cvtColor(image(i), cv2.COLOR_RGB2GRAY))
        self._flow_size = flow_size

    def corners(self, frame: int, grid: Float32[np.ndarray, "p 2"], reach: float) -> Float32[np.ndarray, "p 2"]:
        """The strongest corner within `reach` (pixels of the flow, a square) of each grid point."""
        grey = self._grey(frame)
        strength = cv2.cornerMinEigenVal(grey, 5)
        strength[:MARGIN] = strength[-MARGIN:] = strength[:, :MARGIN] = strength[:, -MARGIN:] = 0
        scale = self._scale(grey)
        radius = np.maximum((reach * scale).astype(int), 1)
        index = (grid * scale).astype(int)
        moved = grid.copy()
        for p, (u, v) in enumerate(index):
            left, top = max(u - radius[0], 0), max(v - radius[1], 0)
            patch = strength[top : v + radius[1] + 1, left : u + radius[0] + 1]
            row, column = np.unravel_index(patch.argmax(), patch.shape)
            if patch[row, column] > 0:
                moved[p] = (np.array([left + column, top + row]) + 0.5) / scale
        return moved

    def sharpen(
        self,
        anchor: int,
        target: int,
        pixel: Float32[np.ndarray, "p 2"],
        guess: Float32[np.ndarray, "p 2"],
        use: Bool[np.ndarray, "p"],
    ) -> tuple[Float32[np.ndarray, "p 2"], Bool[np.ndarray, "p"]]:
        """Better positions of points of the anchor in the target frame.

        Args:
            guess: where the flow puts them.
            use: points to work on.

        Returns:
            Positions (the guess where nothing better was found), and which of them are sharp.
        """
        position, sharp = guess.copy(), np.zeros(len(pixel), bool)
        if not use.any():
            return position, sharp
        first, second = self._grey(anchor), self._grey(target)
        scale = self._scale(first)
        a = (pixel[use] * scale - 0.5).astype(np.float32)  # OpenCV counts pixel centres from 0
        start = (guess[use] * scale - 0.5).astype(np.float32)
        second = _of_same_exposure(first, second, a, start)
        b, found = _align(first, second, a, start)
        back, found_back = _align(second, first, b, a)
        better = ((b + 0.5) / scale).astype(np.float32)
        fine = found & found_back & (np.linalg.norm(back - a, axis=1) < ROUND_TRIP)
        fine &= np.linalg.norm(better - guess[use], axis=1) < MAX_CORRECTION_PX
        chosen = np.flatnonzero(use)[fine]
        position[chosen], sharp[chosen] = better[fine], True
        return position, sharp

    def _scale(self, grey: np.ndarray) -> np.ndarray:
        return np.array([grey.shape[1] / self._flow_size[1], grey.shape[0] / self._flow_size[0]], np.float32)


def _of_same_exposure(
    first: UInt8[np.ndarray, "h w"],
    second: UInt8[np.ndarray, "h w"],
    a: Float32[np.ndarray, "p 2"],
    b: Float32[np.ndarray, "p 2"],
) -> UInt8[np.ndarray, "h w"]:
    """The second image as bright as the first, by the points that they share: patches are compared grey by grey."""
    grey = [cv2.remap(image, at[:, :1], at[:, 1:], cv2.INTER_LINEAR) for image, at in ((first, a), (second, b))]
    well_exposed = (grey[0] > 8) & (grey[0] < 247) & (grey[1] > 8) & (grey[1] < 247)
    if well_exposed.sum() < FEW_GREYS:
        return second
    gain = float(
        np.exp(
            np.median(
                np.log(grey[0][well_exposed].astype(np.float64)) - np.log(grey[1][well_exposed].astype(np.float64))
            )
        )
    )
    return second if abs(gain - 1) < EQUALLY_EXPOSED else cv2.convertScaleAbs(second, alpha=gain)


def _align(a: np.ndarray, b: np.ndarray, points: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    aligned, found, _ = cv2.calcOpticalFlowPyrLK(
        a,
        b,
        points[:, None],
        start[:, None].copy(),
        winSize=(WINDOW, WINDOW),
        maxLevel=0,
        flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
        criteria=(cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 20, 0.01),
    )
    return aligned[:, 0], found[:, 0] > 0
