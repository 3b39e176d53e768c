"""Adam steps of an alignment, which are many and small.

A step is some hundreds of kernels of a few microseconds each, so a GPU waits for Python most of the time. After a few
ordinary steps, one is recorded as a CUDA graph and replayed: the same kernels on the same memory, started at once.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor

from das3r_ns.runtime.cuda_graphs import capture

WARM_UP_STEPS = 3
"""Ordinary steps before one is recorded: libraries load and memory is taken, which a recording must not do."""


class Steps:
    """Adam on some tensors, one `take` after the other."""

    trace: Float[Tensor, "steps"]
    """Objective before each step taken; not a number for those to come."""

    def __init__(
        self, free: list[Tensor], rates: Sequence[float], objective: Callable[[], Float[Tensor, ""]], record: bool
    ) -> None:
        """Args:
        free: what is changed, in place.
        rates: step size of each step, one for every step that may be taken.
        record: record a step and replay it; has an effect on CUDA devices only.
        """
        device = free[0].device
        self._objective, self._rates, self._done = objective, rates, 0
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._record, self._plain, self._graph = record and self._stream is not None, 0, None
        # On a GPU, whatever changes from step to step has to lie there, where a recording finds it.
        self._rates_there = torch.tensor(rates, device=device)
        self._number = torch.zeros(1, dtype=torch.long, device=device)
        self.trace = torch.full((len(rates),), float("nan"), device=device)
        on_gpu = self._stream is not None
        # Only CUDA has the fused step for sure; everywhere else it would be the same numbers.
        self._adam = torch.optim.Adam(
            free, lr=self._rates_there[0].clone() if on_gpu else rates[0], betas=(0.9, 0.9), fused=on_gpu
        )

    def take(self) -> None:
        """Take the next step."""
        if self._record and self._graph is None and self._plain >= WARM_UP_STEPS:
            self._record_step()
        if self._graph is not None:
            self._graph.replay()
        else:
            self._plain_step()
        self._done += 1

    def forget(self) -> None:
        """Drop the recorded step: the objective is no longer what it was."""
        self._adam.zero_grad(set_to_none=True)
        self._adam.param_groups[0]["capturable"] = False  # it warns where it is set and nothing is recorded
        self._graph, self._plain = None, 0

    def _plain_step(self) -> None:
        if self._stream is None:
            self._adam.param_groups[0]["lr"] = self._rates[self._done]
            self._step()
            return
        # On the stream that will record, because gradients are gathered on the stream that they were first made on.
        current = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            self._step()
        current.wait_stream(self._stream)
        self._plain += 1

    def _step(self) -> None:
        if self._stream is not None:
            self._adam.param_groups[0]["lr"].copy_(self._rates_there.index_select(0, self._number)[0])
        self._adam.zero_grad(set_to_none=True)
        total = self._objective()
        total.backward()
        self._adam.step()
        self.trace.index_copy_(0, self._number, total.detach().view(1))
        self._number += 1

    def _record_step(self) -> None:
        """Record, or find that it cannot be done here and never try again."""
        self._adam.zero_grad(set_to_none=True)
        self._adam.param_groups[0]["capturable"] = True
        graph = torch.cuda.CUDAGraph()
        try:
            # Other threads may go on with their own work on the GPU meanwhile.
            with (
                capture(self.trace.device),
                torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"),
            ):
                self._step()
            self._graph = graph
        except RuntimeError as error:
            warnings.warn(f"steps of the alignment cannot be recorded ({error}); they take longer", stacklevel=4)
            self._record = False
            self.forget()


@contextmanager
def float32_products() -> Iterator[None]:
    """Within it, products of float32 matrices are float32: what TF32 rounds away, the alignment takes for error."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
