"""Learning rate of the published recipe: linear warm-up, then half a cosine."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass
class OptimConfig:
    """AdamW and its learning rate. The defaults are the published ones."""

    learning_rate: float = 5e-5
    """Highest learning rate, reached after the warm-up. From scratch 1e-4 to 5e-4 suits small networks."""
    min_learning_rate: float = 1e-6
    """Learning rate at the end of the last epoch."""
    warmup_epochs: float = 3.0
    """Epochs of linear rise from 0. May be a fraction."""
    epochs: int = 50
    """Epochs of `--data.pairs-per-epoch` pairs."""
    weight_decay: float = 0.05
    """Of weights with two or more dimensions; biases and norms have none."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's decay rates of the gradient's mean and square."""
    max_grad_norm: float = 0.0
    """Gradients longer than this are shortened to it. 0 (published): never."""
    ema_decay: float = 0.0
    """Average the learned weights over about 1 / (1 - ema_decay) steps; the average is validated and written. 0 turns
    it off."""

    def __post_init__(self) -> None:
        if not 0 < self.min_learning_rate <= self.learning_rate:
            raise ValueError(
                f"learning rates are {self.learning_rate} and at the end {self.min_learning_rate}: "
                "expected 0 < min_learning_rate <= learning_rate"
            )
        if self.epochs < 1 or not 0 <= self.warmup_epochs < self.epochs:
            raise ValueError(
                f"{self.warmup_epochs} epochs of warm-up do not fit into {self.epochs} epochs: "
                "lower --optim.warmup-epochs"
            )
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay is {self.ema_decay}; expected 0 (off) or a number below 1 such as 0.999")


def learning_rate(epoch: float, config: OptimConfig) -> float:
    """Learning rate at a point of training, in epochs (a fraction within one)."""
    if epoch < config.warmup_epochs:
        return config.learning_rate * epoch / config.warmup_epochs
    progress = min((epoch - config.warmup_epochs) / (config.epochs - config.warmup_epochs), 1.0)
    span = config.learning_rate - config.min_learning_rate
    return config.min_learning_rate + span * 0.5 * (1 + math.cos(math.pi * progress))
