"""Flow by a network as a CUDA graph: the hundreds of small kernels of a pair are recorded once for a size of images.

Launched one by one they take twice as long.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from das3r_ns.runtime.cuda_graphs import capture

WARM_UP = 2
"""Calls before kernels are recorded, in which libraries choose them and take their memory."""


class RecordedFlow:
    """Flow both ways between the images of pairs of one size: where it reads and writes never changes."""

    def __init__(self, flow: Callable[[Tensor], Tensor], pair: Float[Tensor, "2 3 H W"]) -> None:
        self.pair = pair.clone()
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(WARM_UP):
                flow(self.pair)
        torch.cuda.current_stream().wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        with capture(pair.device), torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._flow = flow(self.pair)

    def __call__(self, pair: Float[Tensor, "2 3 H W"]) -> Float[Tensor, "2 2 H W"]:
        """The result is overwritten by the next call."""
        self.pair.copy_(pair)
        self._graph.replay()
        return self._flow
