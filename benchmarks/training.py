"""Training of the dynamic predictor, measured. Each measurement is one command:

    python benchmarks/training.py scratch       # a small network from random weights on synthetic clips: does J rise?
    python benchmarks/training.py throughput    # full size: pairs a second against the published way, peak memory
    python benchmarks/training.py scaling       # two GPUs against one; a killed run goes on

They are made for GPUs; `--tiny` runs the same code with a tiny network anywhere, to see that it works.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from torch import Tensor

from das3r_ns.predictor.network import PairwiseNetwork, PairwiseNetworkConfig, heads, transformer
from das3r_ns.predictor.training.loading import PairBatch, ViewBatch
from das3r_ns.predictor.training.losses import LossConfig
from das3r_ns.predictor.training.parts import parameter_groups, select_parts
from das3r_ns.predictor.training.step import TrainingStep

GIB = 2**30
NARROW = {"FEATURES": 16, "POINT_FEATURES": 8, "LEVEL_WIDTHS": (8, 8, 8, 8)}
"""Widths of the DPT heads with --tiny; those of the published network are fixed."""
TINY = PairwiseNetworkConfig(
    enc_embed_dim=32, enc_depth=1, enc_num_heads=2, dec_embed_dim=32, dec_depth=4, dec_num_heads=2
)


@dataclass
class Scratch:
    """Train a small network from random weights on synthetic clips, and follow J on clips that it never sees."""

    out: Path = Path("outputs/training_scratch")
    """Folder for the clips, the run and the curve."""
    clips: int = 500
    """Clips to train on; 40 more to validate on."""
    epochs: int = 20
    """Epochs of 3200 pairs."""
    batch_size: int = 32
    """Pairs a step."""
    workers: int = 14
    """Processes that read and crop."""
    tiny: bool = False
    """Tiny network, few small clips: only to see that it works."""


@dataclass
class Throughput:
    """Pairs a second of full-size training with random weights, mask heads alone learning: our step against the
    published way (float32 with TF32, batch 8, attention weights written out, 1x1 convolutions after upsampling)."""

    height: int = 288
    """Rows of the views."""
    width: int = 512
    """Columns of the views."""
    batches: tuple[int, ...] = (8, 16, 32)
    """Batch sizes of our step."""
    steps: int = 20
    """Steps that are timed, after 3 that are not."""
    compile: bool = False
    """Our step with torch.compile too."""
    tiny: bool = False
    """Tiny network and views: only to see that it works."""


@dataclass
class Scaling:
    """Two processes against one at the same global batch: loss curves and pairs a second. Then a run of two is killed
    and goes on from its last checkpoint."""

    out: Path = Path("outputs/training_scaling")
    """Folder for the clips and the runs."""
    steps: int = 80
    """Steps of each run."""
    global_batch: int = 32
    """Pairs a step."""
    clips: int = 48
    """Clips to train on, 512x288."""
    workers: int = 14
    """Processes that read and crop, for each training process."""
    tiny: bool = False
    """Tiny network, few small clips: only to see that it works."""


Task = (
    Annotated[Scratch, tyro.conf.subcommand(name="scratch")]
    | Annotated[Throughput, tyro.conf.subcommand(name="throughput")]
    | Annotated[Scaling, tyro.conf.subcommand(name="scaling")]
)


def das3r(arguments: list[Any], processes: int = 1, tiny: bool = False) -> list[str]:
    """The command line of `das3r ARGUMENTS`, under torchrun if there are several processes."""
    narrow = "".join(f"heads.{name} = {value!r}; " for name, value in NARROW.items())
    program = ["-c", f"from das3r_ns.predictor.network import heads; {narrow if tiny else ''}"]
    program[1] += "from das3r_ns.cli import main; main()"
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "--no-python"]
    start = [sys.executable, *torchrun, sys.executable] if processes > 1 else [sys.executable]
    return [*start, *program, *map(str, arguments)]


def network_flags(config: PairwiseNetworkConfig) -> list[Any]:
    """Options that make `das3r train-predictor` build this network from random weights."""
    flags: list[Any] = ["--weights", "scratch"]
    for part in ("enc", "dec"):
        for name in ("embed_dim", "depth", "num_heads"):
            flags += [f"--network.{part}-{name.replace('_', '-')}", getattr(config, f"{part}_{name}")]
    return flags


def log_of(run: Path) -> list[dict[str, float]]:
    """The lines of a run's log."""
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def scratch(task: Scratch) -> None:
    """See `Scratch`."""
    height, width = (32, 48) if task.tiny else (192, 288)
    clips, val_clips, frames = (2, 1, 5) if task.tiny else (task.clips, 40, 12)
    per_epoch, epochs, batch, pairs = (8, 2, 4, 4) if task.tiny else (3200, task.epochs, task.batch_size, 200)
    network = TINY
    if not task.tiny:
        network = PairwiseNetworkConfig(
            enc_embed_dim=384, enc_depth=6, enc_num_heads=6, dec_embed_dim=256, dec_depth=4, dec_num_heads=4
        )
    size = ["--height", height, "--width", width, "--frames", frames]
    begin = time.perf_counter()
    make = ["prepare", "synthetic", task.out / "clips", "--clips", clips, "--val-clips", val_clips, *size]
    subprocess.run(das3r(make), check=True)
    rendered = time.perf_counter()
    train = ["train-predictor", "--out", task.out / "run", "--train", "all", *network_flags(network)]
    train += ["--data.clips", task.out / "clips", "--data.sizes", height, width, "--data.pairs-per-epoch", per_epoch]
    train += ["--data.val-pairs", pairs, "--data.workers", 0 if task.tiny else task.workers]
    train += ["--loss.point-weight", 0, "--loss.no-confidence-weighting", "--batch-size", batch, "--log-every", 20]
    train += ["--optim.epochs", epochs, "--optim.warmup-epochs", 1, "--optim.learning-rate", 3e-4]
    train += ["--resume"]
    subprocess.run(das3r(train, tiny=task.tiny), check=True)
    trained = time.perf_counter()
    print(f"\nclips {rendered - begin:.0f} s, training {trained - rendered:.0f} s\n")
    print("| step | J | recall |\n| --- | --- | --- |")
    for line in log_of(task.out / "run"):
        if "clips/val/J" in line:
            print(f"| {line['step']} | {line['clips/val/J']:.3f} | {line['clips/val/recall']:.3f} |")


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
    """Within it, attention writes out its weights and the fusion blocks upsample before their 1x1 convolution."""

    def attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        weights = (query @ key.transpose(-2, -1)) * query.shape[-1] ** -0.5
        return weights.softmax(dim=-1) @ value

    def fuse(block: heads.FusionBlock, x: Tensor) -> Tensor:
        return block.out_conv(heads.upsample_twice(block.resConfUnit2(x)))

    class Written:
        """Stands in for torch.nn.functional in the module of the transformer."""

        def __getattr__(self, name: str) -> Any:
            return attention if name == "scaled_dot_product_attention" else getattr(F, name)

    kept = heads.FusionBlock.forward
    transformer.F, heads.FusionBlock.forward = Written(), fuse  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        transformer.F, heads.FusionBlock.forward = F, kept  # type: ignore[assignment, method-assign]


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


