"""A store of frozen features: computed once, read back each time their pair recurs.

    FOLDER/features.json         what they follow from: weights, data, order of the pairs, crops, arithmetic
    FOLDER/epoch_00000/NUMBER    one pair: the bytes of a `RecordLayout`, NUMBER being its place in the epoch

Memory is filled first, then the folder. Each process keeps the pairs that it computes; on disk any process finds them,
also those of a later run with the same `features.json`. Files are written whole or not at all.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from das3r_ns.predictor.training.data.order import Draw, Order
from das3r_ns.predictor.training.features.frozen import RecordLayout

GB, GIB = 10**9, 2**30
READERS = 4
"""Threads that read files: one alone would not keep up with a fast disk."""
WRITES_WAITING = 64
"""Pairs that may wait to be written before training waits for the disk."""

Slot = tuple[int, int]
"""Epoch and place in it."""


@dataclass
class FeatureConfig:
    """Keep what the frozen network computes, and train on it again. Only for `--train heads`, where nothing that the
    heads read changes. A step then costs what its mask heads cost."""

    epochs: int = 0
    """Pairs, crops and jitters of the first so many epochs recur ever after, and their features are computed once.
    0 (published): each epoch is drawn anew and nothing is kept."""
    memory_gib: float = 0.0
    """Memory for features in each process; what does not fit goes to the folder. What is in memory is gone after an
    interruption and computed again. It must be free."""
    memory: Literal["host", "gpu"] = "host"
    """Which memory that is. The GPU's needs no copying."""
    folder: Path | None = None
    """Folder for the rest, on a fast disk. Several runs that differ in nothing but their optimiser may share one.
    OUT/features if not given."""

    def __post_init__(self) -> None:
        if self.epochs < 0 or not self.memory_gib >= 0:
            raise ValueError(
                f"features.epochs is {self.epochs} and features.memory_gib {self.memory_gib}: neither may be negative"
            )


