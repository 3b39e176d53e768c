"""Derivatives of reprojection, and the normal equations with the inverse depths eliminated.

A point of anchor frame i is its ray r = ((u - cx) / f, (v - cy) / f, 1) and inverse depth rho. Frame j sees it at

    Y = R_ji r + rho t_ji,    (u', v') = (cx + f Yx / Yz, cy + f Yy / Yz),    T_ji = T_j inv(T_i),  T = T_camera_world

Y is the point divided by its depth in frame i, so points at infinity (rho = 0) need no special case. Poses are
perturbed from the left, T <- exp(xi) T with xi = (v, omega), and the focal length by its logarithm. With X = Yx / Yz,
Y = Yy / Yz, q = rho / Yz and ray part a = R_ji (x, y, 0), the derivatives of (u', v') are

    by xi_ji:  f (q, 0, -X q, -X Y, 1 + X^2, -Y),  f (0, q, -Y q, -(1 + Y^2), X Y, X)
    by rho:    f / Yz (tx - X tz),                 f / Yz (ty - Y tz)
    by log f:  f X - f / Yz (ax - X az),           f Y - f / Yz (ay - Y az)

One derivative, by T_ji, serves both frames: xi_ji = xi_j - Ad(T_ji) xi_i. The kernel works in relative poses, one
anchor at a time; `linearise` turns the result to absolute ones.

The matrix of the points is diagonal (one number each), so the Schur complement is cheap. Frames far apart in time
share no point, so what remains is a band around the diagonal, bordered by the focal length and, where a lens is
sought, by its parameters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64

from das3r_ns.predictor.cameras.sfm import kernels
from das3r_ns.predictor.cameras.sfm.tracks import Tracks
from das3r_ns.runtime.parallel import in_parts

NO_STEP = np.zeros(0)


@dataclass(frozen=True)
class State:
    """All unknowns."""

    T_camera_world: Float64[np.ndarray, "n 4 4"]
    focal: float
    """Pixels of the flow."""
    inverse_depth: Float64[np.ndarray, "a p"]
    """Of each grid point in its anchor frame, 0 or more."""


@dataclass(frozen=True)
class RobustScale:
    """Geman-McClure: an error of e standard deviations costs e^2 / (1 + (e / width)^2), at most width^2."""

    sigma: Float64[np.ndarray, "a k"]
    """Standard deviation of the positions that a target sees of an anchor, pixels of the flow."""
    width: float


@dataclass(frozen=True)
class NormalEquations:
    """One Gauss-Newton step, H x = -g, with the points eliminated; and what brings them back."""

    band: Float64[np.ndarray, "n b 6 6"]
    """Camera blocks (i, i + d) for d = 0 .. b - 1."""
    diagonal: Float64[np.ndarray, "n 6"]
    """Of the camera blocks before the points were eliminated: what damping is measured by."""
    gradient: Float64[np.ndarray, "n 6"]
    focal_column: Float64[np.ndarray, "n 6"]
    focal_diagonal: float
    focal_gradient: float
    coupling: Float32[np.ndarray, "a p c"]
    """Block of each point against the relative poses (6 a target), the focal length and what else all frames share."""
    point_gradient: Float64[np.ndarray, "a p"]
    point_diagonal: Float64[np.ndarray, "a p"]
    """Damped; 0 for points that nothing sees."""
    adjoint: Float64[np.ndarray, "a k 6 6"]
    extra_columns: Float64[np.ndarray, "n 6 g"]
    """Further unknowns that all frames share, against the cameras."""
    extra_rows: Float64[np.ndarray, "g h"]
    """Against the focal length (first column) and each other."""
    extra_gradient: Float64[np.ndarray, "g"]


def relative_poses(T_camera_world: Float64[np.ndarray, "n 4 4"], tracks: Tracks) -> Float64[np.ndarray, "a k 4 4"]:
    """T_target_anchor of every anchor and target; of no meaning where there is no target."""
    return T_camera_world[tracks.target] @ invert(T_camera_world)[tracks.anchor][:, None]


def invert(T: Float64[np.ndarray, "*n 4 4"]) -> Float64[np.ndarray, "*n 4 4"]:
    """Inverse of rigid motions."""
    inverse = np.zeros_like(T)
    inverse[..., :3, :3] = np.swapaxes(T[..., :3, :3], -1, -2)
    inverse[..., :3, 3] = -(inverse[..., :3, :3] @ T[..., :3, 3:])[..., 0]
    inverse[..., 3, 3] = 1
    return inverse


def adjoint(T: Float64[np.ndarray, "*n 4 4"]) -> Float64[np.ndarray, "*n 6 6"]:
    """Ad(T) with exp(Ad(T) xi) = T exp(xi) inv(T), for xi = (v, omega)."""
    R, t = T[..., :3, :3], T[..., :3, 3]
    Ad = np.zeros((*T.shape[:-2], 6, 6))
    Ad[..., :3, :3] = Ad[..., 3:, 3:] = R
    Ad[..., :3, 3:] = np.cross(t[..., None, :], R, axisa=-1, axisb=-2, axisc=-2)
    return Ad


def squared_errors(tracks: Tracks, state: State) -> Float64[np.ndarray, "a k p"]:
    """Squared distance in pixels of the flow between followed and reprojected positions; infinite where the point
    would lie behind the target camera, of no meaning where the weight is 0."""
    T = relative_poses(state.T_camera_world, tracks)
    errors = np.empty(tracks.weight.shape)

    def work(first: int, last: int) -> None:
        kernels.squared_errors(
            first, last, T, state.focal, *tracks.centre, tracks.pixel, tracks.observed, state.inverse_depth, errors
        )

    in_parts(work, len(errors))
    return errors


def robust_cost(tracks: Tracks, errors: Float64[np.ndarray, "a k p"], scale: RobustScale) -> float:
    """Sum over all positions of weight times Geman-McClure cost."""
    cost = np.empty(len(errors))

    def work(first: int, last: int) -> None:
        kernels.robust_cost(first, last, tracks.weight, errors, scale.sigma, scale.width, cost)

    in_parts(work, len(errors))
    return float(cost.sum())


def linearise(
    tracks: Tracks,
    state: State,
    scale: RobustScale,
    damping: float,
    free_depth: bool = True,
    extra: Float32[np.ndarray, "a k p 2 g"] | None = None,
) -> NormalEquations:
    """Normal equations at `state`, weights of the robust cost held fixed.

    Args:
        damping: Levenberg-Marquardt's lambda for the points; the cameras are damped when the system is solved.
        free_depth: False holds the inverse depths.
        extra: derivatives of reprojected minus observed position by further unknowns that all frames share.
    """
    T = relative_poses(state.T_camera_world, tracks)
    (a, slots, p), n = tracks.weight.shape, tracks.num_frames
    if extra is None:
        extra = np.zeros((a, slots, p, 2, 0), np.float32)
    size = 6 * slots + 1 + extra.shape[-1]
    before, after = np.zeros((a, size, size)), np.zeros((a, size, size))
    gradient, gradient_after = np.zeros((a, size)), np.zeros((a, size))
    coupling = np.zeros((a, p, size), np.float32)
    point_gradient, point_diagonal = np.zeros((a, p)), np.zeros((a, p))

    def work(first: int, last: int) -> None:
        kernels.accumulate(
            first,
            last,
            T,
            state.focal,
            *tracks.centre,
            tracks.pixel,
            tracks.observed,
            tracks.weight,
            state.inverse_depth,
            scale.sigma,
            scale.width,
            damping,
            free_depth,
            extra,
            before,
            after,
            gradient,
            gradient_after,
            coupling,
            point_gradient,
            point_diagonal,
        )

    in_parts(work, a)
    Ad = adjoint(T)
    frames = np.concatenate((tracks.anchor[:, None], tracks.target), axis=1)
    reach = np.where(frames >= 0, frames, tracks.anchor[:, None])
    width = int((reach.max(axis=1) - reach.min(axis=1)).max()) + 1
    band = np.zeros((n, width, 6, 6))
    diagonal, total_gradient, focal_column = np.zeros((n, 6)), np.zeros((n, 6)), np.zeros((n, 6))
    kernels.to_absolute(frames, Ad, before, after, gradient_after, band, diagonal, total_gradient, focal_column)
    first = 6 * slots
    return NormalEquations(
        band,
        diagonal,
        total_gradient,
        focal_column,
        float(after[:, first, first].sum()),
        float(gradient_after[:, first].sum()),
        coupling,
        point_gradient,
        point_diagonal,
        Ad,
        _columns(tracks, Ad, after[:, first + 1 :, :first]),
        after[:, first + 1 :, first:].sum(axis=0),
        gradient_after[:, first + 1 :].sum(axis=0),
    )


def _columns(
    tracks: Tracks, Ad: Float64[np.ndarray, "a k 6 6"], rows: Float64[np.ndarray, "a g c"]
) -> Float64[np.ndarray, "n 6 g"]:
    """Rows of unknowns that all frames share against the relative poses, as columns against the absolute ones."""
    a, further, _ = rows.shape
    columns = np.zeros((tracks.num_frames, 6, further))
    if further:
        relative = np.where((tracks.target >= 0)[:, None, :, None], rows.reshape(a, further, -1, 6), 0)
        np.add.at(columns, tracks.target, relative.transpose(0, 2, 3, 1))  # rows of absent targets are zero
        np.add.at(columns, tracks.anchor, -np.einsum("akij,agki->ajg", Ad, relative))
    return columns


def point_step(
    equations: NormalEquations,
    tracks: Tracks,
    camera_step: Float64[np.ndarray, "n 6"],
    focal_step: float,
    extra_step: Float64[np.ndarray, "g"] = NO_STEP,
) -> Float64[np.ndarray, "a p"]:
    """Change of the inverse depths that belongs to a step of the cameras, of the logarithm of the focal length, and of
    further unknowns that all frames share."""
    relative = camera_step[tracks.target] - np.einsum("akij,aj->aki", equations.adjoint, camera_step[tracks.anchor])
    relative[tracks.target < 0] = 0
    shared = np.broadcast_to(np.concatenate(((focal_step,), extra_step)), (len(relative), 1 + len(extra_step)))
    step = np.concatenate((relative.reshape(len(relative), -1), shared), axis=1)
    change = equations.point_gradient + np.einsum("apc,ac->ap", equations.coupling, step.astype(np.float32))
    return np.where(equations.point_diagonal > 0, -change / np.maximum(equations.point_diagonal, 1e-300), 0)
