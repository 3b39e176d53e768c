"""The descent: Adam on a subset of the pixels for cameras, edges and focal length, then every pixel's depth exactly.

Once cameras and edges stand, the depth of a pixel is a problem in one unknown (the weighted geometric median along its
ray), which a few reweighted means solve. So the many steps run on 1/16 of the pixels, and the rest is one pass over
the data. `AlignmentConfig.published()` is the published procedure, step by step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from das3r_ns.predictor.network.alignment.objective import FlowObservations, Objective, Observations, evaluate
from das3r_ns.predictor.network.alignment.state import UNIT, AlignmentState
from das3r_ns.predictor.network.alignment.steps import Steps
from das3r_ns.predictor.network.settings import AlignmentConfig
from das3r_ns.runtime.progress import stage

MIN_DEPTH = 1e-6
LOOK_EVERY = 25
"""Steps between looks at the objective: each look makes the host wait for the device."""


@dataclass(frozen=True)
class Descent:
    """Where the steps led."""

    state: AlignmentState
    trace: Float[Tensor, "steps"]
    """Objective before each step taken."""


def descend(
    state: AlignmentState,
    observations: Observations,
    config: AlignmentConfig,
    frozen: frozenset[str] = frozenset({UNIT}),
    flow: Callable[[], FlowObservations] | None = None,
) -> Descent:
    """Lower the objective.

    Args:
        frozen: names of raw parameters of `AlignmentState` that are known and stay as they are. Either the unit or
            the cameras should be among them.
        flow: gives the flow observations; called once, when the flow term sets in.
    """
    tensors = {name: t.detach().clone() for name, t in state.tensors().items()}
    free = [t.requires_grad_(True) for name, t in tensors.items() if name not in frozen]
    state = state.with_tensors(**tensors)
    measured: FlowObservations | None = None

    def objective() -> Tensor:
        return evaluate(state, observations, config.smoothness_weight, measured, config.flow_weight).total

    steps = Steps(free, [config.rate(step) for step in range(config.num_steps)], objective, config.record_steps)
    flow_from = int(config.flow_start * config.num_steps)
    done = 0
    with stage(f"Aligning {observations.num_frames} frames", config.num_steps, "steps") as bar:
        for step in range(config.num_steps):
            if step == flow_from and flow is not None and config.flow_weight > 0:
                measured = flow()
                steps.forget()
            steps.take()
            done = step + 1
            if done % LOOK_EVERY == 0:
                bar.advance(LOOK_EVERY)
                bar.note(f"cost {steps.trace[step]:.4f}")
                if _converged(steps.trace, done, flow_from, config.tolerance):
                    break
    steps.forget()
    return Descent(state.with_tensors(**{k: t.detach() for k, t in tensors.items()}), steps.trace[:done])


def _converged(trace: Tensor, done: int, flow_from: int, tolerance: float) -> bool:
    """Whether the last 25 steps lowered the objective by less than the tolerated share, compared by their means."""
    if done < flow_from + 3 * LOOK_EVERY or tolerance == 0:
        return False
    before, after = trace[done - 2 * LOOK_EVERY : done].view(2, LOOK_EVERY).mean(1).tolist()
    return before - after < tolerance * before


@torch.no_grad()
def solve_depth(
    state: AlignmentState, observations: Observations, rounds: int = 15, sure: float = 1e-12
) -> Float[Tensor, "n p"]:
    """Depth of every pixel of `observations` that minimises its distances, cameras and edges given.

    Along a pixel's ray, prediction k of that pixel has its foot point at depth m_k and stands off by q_k; the sum of
    w_k sqrt(r (d - m_k)^2 + q_k^2), with r the squared length of the ray at depth 1, is minimised over d by reweighted
    means (Weiszfeld). A pixel that no pair predicts gets depth 0, unknown.
    """
    rotation, position = state.cameras()
    linear, offset = state.edge_similarities()
    focal = state.focal()
    views = (observations.first, observations.second)
    frames = [view.frame.tolist() for view in views]
    ones = torch.ones_like(observations.offsets[:1])
    depth = observations.offsets.new_zeros(observations.num_frames, observations.offsets.shape[1])
    for i in range(observations.num_frames):
        ray = torch.cat([observations.offsets / focal[i], ones])
        r = ray.square().sum(0)
        feet, stand_off, weight = [], [], []
        for view, of_view in zip(views, frames):
            own = [k for k, frame in enumerate(of_view) if frame == i]
            to_camera = rotation[i].T @ linear[own]
            shift = ((offset[own] - position[i]) @ rotation[i])[:, :, None]
            seen = torch.baddbmm(shift, to_camera, view.points[own])
            foot = (seen * ray).sum(1) / r
            feet.append(foot)
            stand_off.append((seen - foot[:, None] * ray).square().sum(1))
            weight.append(view.weight[own].clamp_min(1e-8))
        m, q, w = torch.cat(feet), torch.cat(stand_off), torch.cat(weight)
        if len(m) == 0:
            continue
        d = (w * m).sum(0) / w.sum(0)
        for _ in range(rounds):
            pull = w / (r * (d - m).square() + q).clamp_min(sure).sqrt()
            d = (pull * m).sum(0) / pull.sum(0)
        depth[i] = d.clamp_min(MIN_DEPTH)
    return depth


@torch.no_grad()
def objective_on_all_pixels(
    state: AlignmentState, observations: Observations, depth: Float[Tensor, "n p"], config: AlignmentConfig
) -> Objective:
    """The objective with the given depth, without the flow term: what runs are compared by."""
    whole = state.with_tensors(log_depth=depth.clamp_min(MIN_DEPTH).log())
    return evaluate(whole, observations, config.smoothness_weight)
