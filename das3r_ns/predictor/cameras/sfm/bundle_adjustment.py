"""Robust bundle adjustment: all cameras, one focal length and all inverse depths together.

Levenberg-Marquardt on a Geman-McClure cost. The scale of the errors is taken from the data and falls from round to
round, so the cost is nearly convex at first and cuts outliers sharply at the end.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
from jaxtyping import Bool, Float64

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

SIGMA_FLOOR = 0.02
"""Pixels of the flow. No flow is more accurate, and a scale of zero would make everything an outlier."""
CORRELATED = 100.0
"""Neighbouring grid points, offsets and frames err together: this many positions say as much as one."""
MIN_POSITIONS = 100
"""Positions that a frame's own noise can be told from."""
MEDIAN_RADIUS = 1.1774
"""Median distance from the centre of a two-dimensional normal distribution, in standard deviations."""


@dataclass(frozen=True)
class FocalPrior:
    """What is known about the focal length before looking at the motion."""

    focal: float
    """Pixels of the flow."""
    spread: float
    """Standard deviation of its logarithm; 0 holds it fixed."""
    bounds: tuple[float, float]
    """Pixels of the flow. Steps end here."""


@dataclass(frozen=True)
class Adjusted:
    state: State
    noise: Float64[np.ndarray, "n"]
    """Standard deviation of a directly looked up position by frame, pixels of the flow."""
    focal_std: float
    """Of the logarithm of the focal length, prior included."""
    cost: float


def adjust(
    tracks: Tracks,
    start: State,
    prior: FocalPrior,
    held: Bool[np.ndarray, "n"],
    rounds: int = 6,
    steps: int = 4,
    width: float = 3.0,
    free_depth: bool = True,
) -> Adjusted:
    """Refine `start`.

    Args:
        held: frames whose pose stays as it is: at least one, which fixes the world. The scale is left to damping.
        rounds: times the scale of the errors is taken anew.
        steps: most Levenberg-Marquardt steps a round.
        width: of the robust cost, in standard deviations.
        free_depth: False holds the inverse depths: all 0 is a camera that only turns.
    """
    problem = _Problem(tracks, prior, held, width, free_depth)
    state, cost, damping = minimise(problem, start, rounds, steps)
    equations = linearise(tracks, state, problem.scale, damping, free_depth)
    return Adjusted(state, problem.noise, _focal_std(equations, prior, held), cost)


class _Problem:
    """See `levenberg_marquardt.Problem`; arguments are those of `adjust`."""

    def __init__(
        self, tracks: Tracks, prior: FocalPrior, held: Bool[np.ndarray, "n"], width: float, free_depth: bool
    ) -> None:
        self._tracks, self._prior, self._held = tracks, prior, held
        self._width, self._free_depth = width, free_depth
        self.scale = RobustScale(np.ones(tracks.target.shape), width)
        self.noise = np.ones(tracks.num_frames)

    def begin_round(self, state: State) -> float:
        errors = squared_errors(self._tracks, state)
        self.noise = noise_by_frame(self._tracks, errors)
        self.scale = RobustScale(pair_noise(self._tracks, self.noise), self._width)
        return robust_cost(self._tracks, errors, self.scale) + focal_prior_cost(state.focal, self._prior)

    def step(self, state: State, damping: float) -> State | None:
        equations = linearise(self._tracks, state, self.scale, damping, self._free_depth)
        return _step(equations, self._tracks, state, self._prior, self._held, damping)

    def cost(self, state: State) -> float:
        errors = squared_errors(self._tracks, state)
        return robust_cost(self._tracks, errors, self.scale) + focal_prior_cost(state.focal, self._prior)


def noise_by_frame(tracks: Tracks, errors: Float64[np.ndarray, "a k p"]) -> Float64[np.ndarray, "n"]:
    """Standard deviation of a directly looked up position, from the median error of all that each frame takes part in.

    By frame, because a frame whose pose is still off must not be shut out by the accuracy of all others, and a
    blurred frame counts less.
    """
    with np.errstate(invalid="ignore"):
        normalised = np.sqrt(errors / tracks.hops[:, None])
    noise = np.full(tracks.num_frames, np.nan)
    for j in range(tracks.num_frames):
        a, slot = np.nonzero((tracks.target == j) | ((tracks.anchor == j)[:, None] & (tracks.target >= 0)))
        weight, values = tracks.weight[a, slot], normalised[a, slot]
        for least in (0.5, 0.0):  # sharp static positions if there are some, else all
            if (weight > least).sum() >= MIN_POSITIONS:
                noise[j] = np.median(values[weight > least]) / MEDIAN_RADIUS
                break
    typical = np.nanmedian(noise) if np.isfinite(noise).any() else SIGMA_FLOOR
    return np.maximum(np.where(np.isfinite(noise), noise, typical), SIGMA_FLOOR)


