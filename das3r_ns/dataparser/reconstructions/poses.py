"""Matrices from what programs write in their place: quaternions in either order, 3x4 matrices, focal lengths."""

import numpy as np
from jaxtyping import Float64


def from_quaternions(
    position: Float64[np.ndarray, "n 3"], quat_xyzw: Float64[np.ndarray, "n 4"], what: str
) -> Float64[np.ndarray, "n 4 4"]:
    """Matrices of a rotation and translation.

    Raises:
        ValueError: a quaternion is not of (about) unit length.
    """
    length = np.linalg.norm(quat_xyzw, axis=1)
    wrong = np.flatnonzero(~(np.abs(length - 1) < 1e-2))
    if len(wrong):
        raise ValueError(
            f"{what}: the quaternion of entry {wrong[0] + 1} has the length {length[wrong[0]]:.3g} and not 1. Are "
            "these numbers poses?"
        )
    from scipy.spatial.transform import Rotation  # slow to import, and help pages read this module

    T = np.tile(np.eye(4), (len(position), 1, 1))
    T[:, :3, :3] = Rotation.from_quat(quat_xyzw).as_matrix()
    T[:, :3, 3] = position
    return T


def with_last_row(matrices: Float64[np.ndarray, "n 3 4"]) -> Float64[np.ndarray, "n 4 4"]:
    """Matrices of 3x4 as 4x4."""
    last = np.tile([[[0.0, 0.0, 0.0, 1.0]]], (len(matrices), 1, 1))
    return np.concatenate((matrices[:, :3], last), axis=1)


def pinhole(fx_fy_cx_cy: Float64[np.ndarray, "n 4"]) -> Float64[np.ndarray, "n 3 3"]:
    """K from its four numbers."""
    K = np.zeros((len(fx_fy_cx_cy), 3, 3))
    K[:, 0, 0], K[:, 1, 1], K[:, 0, 2], K[:, 1, 2] = fx_fy_cx_cy.T
    K[:, 2, 2] = 1
    return K
