"""A running average of the learned weights (EMA), which often beats the weights themselves."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class WeightAverage:
    """Exponential moving average of parameters, by name."""

    def __init__(self, learning: dict[str, nn.Parameter], decay: float) -> None:
        self.learning, self.decay = learning, decay
        self.average = {name: parameter.detach().clone() for name, parameter in learning.items()}
        self._kept: dict[str, Tensor] = {}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the average towards the weights. Early on it moves faster, or it would stay at the start."""
        decay = min(self.decay, (1 + step) / (10 + step))
        current = [parameter.detach() for parameter in self.learning.values()]
        torch._foreach_lerp_(list(self.average.values()), current, 1 - decay)

    def restore(self, average: dict[str, Tensor]) -> None:
        """Take over an average that a checkpoint kept."""
        for name, values in self.average.items():
            values.copy_(average[name])

    def __enter__(self) -> None:
        """Within the block, the network computes with the average."""
        self._kept = {name: parameter.detach().clone() for name, parameter in self.learning.items()}
        _copy(self.average, self.learning)

    def __exit__(self, *_: object) -> None:
        _copy(self._kept, self.learning)
        self._kept = {}


@torch.no_grad()
def _copy(source: dict[str, Tensor], target: dict[str, nn.Parameter]) -> None:
    for name, parameter in target.items():
        parameter.copy_(source[name])
