"""How fast full-size training is, against the published way: the measurement behind `training.py throughput`."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from das3r_ns.predictor.network import heads, transformer
from das3r_ns.predictor.network.config import PairwiseNetworkConfig
from das3r_ns.predictor.network.model import PairwiseNetwork
from das3r_ns.predictor.training.data.loading import PairBatch, ViewBatch
from das3r_ns.predictor.training.data.order import Order
from das3r_ns.predictor.training.features.feed import FeatureFeed
from das3r_ns.predictor.training.features.frozen import FeatureBatch, RecordLayout
from das3r_ns.predictor.training.features.store import FeatureConfig, FeatureStore
from das3r_ns.predictor.training.loop.losses import LossConfig
from das3r_ns.predictor.training.loop.parts import parameter_groups, select_parts
from das3r_ns.predictor.training.loop.step import TrainingStep

GIB = 2**30
NARROW = {"FEATURES": 16, "POINT_FEATURES": 8, "LEVEL_WIDTHS": (8, 8, 8, 8)}
"""Widths of the DPT heads with --tiny; those of the published network are fixed."""
TINY = PairwiseNetworkConfig(
    enc_embed_dim=32, enc_depth=1, enc_num_heads=2, dec_embed_dim=32, dec_depth=4, dec_num_heads=2
)
KEPT_BATCHES = 4
"""Batches whose features are kept and read in turn."""


@dataclass
class Throughput:
    """Pairs a second of full-size training with random weights, mask heads alone learning: our step, computing all and
    with features that were kept, against the published way (float32 with TF32, batch 8, attention weights written out,
    1x1 convolutions after upsampling). cuDNN tries its kernels out in every row."""

    height: int = 288
    """Rows of the views."""
    width: int = 512
    """Columns of the views."""
    batches: tuple[int, ...] = (16,)
    """Batch sizes of our step."""
    steps: int = 15
    """Steps that are timed, after 3 that are not."""
    folder: Path | None = None
    """Where features are kept on disk while it runs, 1 GB for a batch of 16; so little that the system's cache holds
    it. A temporary folder if not given."""
    compile: bool = False
    """Our step with torch.compile too."""
    tiny: bool = False
    """Tiny network and views: only to see that it works."""


def random_batch(pairs: int, height: int, width: int, device: torch.device) -> PairBatch:
    """Noise in the shape of a batch: the time of a step does not depend on what it sees."""
    generator = torch.Generator(device).manual_seed(0)

    def view() -> ViewBatch:
        rgb = torch.randint(0, 256, (pairs, height, width, 3), generator=generator, device=device, dtype=torch.uint8)
        depth = 1 + torch.rand(pairs, height, width, generator=generator, device=device)
        K = torch.tensor([[width, 0, width / 2], [0, width, height / 2], [0, 0, 1.0]], device=device)
        return ViewBatch(
            rgb, depth, rgb[..., 0] & 1, K.repeat(pairs, 1, 1), torch.eye(4, device=device).repeat(pairs, 1, 1)
        )

    return PairBatch(view(), view())


@contextmanager
def published_arithmetic() -> Iterator[None]:
    """Within it, attention writes out its weights and the fusion blocks upsample before their 1x1 convolution, with
    PyTorch's own gradient."""

    def attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        weights = (query @ key.transpose(-2, -1)) * query.shape[-1] ** -0.5
        return weights.softmax(dim=-1) @ value

    def fuse(block: heads.FusionBlock, x: Tensor) -> Tensor:
        return block.out_conv(upsample(block.resConfUnit2(x)))

    def upsample(maps: Tensor) -> Tensor:
        return F.interpolate(maps, scale_factor=2, mode="bilinear", align_corners=True)

    class Written:
        """Stands in for torch.nn.functional in the module of the transformer."""

        def __getattr__(self, name: str) -> Any:
            return attention if name == "scaled_dot_product_attention" else getattr(F, name)

    kept = heads.FusionBlock.forward, heads.upsample_twice
    transformer.F, heads.FusionBlock.forward = Written(), fuse  # type: ignore[assignment, method-assign]
    heads.upsample_twice = upsample
    try:
        yield
    finally:
        transformer.F, (heads.FusionBlock.forward, heads.upsample_twice) = F, kept  # type: ignore[assignment, method-assign]


def timed(step: Callable[[], None], steps: int, device: torch.device) -> tuple[float, float]:
    """Seconds of a step and peak memory in GiB (0 on a CPU)."""

    def synchronise() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    for _ in range(3):
        step()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    synchronise()
    begin = time.perf_counter()
    for _ in range(steps):
        step()
    synchronise()
    elapsed = (time.perf_counter() - begin) / steps
    return elapsed, torch.cuda.max_memory_allocated(device) / GIB if device.type == "cuda" else 0.0


