"""Rotations between pairs of frames, and the focal length they imply.

A camera that only turns moves pixels by K R inv(K). The focal length is the one for which rotations explain most.
"""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, Float64

from das3r_ns.predictor.cameras.sfm.bundle_adjustment import FocalPrior

EXPLAINED_PX = 1.0
"""Pixels of the flow. What a model puts this near is explained by it."""
FOCAL_STEPS = 25
"""Focal lengths tried for a turning camera, evenly spaced in the logarithm over all that are allowed."""


def best_rotations(
    matches: list[tuple[np.ndarray, np.ndarray]], prior: FocalPrior, centre: tuple[float, float]
) -> tuple[float, list[tuple[Float64[np.ndarray, "3 3"], Bool[np.ndarray, "m"]]]]:
    """The focal length whose rotations explain most, and for each pair its rotation and what it explains."""
    homographies = [homography(source, target) for source, target in matches]
    low, high = prior.bounds
    focals = [prior.focal] if prior.spread == 0 else np.geomspace(low, high, FOCAL_STEPS).tolist()
    best: tuple[float, float, list] | None = None
    for focal in focals:
        fits = [fit_rotation(s, t, H, focal, centre) for (s, t), H in zip(matches, homographies)]
        # Ties (a camera that hardly turns) go to the usual focal length.
        score = float(np.mean([closeness for _, _, closeness in fits])) - 1e-3 * abs(np.log(focal / prior.focal))
        if best is None or score > best[0]:
            best = score, focal, [(R, explained) for R, explained, _ in fits]
    assert best is not None
    return best[1], best[2]


def homography(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    H, _ = cv2.findHomography(source, target, cv2.RANSAC, EXPLAINED_PX, maxIters=1000)
    return np.eye(3) if H is None else H


def fit_rotation(
    source: np.ndarray, target: np.ndarray, H: np.ndarray, focal: float, centre: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray, float]:
    """R_target_source nearest to inv(K) H K, refined robustly; what it explains; mean robust closeness."""
    K = np.array([[focal, 0, centre[0]], [0, focal, centre[1]], [0, 0, 1.0]])
    a, b = _rays(source, focal, centre), _rays(target, focal, centre)
    R = nearest_rotation(np.linalg.solve(K, H @ K))
    fade = np.ones(len(a))
    for width in (4.0, 2.0, 1.0, 1.0, 1.0, 1.0):
        turned = a @ R.T
        z = np.where(turned[:, 2:] > 1e-6, turned[:, 2:], 1e-6)
        error = np.linalg.norm(focal * turned[:, :2] / z + centre - target, axis=1)
        fade = 1 / (1 + (error / (width * EXPLAINED_PX)) ** 2)
        R = nearest_rotation((b * (fade**2)[:, None]).T @ a)
    return R, error < EXPLAINED_PX, float(fade.mean())


def _rays(pixel: np.ndarray, focal: float, centre: tuple[float, float]) -> np.ndarray:
    ray = np.concatenate(((pixel - centre) / focal, np.ones((len(pixel), 1))), axis=1)
    return ray / np.linalg.norm(ray, axis=1, keepdims=True)


def nearest_rotation(M: Float64[np.ndarray, "3 3"]) -> Float64[np.ndarray, "3 3"]:
    """The rotation nearest to a matrix in the least-squares sense (orthogonal Procrustes).

    In NumPy: thousands are asked for one by one, and roma's, for batches of tensors, takes many times as long for one.
    """
    U, _, Vt = np.linalg.svd(M)
    return U @ np.diag([1, 1, np.linalg.det(U @ Vt)]) @ Vt