def pair_noise(tracks: Tracks, noise: Float64[np.ndarray, "n"]) -> Float64[np.ndarray, "a k"]:
    """Standard deviation of the positions that each target sees of each anchor: the noisier frame's, grown with the
    number of hops."""
    return np.maximum(noise[tracks.anchor][:, None], noise[tracks.target]) * np.sqrt(tracks.hops)


def focal_prior_cost(focal: float, prior: FocalPrior) -> float:
    """What a focal length costs by what was known before; 0 where it is held."""
    return 0.0 if prior.spread == 0 else CORRELATED * (np.log(focal / prior.focal) / prior.spread) ** 2


def _step(
    equations: NormalEquations,
    tracks: Tracks,
    state: State,
    prior: FocalPrior,
    held: Bool[np.ndarray, "n"],
    damping: float,
) -> State | None:
    solved = solve_cameras(equations, held, damping)
    if solved is None:
        return None
    from_gradient, from_focal = solved[..., 0], solved[..., 1]
    column = np.where(held[:, None], 0, equations.focal_column)
    focal_step = 0.0
    if prior.spread > 0:
        weight = CORRELATED / prior.spread**2
        diagonal = equations.focal_diagonal * (1 + damping) + weight
        gradient = equations.focal_gradient + weight * np.log(state.focal / prior.focal)
        focal_step = -(gradient - (column * from_gradient).sum()) / max(diagonal - (column * from_focal).sum(), 1e-12)
        focal_step = float(np.clip(focal_step, -0.3, 0.3))
    focal = float(np.clip(state.focal * np.exp(focal_step), *prior.bounds))
    focal_step = float(np.log(focal / state.focal))
    camera_step = -from_gradient - focal_step * from_focal
    return moved(state, camera_step, focal, point_step(equations, tracks, camera_step, focal_step))


def solve_cameras(
    equations: NormalEquations, held: Bool[np.ndarray, "n"], damping: float
) -> Float64[np.ndarray, "n 6 h"] | None:
    """H^-1 times the gradient, the focal column and further columns, camera blocks only; None where H is not positive
    definite."""
    n, width = equations.band.shape[:2]
    band = equations.band.copy()
    index = np.arange(6)
    floor = 1e-9 * max(float(equations.diagonal.max()), 1e-12)
    band[:, 0, index, index] += damping * equations.diagonal + floor
    band[held] = 0
    for distance in range(1, width):
        band[: n - distance][held[distance:], distance] = 0
    band[held, 0] = np.eye(6)
    lower = np.zeros((6 * width, 6 * n))
    for distance in range(width):
        for row in range(6):
            for column in range(6):
                below = 6 * distance + column - row
                if below >= 0:
                    lower[below, row : 6 * (n - distance) : 6] = band[: n - distance, distance, row, column]
    right = np.stack((equations.gradient, equations.focal_column), axis=-1)
    right = np.concatenate((right, equations.extra_columns), axis=-1)
    right[held] = 0
    try:
        solution = scipy.linalg.solveh_banded(lower, right.reshape(6 * n, -1), lower=True, check_finite=False)
    except np.linalg.LinAlgError:
        return None
    return solution.reshape(n, 6, -1)


def _focal_std(equations: NormalEquations, prior: FocalPrior, held: Bool[np.ndarray, "n"]) -> float:
    if prior.spread == 0:
        return 0.0
    solved = solve_cameras(equations, held, 1e-7)
    if solved is None:
        return prior.spread
    column = np.where(held[:, None], 0, equations.focal_column)
    information = max(equations.focal_diagonal - float((column * solved[..., 1]).sum()), 0) / CORRELATED
    return float((information + prior.spread**-2) ** -0.5)
