"""The focal length that goes with poses: trajectories of SLAM programs do not say what the lens is.

Matches between frames must lie on the epipolar lines of the poses; with a wrong focal length they do not.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float64

from das3r_ns.dataparser.camera_check import Fit, PairMatches, fit_of

FIELDS_OF_VIEW_DEG = (20.0, 25.0, 31.0, 38.0, 46.0, 55.0, 65.0, 76.0, 88.0, 100.0, 112.0)
SOFT_PX = 0.7
"""Distance from the epipolar line at which a match counts half."""

Pairs = Sequence[tuple[int, int, PairMatches]]


def focal_of_poses(
    pairs: Pairs, T_world_camera: Float64[np.ndarray, "n 4 4"], focal: float, longer_side: float
) -> tuple[float, Fit | None]:
    """The focal length with which most matches agree, and how well they do.

    Args:
        pairs: places in `T_world_camera`, and matches as rays of a lens of `focal`.
        longer_side: of the frames, in the same pixels.
    """
    if not pairs:
        return focal, None
    from scipy.optimize import minimize_scalar  # slow to import, and help pages read this module

    candidates = [longer_side / (2 * np.tan(np.radians(angle) / 2)) for angle in FIELDS_OF_VIEW_DEG]

    def cost(log_focal: float) -> float:
        return -sum(
            _explained(pair, T_world_camera[a], T_world_camera[b])
            for a, b, pair in rescaled(pairs, focal, np.exp(log_focal))
        )

    costs = [cost(np.log(candidate)) for candidate in candidates]
    k = int(np.argmin(costs))
    wide = candidates[min(k + 1, len(candidates) - 1)]
    narrow = candidates[max(k - 1, 0)]
    found = minimize_scalar(cost, bounds=(np.log(wide), np.log(narrow)), method="bounded", options={"xatol": 1e-4})
    best = float(np.exp(found.x))
    return best, fit_of(rescaled(pairs, focal, best), T_world_camera)


def rescaled(pairs: Pairs, focal: float, other: float) -> list[tuple[int, int, PairMatches]]:
    """Matches as rays of another focal length."""
    s = focal / other
    return [
        (a, b, replace(pair, rays_i=pair.rays_i * s, rays_j=pair.rays_j * s, focal=pair.focal / s))
        for a, b, pair in pairs
    ]


def _explained(pair: PairMatches, T_world_i: np.ndarray, T_world_j: np.ndarray) -> float:
    """Soft number of matches that agree."""
    T = np.linalg.inv(T_world_j) @ T_world_i
    R, t = T[:3, :3], T[:3, 3]
    x, y = (np.column_stack((rays, np.ones(len(rays)))) for rays in (pair.rays_i, pair.rays_j))
    if np.linalg.norm(t) < 1e-12:
        turned = x @ R.T
        off = np.linalg.norm(turned[:, :2] / np.maximum(turned[:, 2:], 1e-6) - pair.rays_j, axis=1)
    else:
        E = np.cross(t / np.linalg.norm(t), R, axisb=0, axisc=0)
        line_j, line_i = x @ E.T, y @ E
        slope = np.sqrt((line_j[:, :2] ** 2).sum(axis=1) + (line_i[:, :2] ** 2).sum(axis=1))
        off = np.abs((y * line_j).sum(axis=1)) / np.maximum(slope, 1e-12)
    return float((1 / (1 + (off * pair.focal / SOFT_PX) ** 2)).sum())
