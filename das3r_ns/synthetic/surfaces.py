"""Textured boxes and ellipsoids, and how a ray meets them."""

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

LIGHT = np.array([-0.4, -0.8, -0.45]) / np.linalg.norm([0.4, 0.8, 0.45])
"""Direction towards the light."""


@dataclass
class Surface:
    """A box or an ellipsoid with a texture of its own. A plane is a thin box."""

    shape: Literal["box", "ellipsoid"]
    T_surface_world: np.ndarray
    half_size: np.ndarray
    texture: np.ndarray
    tile: float
    """World size that one tile of the texture covers."""


def trace(surfaces: list[Surface], origin: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Colour (linear, shaded) and z-depth (inf where nothing is hit) of the nearest surface along each ray."""
    nearest = np.full(directions.shape[:2], np.inf)
    colour = np.zeros((*directions.shape[:2], 3), np.float32)
    for surface in surfaces:
        R = surface.T_surface_world[:3, :3]
        o = R @ origin + surface.T_surface_world[:3, 3]
        d = directions @ R.T
        intersect = _hit_box if surface.shape == "box" else _hit_ellipsoid
        depth = intersect(o, d, surface.half_size)
        hit = depth < nearest
        if not hit.any():
            continue
        nearest[hit] = depth[hit]
        points = o + d[hit] * depth[hit][:, None]
        colour[hit] = _shade(surface, points)
    return colour, nearest


def _hit_box(o: np.ndarray, d: np.ndarray, half: np.ndarray) -> np.ndarray:
    safe = np.where(np.abs(d) < 1e-12, 1e-12, d)
    a, b = (-half - o) / safe, (half - o) / safe
    # Axis by axis: numpy reduces a last axis of three ten times as slowly.
    near, far = np.minimum(a, b), np.maximum(a, b)
    enter = np.maximum(np.maximum(near[..., 0], near[..., 1]), near[..., 2])
    leave = np.minimum(np.minimum(far[..., 0], far[..., 1]), far[..., 2])
    return np.where((enter < leave) & (enter > 1e-3), enter, np.inf)


def _hit_ellipsoid(o: np.ndarray, d: np.ndarray, half: np.ndarray) -> np.ndarray:
    o, d = o / half, d / half
    a, b, c = d[..., 0] ** 2 + d[..., 1] ** 2 + d[..., 2] ** 2, d @ o, o @ o - 1
    discriminant = b * b - a * c
    depth = (-b - np.sqrt(np.maximum(discriminant, 0))) / a
    return np.where((discriminant > 0) & (depth > 1e-3), depth, np.inf)


def _shade(surface: Surface, points: np.ndarray) -> np.ndarray:
    """Diffuse light on the texture; the shade depends on the place alone, so all frames agree."""
    if surface.shape == "box":
        face = np.argmax(np.abs(points / surface.half_size), axis=-1)
        normal = np.zeros_like(points)
        rows = np.arange(len(points))
        normal[rows, face] = np.sign(points[rows, face])
        u = np.where(face == 0, points[:, 2], points[:, 0]) + 0.37 * face
        v = np.where(face == 1, points[:, 2], points[:, 1])
    else:
        normal = points / surface.half_size**2
        normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
        u, v = np.arctan2(normal[:, 0], -normal[:, 2]) * surface.half_size[0], points[:, 1]
    side = surface.texture.shape[0]
    map_u, map_v = ((c / surface.tile * side - 0.5).astype(np.float32) for c in (u, v))
    albedo = np.empty((len(points), 3), np.float32)
    for start in range(0, len(points), 30000):  # cv2.remap takes at most 32767 rows
        part = slice(start, start + 30000)
        albedo[part] = cv2.remap(
            surface.texture, map_u[part, None], map_v[part, None], cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP
        )[:, 0]
    light = np.clip(normal @ surface.T_surface_world[:3, :3] @ LIGHT, 0, None)
    return albedo * (0.55 + 0.45 * light[:, None]).astype(np.float32)
