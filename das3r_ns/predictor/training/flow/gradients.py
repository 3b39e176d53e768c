"""Gradients of a training step: worlds drawn, network, loss and backward pass, on a GPU as one CUDA graph.

A step is some four thousand small kernels. Launched one by one they leave most of a large GPU idle; recorded once and
replayed they follow each other without a gap. What differs between steps is the seed of the generator that draws the
worlds, which a graph reads anew at every replay.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from das3r_ns.runtime.cuda_graphs import capture

WARM_UP = 3
"""Steps before kernels are recorded, in which libraries choose them, compiled parts are compiled, and all take their
memory."""


class StepGradients:
    """Computes the gradients of `parameters` for a seed, into one buffer.

    Args:
        compute: draws a batch with a generator and returns its loss, with a graph to go back through, and figures to
            log. Must not wait for the GPU, or it cannot be recorded.
        record: as one CUDA graph, on a GPU.
    """

    def __init__(
        self,
        parameters: list[nn.Parameter],
        compute: Callable[[torch.Generator], tuple[Float[Tensor, ""], Float[Tensor, "figures"]]],
        device: torch.device,
        record: bool,
    ) -> None:
        self._compute, self._record = compute, record and device.type == "cuda"
        self._generator = torch.Generator(device)
        self.buffer = torch.zeros(sum(p.numel() for p in parameters), device=device)
        """All gradients behind each other: what several GPUs average in one call."""
        start = 0
        for parameter in parameters:
            # The strides of the weights (channels last): fused optimizers walk through both in the order of memory.
            strides = parameter.stride()
            parameter.grad = torch.as_strided(self.buffer, parameter.shape, strides, start)
            start += parameter.numel()
        self._graph: torch.cuda.CUDAGraph | None = None
        self._steps = 0
        self._figures = torch.empty(0)

    def __call__(self, seed: int) -> Float[Tensor, "figures"]:
        """Gradients for the worlds of a seed; what was in the buffer is overwritten. Returns the figures to log."""
        self._generator.manual_seed(seed)
        if self._graph is None and self._record and self._steps >= WARM_UP:
            self._capture()
            self._generator.manual_seed(seed)
        self._steps += 1
        if self._graph is None:
            return self._eager()
        self._graph.replay()
        return self._figures.clone()

    def _eager(self) -> Float[Tensor, "figures"]:
        if not self._record:
            return self._forward_backward()
        # As the recording will: off the default stream, on which autograd would remember the gradients' buffers.
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            figures = self._forward_backward()
        torch.cuda.current_stream().wait_stream(aside)
        return figures

    def _forward_backward(self) -> Float[Tensor, "figures"]:
        self.buffer.zero_()
        loss, figures = self._compute(self._generator)
        loss.backward()
        return figures

    def _capture(self) -> None:
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self._generator)
        # Other threads (saving, TensorBoard) may call CUDA meanwhile.
        with capture(self.buffer.device), torch.cuda.graph(graph, capture_error_mode="thread_local"):
            self._figures = self._forward_backward()
        self._graph = graph