class FeatureStore:
    """The features of the pairs of a run."""

    def __init__(
        self,
        config: FeatureConfig,
        folder: Path,
        order: Order,
        layouts: dict[tuple[int, int], RecordLayout],
        device: torch.device,
        processes: int,
    ) -> None:
        """Look at what is there. Nothing is written yet.

        Args:
            folder: where features go that do not fit into memory.
            order: the plan of the run, with `recurring` epochs.
            layouts: for each size of the views, what a pair holds.
            processes: that train together.
        Raises:
            OSError: the disk has too little room for the features to come.
        """
        self.folder, self.order, self.layouts, self.device = folder, order, layouts, device
        budget = int(config.memory_gib * GIB)
        place = device if config.memory == "gpu" else torch.device("cpu")
        self._arena = Arena(budget, place, pin=place.type == "cpu" and device.type == "cuda")
        self._in_memory: dict[Slot, Tensor] = {}
        sizes = {(epoch, step): order.size(epoch, step) for epoch in range(order.recurring) for step in _steps(order)}
        self._bytes = {at: layouts[size].bytes for at, size in sizes.items()}
        self._on_disk = {slot for epoch in range(order.recurring) for slot in self._found(epoch)}
        self.total_bytes = order.global_batch * sum(self._bytes.values())
        there = sum(map(self._size_of, self._on_disk))
        self.disk_bytes = max(0, self.total_bytes - there - budget * processes)
        self._check_room()
        self._pool = ThreadPoolExecutor(READERS, "features")
        self._writer = ThreadPoolExecutor(1, "features-writer")
        self._writes: deque[Future[None]] = deque()

    def _size_of(self, slot: Slot) -> int:
        return self._bytes[slot[0], slot[1] // self.order.global_batch]

    def _found(self, epoch: int) -> list[Slot]:
        """Slots of an epoch whose files are there and whole."""
        folder = self._path((epoch, 0)).parent
        if not folder.is_dir():
            return []
        found = [((epoch, int(file.name)), file) for file in os.scandir(folder) if file.name.isdecimal()]
        last = self.order.steps_per_epoch * self.order.global_batch
        return [slot for slot, file in found if slot[1] < last and file.stat().st_size == self._size_of(slot)]

    def _check_room(self) -> None:
        existing = next(path for path in (self.folder, *self.folder.absolute().parents) if path.exists())
        free = shutil.disk_usage(existing).free
        if self.disk_bytes > free:
            raise OSError(
                f"features of {self.order.recurring} epochs need {self.disk_bytes / GB:.1f} GB more in {self.folder}, "
                f"where {free / GB:.1f} GB are free. Lower --features.epochs or --data.pairs-per-epoch, raise "
                "--features.memory-gib, or give --features.folder on a larger disk."
            )

    def open(self, record: dict[str, Any]) -> None:
        """Begin to write into the folder, for features that follow from `record`.

        Raises:
            ValueError: the folder holds features of something else.
        """
        path, text = self.folder / "features.json", json.dumps(record, indent=2)
        record = json.loads(text)
        if path.is_file():
            stored = json.loads(path.read_text(encoding="utf-8"))
            names = [name for name in record if stored.get(name) != record[name]]
            if names:
                raise ValueError(
                    f"{self.folder} holds features of another run ({', '.join(names)} differ: see {path}). Give "
                    "another --features.folder, or delete it to compute them anew."
                )
            return
        if next(self.folder.glob("epoch_*"), None) is not None:
            raise ValueError(
                f"{self.folder} holds features, and features.json, which told of what, is gone. Delete the folder, or "
                "give another --features.folder."
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.part")
        partial.write_text(text + "\n", encoding="utf-8")
        os.replace(partial, path)

    def known(self) -> set[Slot]:
        """The slots that can be read."""
        return self._on_disk | self._in_memory.keys()

    def holds(self, draw: Draw) -> bool:
        """Whether the features of a pair can be read."""
        slot = draw.epoch, draw.position
        return slot in self._in_memory or slot in self._on_disk

    def put(self, draws: Sequence[Draw], records: UInt8[Tensor, "b n"]) -> None:
        """Keep the records of some pairs: in memory while it lasts, then on disk, in the background."""
        host: Tensor | None = None
        for number, draw in enumerate(draws):
            if self.holds(draw):
                continue
            slot = draw.epoch, draw.position
            kept = self._arena.put(records[number])
            if kept is not None:
                self._in_memory[slot] = kept
                continue
            host = records.cpu() if host is None else host
            self._writes.append(self._writer.submit(self._write, slot, host[number].numpy()))
        while self._writes and (self._writes[0].done() or len(self._writes) > WRITES_WAITING):
            self._writes.popleft().result()

    def _write(self, slot: Slot, record: np.ndarray) -> None:
        path = self._path(slot)
        partial = path.with_suffix(".part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(record.data)
            os.replace(partial, path)
        except OSError as error:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            raise OSError(
                f"{path} cannot be written ({error}). Make room, or give --features.folder on a larger disk; the same "
                "command with --resume goes on."
            ) from error
        self._on_disk.add(slot)

    def flush(self) -> None:
        """Wait until all is written. Raises OSError: something could not be."""
        while self._writes:
            self._writes.popleft().result()

    def close(self) -> None:
        """Stop the threads; what waits to be written is left out."""
        self._writer.shutdown(cancel_futures=True)
        self._pool.shutdown(cancel_futures=True)

    def read(self, draws: Sequence[Draw], staging: UInt8[Tensor, "b n"], out: UInt8[Tensor, "b n"]) -> None:
        """Copy the records of some pairs into `out`, on the device.

        Args:
            staging: as `out`, in page-locked host memory: what comes from disk passes through it.
        Raises:
            OSError: a file is gone or damaged.
        """
        slots = [(draw.epoch, draw.position) for draw in draws]
        reading = {
            number: self._pool.submit(self._read_file, slot, staging[number].numpy())
            for number, slot in enumerate(slots)
            if slot not in self._in_memory
        }
        for number, slot in enumerate(slots):
            if number in reading:
                reading[number].result()
                out[number].copy_(staging[number], non_blocking=True)
            else:
                out[number].copy_(self._in_memory[slot], non_blocking=True)

    def _read_file(self, slot: Slot, into: np.ndarray) -> None:
        path = self._path(slot)
        with path.open("rb", buffering=0) as file:
            view, done = into.data, 0
            while done < len(view) and (count := file.readinto(view[done:])):
                done += count
        if done < len(into):
            raise OSError(f"{path} holds {done} of {len(into)} bytes: it was damaged while training. --resume goes on.")

    def _path(self, slot: Slot) -> Path:
        return self.folder / f"epoch_{slot[0]:05d}" / f"{slot[1]:07d}"


class Arena:
    """Memory for many records, taken in blocks as it is needed: page-locked memory is slow to get piece by piece."""

    def __init__(self, budget: int, device: torch.device, pin: bool) -> None:
        """Args:
        budget: bytes.
        pin: page-locked, so that copies to a GPU need not be waited for.
        """
        self.left, self.device, self.pin = budget, device, pin
        self._block, self._used = torch.empty(0, dtype=torch.uint8), 0

    def put(self, record: UInt8[Tensor, "n"]) -> UInt8[Tensor, "n"] | None:
        """The copy that is kept; None if there is no room."""
        if self._used + len(record) > len(self._block):
            size = min(self.left, GIB)
            if size < len(record):
                return None
            self._block = torch.empty(size, dtype=torch.uint8, device=self.device, pin_memory=self.pin)
            self.left, self._used = self.left - size, 0
        kept = self._block[self._used : self._used + len(record)]
        self._used += len(record)
        return kept.copy_(record)


def _steps(order: Order) -> range:
    return range(order.steps_per_epoch)
