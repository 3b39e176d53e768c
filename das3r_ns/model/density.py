"""Density control: more Gaussians where the static scene asks for them, none where objects move.

gsplat's strategy with three changes. Growth is driven by the static-weighted gradient alone, which comes for free:
the loss already gives moving pixels no say. The number of Gaussians has a ceiling, spent on the largest gradients.
And a Gaussian is judged by the opacity it is rendered with, staticness included. The running sums are kept without
waiting for the host, which gsplat's own do in every step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from gsplat.strategy import DefaultStrategy
from gsplat.strategy.base import Strategy
from gsplat.strategy.ops import duplicate, remove, reset_opa, split
from jaxtyping import Bool, Float
from torch import Tensor, nn

Params = dict[str, nn.Parameter] | nn.ParameterDict
Optimizers = dict[str, torch.optim.Optimizer]


class FixedDensity(Strategy):
    """The Gaussians of the start, no more and no fewer (the published recipe)."""

    absgrad = False

    def initialize_state(self, scene_scale: float = 1.0) -> dict[str, Any]:
        """Nothing to keep."""
        del scene_scale
        return {}

    def step_pre_backward(self, *args: Any, **kwargs: Any) -> None:
        """Nothing to do."""

    def step_post_backward(self, *args: Any, **kwargs: Any) -> None:
        """Nothing to do."""


@dataclass
class StaticDensity(DefaultStrategy):
    """Growth, pruning and opacity resets of the static scene. Fields as in gsplat's `DefaultStrategy`."""

    max_gaussians: int = 1_000_000
    """Never more Gaussians than this."""

    def step_pre_backward(
        self, params: Params, optimizers: Optimizers, state: dict[str, Any], step: int, info: dict[str, Any]
    ) -> None:
        """The rasterizer keeps the gradient of the projected means already."""

    def step_post_backward(
        self,
        params: Params,
        optimizers: Optimizers,
        state: dict[str, Any],
        step: int,
        info: dict[str, Any],
        packed: bool = False,
    ) -> None:
        """Add this step to the running sums; every `refine_every` steps grow and prune."""
        if step >= self.refine_stop_iter:
            return
        self._update_state(params, state, info, packed)
        since_reset = step % self.reset_every if step >= self.reset_every else step
        if step > self.refine_start_iter and step % self.refine_every == 0:
            if since_reset >= self.pause_refine_after_reset:
                self._grow_gs(params, optimizers, state, step)
                self._prune_gs(params, optimizers, state, step)
            state["grad2d"].zero_()
            state["count"].zero_()
        if step > 0 and step % self.reset_every == 0:
            reset_opa(params=params, optimizers=optimizers, state=state, value=self.prune_opa * 2)

    def _update_state(self, params: Params, state: dict[str, Any], info: dict[str, Any], packed: bool = False) -> None:
        del packed
        means2d = info["means2d"]
        gradient = means2d.absgrad if self.absgrad else means2d.grad
        if gradient is None:
            return  # nothing was in view
        # Gradients in screen units, where the image spans -1 .. 1. Scalars, because a tensor made here would have to
        # wait for the host.
        x = gradient[..., 0] * (info["width"] / 2 * info["n_cameras"])
        y = gradient[..., 1] * (info["height"] / 2 * info["n_cameras"])
        visible = info["radii"] > 0
        norm = torch.hypot(x, y) * visible
        if state["grad2d"] is None:
            state["grad2d"] = torch.zeros(len(params["means"]), device=params["means"].device)
            state["count"] = torch.zeros_like(state["grad2d"])
        # Moved after the sums: the CPU may have drawn Gaussians that are on a GPU.
        state["grad2d"] += norm.sum(dim=0).to(state["grad2d"].device)
        state["count"] += visible.sum(dim=0).to(state["count"].device)

    @torch.no_grad()
    def _grow_gs(self, params: Params, optimizers: Optimizers, state: dict[str, Any], step: int) -> tuple[int, int]:
        gradient = state["grad2d"] / state["count"].clamp_min(1)
        room = self.max_gaussians - len(gradient)
        if room <= 0:
            return 0, 0
        grows = gradient > self.grow_grad2d
        if int(grows.sum()) > room:
            grows = torch.zeros_like(grows)
            grows[gradient.topk(room).indices] = True
        large = params["scales"].amax(dim=-1).exp() > self.grow_scale3d * state["scene_scale"]
        duplicated, halved = grows & ~large, grows & large
        num_duplicated, num_halved = int(duplicated.sum()), int(halved.sum())
        if num_duplicated > 0:
            duplicate(params=params, optimizers=optimizers, state=state, mask=duplicated)
            halved = torch.cat((halved, halved.new_zeros(num_duplicated)))
        if num_halved > 0:
            split(params=params, optimizers=optimizers, state=state, mask=halved)
        return num_duplicated, num_halved

    @torch.no_grad()
    def _prune_gs(self, params: Params, optimizers: Optimizers, state: dict[str, Any], step: int) -> int:
        doomed = effective_opacity(params) < self.prune_opa
        doomed |= params["scales"].amax(dim=-1).exp() > self.prune_scale3d * state["scene_scale"]
        return prune(params, optimizers, state, doomed)


def effective_opacity(params: Params) -> Float[Tensor, "n"]:
    """Opacity a Gaussian is rendered with: its own times its staticness."""
    opacity = torch.sigmoid(params["opacities"].flatten())
    return opacity * torch.sigmoid(params["staticness"].flatten()) if "staticness" in params else opacity


@torch.no_grad()
def prune(params: Params, optimizers: Optimizers, state: dict[str, Any], doomed: Bool[Tensor, "n"]) -> int:
    """Remove Gaussians with everything that belongs to them; at least one is kept. Returns how many went."""
    count = int(doomed.sum())
    if count == len(doomed):
        doomed = doomed.clone()
        doomed[effective_opacity(params).argmax()] = False
        count -= 1
    if count > 0:
        remove(params=params, optimizers=optimizers, state=state, mask=doomed)
    return count


@torch.no_grad()
def append(params: Params, optimizers: Optimizers, state: dict[str, Any], new: dict[str, Tensor]) -> int:
    """Add Gaussians, which the optimizers have never moved; returns how many.

    Args:
        new: a value for each entry of `params`.
    """
    before, count = len(params["means"]), len(new["means"])
    if count == 0:
        return 0
    for name, old in list(params.items()):
        added = new[name].to(old)
        parameter = nn.Parameter(torch.cat((old.detach(), added)), old.requires_grad)
        params[name] = parameter
        optimizer = optimizers.get(name)
        if optimizer is None:
            continue
        moments = optimizer.state.pop(old, {})
        for key, value in moments.items():
            if isinstance(value, Tensor) and value.shape == old.shape:
                moments[key] = torch.cat((value, torch.zeros_like(added)))
        if moments:
            optimizer.state[parameter] = moments
        for group in optimizer.param_groups:
            group["params"] = [parameter if p is old else p for p in group["params"]]
    for key, value in state.items():
        if isinstance(value, Tensor) and value.ndim > 0 and len(value) == before:
            state[key] = torch.cat((value, value.new_zeros(count, *value.shape[1:])))
    return count
