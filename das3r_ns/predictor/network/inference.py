"""A clip through the network: every frame encoded once, directed pairs decoded in batches from the kept features.

Nothing but encoder features is shared between the two directions of a pair, so both are decoded. What depends on one
frame alone (the encoder, the embedding's input, half of each head's finest level) is computed once per frame. The
mask of the second view is never used afterwards and never computed. Results stay on the device.
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
from das3r_ns.predictor.network_settings import InferenceConfig
from das3r_ns.predictor.pairs import Edge, PairPredictions
from das3r_ns.predictor.progress import stage

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
    """Autocast and TF32 settings for one run."""
    before = torch.backends.cudnn.allow_tf32
    if device.type == "cuda" and dtype == torch.float32:
        torch.backends.cudnn.allow_tf32 = False  # on by default, and not float32
    try:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


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
    return int(height * width * (enc_width * 4 / 256 + 3 * FEATURES * wide / 16))


def batch_size(config: InferenceConfig, size: tuple[int, int], dtype: torch.dtype, device: torch.device) -> int:
    """Pairs that fit the memory budget, at least one."""
    if config.memory_gib is not None:
        budget = config.memory_gib * GIB
    elif device.type == "cuda":
        budget = 0.5 * torch.cuda.mem_get_info(device)[0]
    else:
        budget = 2 * GIB
    return max(1, min(config.max_batch, int(budget / activation_bytes_per_pair(size, dtype))))


class _KeptFrames:
    """Encoder features and per-frame parts of the heads of some frames."""

    def __init__(self, network: PairwiseNetwork, images: Float[Tensor, "n 3 h w"], chunk: int) -> None:
        self.network, self.grid = network, network.grid(images)
        heads = (network.downstream_head1, network.downstream_head_dynamic_mask1, network.downstream_head2)
        features, parts = [], [[] for _ in heads]
        for some in images.split(chunk):
            encoded, self.positions = network.encode(some)
            features.append(encoded)
            for kept, head in zip(parts, heads):
                kept.append(head.frame_part(encoded, self.grid))
        self.features = torch.cat(features)
        self.points1, self.mask1, self.points2 = (torch.cat(kept) for kept in parts)

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
) -> PairPredictions:
    """Run the network on the directed pairs of a clip, on the network's device.

    Pairs with a value that is not finite are left out, with one warning that names the first.

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
    maps = [torch.empty(len(edges), *size, *tail, device=device) for tail in ((3,), (3,), (), (), ())]
    dtype = product_type(device, config.precision)
    with _arithmetic(device, dtype), stage("Looking at pairs of frames", len(edges), "pairs") as bar:
        chunk = batch_size(config, size, dtype, device)
        images = images.to(device)
        if device.type == "cuda":
            images = images.contiguous(memory_format=torch.channels_last)
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if dtype == torch.bfloat16:
            network = bfloat16_copy(network)
        frames = _KeptFrames(network, images, chunk)
        decode = torch.compile(frames.decode) if config.compile else frames.decode
        for start in range(0, len(edges), chunk):
            part = pairs[start : start + chunk]
            for whole, some in zip(maps, decode(part[:, 0], part[:, 1])):
                whole[start : start + chunk] = some
            bar.advance(len(part))
    descriptors = frames.features.float().mean(1)
    del frames
    finite = torch.stack([whole.flatten(1).isfinite().all(1) for whole in maps]).all(0)
    if not finite.all():
        pairs, maps = _drop(pairs, maps, finite)
    pointmap1, pointmap2, confidence1, confidence2, dynamic_prob1 = maps
    return PairPredictions(pairs, pointmap1, pointmap2, confidence1, confidence2, dynamic_prob1, descriptors)


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
