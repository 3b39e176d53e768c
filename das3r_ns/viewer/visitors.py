"""Put a visitor's camera where a frame was taken, so that the scene fills the window."""

from __future__ import annotations

import math

import numpy as np
import viser
from jaxtyping import Float
from nerfstudio.viewer.viewer import VISER_NERFSTUDIO_SCALE_RATIO

SAME_PLACE = 2e-3
"""Of the typical depth: a visitor this near to a frame's position looks through it."""
SAME_DIRECTION = math.cos(math.radians(1.0))
MAX_FOV = math.radians(100.0)
"""Vertical field of view, for frames of lenses wider than a window can show without stretching its corners."""


def covering_fov(size: tuple[int, int], K: Float[np.ndarray, "3 3"], aspect: float) -> float:
    """Vertical field of view, radians, of the largest view of a window's shape that lies inside a frame.

    Args:
        size: height and width of the frame.
        aspect: width of the window over its height.
    """
    height, width = size
    half_height = min(K[1, 2], height - K[1, 2]) / K[1, 1]
    half_width = min(K[0, 2], width - K[0, 2]) / K[0, 0]
    return min(2 * math.atan(min(half_height, half_width / max(aspect, 1e-3))), MAX_FOV)


def look_through(
    client: viser.ClientHandle,
    T_world_camera: Float[np.ndarray, "4 4"],
    size: tuple[int, int],
    K: Float[np.ndarray, "3 3"],
    depth: float,
) -> None:
    """Move a visitor to a frame.

    Args:
        T_world_camera: pose of the frame, OpenCV axes.
        depth: distance, world units, of the point that the visitor then turns about.
    """
    position = T_world_camera[:3, 3] * VISER_NERFSTUDIO_SCALE_RATIO
    with client.atomic():
        client.camera.position = position
        client.camera.look_at = position + depth * VISER_NERFSTUDIO_SCALE_RATIO * T_world_camera[:3, 2]
        client.camera.wxyz = viser.transforms.SO3.from_matrix(T_world_camera[:3, :3]).wxyz
        client.camera.fov = covering_fov(size, K, client.camera.aspect)


def looks_through(client: viser.ClientHandle, T_world_camera: Float[np.ndarray, "4 4"], depth: float) -> bool:
    """Whether a visitor still stands where `look_through` put them."""
    position = np.asarray(client.camera.position) / VISER_NERFSTUDIO_SCALE_RATIO
    ahead = viser.transforms.SO3(np.asarray(client.camera.wxyz)).as_matrix()[:, 2]
    near = float(np.linalg.norm(position - T_world_camera[:3, 3])) <= SAME_PLACE * depth
    return near and float(ahead @ T_world_camera[:3, 2]) >= SAME_DIRECTION
