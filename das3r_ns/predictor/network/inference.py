"""A clip through the network: every frame encoded once, directed pairs decoded in batches from the kept features.

Nothing but encoder features is shared between the two directions of a pair, so both are decoded. What depends on one
frame alone (the encoder, the embedding's input, half of each head's finest level) is computed once per frame. The
mask of the second view is never used afterwards and never computed. Results stay on the device. Windows of a long clip
overlap: `FrameMemory` carries what they share, so that each frame of the clip is encoded once.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from das3r_ns.predictor.network.casting import bfloat16_copy
from das3r_ns.predictor.network.heads import FEATURES
from das3r_ns.predictor.network.model import PairwiseNetwork, dynamic_probability, points_and_confidence
from das3r_ns.predictor.network.pairs import PairPredictions
from das3r_ns.predictor.network.settings import Edge, InferenceConfig
from das3r_ns.predictor.network.transformer import grid_positions
from das3r_ns.runtime.progress import Stage, stage

MIB, GIB = 2**20, 2**30
FLOATS_PER_PAIR_PIXEL = 9
"""Stored per pixel of a directed pair: two points, two confidences, one dynamic probability."""


def product_type(device: torch.device, precision: Literal["auto", "bfloat16", "float32"]) -> torch.dtype:
    """Type of the large products that a precision means on a device."""
    if precision == "auto":
        half = device.type == "cuda" and torch.cuda.is_bf16_supported()
        return torch.bfloat16 if half else torch.float32
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


@contextmanager
def _arithmetic(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """Autocast, TF32 and cuDNN's choice of kernels for one run, whatever is set around it."""
    cudnn = torch.backends.cudnn
    before = cudnn.allow_tf32, cudnn.benchmark, torch.get_float32_matmul_precision()
    # Trying kernels out (nerfstudio turns it on) takes all free memory for a moment at every new size of a batch.
    cudnn.benchmark = False
    if dtype == torch.float32:
        cudnn.allow_tf32 = False  # on by default, and not float32
        torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            yield
    finally:
        cudnn.allow_tf32, cudnn.benchmark = before[:2]
        torch.set_float32_matmul_precision(before[2])


def activation_bytes_per_pair(size: tuple[int, int], dtype: torch.dtype) -> int:
    """Peak memory of decoding one pair, an upper estimate; the point head's full-resolution layers set it."""
    height, width = size
    wide = 2 if dtype == torch.bfloat16 else 4
    full_resolution = 128 * (3 * wide + 4)  # upsampled, convolved, rectified, and the last layer's float32 copy
    half_resolution = FEATURES * 3 * wide / 4
    kept_tokens = 2 * 13 * 768 * 4 / 256
    return int(height * width * (full_resolution + half_resolution + kept_tokens))


def result_bytes(num_edges: int, size: tuple[int, int]) -> int:
    """Memory of the stored predictions of `num_edges` directed pairs."""
    return num_edges * size[0] * size[1] * FLOATS_PER_PAIR_PIXEL * 4


def frame_bytes(size: tuple[int, int], enc_width: int, dtype: torch.dtype) -> int:
    """Memory of what is kept per frame: encoder features and the cached parts of three heads."""
    height, width = size
    wide = 2 if dtype == torch.bfloat16 else 4
    return int(height * width * (enc_width * wide / 256 + 3 * FEATURES * wide / 16))


def batch_size(config: InferenceConfig, size: tuple[int, int], dtype: torch.dtype, device: torch.device) -> int:
    """Pairs that fit the memory budget, at least one."""
    if config.memory_gib is not None:
        budget = config.memory_gib * GIB
    elif device.type == "cuda":
        budget = 0.5 * torch.cuda.mem_get_info(device)[0]
    else:
        budget = 2 * GIB
    return max(1, min(config.max_batch, int(budget / activation_bytes_per_pair(size, dtype))))


class FrameMemory:
    """What was computed for the last frames of a window, which the next window asks for again."""

    def __init__(self, keep: int) -> None:
        """Args:
        keep: frames to keep, the last of each call: as many as two windows share.
        """
        self.keep = keep
        self.known: dict[int, list[Tensor]] = {}
        """By frame of the clip: encoder features, and the frame's parts of three heads."""


class _KeptFrames:
    """Encoder features and per-frame parts of the heads of some frames."""

    def __init__(
        self, network: PairwiseNetwork, images: Float[Tensor, "n 3 h w"], chunk: int, known: dict[int, list[Tensor]]
    ) -> None:
        """Args:
        chunk: frames encoded at once.
        known: by index in `images`, what was computed before.
        """
        self.network, self.grid = network, network.grid(images)
        self.positions = grid_positions(*self.grid, device=images.device)
        heads = (network.downstream_head1, network.downstream_head_dynamic_mask1, network.downstream_head2)
        self.parts: list[Tensor] = []
        for k, values in known.items():
            self._put([k], [value[None] for value in values], len(images))
        todo = [k for k in range(len(images)) if k not in known]
        for start in range(0, len(todo), chunk):
            some = todo[start : start + chunk]
            encoded, _ = network.encode(images[some])
            of_heads = [head.frame_part(encoded, self.grid) for head in heads]
            self._put(some, [encoded, *of_heads], len(images))
        self.features, self.points1, self.mask1, self.points2 = self.parts

    def _put(self, place: list[int], values: list[Tensor], count: int) -> None:
        if not self.parts:
            self.parts = [_room_for(count, value) for value in values]
        for whole, value in zip(self.parts, values):
            whole[place] = value

    def of_frame(self, k: int) -> list[Tensor]:
        """A copy of everything about one frame."""
        return [whole[k].clone() for whole in self.parts]

    def decode(self, first: Int[Tensor, "b"], second: Int[Tensor, "b"]) -> tuple[Tensor, ...]:
        """Pointmap and confidence of both views and dynamic probability of the first."""
        network, grid = self.network, self.grid
        decoded = network.decode(self.features[first], self.positions, self.features[second], self.positions)
        tokens1, tokens2 = map(network.select, decoded)
        del decoded
        view1 = points_and_confidence(network.downstream_head1(tokens1, grid, self.points1[first]))
        view2 = points_and_confidence(network.downstream_head2(tokens2, grid, self.points2[second]))
        mask = dynamic_probability(network.downstream_head_dynamic_mask1(tokens1, grid, self.mask1[first]))
        return view1[0], view2[0], view1[1], view2[1], mask