class Bench:
    """Our step and the published one on the same random network, timed row by row."""

    def __init__(self, config: PairwiseNetworkConfig, task: Throughput) -> None:
        self.config, self.task = config, task
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = True
        self.published = 0.0
        """Pairs a second of the published way."""

    def _network(self) -> PairwiseNetwork:
        torch.manual_seed(0)
        with self.device:
            return PairwiseNetwork(self.config)

    def row(self, way: str, pairs: int, step: Callable[[], None]) -> None:
        """Time a way of training and print its row."""
        seconds, memory = timed(step, self.task.steps, self.device)
        speed = pairs / seconds
        self.published = self.published or speed
        cells = f"{1000 * seconds:.1f} | {speed:.2f} | {speed / self.published:.2f} | {memory:.1f}"
        print(f"| {way} | {pairs} | {cells} |", flush=True)

    def published_way(self, pairs: int) -> None:
        """The baseline: must come first."""
        network = self._network()
        learning = select_parts(network, "heads", needs_points=True)
        module = TrainingStep(network, "heads", LossConfig(), symmetrise=True).train()
        optimizer = torch.optim.AdamW(parameter_groups(learning, 0.05), lr=5e-5, betas=(0.9, 0.95))
        batch = random_batch(pairs, self.task.height, self.task.width, self.device)
        with published_arithmetic():
            self.row("published", pairs, lambda: _learn(module(batch).loss, optimizer))

    def our_way(self, compiled: bool) -> None:
        """All rows of our step."""
        network = self._network()
        learning = select_parts(network, "heads", needs_points=True)
        on_gpu = self.device.type == "cuda"
        if on_gpu:
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        module = TrainingStep(network, "heads", LossConfig(), symmetrise=True, compile=compiled).train()
        groups = parameter_groups(learning, 0.05)
        optimizer = torch.optim.AdamW(groups, lr=5e-5, betas=(0.9, 0.95), fused=on_gpu)
        suffix = ", compiled" if compiled else ""

        def step(batch: PairBatch | FeatureBatch) -> None:
            with self._autocast():
                loss = module(batch).loss
            _learn(loss, optimizer)

        for pairs in self.task.batches:
            batch = random_batch(pairs, self.task.height, self.task.width, self.device)
            self.row(f"ours{suffix}", pairs, lambda batch=batch: step(batch))
            with torch.no_grad(), self._autocast():
                frozen = module.freeze(batch)
            layout = RecordLayout.of(self.config, self.views, True, True, torch.bfloat16)
            records = layout.pack(frozen)
            del batch, frozen
            for place in ("GPU", "host memory", "disk") if on_gpu else ("host memory", "disk"):
                with self._kept(layout, records, place) as feed:
                    self.row(f"ours{suffix}, kept features: {place}", pairs, lambda feed=feed: step(feed.next()[0]))

    @property
    def views(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.task.height, self.task.width

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    @contextmanager
    def _kept(self, layout: RecordLayout, records: Tensor, place: str) -> Iterator[FeatureFeed]:
        """A store that is full of features, and the feed that reads them in turn. Filling it is not timed."""
        pairs = len(records)
        order = Order((KEPT_BATCHES * pairs,), KEPT_BATCHES * pairs, pairs, (self.views,), seed=0, recurring=1)
        memory = 0.0 if place == "disk" else 2 + 1.1 * KEPT_BATCHES * pairs * layout.bytes / GIB
        with tempfile.TemporaryDirectory(dir=self.task.folder) as folder:
            kept = FeatureConfig(1, memory, "gpu" if place == "GPU" else "host")
            store = FeatureStore(kept, Path(folder) / "features", order, {self.views: layout}, self.device, 1)
            for step in range(KEPT_BATCHES):
                store.put(order.step(step), records)
            store.flush()

            def batches() -> Iterator[list[Any]]:
                return order.batches(range(100 + self.task.steps), pairs, 0, 1)

            with FeatureFeed(batches, _no_images, store, _no_images) as feed:
                yield feed


def _no_images(_: object) -> Any:
    raise AssertionError("all features are kept")


def _learn(loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def throughput(task: Throughput) -> None:
    """See `Throughput`."""
    config = PairwiseNetworkConfig()
    if task.tiny:
        config, task = TINY, replace(task, height=32, width=48, batches=(2,), steps=2)
        for name, value in NARROW.items():
            setattr(heads, name, value)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    print(f"{task.width}x{task.height}, both directions of each pair, torch {torch.__version__}, {device}\n")
    print("| way | pairs a step | ms a step | pairs/s | times published | peak GiB |")
    print("| --- | --- | --- | --- | --- | --- |", flush=True)
    bench = Bench(config, task)
    bench.published_way(2 if task.tiny else 8)
    for compiled in (False, True) if task.compile else (False,):
        bench.our_way(compiled)
