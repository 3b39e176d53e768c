"""Parts of a long clip laid out so that all known similarities between them fit best (a pose graph over Sim(3)).

A part is a window of the network predictor or a keyframe of the geometric one, each with a world and a scale of its
own. Neighbours are tied by what they share; ties between parts far apart in time close loops.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from das3r_ns import geometry

MAX_TURN = math.radians(5)
MAX_SHIFT = 0.1
"""As a share of the typical depth."""
MAX_STRETCH = math.log(1.15)
LOOP_TRUST = 0.05
"""Size of an error (radians, share of depth, log scale) above which a loop's pull stops growing with it."""
MAX_STEPS = 50
STEP = 1e-6
"""Of the numerical derivatives: the errors are in double precision and of the order of 1."""


@dataclass(frozen=True)
class PoseGraphEdge:
    """A measured similarity between the worlds of two parts."""

    a: int
    b: int
    T_a_b: Float[Tensor, "4 4"]
    """In single or in double precision."""

    def agrees(self, other: PoseGraphEdge, typical_depth: float) -> bool:
        """Whether two measurements of the same tie say the same: 5 degrees, 15 % in scale, 10 % of the depth."""
        error = similarity_log(geometry.invert(self.T_a_b) @ other.T_a_b, typical_depth)
        turn, shift, stretch = error[:3].norm(), error[3:6].norm(), error[6].abs()
        return bool(turn < MAX_TURN and shift < MAX_SHIFT and stretch < MAX_STRETCH)


def similarity_log(T: Float[Tensor, "*n 4 4"], typical_depth: float) -> Float[Tensor, "*n 7"]:
    """How far similarities are from the identity: rotation vector, translation over the typical depth, log scale."""
    import roma  # not above: see `geometry.similarity`

    log_scale = torch.linalg.det(T[..., :3, :3]).log() / 3
    rotation = roma.special_procrustes(T[..., :3, :3])
    return torch.cat([roma.rotmat_to_rotvec(rotation), T[..., :3, 3] / typical_depth, log_scale[..., None]], dim=-1)


def similarity_exp(code: Float[Tensor, "*n 7"], typical_depth: float) -> Float[Tensor, "*n 4 4"]:
    """The inverse of `similarity_log`."""
    import roma

    T = torch.zeros(*code.shape[:-1], 4, 4, dtype=code.dtype)
    T[..., :3, :3] = code[..., 6, None, None].exp() * roma.rotvec_to_rotmat(code[..., :3])
    T[..., :3, 3] = code[..., 3:6] * typical_depth
    T[..., 3, 3] = 1
    return T


def optimize_pose_graph(num_parts: int, ties: list[PoseGraphEdge], typical_depth: float) -> Float[Tensor, "k 4 4"]:
    """T_world_part of every part; the world is that of part 0.

    Neighbours are chained first. With further ties, all parts but the first are adjusted by robust least squares
    (`soft_l1`, Levenberg-Marquardt) over every tie's error, in units of radians, typical depths and log scale. The
    normal equations are sparse, so time grows about with the number of ties.
    """
    chain = {tie.a: tie.T_a_b.double() for tie in ties if tie.b == tie.a + 1}
    placed = [torch.eye(4, dtype=torch.float64)]
    for a in range(num_parts - 1):
        placed.append(placed[-1] @ chain[a])
    T = torch.stack(placed)
    if all(tie.b == tie.a + 1 for tie in ties):
        return T.to(ties[0].T_a_b.dtype)
    graph = _Graph.of(ties, typical_depth)
    cost, damping = _cost(graph.errors(T)), 1e-6
    for _ in range(MAX_STEPS):
        trial = T @ similarity_exp(graph.step(T, damping), typical_depth)
        trial_cost = _cost(graph.errors(trial))
        if trial_cost >= cost:
            if damping > 1e3:
                break
            damping *= 10
            continue
        gain, T, cost, damping = 1 - trial_cost / cost, trial, trial_cost, damping / 5
        if gain < 1e-9:
            break
    return T.to(ties[0].T_a_b.dtype)


@dataclass(frozen=True)
class _Graph:
    """Ties as arrays."""

    a: Tensor
    b: Tensor
    T_b_a: Float64[Tensor, "m 4 4"]
    typical_depth: float

    @classmethod
    def of(cls, ties: list[PoseGraphEdge], typical_depth: float) -> _Graph:
        T_a_b = torch.stack([tie.T_a_b.double() for tie in ties])
        a, b = (torch.tensor([getattr(tie, end) for tie in ties]) for end in ("a", "b"))
        return cls(a, b, geometry.invert(T_a_b), typical_depth)

    def errors(self, T: Float64[Tensor, "k 4 4"]) -> Float64[Tensor, "m 7"]:
        return self._missed(T[self.a], T[self.b])

    def step(self, T: Float64[Tensor, "k 4 4"], damping: float) -> Float64[Tensor, "k 7"]:
        """What each part is moved by, in its own axes, as a code of `similarity_exp`; nothing for part 0."""
        from scipy.sparse import coo_matrix
        from scipy.sparse.linalg import spsolve

        error = self.errors(T).numpy()
        m, k = len(error), len(T)
        values, columns = np.empty((m, 7, 14)), np.empty((m, 14), np.int64)
        small = similarity_exp(STEP * torch.eye(7, dtype=torch.float64), self.typical_depth)
        for end, part in enumerate((self.a, self.b)):
            columns[:, 7 * end : 7 * end + 7] = 7 * part.numpy()[:, None] + np.arange(7)
            for code in range(7):
                moved = [T[self.a], T[self.b]]
                moved[end] = moved[end] @ small[code]
                values[:, :, 7 * end + code] = (self._missed(*moved).numpy() - error) / STEP
        root = (1 + np.square(error / LOOP_TRUST)) ** -0.25  # of the weights of soft_l1
        rows = np.broadcast_to(np.arange(7 * m).reshape(m, 7, 1), values.shape)
        places = (rows.ravel(), np.broadcast_to(columns[:, None], values.shape).ravel())
        jacobian = coo_matrix(((values * root[..., None]).ravel(), places), (7 * m, 7 * k)).tocsc()[:, 7:]
        normal = (jacobian.T @ jacobian).tocsc()
        normal.setdiag(normal.diagonal() * (1 + damping) + 1e-12)
        found = np.asarray(spsolve(normal, -jacobian.T @ (error * root).ravel()))
        return torch.from_numpy(np.concatenate((np.zeros(7), found)).reshape(k, 7))

    def _missed(self, T_a: Float64[Tensor, "m 4 4"], T_b: Float64[Tensor, "m 4 4"]) -> Float64[Tensor, "m 7"]:
        return similarity_log(self.T_b_a @ geometry.invert(T_a) @ T_b, self.typical_depth)


def _cost(errors: Float64[Tensor, "m 7"]) -> float:
    return float(((1 + (errors / LOOP_TRUST).square()).sqrt() - 1).sum())
