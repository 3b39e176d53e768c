"""Learning rates over the steps, and the Adam that follows them.

Nerfstudio's own exponential schedule leaves NumPy numbers in the checkpoint, which `torch.load` refuses since torch
2.6; ours computes with Python floats. The formula is the one of 3D Gaussian splatting: a straight line between the
logarithms of the first and the last rate.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from nerfstudio.engine.optimizers import AdamOptimizerConfig
from nerfstudio.engine.schedulers import Scheduler, SchedulerConfig
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from das3r_ns.files.saved_config import SavedConfig

TORCH_VERSION = tuple(int(part) for part in torch.__version__.split(".")[:2])


def log_linear(step: int, first: float, last: float, num_steps: int) -> float:
    """Learning rate at `step`: `first` at step 0, `last` from `num_steps` on, a straight line in log between."""
    t = min(max(step / num_steps, 0.0), 1.0)
    return math.exp((1 - t) * math.log(first) + t * math.log(last))


@dataclass
class LogLinearSchedulerConfig(SavedConfig, SchedulerConfig):
    """From the optimizer's learning rate down to `lr_final`, log-linearly, after an optional wait and hold."""

    _target: type = field(default_factory=lambda: LogLinearScheduler)
    lr_final: float = 1e-6
    """Learning rate from `max_steps` on."""
    max_steps: int = 30000
    """Steps until `lr_final` is reached."""
    start_step: int = 0
    """Steps at the start during which the learning rate is 0: what the group refines has to settle first."""
    hold_until: int = 0
    """Step until which the learning rate stays what it is at the start, before it begins to fall."""


class LogLinearScheduler(Scheduler):
    """The schedule of `log_linear` as a torch scheduler."""

    config: LogLinearSchedulerConfig

    def get_scheduler(self, optimizer: Optimizer, lr_init: float) -> LambdaLR:
        """Scheduler that multiplies the optimizer's learning rate. Its state holds Python numbers only."""
        config = self.config

        def factor(step: int) -> float:
            if step < config.start_step:
                return 0.0
            falling = max(config.max_steps - config.hold_until, 1)
            return log_linear(step - config.hold_until, lr_init, config.lr_final, falling) / lr_init

        return LambdaLR(optimizer, factor)


@dataclass
class FusedAdamConfig(SavedConfig, AdamOptimizerConfig):
    """Adam in one kernel. eps as in 3D Gaussian splatting, whose gradients are tiny."""

    _target: type = field(default_factory=lambda: FusedAdam)
    eps: float = 1e-15
    """Added to the root of the second moment."""
    weight_decay: float = 0.0
    """Pull of the parameters to zero."""

    def setup(self, params: Iterable[torch.nn.Parameter]) -> torch.optim.Adam:
        """Build the optimizer for `params`."""
        params = list(params)
        # Before torch 2.4 the fused kernel was for GPUs only.
        has_kernel = ("cuda", "cpu") if TORCH_VERSION >= (2, 4) else ("cuda",)
        fused = all(p.device.type in has_kernel for p in params)
        return self._target(params, lr=self.lr, eps=self.eps, weight_decay=self.weight_decay, fused=fused)


@dataclass
class GatedAdamConfig(FusedAdamConfig):
    """Adam whose steps can be refused without asking the host: see `GatedAdam`."""

    _target: type = field(default_factory=lambda: GatedAdam)


class FusedAdam(torch.optim.Adam):
    """torch's fused Adam without what surrounds the kernel.

    A step of the training has nine optimizers, and hooks, profiler and grouping of each take several times as long as
    the kernel. Whatever is out of the ordinary (first step, closure, gradients scaled for half precision, not fused)
    goes torch's own way, and the numbers are torch's in every case.
    """

    @torch.no_grad()
    def step(self, closure=None):  # type: ignore[override]
        """See `torch.optim.Adam.step`."""
        groups = []
        scaled = getattr(self, "grad_scale", None) is not None or getattr(self, "found_inf", None) is not None
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            states = [self.state.get(p) for p in params]
            ordinary = group["fused"] and not group["amsgrad"] and not group["maximize"] and not group["differentiable"]
            if closure is not None or scaled or not ordinary or not all(states) or len({p.device for p in params}) > 1:
                return super().step(closure)
            groups.append((group, params, states))
        for group, params, states in groups:
            if params:
                _take_fused_step(group, params, states)
        return None

    step.hooked = True  # type: ignore[attr-defined]  # torch wraps a step that does not say so in its profiler

    def zero_grad(self, set_to_none: bool = True) -> None:
        """See `torch.optim.Optimizer.zero_grad`."""
        if not set_to_none:
            return super().zero_grad(set_to_none)
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None


def _take_fused_step(group: dict[str, Any], params: list[Tensor], states: list[Any]) -> None:
    counts = [state["step"] for state in states]
    torch._foreach_add_(counts, 1)
    torch._fused_adam_(  # type: ignore[call-overload]
        params,
        [p.grad for p in params if p.grad is not None],
        [state["exp_avg"] for state in states],
        [state["exp_avg_sq"] for state in states],
        [],
        counts,
        lr=group["lr"],
        beta1=group["betas"][0],
        beta2=group["betas"][1],
        weight_decay=group["weight_decay"],
        eps=group["eps"],
        amsgrad=False,
        maximize=False,
    )


class GatedAdam(torch.optim.Adam):
    """Adam that takes a step only where `gate` says so.

    The gate is a tensor, so refusing a step needs no word from the GPU to the host. A refused step leaves parameters
    and moments as they were: the gradient is thrown away. Meant for few, small parameters, which it copies.
    """

    gate: Tensor | None = None
    """A boolean without dimensions; None takes every step."""

    @torch.no_grad()
    def step(self, closure=None):  # type: ignore[override]
        """Take the step, then put everything back where the gate is closed."""
        if self.gate is None:
            return super().step(closure)
        stepped = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        before = [(p.clone(), {k: v.clone() for k, v in self.state[p].items()}) for p in stepped]
        loss = super().step(closure)
        for p, (value, state) in zip(stepped, before):
            p.copy_(torch.where(self.gate, p, value))
            for key, new in self.state[p].items():
                old = state[key] if key in state else torch.zeros_like(new)
                new.copy_(torch.where(self.gate.to(new.device), new, old))
        return loss
