"""Bundle adjustment with a lens: cameras, focal length, depths and what the lens does, all together.

The parameters of the lens border the system of the cameras as the focal length does. Errors are those of the image as
it was filmed, and derivatives are taken where a point should be seen, not where it was: otherwise noise, which is
smaller in an image that shrinks, would pull distortion and zoom wherever the motion says little about them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64
from scipy.spatial.transform import Rotation

from das3r_ns.predictor.cameras.sfm.bundle_adjustment import (
    CORRELATED,
    Adjusted,
    FocalPrior,
    noise_by_frame,
    pair_noise,
    solve_cameras,
)
from das3r_ns.predictor.cameras.sfm.lens import Lens, LensModel, Straightened, derivatives, straightened
from das3r_ns.predictor.cameras.sfm.normal_equations import (
    NormalEquations,
    RobustScale,
    State,
    linearise,
    point_step,
    robust_cost,
    squared_errors,
)
from das3r_ns.predictor.cameras.sfm.tracks import Tracks

RADIAL_SPREAD = (0.5, 0.3)
"""Standard deviations of the radial coefficients, in units of half the diagonal, before anything is seen."""
ZOOM_SPREAD = 0.5
"""Same of the logarithm of each frame's focal length over the reference."""
BEND_SPREAD = 0.1
"""Same of the change from one straight piece of the zoom to the next."""
READOUT_SPREAD = 0.5
"""Same of the readout time in frame intervals."""
MAX_FOCAL_STEP = 0.3
"""Of the logarithm of the focal length."""


@dataclass(frozen=True)
class LensAdjusted:
    """What comes out: `adjusted` is for the straightened tracks, its noise in pixels of the flow as it was."""

    adjusted: Adjusted
    lens: Lens
    straight: Straightened
    covariance: Float64[np.ndarray, "g g"]
    """Of the parameters of the model, priors included."""


@dataclass(frozen=True)
class SharedSystem:
    """Normal equations of what all frames share (the focal length, then the lens), points and cameras eliminated."""

    matrix: Float64[np.ndarray, "h h"]
    gradient: Float64[np.ndarray, "h"]
    from_gradient: Float64[np.ndarray, "n 6"]
    """Step of the cameras, negated, where nothing shared moves."""
    from_shared: Float64[np.ndarray, "n 6 h"]
    """Their further step, negated, by what is shared."""


def adjust_with_lens(
    raw: Tracks,
    start: State,
    lens: Lens,
    model: LensModel,
    prior: FocalPrior,
    held: Bool[np.ndarray, "n"],
    rounds: int = 6,
    steps: int = 4,
    width: float = 3.0,
    free_depth: bool = True,
) -> LensAdjusted:
    """Refine cameras and lens by Levenberg-Marquardt, as `bundle_adjustment.adjust` does without a lens.

    Args:
        raw: positions as they were followed.
        lens: where the search starts.
        model: what of the lens is free.
    """
    lens = model.start(raw.num_frames, lens)
    state, damping = start, 1e-3
    straight = straightened(raw, lens, state)
    cost, noise = float("nan"), np.ones(raw.num_frames)
    scale = RobustScale(np.ones(raw.target.shape), width)
    for _ in range(rounds):
        errors = straight.in_image(squared_errors(straight.tracks, state))
        noise = noise_by_frame(raw, errors)
        scale = RobustScale(pair_noise(raw, noise), width)
        cost = robust_cost(raw, errors, scale) + _prior_cost(state, lens, prior, model)
        for _ in range(steps):
            system = shared_system(raw, straight, state, lens, model, scale, prior, held, damping, free_depth)
            trial = None if system is None else _step(*system, straight.tracks, state, lens, model, prior)
            trial_cost, moved = np.inf, straight
            if trial is not None and trial[1].is_invertible():
                moved = straightened(raw, trial[1], trial[0])
                errors = moved.in_image(squared_errors(moved.tracks, trial[0]))
                trial_cost = robust_cost(raw, errors, scale) + _prior_cost(*trial, prior, model)
            if trial is None or not trial_cost < cost:
                damping = min(damping * 10, 1e3)
                continue
            gain, (state, lens), straight, cost = 1 - trial_cost / max(cost, 1e-300), trial, moved, trial_cost
            damping = max(damping / 5, 1e-7)
            if gain < 1e-4:
                break
    covariance = np.diag(np.diag(prior_precision(lens, model)) ** -1.0)
    focal_std = prior.spread
    system = shared_system(raw, straight, state, lens, model, scale, prior, held, 1e-7, free_depth)
    if system is not None:
        whole = CORRELATED * np.linalg.inv(system[1].matrix)
        covariance, focal_std = whole[1:, 1:], float(whole[0, 0] ** 0.5) if prior.spread > 0 else 0.0
    return LensAdjusted(Adjusted(state, noise, focal_std, cost), lens, straight, covariance)


