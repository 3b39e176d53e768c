"""A small world whose truth is known, for tests of what is built on pair predictions."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from das3r_ns import geometry
from das3r_ns.predictor.network.pairs import PairPredictions
from das3r_ns.predictor.network.settings import Edge, PairGraph
from das3r_ns.predictor.network.simulated_pairs import PairErrors, simulate_pairs

HEIGHT, WIDTH, FOCAL = 32, 48, 40.0
SMALL_ERRORS = PairErrors(smooth=0.005, noise=0.001, rotation_deg=0.1, translation=0.002)


class World:
    """A wavy wall at depth 3 to 5, seen by a camera that moves along x and turns; a square of it is dynamic.

    With `returns`, the camera goes back the way it came, so frames k and n - 1 - k see the same.
    """

    def __init__(self, num_frames: int, returns: bool = False) -> None:
        self.K = geometry.intrinsics(FOCAL, HEIGHT, WIDTH)
        self.T = torch.eye(4).repeat(num_frames, 1, 1)
        for k in range(num_frames):
            step = min(k, num_frames - 1 - k) if returns else k
            angle = torch.tensor(0.3 * np.sin(0.13 * step))
            self.T[k, 0, 0] = self.T[k, 2, 2] = angle.cos()
            self.T[k, 0, 2], self.T[k, 2, 0] = -angle.sin(), angle.sin()
            self.T[k, :3, 3] = torch.tensor([0.15 * step, 0.05 * np.sin(step), 0.1 * np.sin(0.3 * step)])
        self.depth = torch.stack([self._trace(T) for T in self.T])
        self.dynamic = torch.zeros_like(self.depth, dtype=torch.bool)
        self.dynamic[:, 10:20, 10:20] = True

    def _trace(self, T: torch.Tensor) -> torch.Tensor:
        rays = geometry.unproject(torch.ones(HEIGHT, WIDTH), self.K) @ T[:3, :3].T
        depth = torch.full((HEIGHT, WIDTH), 4.0)
        for _ in range(30):
            point = T[:3, 3] + depth[..., None] * rays
            wall = 4 + 0.5 * torch.sin(1.5 * point[..., 0]) + 0.4 * torch.cos(2 * point[..., 1])
            depth = depth + 0.7 * (wall - point[..., 2]) / rays[..., 2]
        return depth

    def pairs(self, edges: list[Edge] | None = None, errors: PairErrors = SMALL_ERRORS) -> PairPredictions:
        return self.predict(range(len(self.T)), edges or PairGraph().edges(len(self.T)), errors)

    def predict(self, frames: Sequence[int], edges: list[Edge], errors: PairErrors = SMALL_ERRORS) -> PairPredictions:
        """Stands in for the network; edges count within `frames`. Frames that see the same have alike descriptors."""
        chosen = list(frames)
        found = simulate_pairs(
            self.depth[chosen], self.dynamic[chosen], self.T[chosen], self.K, edges, errors, seed=chosen[0]
        )
        place = self.T[chosen, :1, 3]
        waves = torch.cat([torch.cat([(f * place).sin(), (f * place).cos()], dim=1) for f in (1.0, 2.0, 3.0)], dim=1)
        return replace(found, descriptors=waves)
