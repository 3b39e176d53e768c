"""Care around the recording of CUDA graphs, wherever one is recorded."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def capture(device: torch.device) -> Iterator[None]:
    """Within it a CUDA graph may be recorded.

    Objects that Python's collector finds meanwhile stay until the end: an older graph among them would be destroyed,
    which breaks a recording on any stream. If the recording fails (`RuntimeError`, which goes on to the caller), what
    PyTorch leaves behind is repaired: its generator waits for the end of the recording and draws nothing, and all
    further work would go to the stream that was recorded on.
    """
    stream = torch.cuda.current_stream(device) if device.type == "cuda" else None
    gc.collect()
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    except RuntimeError:
        if stream is not None:
            torch.cuda.set_stream(stream)
            _renew_generator(device)
        raise
    finally:
        if collects:
            gc.enable()


def _renew_generator(device: torch.device) -> None:
    index = torch.cuda.current_device() if device.index is None else device.index
    broken, fresh = torch.cuda.default_generators[index], torch.Generator(device)
    fresh.manual_seed(broken.initial_seed() + 1)  # not the numbers again that were drawn before
    broken.graphsafe_set_state(fresh.graphsafe_get_state())