@torch.no_grad()
def predict_pairs(
    network: PairwiseNetwork,
    images: Float[Tensor, "n 3 h w"],
    edges: Sequence[Edge],
    config: InferenceConfig = InferenceConfig(),  # noqa: B008  (frozen)
    frames: Sequence[int] | None = None,
    memory: FrameMemory | None = None,
) -> PairPredictions:
    """Run the network on the directed pairs of a clip, on the network's device.

    Pairs with a value that is not finite are left out, with one warning that names the first.

    Args:
        frames: which frame of the clip each image is; needed with `memory`.
        memory: carries what overlapping windows share from one call to the next.

    Raises:
        ValueError: no pairs, or an edge names a frame that is not there.
        RuntimeError: no pair gave finite values: the weights are broken.
    """
    n, size = len(images), (int(images.shape[-2]), int(images.shape[-1]))
    if not edges or min(map(min, edges)) < 0 or max(map(max, edges)) >= n:
        raise ValueError(f"{len(edges)} pairs do not fit {n} frames: expected frame indices 0 to {n - 1}")
    device = next(network.parameters()).device
    network.eval()
    pairs = torch.tensor(edges, device=device)
    dtype = product_type(device, config.precision)
    with _arithmetic(device, dtype), stage("Looking at pairs of frames", len(edges), "pairs") as bar:
        chunk = batch_size(config, size, dtype, device)
        kept = _encode(network, images.to(device), chunk, dtype, range(n) if frames is None else frames, memory)
        maps = _decode(kept, pairs, size, chunk, config.compile, bar)
    descriptors = kept.features.float().mean(1)
    del kept
    finite = torch.stack([whole.flatten(1).isfinite().all(1) for whole in maps]).all(0)
    if not finite.all():
        pairs, maps = _drop(pairs, maps, finite)
    pointmap1, pointmap2, confidence1, confidence2, dynamic_prob1 = maps
    return PairPredictions(pairs, pointmap1, pointmap2, confidence1, confidence2, dynamic_prob1, descriptors)


def _encode(
    network: PairwiseNetwork,
    images: Float[Tensor, "n 3 h w"],
    chunk: int,
    dtype: torch.dtype,
    frames: Sequence[int],
    memory: FrameMemory | None,
) -> _KeptFrames:
    """What depends on one frame alone, of all frames: taken from `memory` where it is there, and the last of it left
    there for the next window."""
    if images.is_cuda:
        images = images.contiguous(memory_format=torch.channels_last)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if dtype == torch.bfloat16:
        network = bfloat16_copy(network)
    known = {} if memory is None else memory.known
    kept = _KeptFrames(network, images, chunk, {k: known[f] for k, f in enumerate(frames) if f in known})
    if memory is not None:
        last = [*enumerate(frames)][max(len(images) - memory.keep, 0) :]
        memory.known = {f: kept.of_frame(k) for k, f in last}
    return kept


def _decode(
    kept: _KeptFrames, pairs: Int[Tensor, "e 2"], size: tuple[int, int], chunk: int, compiled: bool, bar: Stage
) -> list[Tensor]:
    """Maps of all pairs, `chunk` pairs at a time: both pointmaps, both confidences, the first view's `dynamic_prob`."""
    maps = [torch.empty(len(pairs), *size, *tail, device=pairs.device) for tail in ((3,), (3,), (), (), ())]
    decode = torch.compile(kept.decode) if compiled else kept.decode
    for start in range(0, len(pairs), chunk):
        part = pairs[start : start + chunk]
        for whole, some in zip(maps, decode(part[:, 0], part[:, 1])):
            whole[start : start + chunk] = some
        bar.advance(len(part))
    return maps


def _room_for(count: int, value: Tensor) -> Tensor:
    """An empty tensor for `count` rows like those of `value`, in the same memory layout."""
    last = value.ndim == 4 and value.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if last else torch.contiguous_format
    return torch.empty(count, *value.shape[1:], dtype=value.dtype, device=value.device, memory_format=layout)


def _drop(pairs: Tensor, maps: list[Tensor], finite: Tensor) -> tuple[Tensor, list[Tensor]]:
    lost = pairs[~finite].tolist()
    if not finite.any():
        raise RuntimeError(
            f"the network gave values that are not finite for all {len(lost)} pairs: its weights are broken, or they "
            "need precision = float32"
        )
    warnings.warn(
        f"{len(lost)} of {len(pairs)} pairs gave values that are not finite and are left out (first: {lost[0]})",
        stacklevel=3,
    )
    return pairs[finite], [whole[finite] for whole in maps]
