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
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import psutil
import tyro
from training_speed import NARROW, TINY, Throughput, throughput

from das3r_ns.predictor.network.config import PairwiseNetworkConfig

SMALL = PairwiseNetworkConfig(
    enc_embed_dim=384, enc_depth=6, enc_num_heads=6, dec_embed_dim=256, dec_depth=4, dec_num_heads=4
)
"""The network that learns from random weights."""


@dataclass
class Scratch:
    """Train a small network from random weights on synthetic clips, and follow J on clips that it never sees. All is
    cut to the time: clips are rendered for a while on all cores, a first run of some steps tells the speed, and the
    run that counts gets as many epochs as fit, its learning rate falling to the end."""

    out: Path = Path("outputs/training_scratch")
    """Folder for the clips and the runs."""
    curve: Path | None = None
    """File for the curve, kept up to date while the run goes on. OUT/curve.md if not given."""
    minutes: float = 6.0
    """For everything."""
    render_s: float = 90.0
    """Seconds of them in which clips to train on are rendered."""
    val_clips: int = 48
    """Clips to validate on, rendered before."""
    frames: int = 8
    """Frames of a clip: few, so that there are many clips."""
    batch_size: int = 24
    """Pairs a step."""
    learning_rate: float = 4e-4
    """The highest."""
    workers: int = 14
    """Processes that read and crop."""
    device: str = "auto"
    """As of `das3r train-predictor`."""
    tiny: bool = False
    """Tiny network, few small clips: only to see that it works."""


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
    text = (run / "log.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def scratch(task: Scratch) -> None:
    """See `Scratch`."""
    if (task.out / "run").exists() or (task.out / "speed").exists():
        raise FileExistsError(f"{task.out} holds a run already: give another --out")
    begin = time.perf_counter()
    deadline = begin + 60 * task.minutes
    height, width = (32, 48) if task.tiny else (192, 288)
    clips, curve = task.out / "clips", task.curve or task.out / "curve.md"
    size = ["--height", height, "--width", width, "--frames", 5 if task.tiny else task.frames]
    prepare = ["prepare", "synthetic", clips, *size]
    val_clips, pairs = (1, 4) if task.tiny else (task.val_clips, 192)
    subprocess.run(das3r([*prepare, "--clips", 0, "--val-clips", val_clips]), check=True)
    _run_for(das3r([*prepare, "--clips", 2 if task.tiny else 5000, "--val-clips", 0]), task.render_s)
    count = len([clip for clip in (clips / "train").iterdir() if not clip.name.startswith(".")])
    facts = [f"{count} clips of {width}x{height}, {time.perf_counter() - begin:.0f} s for them and {val_clips} others"]
    print(facts[0], flush=True)

    batch, per_epoch = (4, 8) if task.tiny else (task.batch_size, 50 * task.batch_size)
    train = ["train-predictor", "--train", "all", *network_flags(TINY if task.tiny else SMALL), "--device", task.device]
    train += ["--data.clips", clips, "--data.sizes", height, width, "--data.pairs-per-epoch", per_epoch]
    train += ["--data.workers", 0 if task.tiny else task.workers, "--data.max-stride", 4]
    # Weaker than the published: clips are seen a few times each, not fifty.
    train += ["--data.augment.brightness", 0.2, "--data.augment.contrast", 0.2, "--data.augment.saturation", 0.2]
    train += ["--data.augment.hue", 0.03, "--loss.point-weight", 0, "--loss.no-confidence-weighting"]
    train += ["--batch-size", batch, "--optim.learning-rate", task.learning_rate, "--optim.max-grad-norm", 1]
    probe = ["--out", task.out / "speed", "--log-every", 2 if task.tiny else 20, "--data.val-pairs", 2]
    probe += ["--stop-after-steps", 4 if task.tiny else 80, "--optim.epochs", 5, "--optim.warmup-epochs", 2]
    subprocess.run(das3r([*train, *probe], tiny=task.tiny), check=True)
    speed = [line["train/pairs_per_s"] for line in log_of(task.out / "speed") if "train/pairs_per_s" in line][-1]
    left_s = deadline - time.perf_counter() - (0 if task.tiny else 25)  # to start, to validate, to end
    epochs = 3 if task.tiny else max(4, int(0.92 * left_s * speed / per_epoch))
    facts.append(f"{speed:.0f} pairs/s, so {epochs} epochs of {per_epoch} pairs in {left_s:.0f} s")
    print(facts[1], flush=True)

    run = ["--out", task.out / "run", "--optim.epochs", epochs, "--optim.warmup-epochs", max(1, 0.06 * epochs)]
    run += ["--optim.ema-decay", 0.998, "--data.val-pairs", pairs, "--log-every", 1 if task.tiny else 20]
    run += ["--validate-every", per_epoch // batch * max(1, epochs // 12), "--checkpoint-every", 100_000]
    process = subprocess.Popen(das3r([*train, *run], tiny=task.tiny))
    while process.poll() is None:
        time.sleep(1.0)
        _write_curve(task.out / "run", curve, facts)
    facts.append(f"{time.perf_counter() - begin:.0f} s in all, exit status {process.returncode}")
    _write_curve(task.out / "run", curve, facts)
    print(curve.read_text(encoding="utf-8"), flush=True)
    if process.returncode:
        raise SystemExit(process.returncode)


def _write_curve(run: Path, curve: Path, facts: list[str]) -> None:
    """Write what is known so far of a run that may be cut off at any time."""
    if not (run / "log.jsonl").is_file():
        return
    lines, begin, entropy = log_of(run), (run / "config.json").stat().st_mtime, float("nan")
    rows = ["| step | seconds | cross entropy (training) | J | recall |", "| --- | --- | --- | --- | --- |"]
    for line in lines:
        entropy = line.get("train/cross_entropy1", entropy)
        if "clips/val/J" in line:
            scores = f"{line['clips/val/J']:.3f} | {line['clips/val/recall']:.3f}"
            rows.append(f"| {line['step']:.0f} | {line['time'] - begin:.0f} | {entropy:.3f} | {scores} |")
    last = lines[-1]
    facts = [*facts, f"last line of the log: step {last['step']:.0f}, {last['time'] - begin:.0f} s after the start"]
    curve.parent.mkdir(parents=True, exist_ok=True)
    curve.write_text("\n".join([*facts, "", *rows]) + "\n", encoding="utf-8")


def _run_for(command: list[str], seconds: float) -> None:
    """Run a command that leaves whole pieces of work, and end it when the time is over."""
    process = subprocess.Popen(command, start_new_session=True)
    try:
        if process.wait(seconds):
            raise RuntimeError(f"it ended with {process.returncode}: {' '.join(command)}")
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


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
    process = subprocess.Popen(command)
    while not checkpoint.exists():
        if process.poll() is not None:
            raise RuntimeError(f"the run ended by itself ({process.returncode}) before its first checkpoint")
        time.sleep(0.05)
    # torchrun's workers lead sessions of their own: they would outlive its group, and train on.
    parent = psutil.Process(process.pid)
    killed = [parent, *parent.children(recursive=True)]
    for one in killed:
        one.kill()
    process.wait()
    psutil.wait_procs(killed[1:], timeout=10)


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
