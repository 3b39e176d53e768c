"""Radial distortion, and images without it.

The model is OpenCV's: a direction (x, y, 1) in the camera is seen at focal (x, y) (1 + k1 r^2 + k2 r^4) from the
principal point, r^2 = x^2 + y^2.

Undistorted images keep the focal length, the principal point and the size, so the middle stays as it was filmed. A
barrel (k1 < 0) loses what lies beyond its border; a pincushion leaves a border that nobody filmed.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, UInt8
from torch import Tensor

from das3r_ns.runtime.parallel import parallel_for

FIRST_PIXEL = 0.5
"""Centre of the first pixel. OpenCV counts from there."""


@dataclass(frozen=True)
class RadialLens:
    """A lens with square pixels that bends straight lines."""

    focal_px: float
    cx: float
    """Principal point, pixels from the left border."""
    cy: float
    """Principal point, pixels from the upper border."""
    k1: float
    k2: float = 0.0

    def undistort_frames(self, frames: UInt8[Tensor, "n h w 3"]) -> UInt8[Tensor, "n h w 3"]:
        """The frames as a pinhole would have filmed them. What nobody filmed repeats the border."""
        u, v = self._sources(frames.shape[1], frames.shape[2])
        straight = torch.empty_like(frames)

        def one(i: int) -> None:
            remapped = cv2.remap(frames[i].numpy(), u, v, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
            straight[i] = torch.from_numpy(remapped)

        parallel_for(one, len(frames))
        return straight

    def undistort_maps(self, maps: Float[Tensor, "n h w"], beyond: float) -> Float[Tensor, "n h w"]:
        """Maps of the size of the frames, bilinear.

        Args:
            beyond: value of what nobody filmed.
        """
        u, v = self._sources(maps.shape[1], maps.shape[2])
        filmed = torch.from_numpy(self.filmed(maps.shape[1], maps.shape[2]))
        straight = [
            torch.from_numpy(cv2.remap(m.float().numpy(), u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))
            for m in maps
        ]
        return torch.where(filmed, torch.stack(straight).to(maps.dtype), torch.tensor(beyond, dtype=maps.dtype))

    def filmed(self, height: int, width: int) -> Bool[np.ndarray, "h w"]:
        """Which pixels of an undistorted image lie in the image as it was filmed."""
        u, v = self._sources(height, width)
        margin = FIRST_PIXEL + 1e-3  # the outer half of a border pixel is still its own
        return (u > -margin) & (v > -margin) & (u < width - 1 + margin) & (v < height - 1 + margin)

    def shifted(self, right: float, down: float) -> RadialLens:
        """The lens of an image with that many more pixels on the left and above."""
        return RadialLens(self.focal_px, self.cx + right, self.cy + down, self.k1, self.k2)

    def resized(self, factor: float) -> RadialLens:
        """The lens of the same image with sides `factor` times as long."""
        return RadialLens(self.focal_px * factor, self.cx * factor, self.cy * factor, self.k1, self.k2)

    def _sources(self, height: int, width: int) -> tuple[Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w"]]:
        """Where each pixel of the undistorted image was filmed, as `cv2.remap` wants it."""
        K = np.array([[self.focal_px, 0, self.cx - FIRST_PIXEL], [0, self.focal_px, self.cy - FIRST_PIXEL], [0, 0, 1]])
        coefficients = np.array([self.k1, self.k2, 0, 0])
        u, v = cv2.initUndistortRectifyMap(K, coefficients, np.eye(3), K, (width, height), cv2.CV_32FC1)
        return np.asarray(u), np.asarray(v)

    def __str__(self) -> str:
        edge = self._growth(self.cx / self.focal_px) - 1
        return f"{'barrel' if edge < 0 else 'pincushion'} distortion (k1 {self.k1:+.3f}, k2 {self.k2:+.3f})"

    def _growth(self, r: float) -> float:
        return 1 + self.k1 * r**2 + self.k2 * r**4
