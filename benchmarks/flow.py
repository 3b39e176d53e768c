"""Seconds that optical flow takes of the geometric predictor: OpenCV's DIS and torchvision's RAFT, on this machine.

    python benchmarks/flow.py                                 # a synthetic clip of 24 frames of 854x480
    python benchmarks/flow.py --flows dis --num-frames 50

All flow the predictor asks for (between frames 1, 2, 4 and 8 apart, both ways, at its own size) is taken once, with
its threads, round-trip errors included. RAFT's time does not depend on its weights: random ones are taken. It runs on a
GPU when there is one. *Two runs differ by* says whether the same images give the same flow.
"""

from __future__ import annotations

import platform
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from torchvision.models.optical_flow import raft_large, raft_small

from das3r_ns.predictor.flow.dis import DisFlow
from das3r_ns.predictor.flow.estimator import FlowEstimator
from das3r_ns.predictor.flow.raft import RaftFlow
from das3r_ns.predictor.geometric.clip_flow import flow_between
from das3r_ns.predictor.geometric.config import GeometricPredictorConfig
from das3r_ns.runtime.parallel import parallel_for
from das3r_ns.synthetic import SyntheticConfig, make_clip
from das3r_ns.video.clip import Clip

Name = Literal["dis", "raft_small", "raft_large"]


@dataclass
class Options:
    """What to measure."""

    flows: tuple[Name, ...] = ("dis", "raft_small", "raft_large")
    """Which optical flow."""
    size: tuple[int, int] = (480, 854)
    """Height and width of the clip."""
    num_frames: int = 24
    """Frames of the clip."""


def main(options: Options) -> None:
    """Measure and print a table."""
    height, width = options.size
    made = make_clip(SyntheticConfig(num_frames=options.num_frames, height=height, width=width, seed=0))
    clip = Clip(made.frames, made.fps, tuple(f"{i:05d}" for i in range(options.num_frames)))
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, GPU: {gpu}")
    print(f"{options.num_frames} frames of {width}x{height}\n")
    print("| flow | flows a frame | s a frame | GPU memory, GiB | two runs differ by, px |\n|---|---|---|---|---|")
    for name in options.flows:
        estimator = build(name)
        take(clip, estimator, range(2))  # kernels are chosen and compiled at the first use
        if gpu:
            torch.cuda.reset_peak_memory_stats()
        begin = time.perf_counter()
        pairs, first = take(clip, estimator, range(options.num_frames))
        seconds = time.perf_counter() - begin
        memory = f"{torch.cuda.max_memory_allocated() / 2**30:.2f}" if gpu and name != "dis" else ""
        again = take(clip, estimator, range(2))[1]
        differ = max(float(np.abs(first[key] - again[key]).max()) for key in again)
        frames = options.num_frames
        print(f"| {name} | {pairs / frames:.1f} | {seconds / frames:.3f} | {memory} | {differ:g} |", flush=True)


def build(name: Name) -> FlowEstimator:
    """The estimator, RAFT with random weights."""
    if name == "dis":
        return DisFlow()
    torch.manual_seed(0)
    network = (raft_small if name == "raft_small" else raft_large)(weights=None)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{name}.pth"
        torch.save(network.state_dict(), file)
        return RaftFlow(file)


def take(clip: Clip, estimator: FlowEstimator, sources: range) -> tuple[int, dict[tuple[int, int], np.ndarray]]:
    """The flow of some frames as the predictor takes it: how many flows, and that from each source to the next."""
    config = GeometricPredictorConfig()
    flow = flow_between(clip, estimator, config)
    pairs = [
        (i, i + sign * offset)
        for i in sources
        for offset in config.offsets
        for sign in (-1, 1)
        if 0 <= i + sign * offset < len(clip)
    ]
    kept = {}

    def one(k: int) -> None:
        forward, _ = flow.checked(*pairs[k])
        if pairs[k][1] == pairs[k][0] + 1:
            kept[pairs[k]] = forward

    parallel_for(one, len(pairs))
    return len(pairs), kept


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
