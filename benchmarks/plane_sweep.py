"""Depth of a still scene from images whose cameras are known, without optical flow: truth to measure flow against.

Every pixel is tried at many inverse depths; at the right one, other images show the same there. What the best views do
not agree on, or agree on at several depths, stays unknown, and so does what the depth of the other image contradicts.
"""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8

PLANES = 64
"""Inverse depths that are tried."""
WINDOW_PX = 9
"""Side of the window over which images are compared."""
MAX_COST, MIN_MARGIN = 0.5, 0.02
"""Of 1 - correlation: largest at the best depth, and how much worse it must be three planes and more away."""
MAX_DISAGREEMENT_PX = 1.0
"""Between a pixel and where the depth of another image brings it back to."""


def sweep(
    images: list[UInt8[np.ndarray, "h w 3"]],
    T_world_camera: Float[np.ndarray, "n 4 4"],
    K: Float[np.ndarray, "3 3"],
    reference: int,
    others: list[int],
    depths: tuple[float, float],
) -> Float32[np.ndarray, "h w"]:
    """Depth of an image; 0 where unknown.

    Args:
        others: images to compare with; at each pixel the better half counts, so that some may be covered there.
        depths: nearest and farthest.
    """
    grey = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32) for image in images]
    height, width = grey[0].shape
    rays = _rays(K, height, width)
    inverse = np.linspace(1 / depths[1], 1 / depths[0], PLANES)
    costs = np.empty((PLANES, height, width), np.float32)
    here = _Normalised(grey[reference])
    for k, w in enumerate(inverse):
        of_views = []
        for other in others:
            u, v, _ = _project(rays / w, T_world_camera[reference], T_world_camera[other], K)
            seen = cv2.remap(grey[other], u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            cost = 1 - here.correlation(seen)
            cost[(u < 0) | (v < 0) | (u > width - 1) | (v > height - 1)] = 2
            of_views.append(cost)
        costs[k] = np.sort(np.stack(of_views), 0)[: (len(others) + 1) // 2].mean(0)
    best = costs.argmin(0)
    rows, columns = np.indices(best.shape)
    lowest = costs[best, rows, columns]
    far = np.abs(np.arange(PLANES)[:, None, None] - best) >= 3
    second = np.where(far, costs, 9).min(0)
    # Parabola through the costs of three planes.
    inner = best.clip(1, PLANES - 2)
    before, middle, after = (costs[inner + step, rows, columns] for step in (-1, 0, 1))
    shift = 0.5 * (before - after) / np.maximum(before - 2 * middle + after, 1e-6)
    found = np.interp(inner + shift.clip(-1, 1), np.arange(PLANES), inverse)
    sure = (lowest < MAX_COST) & (second - lowest > MIN_MARGIN) & (best > 0) & (best < PLANES - 1)
    return np.where(sure, 1 / found, 0).astype(np.float32)


def true_flow(
    depth: Float32[np.ndarray, "h w"],
    depth_of_target: Float32[np.ndarray, "h w"],
    T_world_source: Float[np.ndarray, "4 4"],
    T_world_target: Float[np.ndarray, "4 4"],
    K: Float[np.ndarray, "3 3"],
) -> tuple[Float32[np.ndarray, "h w 2"], Bool[np.ndarray, "h w"]]:
    """Flow that depth and cameras give, and where it is known: in view, and the target's own depth brings it back."""
    height, width = depth.shape
    points = _rays(K, height, width) * depth[..., None]
    u, v, z = _project(points, T_world_source, T_world_target, K)
    flow = np.stack((u, v), -1) - np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1)
    inside = (u >= 0) & (v >= 0) & (u <= width - 1) & (v <= height - 1) & (depth > 0) & (z > 0)
    there = cv2.remap(depth_of_target, u, v, cv2.INTER_NEAREST)
    focal = K[0, 0]
    baseline = np.linalg.norm(T_world_source[:3, 3] - T_world_target[:3, 3])
    # Two depths at one place agree if the pixels they project to do.
    apart = focal * baseline * np.abs(1 / np.maximum(there, 1e-6) - 1 / np.maximum(z, 1e-6))
    return flow.astype(np.float32), inside & (there > 0) & (apart < MAX_DISAGREEMENT_PX)


class _Normalised:
    """An image with the means and deviations of its windows, for correlations with others."""

    def __init__(self, image: Float32[np.ndarray, "h w"]) -> None:
        self.image, self.mean = image, _mean(image)
        self.deviation = np.sqrt(np.maximum(_mean(image**2) - self.mean**2, 0)) + 2.0  # grey levels of noise

    def correlation(self, other: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
        mean = _mean(other)
        deviation = np.sqrt(np.maximum(_mean(other**2) - mean**2, 0)) + 2.0
        return (_mean(self.image * other) - self.mean * mean) / (self.deviation * deviation)


def _mean(image: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    return cv2.boxFilter(image, -1, (WINDOW_PX, WINDOW_PX))


def _rays(K: Float[np.ndarray, "3 3"], height: int, width: int) -> Float[np.ndarray, "h w 3"]:
    """Points at depth 1; pixel (0, 0) is at (0, 0), as the data's own principal point has it."""
    u, v = np.meshgrid(np.arange(width), np.arange(height))
    return np.stack(((u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones_like(u, float)), -1)


def _project(
    points: Float[np.ndarray, "h w 3"],
    T_world_source: Float[np.ndarray, "4 4"],
    T_world_target: Float[np.ndarray, "4 4"],
    K: Float[np.ndarray, "3 3"],
) -> tuple[Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w"], Float[np.ndarray, "h w"]]:
    T = np.linalg.inv(T_world_target) @ T_world_source
    moved = points @ T[:3, :3].T + T[:3, 3]
    z = np.maximum(moved[..., 2], 1e-6)
    u, v = K[0, 0] * moved[..., 0] / z + K[0, 2], K[1, 1] * moved[..., 1] / z + K[1, 2]
    return u.astype(np.float32), v.astype(np.float32), moved[..., 2]
