"""Many small kernels launched as one: CUDA graphs of the parts of a step whose shapes stay the same.

A step is made of hundreds of kernels of a few microseconds, and launching each from Python takes longer than running
it. What comes before and after the rasterizer does the same on tensors of the same shapes in every step, so it is
recorded once for each size of image, forward and backward, and then replayed with one launch each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from das3r_ns.runtime.cuda_graphs import capture

Function = Callable[..., tuple[Tensor, ...]]


class Graphed:
    """A function of tensors that is recorded on GPUs and called as it is elsewhere.

    The function must give tensors that depend on its arguments alone (and on numbers that never change), draw nothing
    at random and never wait for the GPU. What it returns is overwritten by the next call with arguments of the same
    shapes.
    """

    def __init__(self, function: Function, enabled: bool = True) -> None:
        self._function, self._enabled = function, enabled
        self._recorded: dict[Any, Function] = {}

    def __call__(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        """The function's result."""
        if not (self._enabled and arguments[0].is_cuda and torch.is_grad_enabled()):
            return self._function(*arguments)
        shapes = tuple((a.shape, a.dtype, a.requires_grad) for a in arguments)
        if shapes not in self._recorded:
            try:
                self._recorded[shapes] = self._record(arguments)
            except RuntimeError as e:  # another program on the same context may forbid it: slower, not wrong
                CONSOLE.log(f"Steps are not recorded as CUDA graphs ({e}); training goes on without, more slowly.")
                self._enabled = False
                return self._function(*arguments)
        return self._recorded[shapes](*arguments)

    def _record(self, arguments: tuple[Tensor, ...]) -> Function:
        samples = tuple(a.detach().clone().requires_grad_(a.requires_grad) for a in arguments)
        with capture(samples[0].device):
            return torch.cuda.make_graphed_callables(self._function, samples, allow_unused_input=True)  # type: ignore[return-value]
