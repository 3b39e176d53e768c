"""What a clip will need, said before it starts."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from das3r_ns.predictor.base import PredictionError
from das3r_ns.predictor.network.alignment.objective import CHUNK_ELEMENTS
from das3r_ns.predictor.network.config import PairwiseNetworkConfig
from das3r_ns.predictor.network.inference import (
    GIB,
    InferenceConfig,
    activation_bytes_per_pair,
    batch_size,
    frame_bytes,
    result_bytes,
)
from das3r_ns.predictor.network.settings import PairGraph, WindowConfig
from das3r_ns.predictor.network.windows import cut, shared_frames
from das3r_ns.runtime.memory import available_bytes

CONTEXT_BYTES = 0.6 * GIB
"""What a GPU holds before the first tensor: kernels and workspaces."""


SURE_SHARE = 0.7
"""Share of the estimate that is needed in any case: where not even that is free, the clip is refused."""


@dataclass(frozen=True)
class MemoryNeed:
    """Peak memory in bytes."""

    device: int
    """Of the GPU (or of the CPU that stands in for it)."""
    host: int
    """Of the maps of the whole clip, which stay in main memory."""
    windows: int
    frames_per_window: int
    pairs: int
    """Directed pairs of the whole clip, those of overlaps counted twice."""
    more_for_speed: bool
    """Whether more is taken where it is free: the kernels that cuDNN prefers for convolutions in float32 ask for a
    workspace of up to some tens of GiB, and others are used when there is no room for it."""

    def __str__(self) -> str:
        parts = "1 window" if self.windows == 1 else f"{self.windows} windows"
        more = " (more where it is free, for speed)" if self.more_for_speed else ""
        return (
            f"{self.pairs} pairs in {parts} of {self.frames_per_window} frames: about {self.device / GIB:.1f} GiB of "
            f"device memory{more} and {self.host / GIB:.1f} GiB of main memory"
        )


def memory_need(
    *,
    num_frames: int,
    size: tuple[int, int],
    graph: PairGraph,
    windows: WindowConfig,
    inference: InferenceConfig,
    network: PairwiseNetworkConfig,
    num_weights: int,
    dtype: torch.dtype,
    device: torch.device,
) -> MemoryNeed:
    """Estimate from sizes: the larger of the network's and the alignment's peak, with everything that stays beside.

    Args:
        size: height and width of the network's input.
        num_weights: elements of the network's parameters.
        dtype: type of the network's large products.
    """
    height, width = size
    parts = cut(num_frames, windows)
    longest = max(map(len, parts))
    edges = len(graph.edges(longest))
    weights = num_weights * (4 if dtype == torch.float32 else 6)  # float32, and beside it a copy in half precision
    stays = weights + result_bytes(edges, size)
    decoding = batch_size(inference, size, dtype, device) * activation_bytes_per_pair(size, dtype)
    network_peak = stays + longest * frame_bytes(size, network.enc_embed_dim, dtype) + decoding
    log_confidence = 2 * edges * height * width * 4
    temporary = 6 * 3 * 4 * CHUNK_ELEMENTS["cuda" if device.type == "cuda" else "cpu"]
    of_next = shared_frames(parts) * frame_bytes(size, network.enc_embed_dim, dtype)
    alignment_peak = stays + of_next + log_confidence + temporary + 12 * longest * height * width * 4
    context = int(CONTEXT_BYTES) if device.type == "cuda" else 0
    # Network input (3 floats a pixel), and three maps in their windows and joined.
    host = num_frames * height * width * 4 * (3 + 6)
    return MemoryNeed(
        device=int(max(network_peak, alignment_peak)) + context,
        host=host,
        windows=len(parts),
        frames_per_window=longest,
        pairs=sum(len(graph.edges(len(part))) for part in parts),
        more_for_speed=device.type == "cuda" and dtype == torch.float32,
    )


def check_memory(
    need: MemoryNeed, held_bytes: int, device: torch.device, num_frames: int, long_side: int
) -> str | None:
    """A warning if the clip may not fit the free memory; None if it does.

    Args:
        held_bytes: of what is needed, on the device, that is there already: the weights.
        long_side: of the network's input, pixels; for the message.

    Raises:
        PredictionError: it will not fit; the message names the options that reduce what is needed.
    """
    free_host = available_bytes()
    of_device = max(0, need.device - held_bytes)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.empty_cache()
            free_device = torch.cuda.mem_get_info()[0]
        parts = [("device memory", of_device, free_device), ("main memory", need.host, free_host)]
    else:
        parts = [("main memory", of_device + need.host, free_host)]
    short = [(name, asked, free) for name, asked, free in parts if asked > free]
    if not short:
        return None
    words = " and ".join(
        f"about {asked / GIB:.1f} GiB of {name}, of which {free / GIB:.1f} GiB are free" for name, asked, free in short
    )
    about = f"{num_frames} frames in windows of {need.frames_per_window} need {words}"
    remedy = (
        f"Use shorter windows (--network.windows.frames, now {need.frames_per_window}), a smaller input "
        f"(--network.long-side, now {long_side}), fewer frames (--video.max-frames) or smaller batches "
        "(--network.inference.memory-gib)."
    )
    if any(SURE_SHARE * asked > free for _, asked, free in short):
        raise PredictionError(f"{about}. {remedy}")
    return f"{about}: it may not fit. {remedy}"