def measure(config: PairwiseNetworkConfig, task: Throughput, batch_size: int, published: bool, fused: bool) -> float:
    """Time one way of training, print its row, and give its pairs a second."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_float32_matmul_precision("high")
    torch.manual_seed(0)
    with device:
        network = PairwiseNetwork(config)
    learning = select_parts(network, "heads", needs_points=True)
    if not published and device.type == "cuda":
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    module = TrainingStep(network, "heads", LossConfig(), symmetrise=True, compile=fused).train()
    fused_optimizer = device.type == "cuda" and not published
    optimizer = torch.optim.AdamW(parameter_groups(learning, 0.05), lr=5e-5, betas=(0.9, 0.95), fused=fused_optimizer)
    batch = random_batch(batch_size, task.height, task.width, device)

    def step() -> None:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=not published):
            loss = module(batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    seconds, memory = timed(step, task.steps, device)
    name = "published" if published else "ours, compiled" if fused else "ours"
    print(f"| {name} | {batch_size} | {1000 * seconds:.1f} | {batch_size / seconds:.2f} | {memory:.1f} |", flush=True)
    return batch_size / seconds


def throughput(task: Throughput) -> None:
    """See `Throughput`."""
    config = PairwiseNetworkConfig()
    if task.tiny:
        config, task = TINY, Throughput(height=32, width=48, batches=(2,), steps=2, compile=task.compile)
        for name, value in NARROW.items():
            setattr(heads, name, value)
    print(f"{task.width}x{task.height}, both directions of each pair, torch {torch.__version__}, {_device_name()}\n")
    print("| way | pairs a step | ms a step | pairs/s | peak GiB |\n| --- | --- | --- | --- | --- |")
    with published_arithmetic():
        published = measure(config, task, 2 if task.batches == (2,) else 8, published=True, fused=False)
    ours = [
        measure(config, task, batch_size, published=False, fused=fused)
        for fused in ((False, True) if task.compile else (False,))
        for batch_size in task.batches
    ]
    first, best = ours[0] / published, max(ours) / published
    print(f"\nat batch {task.batches[0]}: {first:.2f} times the published way; best: {best:.2f}")


def scaling(task: Scaling) -> None:
    """See `Scaling`."""
    tiny = task.tiny
    height, width = (32, 48) if tiny else (288, 512)
    clips, steps, batch = (2, 6, 4) if tiny else (task.clips, task.steps, task.global_batch)
    size = ["--height", height, "--width", width, "--frames", 5 if tiny else 12]
    make = ["prepare", "synthetic", task.out / "clips", "--clips", clips, "--val-clips", 1, *size]
    subprocess.run(das3r(make), check=True)

    def command(name: str, processes: int, *options: Any) -> list[str]:
        train = ["train-predictor", "--out", task.out / name, *network_flags(TINY if tiny else PairwiseNetworkConfig())]
        train += ["--data.clips", task.out / "clips", "--data.sizes", height, width, "--data.val-pairs", 8]
        train += ["--data.pairs-per-epoch", steps * batch, "--optim.epochs", 1, "--optim.warmup-epochs", 0.1]
        train += ["--batch-size", batch // processes, "--log-every", max(steps // 16, 1)]
        train += ["--checkpoint-every", max(steps // 4, 1), "--data.workers", 0 if tiny else task.workers, *options]
        return das3r(train, processes, tiny)

    for name, processes in (("one", 1), ("two", 2)):
        subprocess.run(command(name, processes), check=True)
    _kill_in_the_middle(command("killed", 2), task.out / "killed" / "last.ckpt")
    subprocess.run(command("killed", 2, "--resume"), check=True)
    curves = {
        name: [line for line in log_of(task.out / name) if "train/loss" in line] for name in ("one", "two", "killed")
    }
    resumed = {line["step"]: line["train/loss"] for line in curves["killed"]}  # later lines replace lost steps
    print("\n| step | loss, one | loss, two | loss, two, killed and resumed |\n| --- | --- | --- | --- |")
    for a, b in zip(curves["one"], curves["two"]):
        print(f"| {a['step']} | {a['train/loss']:.4f} | {b['train/loss']:.4f} | {resumed[a['step']]:.4f} |")
    speeds = {
        name: float(np.median([line["train/pairs_per_s"] for line in curves[name][1:]])) for name in ("one", "two")
    }
    print(
        f"\npairs/s: one {speeds['one']:.2f}, two {speeds['two']:.2f}: {speeds['two'] / speeds['one']:.2f} times; "
        f"share of waiting for data, two: {np.median([line['train/data_wait'] for line in curves['two'][1:]]):.2f}"
    )


def _kill_in_the_middle(command: list[str], checkpoint: Path) -> None:
    """Start a run, and kill all its processes as soon as it has written a checkpoint."""
    process = subprocess.Popen(command, start_new_session=True)
    while not checkpoint.exists():
        if process.poll() is not None:
            raise RuntimeError(f"the run ended by itself ({process.returncode}) before its first checkpoint")
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _device_name() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"


def main(task: Annotated[Task, tyro.conf.arg(name="")]) -> None:
    """Measure the training of the dynamic predictor."""
    if isinstance(task, Scratch):
        scratch(task)
    elif isinstance(task, Throughput):
        throughput(task)
    else:
        scaling(task)


if __name__ == "__main__":
    tyro.cli(main)