def shared_system(
    raw: Tracks,
    straight: Straightened,
    state: State,
    lens: Lens,
    model: LensModel,
    scale: RobustScale,
    prior: FocalPrior,
    held: Bool[np.ndarray, "n"],
    damping: float,
    free_depth: bool,
) -> tuple[NormalEquations, SharedSystem] | None:
    """Linearise, and eliminate points and cameras; None where the cameras' matrix is not positive definite."""
    by_lens = derivatives(raw, straight.tracks, state, lens, model)
    equations = linearise(straight.weighted, state, scale, damping, free_depth, by_lens)
    solved = solve_cameras(equations, held, damping)
    if solved is None:
        return None
    columns = np.concatenate((equations.focal_column[..., None], equations.extra_columns), axis=-1)
    columns = np.where(held[:, None, None], 0, columns)
    matrix = np.zeros((columns.shape[-1],) * 2)
    matrix[0, 0] = equations.focal_diagonal
    matrix[1:] = equations.extra_rows
    matrix[0, 1:] = matrix[1:, 0]
    matrix[np.diag_indices_from(matrix)] *= 1 + damping
    gradient = np.concatenate(([equations.focal_gradient], equations.extra_gradient))
    matrix -= np.einsum("nig,nih->gh", columns, solved[..., 1:])
    gradient -= np.einsum("nig,ni->g", columns, solved[..., 0])
    if prior.spread > 0:
        weight = CORRELATED / prior.spread**2
        matrix[0, 0] += weight
        gradient[0] += weight * np.log(state.focal / prior.focal)
    else:  # a known focal length does not move
        matrix[0] = matrix[:, 0] = 0
        matrix[0, 0], gradient[0] = 1, 0
    precision = CORRELATED * prior_precision(lens, model)
    matrix[1:, 1:] += precision
    gradient[1:] += precision @ model.parameters(lens)
    return equations, SharedSystem(matrix, gradient, solved[..., 0], solved[..., 1:])


def prior_precision(lens: Lens, model: LensModel) -> Float64[np.ndarray, "g g"]:
    """Inverse covariance of the parameters before anything is seen; all are 0 on average."""
    blocks = [np.diag(np.array(RADIAL_SPREAD[: model.terms]) ** -2.0)]
    if model.zooms and lens.log_zoom is not None:
        bend = np.diff(np.eye(len(lens.log_zoom)), n=2, axis=0)
        blocks.append(np.eye(len(lens.log_zoom)) * ZOOM_SPREAD**-2 + bend.T @ bend * BEND_SPREAD**-2)
    if model.rolls:
        blocks.append(np.eye(1) * READOUT_SPREAD**-2)
    total = np.zeros((sum(map(len, blocks)),) * 2)
    at = 0
    for block in blocks:
        total[at : at + len(block), at : at + len(block)] = block
        at += len(block)
    return total


def _prior_cost(state: State, lens: Lens, prior: FocalPrior, model: LensModel) -> float:
    values = model.parameters(lens)
    cost = CORRELATED * float(values @ prior_precision(lens, model) @ values)
    return cost if prior.spread == 0 else cost + CORRELATED * (np.log(state.focal / prior.focal) / prior.spread) ** 2


def _step(
    equations: NormalEquations,
    system: SharedSystem,
    tracks: Tracks,
    state: State,
    lens: Lens,
    model: LensModel,
    prior: FocalPrior,
) -> tuple[State, Lens] | None:
    change = -np.linalg.solve(system.matrix, system.gradient)
    if not np.isfinite(change).all():
        return None
    change[0] = np.clip(change[0], -MAX_FOCAL_STEP, MAX_FOCAL_STEP)
    focal = float(np.clip(state.focal * np.exp(change[0]), *prior.bounds))
    change[0] = np.log(focal / state.focal)
    camera_step = -system.from_gradient - system.from_shared @ change
    depth_step = point_step(equations, tracks, camera_step, float(change[0]), change[1:])
    T = state.T_camera_world.copy()
    T[:, :3] = Rotation.from_rotvec(camera_step[:, 3:]).as_matrix() @ T[:, :3]
    T[:, :3, 3] += camera_step[:, :3]
    moved = State(T, focal, np.maximum(state.inverse_depth + depth_step, 0))
    return moved, model.with_parameters(lens, model.parameters(lens) + change[1:])
