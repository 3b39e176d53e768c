"""Windows of a long clip laid out so that all known similarities between them fit best (a pose graph over Sim(3))."""

from __future__ import annotations

import math
from dataclasses import dataclass

import roma
import torch
from jaxtyping import Float
from torch import Tensor

from das3r_ns import geometry

MAX_TURN = math.radians(5)
MAX_SHIFT = 0.1
"""As a share of the typical depth."""
MAX_STRETCH = math.log(1.15)
LOOP_TRUST = 0.05
"""Size of an error (radians, share of depth, log scale) above which a loop's pull stops growing with it."""


@dataclass(frozen=True)
class Tie:
    """A measured similarity between the worlds of two windows."""

    a: int
    b: int
    T_a_b: Float[Tensor, "4 4"]

    def agrees(self, other: Tie, typical_depth: float) -> bool:
        """Whether two measurements of the same tie say the same: 5 degrees, 15 % in scale, 10 % of the depth."""
        error = similarity_log(geometry.invert(self.T_a_b) @ other.T_a_b, typical_depth)
        turn, shift, stretch = error[:3].norm(), error[3:6].norm(), error[6].abs()
        return bool(turn < MAX_TURN and shift < MAX_SHIFT and stretch < MAX_STRETCH)


def similarity_log(T: Float[Tensor, "4 4"], typical_depth: float) -> Float[Tensor, "7"]:
    """How far a similarity is from the identity: rotation vector, translation over the typical depth, log scale."""
    log_scale = torch.linalg.det(T[:3, :3]).log() / 3
    rotation = roma.special_procrustes(T[:3, :3])
    return torch.cat([roma.rotmat_to_rotvec(rotation), T[:3, 3] / typical_depth, log_scale[None]])


def similarity_exp(code: Float[Tensor, "7"], typical_depth: float) -> Float[Tensor, "4 4"]:
    """The inverse of `similarity_log`."""
    T = torch.eye(4, dtype=code.dtype)
    T[:3, :3] = code[6].exp() * roma.rotvec_to_rotmat(code[:3])
    T[:3, 3] = code[3:6] * typical_depth
    return T


def close_loops(num_windows: int, ties: list[Tie], typical_depth: float) -> Float[Tensor, "k 4 4"]:
    """T_world_window of every window; the world is that of window 0.

    Neighbours are chained first. With further ties, all windows but the first are adjusted by robust least squares
    over every tie's error, in units of radians, typical depths and log scale.
    """
    chain = {tie.a: tie.T_a_b.double() for tie in ties if tie.b == tie.a + 1}
    T = [torch.eye(4, dtype=torch.float64)]
    for a in range(num_windows - 1):
        T.append(T[-1] @ chain[a])
    if all(tie.b == tie.a + 1 for tie in ties):
        return torch.stack(T).float()

    from scipy.optimize import least_squares

    measured = [(tie.a, tie.b, geometry.invert(tie.T_a_b.double())) for tie in ties]

    def placed(codes: Tensor) -> list[Tensor]:
        moved = [T[k + 1] @ similarity_exp(code, typical_depth) for k, code in enumerate(codes)]
        return [T[0], *moved]

    def errors(flat):
        now = placed(torch.from_numpy(flat).view(-1, 7))
        missed = [similarity_log(T_b_a @ geometry.invert(now[a]) @ now[b], typical_depth) for a, b, T_b_a in measured]
        return torch.cat(missed).numpy()

    start = torch.zeros(7 * (num_windows - 1), dtype=torch.float64).numpy()
    solved = least_squares(errors, start, loss="soft_l1", f_scale=LOOP_TRUST)
    return torch.stack(placed(torch.from_numpy(solved.x).view(-1, 7))).float()
