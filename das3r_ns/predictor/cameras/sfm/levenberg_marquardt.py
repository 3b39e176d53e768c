"""The search that both bundle adjustments share, with and without a lens: Levenberg-Marquardt on a robust cost whose
scale is taken from the data anew in every round."""

from __future__ import annotations

from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Float64
from scipy.spatial.transform import Rotation

from das3r_ns.predictor.cameras.sfm.normal_equations import State

FIRST_DAMPING, MIN_DAMPING, MAX_DAMPING = 1e-3, 1e-7, 1e3
"""Levenberg-Marquardt's lambda, as a share of the diagonal."""
MIN_GAIN = 1e-4
"""Share of the cost. A step that gains less ends a round."""

Unknowns = TypeVar("Unknowns")


@runtime_checkable
class Problem(Protocol[Unknowns]):
    """What is minimised."""

    def begin_round(self, unknowns: Unknowns, /) -> float:
        """Take the scale of the errors from the data anew; the cost by it."""
        ...

    def step(self, unknowns: Unknowns, damping: float, /) -> Unknowns | None:
        """Where a damped Gauss-Newton step leads; None where there is none."""
        ...

    def cost(self, unknowns: Unknowns, /) -> float:
        """The cost by the scale of this round."""
        ...


def minimise(problem: Problem[Unknowns], start: Unknowns, rounds: int, steps: int) -> tuple[Unknowns, float, float]:
    """The best unknowns, their cost by the last scale, and the damping that was reached.

    Args:
        rounds: times the scale of the errors is taken anew.
        steps: most steps a round.
    """
    unknowns, damping, cost = start, FIRST_DAMPING, float("nan")
    for _ in range(rounds):
        cost = problem.begin_round(unknowns)
        for _ in range(steps):
            trial = problem.step(unknowns, damping)
            trial_cost = np.inf if trial is None else problem.cost(trial)
            if trial is None or not trial_cost < cost:
                damping = min(damping * 10, MAX_DAMPING)
                continue
            gain, unknowns, cost = 1 - trial_cost / max(cost, 1e-300), trial, trial_cost
            damping = max(damping / 5, MIN_DAMPING)
            if gain < MIN_GAIN:
                break
    return unknowns, cost, damping


def moved(
    state: State, camera_step: Float64[np.ndarray, "n 6"], focal: float, depth_step: Float64[np.ndarray, "a p"]
) -> State:
    """The state after a step: poses are perturbed from the left, inverse depths stay 0 or more."""
    T = state.T_camera_world.copy()
    T[:, :3] = Rotation.from_rotvec(camera_step[:, 3:]).as_matrix() @ T[:, :3]
    T[:, :3, 3] += camera_step[:, :3]
    return State(T, focal, np.maximum(state.inverse_depth + depth_step, 0))
