"""What a process trains on, batch by batch: images that workers read, or features that were kept.

With kept features the images are read only for pairs whose features are not there yet. Features are fetched ahead in
a thread, on a GPU in a stream of its own, so that neither disk nor copying is waited for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from itertools import islice
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from das3r_ns.predictor.training.data.loading import Loaded, PairBatch, PairDataset, make_loader
from das3r_ns.predictor.training.data.order import Draw
from das3r_ns.predictor.training.data.sources import Problem
from das3r_ns.predictor.training.features.frozen import FeatureBatch, FrozenFeatures
from das3r_ns.predictor.training.features.store import FeatureStore

AHEAD = 2
"""Batches that are fetched before they are wanted."""

MakeLoader = Callable[[Iterator[list[Draw]]], Iterator[Loaded]]


class LoadedFeed:
    """Batches of images, as the loader gives them."""

    def __init__(
        self, batches: Callable[[], Iterator[list[Draw]]], make_loader: MakeLoader, device: torch.device
    ) -> None:
        self._loader, self.device = make_loader(batches()), device

    def __enter__(self) -> LoadedFeed:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def next(self) -> tuple[PairBatch, list[Problem]]:
        """The next batch, on the device, and what had to be left out to make it."""
        loaded = next(self._loader)
        return loaded.batch.to(self.device), loaded.problems


class FeatureFeed:
    """Batches of features: kept ones where they are, else computed from images and kept. A context manager."""

    def __init__(
        self,
        batches: Callable[[], Iterator[list[Draw]]],
        make_loader: MakeLoader,
        store: FeatureStore,
        freeze: Callable[[PairBatch], FrozenFeatures],
    ) -> None:
        """Args:
        batches: the micro-batches of this process, from the first; called twice.
        make_loader: reads the images of some of them, in their order.
        freeze: computes the features of a batch of images on the device.
        """
        self.store, self.freeze, self._make_loader = store, freeze, make_loader
        known = frozenset(store.known())
        self._to_compute = (draws for draws, kept in _planned(batches(), set(known)) if not kept)
        self._plan = _planned(batches(), set(known))
        self._loader: Iterator[Loaded] | None = None
        self._window: deque[tuple[list[Draw], bool]] = deque()
        self._fetched: deque[Future[_Fetched] | None] = deque()
        self._thread = ThreadPoolExecutor(1, "features-ahead")
        on_gpu = store.device.type == "cuda"
        self._stream = torch.cuda.Stream(store.device) if on_gpu else None
        self._staging: dict[tuple[int, int], _Staging] = {}

    def __enter__(self) -> FeatureFeed:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(cancel_futures=True)
        if error is None:
            self.store.flush()
        self.store.close()

    def next(self) -> tuple[FeatureBatch, list[Problem]]:
        """The next batch, on the device, and what had to be left out to make it.

        Raises:
            OSError: features cannot be written or read.
        """
        self._fetch_ahead()
        (draws, kept), fetched = self._window.popleft(), self._fetched.popleft()
        if not kept:
            return self._compute(draws)
        if fetched is None:  # it was computed a moment ago and may still be on its way to the disk
            self.store.flush()
            fetched = self._submit(draws)
        return fetched.result().batch(), []

    def _fetch_ahead(self) -> None:
        """Have the thread fetch the kept ones among the next batches."""
        coming = list(islice(self._plan, 1 + AHEAD - len(self._window)))
        self._window.extend(coming)
        self._fetched.extend([None] * len(coming))
        for number, (draws, kept) in enumerate(self._window):
            if kept and self._fetched[number] is None and all(map(self.store.holds, draws)):
                self._fetched[number] = self._submit(draws)

    def _submit(self, draws: list[Draw]) -> Future[_Fetched]:
        # What lies in the GPU's memory may still be on its way there.
        written = torch.cuda.current_stream(self.store.device).record_event() if self._stream is not None else None
        return self._thread.submit(self._fetch, draws, written)

    def _compute(self, draws: list[Draw]) -> tuple[FeatureBatch, list[Problem]]:
        if self._loader is None:
            self._loader = self._make_loader(self._to_compute)
        loaded = next(self._loader)
        layout = self.store.layouts[draws[0].size]
        records = layout.pack(self.freeze(loaded.batch.to(self.store.device)))
        self.store.put(draws, records)
        # Also this time the heads learn from the records: reading them later must not make another run of it.
        return FeatureBatch(records, layout), loaded.problems

    def _fetch(self, draws: list[Draw], written: Any) -> _Fetched:
        layout, device = self.store.layouts[draws[0].size], self.store.device
        shape = (len(draws), layout.bytes)
        # All of it within the stream's context, which also sets the GPU of this thread.
        with torch.cuda.stream(self._stream) if self._stream is not None else nullcontext():
            if shape not in self._staging:
                self._staging[shape] = _Staging(torch.empty(shape, dtype=torch.uint8, pin_memory=device.type == "cuda"))
            staging = self._staging[shape]
            if staging.busy is not None:
                staging.busy.synchronize()
            if self._stream is not None and written is not None:
                self._stream.wait_event(written)
            records = torch.empty(shape, dtype=torch.uint8, device=device)
            self.store.read(draws, staging.memory, records)
            if self._stream is not None:
                staging.busy = self._stream.record_event()
        return _Fetched(FeatureBatch(records, layout), staging.busy)


def make_feed(
    dataset: PairDataset,
    batches: Callable[[], Iterator[list[Draw]]],
    workers: int,
    device: torch.device,
    store: FeatureStore | None,
    freeze: Callable[[PairBatch], FrozenFeatures],
) -> LoadedFeed | FeatureFeed:
    """The feed of a run: with a store, of features. The arguments are those of the feeds and of `make_loader`."""

    def load(some: Iterator[list[Draw]]) -> Iterator[Loaded]:
        return iter(make_loader(dataset, some, workers, device))

    return LoadedFeed(batches, load, device) if store is None else FeatureFeed(batches, load, store, freeze)


class _Staging:
    """Page-locked memory for a batch on its way to the device."""

    def __init__(self, memory: Tensor) -> None:
        self.memory = memory
        self.busy: Any = None
        """The event until which the device reads from it; None on a CPU."""


class _Fetched:
    """A batch on its way to the device."""

    def __init__(self, features: FeatureBatch, arrival: Any) -> None:
        self._features, self._arrival = features, arrival

    def batch(self) -> FeatureBatch:
        """The batch, for use by the current stream."""
        if self._arrival is not None:
            stream = torch.cuda.current_stream(self._features.records.device)
            stream.wait_event(self._arrival)
            self._features.records.record_stream(stream)
        return self._features


def _planned(batches: Iterator[list[Draw]], known: set[tuple[int, int]]) -> Iterator[tuple[list[Draw], bool]]:
    """Each batch, and whether all its features are there by then."""
    for draws in batches:
        slots = {(draw.epoch, draw.position) for draw in draws}
        yield draws, slots <= known
        known |= slots
