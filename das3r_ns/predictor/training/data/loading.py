"""Pairs to batches: worker processes read and crop, bad files are replaced, the device gets bytes and unprojects.

Images travel as bytes and depth as it is, a quarter of what normalised images and pointmaps would weigh; the
pointmaps are made on the device.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from das3r_ns import geometry
from das3r_ns.predictor.training.data.order import Draw, replacements
from das3r_ns.predictor.training.data.sources import UNKNOWN, BadDataError, NothingLeftError, PairSource, Problem
from das3r_ns.predictor.training.data.views import AugmentConfig, View, make_view
from das3r_ns.predictor.training.loop.losses import ViewTruth

MAX_DEPTH = 80.0
"""Published: what is farther away has no true point. In world units."""
MAX_ATTEMPTS = 100
"""Bad pairs in a row after which a set is called empty."""


class ViewBatch(NamedTuple):
    """The same view of a batch of pairs."""

    rgb: UInt8[Tensor, "b h w 3"]
    depth: Float[Tensor, "b h w"]
    dynamic: UInt8[Tensor, "b h w"]
    K: Float[Tensor, "b 3 3"]
    T_world_camera: Float[Tensor, "b 4 4"]

    def images(self) -> Float[Tensor, "b 3 h w"]:
        """The network's input, in [-1, 1]."""
        return self.rgb.permute(0, 3, 1, 2).float() / 127.5 - 1

    def truth(self, T_camera1_world: Float[Tensor, "b 4 4"]) -> ViewTruth:
        """What the loss compares with, in the frame of camera 1."""
        valid = (self.depth > 0) & (self.depth < MAX_DEPTH)  # NaN and infinity are neither
        in_camera = geometry.unproject(self.depth.where(valid, 0.0), self.K)
        to_camera1 = (T_camera1_world @ self.T_world_camera)[:, None, None]
        # Column by column: a matrix product would copy the matrix for every pixel, and may round to TF32.
        points = to_camera1[..., :3, 3]
        for axis in range(3):
            points = torch.addcmul(points, in_camera[..., axis, None], to_camera1[..., :3, axis])
        dynamic = self.dynamic.float().where(self.dynamic != UNKNOWN, torch.nan)
        return ViewTruth(points, valid, dynamic)

    def to(self, device: torch.device) -> ViewBatch:
        return ViewBatch(*(values.to(device, non_blocking=True) for values in self))


class PairBatch(NamedTuple):
    """A batch of pairs."""

    view1: ViewBatch
    view2: ViewBatch

    def to(self, device: torch.device) -> PairBatch:
        return PairBatch(self.view1.to(device), self.view2.to(device))

    def truths(self) -> tuple[ViewTruth, ViewTruth]:
        """The truth about both views in the frame of camera 1, in float32, under autocast too."""
        with torch.autocast(self.view1.depth.device.type, enabled=False):
            T_camera1_world = geometry.invert(self.view1.T_world_camera)
            return self.view1.truth(T_camera1_world), self.view2.truth(T_camera1_world)

    def symmetrised(self) -> PairBatch:
        """Each pair, then each pair swapped."""
        return PairBatch(
            ViewBatch(*(torch.cat(both) for both in zip(self.view1, self.view2))),
            ViewBatch(*(torch.cat(both) for both in zip(self.view2, self.view1))),
        )


class Loaded(NamedTuple):
    """A batch, and what had to be left out to make it."""

    batch: PairBatch
    problems: list[Problem]


class _Example(NamedTuple):
    view1: View
    view2: View
    problems: list[Problem]


class PairDataset(Dataset[_Example]):
    """Reads the pair of a `Draw`. The same draw gives the same views, in whatever process and order it is asked for."""

    def __init__(self, sources: Sequence[PairSource], augment: AugmentConfig | None, seed: int) -> None:
        self.sources, self.augment, self.seed = sources, augment, seed

    def __getitem__(self, draw: Draw) -> _Example:  # type: ignore[override]
        """Raises NothingLeftError: one pair after another could not be read."""
        source = self.sources[draw.source]
        problems: list[Problem] = []
        for number in (draw.pair, *replacements(draw, len(source.pairs), self.seed, MAX_ATTEMPTS)):
            try:
                frames = source.read(source.pairs[number])
            except BadDataError as error:
                problems.append(error.problem)
                continue
            rng = np.random.default_rng((self.seed, draw.epoch, draw.position)) if self.augment else None
            views = [make_view(frame, draw.size, self.augment or AugmentConfig(), rng) for frame in frames]
            return _Example(views[0], views[1], problems)
        raise NothingLeftError(
            f"{source.name}: {len(problems)} pairs in a row could not be read, so nothing is left to train on.",
            problems,
        )


def collate(examples: Sequence[_Example]) -> Loaded:
    """Stack the views of a batch."""

    def stack(views: Sequence[View]) -> ViewBatch:
        return ViewBatch(
            *(torch.from_numpy(np.stack([getattr(view, name) for view in views])) for name in ViewBatch._fields)
        )

    batch = PairBatch(stack([e.view1 for e in examples]), stack([e.view2 for e in examples]))
    return Loaded(batch, [problem for example in examples for problem in example.problems])


def make_loader(
    dataset: PairDataset, batches: Iterable[list[Draw]], workers: int, device: torch.device
) -> DataLoader[Loaded]:
    """A loader of the planned batches, in their order, read ahead by worker processes."""
    return DataLoader(
        dataset,
        batch_sampler=batches,  # type: ignore[arg-type]
        num_workers=workers,
        collate_fn=collate,
        pin_memory=device.type == "cuda",
        worker_init_fn=_one_thread,
        prefetch_factor=4 if workers else None,
        # Of its own, or the moment when a loader begins would change the dropout of that step.
        generator=torch.Generator().manual_seed(0),
    )


def _one_thread(worker: int) -> None:
    """A worker is one of many: OpenCV would start a thread for each core in each of them."""
    import cv2

    cv2.setNumThreads(0)
