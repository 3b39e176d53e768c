"""Which pairs of a sequence are drawn, and how often each distance in time.

Published distribution: distances 1 to 9 with frequencies rising linearly from 1/2 to 1, first frames at every second
place. Long distances are rarer in a finite sequence; the pool keeps the frequencies and takes as many pairs of each
distance as the most frequent one allows.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from das3r_ns.predictor.training.data.sources import Pair

START_STEP = 2
"""First frames are those at every second place."""


def stride_frequencies(max_stride: int) -> Float[np.ndarray, "s"]:
    """Relative frequency of strides 1..max_stride: 0.5 rising linearly to 1."""
    if max_stride == 1:
        return np.ones(1)
    return 0.5 + 0.5 * np.arange(max_stride) / (max_stride - 1)


def stride_quotas(available: Int[np.ndarray, "s"], frequencies: Float[np.ndarray, "s"]) -> Int[np.ndarray, "s"]:
    """How many pairs of each stride enter the pool.

    The most frequent stride of which there is any gives all its pairs; every other one gives its share of that, or
    all that it has.
    """
    wanted = np.where(available > 0, frequencies, 0.0)
    if not wanted.any():
        return np.zeros_like(available)
    most = int(np.argmax(wanted))
    return np.minimum(available, np.floor(wanted / wanted[most] * available[most] + 1e-9).astype(available.dtype))


def pool_of_pairs(sequences: list[list[int]], max_stride: int, seed: int) -> list[Pair]:
    """The pairs of a set, in order of sequence, first frame and stride.

    Args:
        sequences: for each sequence the numbers of its usable frames. A pair needs both of its frames; the last frame
            takes part too (in the published code the last pairs were never drawn).
        seed: which of the pairs of an over-represented stride are kept.
    """
    candidates: list[list[Pair]] = [[] for _ in range(max_stride)]
    for number, frames in enumerate(sequences):
        usable = set(frames)
        for first in frames:
            if first % START_STEP:
                continue
            for stride in range(1, max_stride + 1):
                if first + stride in usable:
                    candidates[stride - 1].append(Pair(number, first, first + stride))
    quotas = stride_quotas(np.array([len(pairs) for pairs in candidates]), stride_frequencies(max_stride))
    rng = np.random.default_rng(seed)
    kept: list[Pair] = []
    for pairs, quota in zip(candidates, quotas):
        chosen = rng.permutation(len(pairs))[:quota]
        kept.extend(pairs[i] for i in chosen)
    return sorted(kept, key=lambda pair: (pair.sequence, pair.first, pair.second))
