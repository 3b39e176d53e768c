"""Bundle adjustment with a lens: cameras, focal length, depths and what the lens does, all together.

The parameters of the lens border the system of the cameras as the focal length does. Errors are those of the image as
it was filmed, and derivatives are taken where a point should be seen, not where it was: otherwise noise, which is
smaller in an image that shrinks, would pull distortion and zoom wherever the motion says little about them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64

from das3r_ns.predictor.cameras.sfm.bundle_adjustment import (
    CORRELATED,
    Adjusted,
    FocalPrior,
    focal_prior_cost,
    noise_by_frame,
    pair_noise,
    solve_cameras,
)
from das3r_ns.predictor.cameras.sfm.lens import Lens, LensModel, Straightened, derivatives, straightened
from das3r_ns.predictor.cameras.sfm.levenberg_marquardt import minimise, moved
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
    problem = LensProblem(raw, model, prior, held, free_depth, width)
    at, cost, _ = minimise(problem, problem.at(start, model.start(raw.num_frames, lens)), rounds, steps)
    covariance = np.diag(np.diag(prior_precision(at.lens, model)) ** -1.0)
    focal_std = prior.spread
    system = problem.linearised(at, 1e-7)
    if system is not None:
        whole = CORRELATED * np.linalg.inv(system[1].matrix)
        covariance, focal_std = whole[1:, 1:], float(whole[0, 0] ** 0.5) if prior.spread > 0 else 0.0
    return LensAdjusted(Adjusted(at.state, problem.noise, focal_std, cost), at.lens, at.straight, covariance)


class LensUnknowns(NamedTuple):
    """What is looked for, and what follows from it."""

    state: State
    lens: Lens
    straight: Straightened
    """Tracks with this lens taken out."""


class LensProblem:
    """See `levenberg_marquardt.Problem`; arguments are those of `adjust_with_lens`."""

    def __init__(
        self,
        raw: Tracks,
        model: LensModel,
        prior: FocalPrior,
        held: Bool[np.ndarray, "n"],
        free_depth: bool,
        width: float = 3.0,
    ) -> None:
        self._raw, self._model, self._prior, self._held = raw, model, prior, held
        self._width, self._free_depth = width, free_depth
        self.scale = RobustScale(np.ones(raw.target.shape), width)
        self.noise = np.ones(raw.num_frames)

    def at(self, state: State, lens: Lens) -> LensUnknowns:
        """The unknowns, with the tracks as they are without this lens."""
        return LensUnknowns(state, lens, straightened(self._raw, lens, state))

    def begin_round(self, at: LensUnknowns) -> float:
        errors = _errors_in_image(at)
        self.noise = noise_by_frame(self._raw, errors)
        self.scale = RobustScale(pair_noise(self._raw, self.noise), self._width)
        return self._cost(at, errors)

    def step(self, at: LensUnknowns, damping: float) -> LensUnknowns | None:
        system = self.linearised(at, damping)
        trial = None if system is None else _step(*system, at, self._model, self._prior)
        return None if trial is None or not trial[1].is_invertible() else self.at(*trial)

    def cost(self, at: LensUnknowns) -> float:
        return self._cost(at, _errors_in_image(at))

    def _cost(self, at: LensUnknowns, errors: Float64[np.ndarray, "a k p"]) -> float:
        return robust_cost(self._raw, errors, self.scale) + _prior_cost(at.state, at.lens, self._prior, self._model)

    def linearised(self, at: LensUnknowns, damping: float) -> tuple[NormalEquations, SharedSystem] | None:
        """Equations at `at`, points and cameras eliminated; None where the cameras' matrix is not positive definite."""
        by_lens = derivatives(self._raw, at.straight.tracks, at.state, at.lens, self._model)
        equations = linearise(at.straight.weighted, at.state, self.scale, damping, self._free_depth, by_lens)
        solved = solve_cameras(equations, self._held, damping)
        if solved is None:
            return None
        return equations, _shared_system(equations, solved, at, self._model, self._prior, self._held, damping)


def _errors_in_image(at: LensUnknowns) -> Float64[np.ndarray, "a k p"]:
    return at.straight.in_image(squared_errors(at.straight.tracks, at.state))


def _shared_system(
    equations: NormalEquations,
    solved: Float64[np.ndarray, "n 6 h"],
    at: LensUnknowns,
    model: LensModel,
    prior: FocalPrior,
    held: Bool[np.ndarray, "n"],
    damping: float,
) -> SharedSystem:
    """The Schur complement of what all frames share, with its priors; `solved` is what `solve_cameras` gave."""
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
        gradient[0] += weight * np.log(at.state.focal / prior.focal)
    else:  # a known focal length does not move
        matrix[0] = matrix[:, 0] = 0
        matrix[0, 0], gradient[0] = 1, 0
    precision = CORRELATED * prior_precision(at.lens, model)
    matrix[1:, 1:] += precision
    gradient[1:] += precision @ model.parameters(at.lens)
    return SharedSystem(matrix, gradient, solved[..., 0], solved[..., 1:])


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
    return cost + focal_prior_cost(state.focal, prior)


def _step(
    equations: NormalEquations, system: SharedSystem, at: LensUnknowns, model: LensModel, prior: FocalPrior
) -> tuple[State, Lens] | None:
    state, lens = at.state, at.lens
    change = -np.linalg.solve(system.matrix, system.gradient)
    if not np.isfinite(change).all():
        return None
    change[0] = np.clip(change[0], -MAX_FOCAL_STEP, MAX_FOCAL_STEP)
    focal = float(np.clip(state.focal * np.exp(change[0]), *prior.bounds))
    change[0] = np.log(focal / state.focal)
    camera_step = -system.from_gradient - system.from_shared @ change
    depth_step = point_step(equations, at.straight.tracks, camera_step, float(change[0]), change[1:])
    return moved(state, camera_step, focal, depth_step), model.with_parameters(
        lens, model.parameters(lens) + change[1:]
    )
