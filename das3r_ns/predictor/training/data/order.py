"""Which pair is seen when: a pure function of the settings, so that a resumed run continues bit for bit.

An epoch is a fixed number of pairs, drawn anew each time: a permutation of the pool seeded by the epoch (the pool is
repeated where it is smaller). Several sets give equal shares. Steps take consecutive pairs; within a step the
processes and their micro-batches take consecutive parts. So one process with batch 16, two with batch 8 and one with
batch 8 accumulated twice see the same 16 pairs in the same step, in one shape of image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np

EPOCH_SEED = 777
"""Published: the permutation of an epoch is seeded by the epoch plus this."""


@dataclass(frozen=True)
class Draw:
    """One pair to be loaded. What is random about it follows from the seed, the epoch and the position."""

    source: int
    """Number of the set."""
    pair: int
    """Number of the pair in its set's pool."""
    size: tuple[int, int]
    """Rows and columns of its views."""
    epoch: int = 0
    position: int = 0
    """Place in the epoch, over all processes."""


@dataclass(frozen=True)
class Order:
    """The plan of a whole run."""

    pool_sizes: tuple[int, ...]
    """Pairs in the pool of each set."""
    pairs_per_epoch: int
    global_batch: int
    """Pairs of one optimiser step: batch size x processes x accumulated micro-batches."""
    sizes: tuple[tuple[int, int], ...]
    """Shapes of images (rows, columns), one of which is drawn for each step."""
    seed: int
    recurring: int = 0
    """Epochs after which the plan begins anew, crops and jitters included. 0 never does."""

    def __post_init__(self) -> None:
        if not self.steps_per_epoch:
            raise ValueError(
                f"an epoch of {self.pairs_per_epoch} pairs is smaller than one step of {self.global_batch}: "
                "raise --data.pairs-per-epoch or lower --batch-size or --accumulate"
            )

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps in an epoch; pairs that do not fill a step are left out."""
        return self.pairs_per_epoch // self.global_batch

    def step(self, step: int) -> list[Draw]:
        """The pairs of an optimiser step, counted from 0 over the whole run."""
        epoch, within = divmod(step, self.steps_per_epoch)
        epoch = epoch % self.recurring if self.recurring else epoch
        sources, pairs = _epoch(self, epoch)
        size = self.size(epoch, within)
        positions = range(within * self.global_batch, (within + 1) * self.global_batch)
        return [Draw(int(sources[p]), int(pairs[p]), size, epoch, p) for p in positions]

    def size(self, epoch: int, within: int) -> tuple[int, int]:
        """Rows and columns of the views of a step of an epoch."""
        return self.sizes[int(np.random.default_rng((self.seed, epoch, within)).integers(len(self.sizes)))]

    def batches(self, steps: range, batch_size: int, process: int, processes: int) -> Iterator[list[Draw]]:
        """The micro-batches of one process, step after step."""
        for step in steps:
            draws = self.step(step)
            share = len(draws) // processes
            mine = draws[process * share : (process + 1) * share]
            for start in range(0, share, batch_size):
                yield mine[start : start + batch_size]

    def as_record(self) -> dict[str, Any]:
        """What a checkpoint keeps, to refuse a resume that would see other data."""
        record = asdict(self)
        if not self.recurring:
            del record["recurring"]
        return record


@lru_cache(maxsize=2)
def _epoch(order: Order, epoch: int) -> tuple[np.ndarray, np.ndarray]:
    """Set and pair of every position of an epoch."""
    rng = np.random.default_rng((order.seed, EPOCH_SEED + epoch))
    shares = np.diff(np.linspace(0, order.pairs_per_epoch, len(order.pool_sizes) + 1).round().astype(int)).tolist()
    pairs = np.concatenate([_drawn(rng, pool, share) for pool, share in zip(order.pool_sizes, shares)])
    sources = np.repeat(np.arange(len(shares)), shares)
    shuffled = rng.permutation(len(pairs))
    return sources[shuffled], pairs[shuffled]


def _drawn(rng: np.random.Generator, pool: int, count: int) -> np.ndarray:
    """`count` of `pool` numbers; none a second time before all were drawn equally often."""
    rounds = [rng.permutation(pool) for _ in range(-(-count // pool))]
    return np.concatenate(rounds)[:count] if rounds else np.zeros(0, dtype=int)


def replacements(draw: Draw, pool: int, seed: int, attempts: int) -> Sequence[int]:
    """Which pairs of the pool stand in for a draw whose files are bad: the first of a permutation of its own."""
    rng = np.random.default_rng((seed, draw.epoch, draw.position, 1))
    return rng.permutation(pool)[:attempts].tolist()
