"""Random numbers of one generator, on its device."""

from __future__ import annotations

import math

import torch
from torch import Tensor

Number = float | int


def uniform(shape: tuple[int, ...], generator: torch.Generator, low: Number = 0, high: Number = 1) -> Tensor:
    """Evenly spread between two numbers."""
    return low + (high - low) * torch.rand(shape, generator=generator, device=generator.device)


def log_uniform(shape: tuple[int, ...], generator: torch.Generator, low: Number, high: Number) -> Tensor:
    """With a logarithm that is evenly spread: as many between 1 and 2 as between 10 and 20."""
    return torch.exp(uniform(shape, generator, math.log(low), math.log(high)))
